"""Turns specs into rows of the control tables and back; the columns are derived from the specs' fields.

A scalar field is a column of its own type, a span of time is a text like ``2 hours``, and everything nested is JSON,
from which defaults are left out: a field that a nested part gets later changes no row. A column has the name that the
field has in YAML. What depends on the machine, such as the folder of the location,
stays a reference in the tables (``${location.root}``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from sqlalchemy.ext.compiler import compiles

from platform_core.control.store.kinds import KINDS, SpecKind
from platform_core.errors import ControlError, PlanError
from platform_core.specs.base import Spec

ABSENT: Any = object()
"""Stands for a column that a row does not have a value for, so that its default counts."""

Row = tuple[Any, ...]
"""Values of a spec's columns, as the database keeps them: nested ones as JSON text."""

Content = dict[str, Any]
"""Values of a spec's columns by name, nested ones as plain values."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SCALARS: dict[type, type[sa.types.TypeEngine[Any]]] = {
    bool: sa.Boolean,
    int: sa.BigInteger,
    float: sa.Double,
    timedelta: sa.Text,
    str: sa.Text,
}


class JsonText(sa.types.UserDefinedType[str]):
    """A column of JSON whose text is kept as it is written, so that order and numbers come back as they were.

    SQLite would take a column of type JSON for a number's, and ``1.0`` for 1; there it is a text.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"


@compiles(JsonText, "sqlite")
def _type_in_sqlite(_type: JsonText, _compiler: object, **_: Any) -> str:
    return "TEXT"


@dataclass(frozen=True, kw_only=True)
class SpecColumn:
    """One field of a spec as a column.

    Args:
        name: of the column.
        field: of the model.
        key: under which the model takes the field.
        type: of the column.
        is_json: whether it holds nested values.
        nullable: whether None is a value of the field.
        default: as the database keeps it; ABSENT where the field is required.
        plain_default: the same as a plain value.
    """

    name: str
    field: str
    key: str
    type: sa.types.TypeEngine[Any]
    is_json: bool
    nullable: bool
    default: Any
    plain_default: Any


class Codec:
    """Rows of one kind of spec."""

    def __init__(self, kind: SpecKind) -> None:
        self.kind = kind
        self.columns = tuple(
            _column(name, field, kind) for name, field in kind.model.model_fields.items() if name not in kind.parts
        )
        self.names = tuple(column.name for column in self.columns)
        self._defaults = tuple(column.default for column in self.columns)
        self._places = {column.key: (place, column) for place, column in enumerate(self.columns)}
        by_field = {column.field: place for place, column in enumerate(self.columns)}
        self._identity = tuple(by_field[field] for field in kind.identity)
        self._workstream = by_field.get("workstream", by_field["name"] if kind.name == "workstream" else None)

    def encode(self, spec: Spec, *, root: Path, state: Path) -> Row:
        """The row of a spec.

        Args:
            root: folder of the location's package, kept as ``${location.root}``.
            state: folder of the installation, kept as ``${env.state}``.

        Raises:
            PlanError: a text holds a character that a database cannot keep.
        """
        told = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(self.kind.parts) or None)
        folders = _folders(root, state)
        row = list(self._defaults)
        for key, value in told.items():
            place, column = self._places[key]
            kept = folders.referenced(_as_json(value) if column.is_json else value, quoted=column.is_json)
            if isinstance(kept, str) and not _can_be_kept(kept):
                raise PlanError(
                    f"{self.kind.name} {self.kind.address(spec)}: '{column.name}' holds a character that a database "
                    "cannot keep\n  U+0000 and half of a surrogate pair are such; take it out"
                )
            row[place] = kept
        return tuple(row)

    def decode(self, row: Sequence[Any], *, root: Path, state: Path) -> Spec:
        """The spec of a row.

        Raises:
            ControlError: it is no spec of this version of the code.
        """
        fields = self.fields(row, root=root, state=state)
        try:
            return self.kind.model.model_validate(fields)
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, each["loc"][:1])) or "the row" for each in error.errors()}))
            raise ControlError(
                f"control database: {self.kind.name} {self.address(row)} is no {self.kind.model.__name__} of this "
                f"version of the platform\n  wrong: {wrong}\n  it was written by another version, or by hand; "
                "run the version that wrote it, or plan and apply again from git"
            ) from None

    def fields(self, row: Sequence[Any], *, root: Path, state: Path) -> dict[str, Any]:
        """What is told to the model to make the spec of a row: plain values by key, defaults left out."""
        folders = _folders(root, state)
        found = {}
        for column, value in zip(self.columns, row, strict=True):
            if value == column.default or (value is None and not column.nullable):
                # Some specs tell what was declared from what was not; a field may also be younger than its row.
                continue
            resolved = folders.resolved(value, quoted=column.is_json)
            told = _parsed(resolved) if column.is_json and resolved is not None else resolved
            if told is not None or column.nullable:
                found[column.key] = told
        return found

    def content(self, row: Sequence[Any]) -> Content:
        """The row as plain values by column."""
        return {column.name: _plain(column, value) for column, value in zip(self.columns, row, strict=True)}

    def row(self, content: Mapping[str, Any]) -> Row:
        """The row of plain values; a column that is left out takes its default.

        Raises:
            PlanError: it has columns that the kind does not have, or lacks one that has no default.
        """
        if unknown := sorted(content.keys() - set(self.names)):
            raise PlanError(f"{self.kind.name}: unknown column '{unknown[0]}'; known are {', '.join(self.names)}")
        found = []
        for column in self.columns:
            if column.name not in content:
                if column.default is ABSENT:
                    raise PlanError(f"{self.kind.name}: column '{column.name}' is missing and has no default")
                found.append(column.default)
            elif (value := content[column.name]) == column.plain_default and column.is_json:
                found.append(column.default)
            else:
                found.append(_as_json(value) if column.is_json else value)
        return tuple(found)

    def normal(self, row: Sequence[Any]) -> Row:
        """The row with JSON written in one way and defaults filled in, whoever wrote it."""
        return tuple(_normal(column, value) for column, value in zip(self.columns, row, strict=True))

    def digest(self, row: Sequence[Any]) -> str:
        """SHA-256 (hex) of what differs from the defaults, so that a new field changes the digest of no row."""
        told = {
            column.name: value
            for column, value in zip(self.columns, row, strict=True)
            if value != column.default and not (value is None and not column.nullable)
        }
        return hashlib.sha256(dumped(told).encode()).hexdigest()

    def address(self, row: Sequence[Any]) -> str:
        """What names the row within its location."""
        return ".".join(str(row[place]) for place in self._identity)

    def workstream(self, row: Sequence[Any]) -> str | None:
        """The workstream of a row; None for what belongs to the whole location."""
        return None if self._workstream is None else str(row[self._workstream])


