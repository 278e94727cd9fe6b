"""Reads the control files of one location into specs, each with the place where it was declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from platform_core.control.documents import Document, PathPart, kind_of, read_document
from platform_core.control.files import control_files
from platform_core.control.report import Report, excerpt
from platform_core.control.shapes import (
    KINDS,
    KNOWN_KEYS,
    LOCATION,
    VARIABLES,
    WORKSTREAM,
    Kind,
    LocationFile,
    fields_of,
    file_path,
)
from platform_core.control.variables import interpolate
from platform_core.control.wording import judge
from platform_core.errors import Place
from platform_core.specs.alerts import AlertRule
from platform_core.specs.base import Plain, Spec, is_name
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.upkeep import UpkeepSpec
from platform_core.specs.variable import Value, VariableSpec

AnySpec = TypeVar("AnySpec", bound=Spec, covariant=True)

_EXAMPLES = {
    LOCATION: "location: <name>",
    VARIABLES: "variables: {database: {default: …, prod: …}}",
    **{kind.name: kind.example for kind in KINDS.values()},
}
_VARIABLE_KEYS = ("default", "description")
_LONGEST_VALUE = 1024
# Stands in for a name that is wrong at the top of a file, so that the entries below it are checked all the same.
_STAND_IN = "unknown"


@dataclass(frozen=True)
class Entry(Generic[AnySpec]):
    """A spec, and where in which file it is declared."""

    spec: AnySpec
    document: Document
    path: tuple[PathPart, ...]

    def complain(self, report: Report, path: Sequence[PathPart], message: str, *hints: str) -> None:
        """Report what is wrong at a path of the declaration, as a person wrote it."""
        report.add(self.document.file, self.document.line((*self.path, *path)), message, *hints)

    @property
    def place(self) -> Place:
        """File and line of the declaration."""
        return self.document.place(self.path)


@dataclass(kw_only=True)
class Reading:
    """What could be read of one location; whole only where the report stayed empty.

    Args:
        control: folder of the control files.
        files: number of control files found.
        location: None where it could not be read.
        damaged: entries that are wrong, as they are written; parts of them can still be checked.
        uncertain: workstream and name of tables that such entries would make; a reference to them is not dangling.
        unread: kinds of which a file could not be read at all; what it would declare is not known.
    """

    control: Path
    files: int = 0
    location: Entry[LocationSpec] | None = None
    workstreams: list[Entry[WorkstreamSpec]] = field(default_factory=list)
    variables: list[Entry[VariableSpec]] = field(default_factory=list)
    connections: list[Entry[ConnectionSpec]] = field(default_factory=list)
    ingestions: list[Entry[IngestionSpec]] = field(default_factory=list)
    steps: list[Entry[ProcessingSpec]] = field(default_factory=list)
    dbt: list[Entry[DbtSpec]] = field(default_factory=list)
    refreshes: list[Entry[RefreshSpec]] = field(default_factory=list)
    upkeep: list[Entry[UpkeepSpec]] = field(default_factory=list)
    alerts: list[Entry[AlertRule]] = field(default_factory=list)
    damaged: list[tuple[Kind, Entry[Any]]] = field(default_factory=list)
    uncertain: set[tuple[str, str]] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        """Folder of the location's package."""
        return self.control.parent


def read_control(control: Path, *, environment: str, state: Path, report: Report) -> Reading:
    """Read every control file of a location.

    Args:
        control: absolute path of the folder.
        environment: name of the environment whose values variables take.
        state: value of ``${env.state}``.
        report: takes the issues.
    """
    reading = Reading(control=control)
    documents: dict[str, list[Document]] = {}
    files = control_files(control, report)
    reading.files = len(files)
    for kind, file in files:
        document = read_document(file, report, example=_EXAMPLES[kind])
        if document is None:
            reading.unread.add(kind)
        else:
            documents.setdefault(kind, []).append(document)
    values: dict[str, Value | None] = {"env.state": str(state), "location.root": str(control.parent)}
    _interpolate(documents, (VARIABLES,), values, reading, report)
    reading.variables = [
        entry for document in documents.get(VARIABLES, ()) for entry in _variables(document, reading, report)
    ]
    values |= {f"var.{entry.spec.name}": entry.spec.resolve(environment) for entry in reading.variables}
    if VARIABLES in reading.unread:
        # Without all variables any reference may be right: say only what is wrong with the variables.
        return reading
    _interpolate(documents, (LOCATION, *KINDS), values, reading, report)
    _read_location(documents.get(LOCATION, []), reading, report)
    lists: dict[str, list[Any]] = {
        "connections": reading.connections,
        "ingestion": reading.ingestions,
        "processing": reading.steps,
        "dbt": reading.dbt,
        "refresh": reading.refreshes,
        "upkeep": reading.upkeep,
        "alerts": reading.alerts,
    }
    for name, kind_ in KINDS.items():
        for document in documents.get(name, ()):
            lists[name].extend(_entries(kind_, document, reading, report))
    return reading


