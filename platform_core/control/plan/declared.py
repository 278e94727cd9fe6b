"""What the control files declare, as rows of the control tables, each with the line it stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from platform_core.control import documents
from platform_core.control.authorship import git_commit
from platform_core.control.documents import PathPart
from platform_core.control.load import manifest_of
from platform_core.control.parsed_files import remembering
from platform_core.control.reading import Entry, Reading
from platform_core.control.references import Tables
from platform_core.control.report import Report
from platform_core.control.shapes import KINDS as FILES
from platform_core.control.shapes import file_path
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.kinds import KINDS, all_specs
from platform_core.control.store.rows import RowKey
from platform_core.control.workspace import examine
from platform_core.settings import Settings
from platform_core.specs.manifest import Manifest

STATE = Path("/${env.state}")
"""Stands for the state folder while control files are read for the tables, which no machine's folder must get into."""

_FLAT = frozenset(kind.model for kind in FILES.values() if kind.flat)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """All that the asked-for locations declare.

    Args:
        rows: by what names them.
        manifests: of the asked-for locations, by name.
        commits: of git, by location.
        read: every location that could be read, to follow references.
        unchecked: locations whose control files are not here.
        listed: names of all locations of the workspace that were read or are known not to be here.
    """

    rows: Mapping[RowKey, Row]
    manifests: Mapping[str, Manifest]
    commits: Mapping[str, str | None]
    read: Mapping[str, Tables]
    unchecked: tuple[str, ...]
    listed: frozenset[str]
    _entries: Mapping[RowKey, Entry[Any]] = field(repr=False)
    _report: Report = field(repr=False)

    def written_at(self, key: RowKey) -> tuple[Path, tuple[PathPart, ...]] | None:
        """File of a row, and the path of its entry in it; None: git does not have it."""
        entry = self._entries.get(key)
        return None if entry is None else (entry.document.file, tuple(entry.path))

    def place(self, key: RowKey, path: Sequence[str] = ()) -> str | None:
        """File and line of a row, or of a value in it."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        where = (*entry.path, *written_path(key.kind, path))
        return self._report.shown_place(entry.document.place(where))


def read_declared(settings: Settings, *, locations: Sequence[str] = ()) -> Declared:
    """Read and check the control files of the project.

    Args:
        locations: names of those that are asked for; empty: all of the workspace.

    Raises:
        ConfigError: with every fault of the locations that are asked for.
    """
    with remembering(settings.state / "parsed_control_files", reader=Path(documents.__file__)):
        found = examine(replace(settings, state=STATE), only=locations)
    found.report.raise_if_any()
    manifests = {manifest.location.name: manifest for manifest in found.manifests}
    rows: dict[RowKey, Row] = {}
    entries: dict[RowKey, Entry[Any]] = {}
    commits: dict[str, str | None] = {}
    for tables in found.asked:
        manifest = manifest_of(tables.reading)
        name = manifest.location.name
        commits[name] = git_commit(tables.reading.control)
        rows.update(manifest_rows(manifest))
        entries.update(_entries(name, tables.reading))
    read = {tables.reading.location.spec.name: tables for tables in found.read if tables.reading.location is not None}
    return Declared(
        rows=rows,
        manifests=manifests,
        commits=commits,
        read=read,
        unchecked=found.unchecked,
        listed=frozenset((*read, *found.unchecked)),
        _entries=entries,
        _report=Report(settings.project),
    )


def manifest_rows(manifest: Manifest, *, state: Path = STATE) -> dict[RowKey, Row]:
    """A manifest as rows of the control tables.

    Args:
        state: the state folder that ``${env.state}`` was replaced with when the manifest was read.

    Raises:
        PlanError: a text holds a character that a database cannot keep.
    """
    location = manifest.location.name
    return {
        RowKey(kind.name, location, kind.address(spec)): codec(kind).encode(spec, root=manifest.root, state=state)
        for kind, spec in all_specs(manifest)
    }


def written_path(kind: str, path: Sequence[str]) -> tuple[str, ...]:
    """Where in a control file a value of a row is written."""
    where = tuple(path)
    if where[:1] == ("name",) and kind == "ingestion":
        return ("table", *where[1:])
    if where[:1] == ("options",) and KINDS[kind].model in _FLAT:
        return where[1:]
    if kind == "variable" and where[:1] == ("values",):
        return where[1:]
    if len(where) > 2 and where[0] == "columns" and where[2] == "masking":
        # Options of a mask stand beside its name.
        where = tuple(str(part) for part in file_path(where) if part != "options")
    return where


LISTS = {
    "workstream": "workstreams",
    "variable": "variables",
    "connection": "connections",
    "ingestion": "ingestions",
    "processing": "steps",
    "dbt": "dbt",
    "refresh": "refreshes",
    "upkeep": "upkeep",
    "alert": "alerts",
}
"""Where a reading holds the specs of a kind; the location's own stands alone."""


def _entries(location: str, reading: Reading) -> dict[RowKey, Entry[Any]]:
    found: dict[str, Sequence[Entry[Any]]] = {kind: getattr(reading, name) for kind, name in LISTS.items()}
    found["location"] = [reading.location] if reading.location else []
    return {
        RowKey(kind, location, KINDS[kind].address(entry.spec)): entry
        for kind, entries in found.items()
        for entry in entries
    }