@cache
def codec(kind: SpecKind) -> Codec:
    """The codec of a kind; made once."""
    return Codec(kind)


def identity_columns(kind: str) -> list[str]:
    """Columns that name a row among all of its control table: the location, then those of its address in order."""
    rows = codec(KINDS[kind])
    names = {column.field: column.name for column in rows.columns}
    return ["location", *(names[field] for field in rows.kind.identity)]


def dumped(value: Any) -> str:
    """JSON on one line, without spaces, in the order that the value has."""
    return _ENCODER.encode(value)


class _Folders:
    """Texts with the folders of this machine, and with references in their place."""

    def __init__(self, *, root: Path, state: Path) -> None:
        pairs = [(str(folder), name) for folder, name in ((state, "${env.state}"), (root, "${location.root}"))]
        # The longer folder first: one may lie in the other.
        pairs.sort(key=lambda pair: -len(pair[0]))
        self._pairs = {False: pairs, True: [(_quoted(folder), name) for folder, name in pairs]}

    def referenced(self, text: Any, *, quoted: bool = True) -> Any:
        """A text with references; other values as they are."""
        if isinstance(text, str) and "/" in text:
            for folder, name in self._pairs[quoted]:
                if folder in text and len(folder) > 1:
                    text = text.replace(folder, name)
        return text

    def resolved(self, text: Any, *, quoted: bool) -> Any:
        """A text with folders; other values as they are."""
        if isinstance(text, str) and "${" in text:
            for folder, name in self._pairs[quoted]:
                text = text.replace(name, folder)
        return text


@lru_cache(maxsize=64)
def _folders(root: Path, state: Path) -> _Folders:
    """The folders of one location, made once for all of its rows."""
    return _Folders(root=root, state=state)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _can_be_kept(text: str) -> bool:
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _column(name: str, field: FieldInfo, kind: SpecKind) -> SpecColumn:
    scalar, nullable = _scalar(field.annotation)
    default = _default(field)
    key = field.alias or name
    type_: sa.types.TypeEngine[Any] = JsonText() if scalar is None else _SCALARS[scalar]()
    return SpecColumn(
        name=kind.column(name, key=key),
        field=name,
        key=key,
        type=type_,
        is_json=scalar is None,
        nullable=nullable,
        default=_as_json(default) if scalar is None and default is not ABSENT else default,
        plain_default=default,
    )


def _scalar(annotation: Any) -> tuple[type | None, bool]:
    """The type of scalar that a field holds (None: it is nested), and whether it may be None."""
    nullable = False
    while (origin := get_origin(annotation)) is not None:
        arguments = get_args(annotation)
        if origin is Annotated:
            annotation = arguments[0]
        elif origin in (Union, UnionType):
            others = [each for each in arguments if each is not NoneType]
            nullable = nullable or len(others) < len(arguments)
            if len(others) != 1:
                return None, nullable
            annotation = others[0]
        else:
            return None, nullable
    if not isinstance(annotation, type):
        return None, True
    # bool is an int: the order of the table counts.
    return next((type_ for type_ in _SCALARS if issubclass(annotation, type_)), None), nullable


def _default(field: FieldInfo) -> Any:
    """The plain value of a field that is left out, defaults of its own parts left out, too."""
    if field.is_required():
        return ABSENT
    made = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(made, BaseModel):
        return made.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation).dump_python(made, mode="json")


def _plain(column: SpecColumn, value: Any) -> Any:
    if not column.is_json or value is None:
        return value
    return column.plain_default if value == column.default else _parsed(value)


def _normal(column: SpecColumn, value: Any) -> Any:
    if column.is_json and value is not None:
        # To a person NULL and the JSON null are the same.
        value = _as_json(_parsed(value))
    if value is None:
        return None if column.nullable or column.default is ABSENT else column.default
    return value


def _parsed(text: str) -> Any:
    """The value of a JSON text; one that a person wrote, and that is none, counts as a string, so that a plan shows it.

    Only SQLite takes such a text.
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def _as_json(value: Any) -> str | None:
    return None if value is None else dumped(value)