def _interpolate(
    documents: dict[str, list[Document]],
    kinds: Sequence[str],
    values: Mapping[str, Value | None],
    reading: Reading,
    report: Report,
) -> None:
    for kind in kinds:
        kept = []
        for document in documents.get(kind, ()):
            if not document.templated or interpolate(document, values, report):
                kept.append(document)
            else:
                reading.unread.add(kind)
        documents[kind] = kept


def _variables(document: Document, reading: Reading, report: Report) -> Iterator[Entry[VariableSpec]]:
    _check_head(document, (VARIABLES,), (VARIABLES,), report)
    declared = document.value.get(VARIABLES, {})
    if not isinstance(declared, dict):
        _wrong_kind(document, (VARIABLES,), "a mapping (name: {default: …})", declared, report)
        reading.unread.add(VARIABLES)
        return
    for name, columns in declared.items():
        path = (VARIABLES, name)
        if not isinstance(columns, dict):
            _wrong_kind(document, path, "a mapping such as {default: …, prod: …}", columns, report)
            reading.unread.add(VARIABLES)
            continue
        own = {key: columns[key] for key in _VARIABLE_KEYS if key in columns}
        fields = {"name": name, **own, "values": {key: columns[key] for key in columns if key not in own}}
        spec = _validated(VariableSpec, fields, document, path, report)
        if spec is None:
            reading.unread.add(VARIABLES)
        elif any(len(str(value)) > _LONGEST_VALUE for value in (spec.default, *spec.values.values())):
            report.add(document.file, document.line(path), f"a value has more than {_LONGEST_VALUE:,} characters")
            reading.unread.add(VARIABLES)
        else:
            yield Entry(spec, document, path)


def _read_location(documents: list[Document], reading: Reading, report: Report) -> None:
    if not documents:
        if LOCATION not in reading.unread and reading.control.is_dir():
            report.add(
                reading.control / "location.yaml",
                0,
                "there is no such file",
                "it names the location and its workstreams:",
                "location: <name>",
                "workstreams: [{name: <name>, owners: [team:<name>]}]",
            )
        return
    first, *others = documents
    for document in others:
        report.add(document.file, 1, "a location has one such file", f"the first is {report.shown(first.file)}")
    declared = _validated(LocationFile, first.value, first, (), report)
    if declared is None:
        return
    paths: list[tuple[PathPart, ...]] = [("workstreams", index) for index in range(len(declared.workstreams))]
    workstreams = [
        Entry(spec.at(first.place(path)), first, path) for spec, path in zip(declared.workstreams, paths, strict=True)
    ]
    spec = LocationSpec(
        name=declared.location,
        description=declared.description,
        workstreams=tuple(entry.spec for entry in workstreams),
    )
    reading.workstreams = workstreams
    reading.location = Entry(spec.at(first.place(("location",))), first, ("location",))


def _entries(kind: Kind, document: Document, reading: Reading, report: Report) -> Iterator[Entry[Any]]:
    _check_head(document, (kind.entries, *kind.head), (kind.entries,), report)
    head = {key: _head_value(key, document, reading, report) for key in kind.head}
    items = document.value.get(kind.entries, [])
    if not isinstance(items, list):
        _wrong_kind(document, (kind.entries,), f"a list of {kind.noun}s", items, report)
        reading.unread.add(kind.name)
        return
    known = {key: value or _STAND_IN for key, value in head.items()}
    whole = all(head.values()) and all(isinstance(item, dict) and not _misplaced(kind, item) for item in items)
    if whole:
        # The usual case costs one call for the whole file.
        try:
            fields = json.dumps([fields_of(kind, item, known) for item in items], check_circular=False)
            specs = _adapter(kind.name).validate_json(fields, strict=True)
        except ValidationError:
            whole = False
        else:
            for index, (spec, line) in enumerate(zip(specs, document.item_lines(items), strict=True)):
                yield Entry(spec.at(Place(document.file, line)), document, (kind.entries, index))
    if not whole:
        for index, item in enumerate(items):
            entry = _entry(kind, item, index, document, known, report)
            if entry is not None and all(head.values()):
                yield entry
            else:
                _note_damage(kind, item, head, reading)
                if isinstance(item, dict):
                    written = kind.model.model_construct(**fields_of(kind, item, known))
                    reading.damaged.append((kind, Entry(written, document, (kind.entries, index))))


