"""Checks how the specs of one location, and of several, refer to each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from platform_core.control.dbt_projects import DbtModels
from platform_core.control.ddl_declared import Declared, declared_by_migrations
from platform_core.control.documents import PathPart
from platform_core.control.external_assets import is_only_looked_at
from platform_core.control.graph import cycles
from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.errors import PluginError
from platform_core.plugins.registry import plugin, plugin_names
from platform_core.specs.expectation_tables import read_by
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef

_LONGEST_CYCLE = 12


@dataclass(frozen=True)
class _Reference:
    """One table that something reads, and where that is declared."""

    entry: Entry[Any]
    path: tuple[PathPart, ...]
    ref: TableRef
    model: str = ""

    def complain(self, report: Report, message: str, *hints: str) -> None:
        said = f"dbt model '{self.model}': {message}" if self.model else message
        self.entry.complain(report, self.path, said, *hints)

    @property
    def own(self) -> str:
        return str(self.entry.spec.workstream)

    @property
    def written(self) -> str:
        return _written(self.ref, self.own)


@dataclass(frozen=True, eq=False)
class Tables:
    """What one location makes, and what makes it."""

    reading: Reading
    dbt: Sequence[DbtModels]
    made: dict[TableRef, Entry[Any]] = field(default_factory=dict)
    foreign: list[_Reference] = field(default_factory=list)
    written: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    migrated: Declared = field(default_factory=Declared)

    @property
    def workstreams(self) -> dict[str, Entry[Any]]:
        """The location's own workstreams."""
        return {entry.spec.name: entry for entry in self.reading.workstreams}

    def names(self, workstream: str, own: str) -> list[str]:
        """Tables of a workstream as someone of the workstream ``own`` writes them."""
        key = (workstream, own)
        if key not in self.written:
            self.written[key] = [_written(made, own) for made in self.made if made.workstream == workstream]
        return self.written[key]

    def edges(self) -> dict[TableRef, tuple[TableRef, ...]]:
        """For each table made by a step or dbt model, the tables that it reads."""
        edges = {entry.spec.ref: self.migrated.below(entry.spec.inputs) for entry in self.reading.steps}
        for expected in _expected(self.reading):
            ref = expected.entry.spec.ref
            edges[ref] = (*edges.get(ref, ()), *self.migrated.below((expected.ref,)))
        for project in self.dbt:
            edges |= project.inputs
        return edges

    def has(self, ref: TableRef) -> bool:
        """Whether a table is made here, or may be: by an entry with a fault, or a dbt project not yet parsed."""
        if ref in self.made or (ref.workstream, ref.name) in self.reading.uncertain:
            return True
        if not self.reading.unread.isdisjoint(("ingestion", "processing", "dbt")):
            return True
        projects = [each for each in self.dbt if (each.entry.spec.workstream, each.entry.spec.layer) == ref[:2]]
        return any(not project.known for project in projects)


def check_references(reading: Reading, dbt: Sequence[DbtModels], report: Report) -> Tables:
    """Check one location: duplicates, references within it, cycles.

    References to workstreams of other locations are left to :func:`check_between`.
    """
    _check_duplicates(reading, report)
    own = {entry.spec.name for entry in reading.workstreams}
    tables = Tables(reading, dbt, migrated=declared_by_migrations(reading.root, sorted(own)))
    _fill_made(tables, report)
    _check_connections(reading, report)
    for reference in _references(reading, dbt):
        if reference.ref.workstream not in own:
            tables.foreign.append(reference)
        elif not tables.has(reference.ref) and not tables.migrated.has(reference.ref):
            _unknown_table(reference, tables, report)
        else:
            _check_readable(reference, tables, report)
    readers: list[Entry[ProcessingSpec] | Entry[RefreshSpec]] = [*reading.steps, *reading.refreshes]
    for reader in readers:
        _check_listed_once(reader, report)
    for cycle in cycles(tables.edges()):
        _report_cycle(cycle, [tables], report)
    return tables


def check_between(locations: Sequence[Tables], report: Report, *, about: Sequence[Tables]) -> None:
    """Check several locations against each other: workstreams, references and cycles that cross them.

    Args:
        locations: all of them.
        report: takes the issues.
        about: the locations whose faults are wanted.
    """
    homes: dict[str, Tables] = {}
    for location in locations:
        for name, entry in location.workstreams.items():
            claimant = homes.setdefault(name, location)
            if claimant is not location:
                first = claimant.workstreams[name]
                hurt, other = (entry, first) if location in about else (first, entry)
                message = f"workstream '{name}' is claimed by two locations"
                hurt.complain(report, ("name",), message, f"the other is {report.shown_place(other.place)}")
    complete = all("location" not in location.reading.unread and location.workstreams for location in locations)
    for location in about:
        for reference in location.foreign:
            home = homes.get(reference.ref.workstream)
            if home is not None and not home.has(reference.ref):
                _unknown_table(reference, home, report)
            elif home is not None:
                _check_readable(reference, home, report)
            elif home is None and complete:
                hints = report.choice("workstreams", reference.ref.workstream, homes)
                message = f"unknown workstream '{reference.ref.workstream}' in '{reference.ref}'"
                reference.complain(report, message, *hints)
    edges: dict[TableRef, tuple[TableRef, ...]] = {}
    for location in locations:
        edges |= location.edges()
    for cycle in cycles(edges):
        crossed = [homes[ref.workstream] for ref in cycle if ref.workstream in homes]
        if len({id(home) for home in crossed}) > 1 and any(home in about for home in crossed):
            _report_cycle(cycle, locations, report)


