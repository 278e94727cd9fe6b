"""The file of a snapshot: all that is applied of one location, in one canonical form.

A line holds a row, in the order of addresses, with its columns in the order of the specs and without those that hold
their default. Two processes that read the same state write the same bytes, so that their SHA-256 can be the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.store.kinds import KINDS, SpecKind, assembled
from platform_core.errors import SnapshotError
from platform_core.specs.base import Spec
from platform_core.specs.manifest import Manifest

if TYPE_CHECKING:
    from platform_core.control.store.codec import Codec, Row
    from platform_core.control.store.rows import RowKey

FORMAT = 1
"""Version of the file; a newer one is refused."""

_NEXT = ",\n"
_REPAIR = "publish it again: edp publish --env {environment}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the metadata of one location comes from.

    Args:
        serial: of the apply that the control tables stood at.
        mark: of that state, which no other state of any database shares.
        git_commit: of the control files as they were when this location last changed; None: not from git.
        release: version of the platform that wrote the file.
        specs: digest of what specs can hold in that version.
    """

    environment: str
    location: str
    serial: int
    mark: str
    git_commit: str | None
    release: str
    specs: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a code location loads.

    Args:
        digest: SHA-256 (hex) of the file.
    """

    provenance: Provenance
    digest: str
    manifest: Manifest


def digest_of(content: bytes) -> str:
    """SHA-256 (hex), by which a file is named."""
    return hashlib.sha256(content).hexdigest()


def encode(
    rows: Mapping[RowKey, Row], *, environment: str, location: str, serial: int, mark: str, git_commit: str | None
) -> bytes:
    """The file of one location.

    Args:
        rows: of the location, as the control tables hold them.
    """
    # Who only loads needs no library of databases.
    from platform_core.control.store.codec import dumped

    head = {
        "format": FORMAT,
        "environment": environment,
        "location": location,
        "serial": serial,
        "mark": mark,
        "git_commit": git_commit,
        "release": platform_release(),
        "specs": specs_digest(),
    }
    kinds = [f"{dumped(kind)}:[\n{_NEXT.join(lines)}\n]" for kind, lines in _lines(rows) if lines]
    return f'{dumped(head)[:-1]},"rows":{{\n{_NEXT.join(kinds)}\n}}}}\n'.encode()


def decode(content: bytes, *, root: Path, state: Path, where: str) -> Snapshot:
    """What a file holds; that it is whole was made sure before.

    Args:
        root: folder of the location's package on this machine, for ``${location.root}``.
        state: local folder of this installation, for ``${env.state}``.
        where: what a person calls the file.

    Raises:
        SnapshotError: it was written by a newer version, or is no snapshot of this one.
    """
    reader = _Reader(where)
    # Texts are quoted in the file as they are in JSON of the tables, so that one replacement serves all of them.
    text = content.decode()
    for name, folder in (("${location.root}", root), ("${env.state}", state)):
        text = text.replace(name, json.dumps(str(folder), ensure_ascii=False)[1:-1])
    document = reader.document(text)
    provenance = reader.provenance(document)
    manifest = assembled({kind: reader.specs(kind, document["rows"].get(kind, [])) for kind in KINDS}, root=root)
    return Snapshot(provenance=provenance, digest=digest_of(content), manifest=manifest)


def _lines(rows: Mapping[RowKey, Row]) -> Iterator[tuple[str, list[str]]]:
    from platform_core.control.store.codec import codec

    by_kind: dict[str, list[tuple[str, Row]]] = {name: [] for name in KINDS}
    for key, row in rows.items():
        by_kind[key.kind].append((key.address, row))
    for name, found in by_kind.items():
        columns = codec(KINDS[name])
        yield name, [_line(columns, row) for _, row in sorted(found, key=lambda each: each[0])]


def _line(columns: Codec, row: Row) -> str:
    from platform_core.control.store.codec import dumped

    told = []
    for column, value in zip(columns.columns, columns.normal(row), strict=True):
        if value != column.default and not (value is None and not column.nullable):
            told.append(f"{dumped(column.name)}:{value if column.is_json and value is not None else dumped(value)}")
    return "{" + ",".join(told) + "}"


def _keys(kind: SpecKind) -> dict[str, str]:
    """Under which the model takes a field, by the name of its column."""
    fields = kind.model.model_fields.items()
    keys = {name: field.alias or name for name, field in fields if name not in kind.parts}
    return {kind.column(name, key=key): key for name, key in keys.items()}


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where
        self.release = "?"
        self.environment = "…"

    def document(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError:
            self._refuse("is no JSON")
        if not isinstance(document, dict) or not isinstance(document.get("format"), int):
            self._refuse("is no snapshot")
        self.release = str(document.get("release", "?"))
        self.environment = str(document.get("environment", "…"))
        if document["format"] != FORMAT:
            raise SnapshotError(
                f"{self.where}: the snapshot has format {document['format']}; this version of the platform "
                f"({platform_release()}) reads {FORMAT}\n  written by release {self.release}\n"
                f"  run that release, or {_REPAIR.format(environment=self.environment)} with this one"
            )
        if not isinstance(document.get("rows"), dict) or not document["rows"].get("location"):
            self._refuse("holds no location")
        if unknown := sorted(document["rows"].keys() - KINDS.keys()):
            self._unknown(f"kind '{unknown[0]}'")
        return document

    def provenance(self, document: Mapping[str, Any]) -> Provenance:
        try:
            return Provenance(**{name: document[name] for name in Provenance.__dataclass_fields__})
        except KeyError as error:
            self._refuse(f"lacks {error}")

    def specs(self, kind: str, rows: list[dict[str, Any]]) -> list[Spec]:
        of = KINDS[kind]
        keys = _keys(of)
        found = []
        for row in rows:
            try:
                found.append(of.model.model_validate({keys[name]: value for name, value in row.items()}))
            except KeyError as error:
                self._unknown(f"field {error} of {kind}")
            except ValidationError as error:
                wrong = sorted({".".join(map(str, each["loc"][:1])) or "the row" for each in error.errors()})
                address = ".".join(str(row.get("name" if field == of.identity[-1] else field)) for field in of.identity)
                self._refuse(f"holds {kind} {address}, which is none of this version: wrong {', '.join(wrong)}")
        return found

    def _unknown(self, what: str) -> NoReturn:
        raise SnapshotError(
            f"{self.where}: the snapshot holds {what}, which this version of the platform does not know\n"
            f"  written by release {self.release}, this is {platform_release()}\n"
            f"  run that release or a newer one, or {_REPAIR.format(environment=self.environment)} with this one"
        )

    def _refuse(self, what: str) -> NoReturn:
        raise SnapshotError(
            f"{self.where}: the snapshot {what}\n  written by release {self.release}, this is {platform_release()}\n"
            f"  {_REPAIR.format(environment=self.environment)}"
        ) from None
