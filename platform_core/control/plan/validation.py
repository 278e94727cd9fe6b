"""Checks rows of the control tables as a whole, as the control files that they stand for would be checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_core.control.checks import check_reading
from platform_core.control.documents import Document, PathPart
from platform_core.control.plan.declared import LISTS, STATE, written_path
from platform_core.control.reading import Entry, Reading
from platform_core.control.references import Tables, check_between
from platform_core.control.report import Report
from platform_core.control.shapes import KNOWN_KEYS
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey
from platform_core.control.wording import judge
from platform_core.errors import Issue
from platform_core.specs.base import Spec
from platform_core.specs.location import LocationSpec

_ABSENT = Path("/${location.root}")
"""Stands for the folder of a location whose package is not here."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with rows.

    Args:
        key: of the row; None: it is in a file that a row names, such as the query of a step.
        path: of the value, as a person writes it in YAML; empty: the row as a whole.
        message: what is wrong, in one line; of a file with its place.
        hints: what was looked at, what to do.
    """

    key: RowKey | None
    path: tuple[str, ...]
    message: str
    hints: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        where = "" if self.key is None else f"{self.key}{' ' if self.path else ''}{'.'.join(self.path)}: "
        return "\n".join([f"{where}{self.message}", *(f"  {hint}" for hint in self.hints)])


def check_rows(
    rows: Mapping[RowKey, Row], *, roots: Mapping[str, Path | None], despite: Collection[Fault] = ()
) -> list[Fault]:
    """Everything that is wrong with rows: of each alone, of each location, and between locations.

    Args:
        rows: of all locations.
        despite: faults of single rows that are known; else such a fault ends the check, because what refers to the row
            would be said to be wrong, too.
        roots: folder of each location's package, by name; where it is not here its files are not looked into.
    """
    places = _Places()
    specs: dict[str, dict[RowKey, Spec]] = {}
    alone: list[Fault] = []
    for key, row in rows.items():
        root = roots.get(key.location) or _ABSENT
        spec, faults = _judged(key, row, root)
        alone += faults
        if spec is not None:
            specs.setdefault(key.location, {})[key] = spec
    alone += _homeless(rows)
    if any(fault not in despite for fault in alone):
        return sorted(alone, key=_order)
    report = Report()
    tables = [_checked(of_one, roots.get(name), places, report) for name, of_one in sorted(specs.items())]
    check_between(tables, report, about=tables)
    return sorted([*alone, *(places.fault(issue) for issue in report.issues)], key=_order)


def new_faults(
    before: Mapping[RowKey, Row], after: Mapping[RowKey, Row], *, roots: Mapping[str, Path | None]
) -> list[Fault]:
    """What is wrong with rows, and was not before: the doing of whoever made one of the other."""
    if not check_rows(after, roots=roots):
        return []
    broken = check_rows(before, roots=roots)
    known = check_rows(before, roots=roots, despite=broken)
    return [fault for fault in check_rows(after, roots=roots, despite=broken) if fault not in known]


def _order(fault: Fault) -> tuple[str, tuple[str, ...], str]:
    return str(fault.key or ""), fault.path, fault.message


def _judged(key: RowKey, row: Row, root: Path) -> tuple[Spec | None, list[Fault]]:
    """The spec of a row, or what is wrong with the row."""
    rows = codec(KINDS[key.kind])
    fields = rows.fields(row, root=root, state=STATE)
    spec, complaints = judge(KINDS[key.kind].model, fields, report=Report(), known=KNOWN_KEYS)
    return spec, [
        Fault(key=key, path=_written(key.kind, each.path), message=each.message, hints=tuple(each.hints))
        for each in complaints
    ]


def _homeless(rows: Mapping[RowKey, Row]) -> Iterator[Fault]:
    """Rows of locations and workstreams that there are not: of files the reader says so."""
    locations = sorted(key.location for key in rows if key.kind == "location")
    workstreams = {(key.location, key.address) for key in rows if key.kind == "workstream"}
    for key, row in rows.items():
        if key.location not in locations:
            yield Fault(
                key=key,
                path=("location",),
                message=f"there is no location '{key.location}'",
                hints=(f"locations: {', '.join(locations) or 'none'}",),
            )
            continue
        if key.kind == "location" and key.address != key.location:
            yield Fault(key=key, path=("name",), message=f"location '{key.location}' is named '{key.address}'")
        if key.kind == "workstream":
            continue
        workstream = codec(KINDS[key.kind]).workstream(row)
        if workstream is not None and (key.location, workstream) not in workstreams:
            own = sorted(name for location, name in workstreams if location == key.location)
            yield Fault(
                key=key,
                path=("workstream",),
                message=f"location '{key.location}' has no workstream '{workstream}'",
                hints=(f"its workstreams: {', '.join(own) or 'none'}",),
            )
    for location in locations:
        if not any(home == location for home, _ in workstreams):
            yield Fault(
                key=RowKey("location", location, location), path=(), message="the location has no workstream any more"
            )


def _checked(specs: Mapping[RowKey, Spec], root: Path | None, places: _Places, report: Report) -> Tables:
    """One location, checked as if its rows had been read from control files."""
    reading = Reading(control=(root or _ABSENT) / "control")
    workstreams = tuple(spec for key, spec in specs.items() if key.kind == "workstream")
    for key, spec in sorted(specs.items()):
        document = places.document(key)
        if isinstance(spec, LocationSpec):
            reading.location = Entry(spec.model_copy(update={"workstreams": workstreams}), document, ())
        else:
            getattr(reading, LISTS[key.kind]).append(Entry(spec.at(document.place()), document, ()))
    return check_reading(reading, report, files=root is not None)


@dataclass(frozen=True)
class _RowDocument(Document):
    """Stands for the file of a row: a line of it stands for a path in the row."""

    paths: list[tuple[PathPart, ...]] = field(default_factory=list)

    def line(self, path: Sequence[PathPart] = ()) -> int:
        """A number that stands for the path; 0 for the row as a whole."""
        asked = tuple(path)
        if not asked:
            return 0
        if asked not in self.paths:
            self.paths.append(asked)
        return self.paths.index(asked) + 1


class _Places:
    """Which document stands for which row."""

    def __init__(self) -> None:
        self._documents: dict[Path, tuple[RowKey, _RowDocument]] = {}

    def document(self, key: RowKey) -> _RowDocument:
        """The document of a row."""
        file = Path(f"{key} of location {key.location}")
        made = _RowDocument(file, {})
        self._documents[file] = (key, made)
        return made

    def fault(self, issue: Issue) -> Fault:
        """An issue, about a row where it is about one."""
        found = self._documents.get(issue.place.file)
        if found is None:
            return Fault(key=None, path=(), message=f"{issue.place}: {issue.message}", hints=issue.hints)
        key, document = found
        path = document.paths[issue.place.line - 1] if issue.place.line else ()
        return Fault(key=key, path=tuple(map(str, path)), message=issue.message, hints=issue.hints)


def _written(kind: str, path: Sequence[Any]) -> tuple[str, ...]:
    return written_path(kind, tuple(map(str, path)))