def _check_duplicates(reading: Reading, report: Report) -> None:
    def named(entry: Entry[Any]) -> tuple[str, str]:
        return entry.spec.workstream, entry.spec.name

    def own_name(entry: Entry[Any]) -> str:
        return str(entry.spec.name)

    _report_doubles(reading.workstreams, own_name, "workstream", report)
    _report_doubles(reading.variables, own_name, "variable", report)
    _report_doubles(reading.connections, named, "connection", report)
    _report_doubles(reading.dbt, named, "dbt project", report)
    _report_doubles(reading.refreshes, named, "dashboard", report)
    _report_doubles(reading.upkeep, named, "policy", report)
    _report_doubles(reading.alerts, named, "rule", report)


def _report_doubles(entries: Iterable[Entry[Any]], key: Any, noun: str, report: Report) -> None:
    first: dict[Any, Entry[Any]] = {}
    for entry in entries:
        found = first.setdefault(key(entry), entry)
        if found is not entry:
            message = f"{noun} '{entry.spec.name}' is declared twice"
            entry.complain(report, ("name",), message, _first_at(found, report))


def _fill_made(tables: Tables, report: Report) -> None:
    reading = tables.reading
    declared: list[tuple[Entry[Any], TableRef, str]] = [
        *((entry, entry.spec.ref, "table") for entry in reading.ingestions),
        *(
            (entry, entry.spec.history_ref, "snapshot_history")
            for entry in reading.ingestions
            if entry.spec.snapshot_history
        ),
        *((entry, entry.spec.ref, "name") for entry in reading.steps),
        *((project.entry, ref, "layer") for project in tables.dbt for ref in sorted(project.published)),
    ]
    for entry, ref, key in declared:
        first = tables.made.setdefault(ref, entry)
        if first is not entry:
            message = f"table '{_written(ref, entry.spec.workstream)}' is made twice"
            entry.complain(report, (key,), message, _first_at(first, report))


def _check_connections(reading: Reading, report: Report) -> None:
    known = {(entry.spec.workstream, entry.spec.name): entry.spec for entry in reading.connections}
    for entry in reading.ingestions:
        spec = entry.spec
        connection = known.get((spec.workstream, spec.source))
        if connection is None:
            _unknown_connection(entry, spec.source, reading, report)
        elif connection.type in plugin_names("dashboard") and connection.type not in plugin_names("source"):
            message = f"connection '{spec.source}' is a dashboard service (type {connection.type}), not a source"
            report.add(entry.document.file, entry.document.line(("source",)), message)
    for dashboard in reading.refreshes:
        _check_dashboard_connection(dashboard, known, reading, report)


def _check_dashboard_connection(
    entry: Entry[RefreshSpec], known: dict[tuple[str, str], Any], reading: Reading, report: Report
) -> None:
    spec = entry.spec
    if spec.type not in plugin_names("dashboard"):
        return
    try:
        needed = plugin("dashboard", spec.type).ConnectionOptions is not None
    except PluginError:
        # Reported where its options are checked.
        return
    if spec.connection is None:
        if needed:
            message = f"a dashboard of type '{spec.type}' needs 'connection'"
            entry.complain(report, (), message, f"name a connection of type {spec.type} in control/connections.yaml")
    elif not needed:
        entry.complain(report, ("connection",), f"a dashboard of type '{spec.type}' needs no connection", "remove it")
    elif (spec.workstream, spec.connection) not in known:
        _unknown_connection(entry, spec.connection, reading, report)
    elif (type_ := known[spec.workstream, spec.connection].type) != spec.type:
        message = f"connection '{spec.connection}' is of type {type_}; the dashboard is of type {spec.type}"
        entry.complain(report, ("connection",), message)


def _unknown_connection(entry: Entry[Any], name: str, reading: Reading, report: Report) -> None:
    if "connections" in reading.unread:
        return
    names = [each.spec.name for each in reading.connections if each.spec.workstream == entry.spec.workstream]
    hints = report.choice(f"connections of workstream '{entry.spec.workstream}'", name, names)
    message = f"unknown connection '{excerpt(name)}'"
    if isinstance(entry.spec, RefreshSpec):
        entry.complain(report, ("connection",), message, *hints)
    else:
        # Said once a file, where it is written.
        report.add_once(entry.document.file, entry.document.line(("source",)), message, *hints)