def _entry(
    kind: Kind, item: object, index: int, document: Document, head: Mapping[str, str], report: Report
) -> Entry[Any] | None:
    path = (kind.entries, index)
    if not isinstance(item, dict):
        _wrong_kind(document, path, f"a {kind.noun}: a mapping with {', '.join(kind.keys[:3])}, …", item, report)
        return None
    misplaced = _misplaced(kind, item)
    for where, message, hint in misplaced:
        report.add(document.file, document.line((*path, *where)), message, hint)
    spec = _validated(kind.model, fields_of(kind, item, head), document, path, report)
    return Entry(spec, document, path) if spec is not None and not misplaced else None


def _misplaced(kind: Kind, item: Plain) -> list[tuple[tuple[PathPart, ...], str, str]]:
    """Keys that a spec has and a file writes elsewhere: place, message, hint."""
    found: list[tuple[tuple[PathPart, ...], str, str]] = [
        ((key,), f"unknown key '{key}'", f"'{key}' is written once, at the top of the file")
        for key in kind.head
        if key in item
    ]
    columns = item.get("columns")
    if isinstance(columns, dict):
        found += [
            (("columns", name, "masking"), "unknown key 'masking'", "did you mean 'mask'?")
            for name, column in columns.items()
            if isinstance(column, dict) and "masking" in column
        ]
    return found


def _note_damage(kind: Kind, item: object, head: Mapping[str, str | None], reading: Reading) -> None:
    """Remember which table an entry with a fault would make."""
    fields = fields_of(kind, item, {}) if isinstance(item, dict) else {}
    name, workstream = fields.get("table" if kind.name == "ingestion" else "name"), head[WORKSTREAM]
    if kind.name in ("ingestion", "processing") and workstream and isinstance(name, str) and is_name(name):
        reading.uncertain.add((workstream, name))
    else:
        reading.unread.add(kind.name)


def _head_value(key: str, document: Document, reading: Reading, report: Report) -> str | None:
    """The value of a key at the top of a file; None where it is wrong."""
    own = list(dict.fromkeys(entry.spec.name for entry in reading.workstreams))
    if key not in document.value:
        if key != WORKSTREAM:
            report.add(document.file, 1, f"'{key}' is missing", f"say at the top of the file: {key}: <name>")
        elif len(own) == 1:
            return own[0]
        elif own:
            report.add(document.file, 1, "'workstream' is missing", report.known("workstreams of this location", own))
        return None
    value = document.value[key]
    if not isinstance(value, str):
        _wrong_kind(document, (key,), "a text", value, report)
        return None
    if key == WORKSTREAM and own and value not in own:
        hints = report.choice("workstreams of this location", value, own)
        report.add(document.file, document.line((key,)), f"unknown workstream '{excerpt(value)}'", *hints)
        return None
    if key == WORKSTREAM and not own:
        return None
    return value


def _check_head(document: Document, known: Sequence[str], required: Sequence[str], report: Report) -> None:
    for key in document.value:
        if key not in known:
            hints = report.choice("keys", key, known)
            report.add(document.file, document.line((key,)), f"unknown key '{excerpt(key)}'", *hints)
    for key in required:
        if key not in document.value:
            report.add(document.file, 1, f"'{key}' is missing")


ModelType = TypeVar("ModelType", bound=BaseModel)


def _validated(
    model: type[ModelType], fields: Plain, document: Document, path: tuple[PathPart, ...], report: Report
) -> ModelType | None:
    """An instance of a model, placed if it is a spec; None where its fields are wrong."""
    made, faults = judge(model, fields, report=report, known=KNOWN_KEYS)
    for fault in faults:
        where = file_path(fault.path)
        where = where[1:] if model is VariableSpec and where[:1] == ("values",) else where
        report.add(document.file, document.line((*path, *where)), fault.message, *fault.hints)
    if isinstance(made, Spec):
        made.at(document.place(path))
    return made


def _wrong_kind(document: Document, path: tuple[PathPart, ...], expected: str, value: object, report: Report) -> None:
    name = f"'{excerpt(path[-1])}': " if isinstance(path[-1], str) else ""
    report.add(document.file, document.line(path), f"{name}expected {expected}, got {kind_of(value)}")


@cache
def _adapter(kind: str) -> TypeAdapter[tuple[Spec, ...]]:
    entries: Any = GenericAlias(tuple, (KINDS[kind].model, ...))
    return TypeAdapter(entries)


def with_spec(entry: Entry[AnySpec], **update: object) -> Entry[AnySpec]:
    """The same entry with some fields of its spec replaced."""
    spec = entry.spec.model_copy(update=update)
    return replace(entry, spec=spec.at(entry.place))