def _references(reading: Reading, dbt: Sequence[DbtModels]) -> Iterator[_Reference]:
    """Everything that is read by steps, dashboards and dbt models; within one dbt project dbt checks itself."""
    for step in reading.steps:
        for index, ref in enumerate(step.spec.inputs):
            yield _Reference(step, ("depends_on", index), ref)
    yield from _expected(reading)
    for dashboard in reading.refreshes:
        for index, ref in enumerate(dashboard.spec.inputs):
            yield _Reference(dashboard, ("shows", index), ref)
    for project in dbt:
        for model, inputs in project.inputs.items():
            for ref in inputs:
                if ref not in project.inputs:
                    yield _Reference(project.entry, ("project",), ref, model.name)


def _expected(reading: Reading) -> Iterator[_Reference]:
    """Tables that expectations read; those of a SELECT that is none are not known, which is said elsewhere."""
    tables: list[Entry[Any]] = [*reading.ingestions, *reading.steps]
    for entry in tables:
        for index, expectation in enumerate(entry.spec.expectations):
            try:
                found = read_by(expectation, entry.spec.ref)
            except (ValueError, RecursionError):
                continue
            path = ("sql",) if expectation.is_query else ("references", "table")
            for ref in found:
                yield _Reference(entry, ("expectations", index, *path), ref)


def _check_listed_once(reader: Entry[ProcessingSpec] | Entry[RefreshSpec], report: Report) -> None:
    seen = set()
    for index, ref in enumerate(reader.spec.inputs):
        if ref in seen:
            key = "depends_on" if isinstance(reader.spec, ProcessingSpec) else "shows"
            reader.complain(report, (key, index), f"table '{_written(ref, reader.spec.workstream)}' stands twice")
        seen.add(ref)


def _check_readable(reference: _Reference, home: Tables, report: Report) -> None:
    spec = reference.entry.spec
    waits = isinstance(spec, ProcessingSpec) and reference.path[:1] == ("depends_on",)
    if waits or not is_only_looked_at(reference.ref, home.made.get(reference.ref)):
        return
    hints = ("steps can depend on it", "ingest it, and read the table that comes of it")
    reference.complain(report, f"'{reference.written}' is looked at only: it is no table of the lake", *hints)


def _unknown_table(reference: _Reference, tables: Tables, report: Report) -> None:
    if report.is_full(reference.entry.document.file):
        return
    ref, own, written = reference.ref, reference.own, reference.written
    private = next((each for each in tables.dbt if ref in each.inputs and ref not in each.published), None)
    if private is not None:
        hint = f"only models below models/{private.entry.spec.publish} are; move it there, or read another table"
        reference.complain(report, f"'{written}' is a dbt model that is not published", hint)
        return
    if tables.migrated.has(ref):
        hint = "read the tables below it, or let its owners build a table"
        reference.complain(
            report, f"'{written}' is made by a migration of another location, which nothing builds", hint
        )
        return
    known = tables.names(ref.workstream, own)
    prefix = written.rpartition(".")[0] + "."
    layer = [name for name in known if name.startswith(prefix)]
    hint = report.known(f"tables in {ref.layer}", layer) if layer else report.known("tables", known)
    reference.complain(report, f"unknown table '{written}'", hint, *report.did_you_mean(written, known))


def _report_cycle(cycle: Sequence[TableRef], locations: Sequence[Tables], report: Report) -> None:
    own = cycle[0].workstream if len({ref.workstream for ref in cycle}) == 1 else ""
    names = [_written(ref, own) for ref in (*cycle, cycle[0])]
    if len(names) > _LONGEST_CYCLE:
        half = _LONGEST_CYCLE // 2
        names = [*names[:half], f"… ({len(names) - 2 * half:,} more)", *names[-half:]]
    makers: dict[TableRef, Entry[Any]] = {}
    for location in locations:
        makers |= {ref: project.entry for project in location.dbt for ref in project.inputs} | location.made
    entry = makers[cycle[0]]
    path = ("depends_on",) if isinstance(entry.spec, ProcessingSpec) else ()
    message = "tables are made from each other: " if len(cycle) > 1 else "a table is made from itself: "
    entry.complain(report, path, message + " → ".join(names), "an arrow means 'reads'; take one of them away")


def _first_at(entry: Entry[Any], report: Report) -> str:
    return f"first declared at {report.shown_place(entry.place)}"


def _written(ref: TableRef, own: str) -> str:
    return f"{ref.layer}.{ref.name}" if ref.workstream == own else str(ref)
