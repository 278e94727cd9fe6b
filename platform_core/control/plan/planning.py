"""Makes a plan: control files, or an earlier state, against the control tables; writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from platform_core.control.load import manifest_of
from platform_core.control.plan.collection import collection_paused
from platform_core.control.plan.declared import STATE, Declared, read_declared, written_path
from platform_core.control.plan.difference import Difference, differences, field_differences
from platform_core.control.plan.plan import Action, Base, Change, FieldChange, Mark, MarkKind, Plan
from platform_core.control.plan.privacy import privacy_marks
from platform_core.control.plan.reach import Graph
from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.plan.reloads import ingestion_marks, processing_marks
from platform_core.control.references import Tables
from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.history import Version, last_deleted, require_apply, rows_at
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import (
    AppliedState,
    RowKey,
    read_locations,
    read_manifest,
    read_rows,
    read_state,
)
from platform_core.control.store.store import ControlStore
from platform_core.errors import ConfigError, PlanError
from platform_core.settings import Settings
from platform_core.specs.base import Spec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec

_WITH_COLUMNS = ("ingestion", "processing")
_ANYWHERE = Path("/${location.root}")
"""Stands for the folder of a location that is read from the tables, where no path of it is used."""


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """What the control tables hold.

    Args:
        rows: of the locations that are planned.
        others: manifests of the other locations.
        gone: what was deleted last of each kind and address, and has no row any more.
    """

    state: AppliedState
    rows: Mapping[RowKey, Row]
    locations: tuple[str, ...]
    others: Mapping[str, Manifest]
    gone: Mapping[tuple[str, str], Version]


def plan_from_git(
    settings: Settings,
    environment: EnvironmentSpec,
    store: ControlStore,
    *,
    author: str,
    locations: Sequence[str] = (),
) -> Plan:
    """What must be done so that the control tables hold what the control files declare.

    Args:
        locations: whose rows are looked at; empty: all of the workspace, and those that have left it.

    Raises:
        ConfigError: control files are wrong.
        PlanError: the tables are another environment's.
        ControlError: the database cannot be reached.
    """
    with collection_paused():
        declared = read_declared(settings, locations=locations)
        return plan_from_declared(declared, environment, store, author=author, everything=not locations)


def plan_from_declared(
    declared: Declared, environment: EnvironmentSpec, store: ControlStore, *, author: str, everything: bool
) -> Plan:
    """As :func:`plan_from_git`, of control files that were read already.

    Args:
        everything: whether locations that are in the tables and not in the workspace are deleted.
    """
    asked = frozenset(declared.manifests)

    def look(connection: sa.Connection) -> _Tables:
        known = read_locations(connection)
        left = {name for name in known if name not in declared.listed} if everything else set()
        return _look(connection, planned=asked | left, known=known, read=declared.read.keys())

    tables = store.read(look)
    _check_environment(tables.state, environment)
    graph = _graph(declared.read, tables.others)
    maker = _Maker(declared.rows, tables, graph, declared=declared)
    notes = [f"location {name} is not looked at: its control files are not here" for name in declared.unchecked]
    notes += [
        f"dbt project {each.entry.spec.workstream}.{each.entry.spec.name} is not parsed: its models are missing from "
        "the reach; run edp setup --manifests"
        for read in declared.read.values()
        for each in read.dbt
        if not each.known
    ]
    planned = sorted(asked | (set(tables.locations) if everything else set()))
    commits = {commit for commit in declared.commits.values() if commit}
    return maker.plan(
        environment,
        author=author,
        locations=planned,
        gone=sorted({key.location for key in tables.rows} - asked),
        git_commit=commits.pop() if len(commits) == 1 else None,
        notes=notes,
    )


def plan_rollback(
    settings: Settings, environment: EnvironmentSpec, store: ControlStore, *, serial: int, author: str
) -> Plan:
    """What must be done so that the control tables hold what they held after an earlier apply.

    The reach is taken from the control files where they can be read, else from the tables: an undo must be possible
    while they are broken.

    Raises:
        PlanError: there is no such apply.
        ControlError: a row of it is no spec of this version of the code.
    """
    notes = ["git still holds what is taken back: change it there, too, or the next plan brings it again"]
    try:
        read: Mapping[str, Tables] = read_declared(settings).read
    except ConfigError:
        read = {}
        notes.append("control files cannot be read: dbt models are missing from the reach; see edp check")

    def look(connection: sa.Connection) -> tuple[_Tables, dict[RowKey, Row], str | None, Mapping[str, Manifest]]:
        known = read_locations(connection)
        tables = _look(connection, planned=known, known=known, read=read.keys())
        others = {} if read else _manifests(connection, known)
        if serial == 0:
            return tables, {}, None, others
        commit = require_apply(connection, serial).git_commit
        return tables, rows_at(connection, serial=serial), commit, others

    tables, wanted, commit, others = store.read(look)
    _check_environment(tables.state, environment)
    for key, row in wanted.items():
        codec(KINDS[key.kind]).decode(row, root=_ANYWHERE, state=STATE)
    maker = _Maker(wanted, tables, _graph(read, others), declared=None)
    return maker.plan(
        environment,
        author=author,
        locations=sorted({key.location for key in (*tables.rows, *wanted)}),
        gone=sorted({key.location for key in tables.rows} - {key.location for key in wanted}),
        git_commit=commit,
        notes=notes,
        restores=serial,
    )


def _look(
    connection: sa.Connection, *, planned: Collection[str], known: Sequence[str], read: Collection[str]
) -> _Tables:
    others = [name for name in known if name not in planned and name not in read]
    return _Tables(
        state=read_state(connection),
        rows=read_rows(connection, locations=planned),
        locations=tuple(name for name in known if name in planned),
        others=_manifests(connection, others),
        gone=last_deleted(connection, kinds=_WITH_COLUMNS),
    )


def _manifests(connection: sa.Connection, locations: Sequence[str]) -> dict[str, Manifest]:
    return {name: read_manifest(connection, name, root=_ANYWHERE, state=STATE) for name in locations}


def _check_environment(state: AppliedState, environment: EnvironmentSpec) -> None:
    if state.environment not in (None, environment.name):
        raise PlanError(
            f"the control tables hold environment '{state.environment}', this is '{environment.name}'\n"
            "  one database serves one environment: look at control.url of the environment's file"
        )


def _graph(read: Mapping[str, Tables], others: Mapping[str, Manifest]) -> Graph:
    """Everything that is known: the control files of each location that is here, the tables of the others."""
    graph = Graph()
    for name, tables in read.items():
        graph.add_location(manifest_of(tables.reading))
        graph.add_dbt(tables, location=name)
    for manifest in others.values():
        graph.add_location(manifest)
    return graph


class _Maker:
    """Turns differences into a plan."""

    def __init__(
        self, wanted: Mapping[RowKey, Row], tables: _Tables, graph: Graph, *, declared: Declared | None
    ) -> None:
        self.wanted = wanted
        self.tables = tables
        self.graph = graph
        self.declared = declared
        self.found = differences(tables.rows, wanted)
        self._moved = {
            (each.key.kind, each.key.address): each.before
            for each in self.found
            if each.action is Action.DELETE and each.before is not None
        }
        self._sources = self._masked_sources() if any(each.action is Action.CREATE for each in self.found) else {}

    def plan(
        self,
        environment: EnvironmentSpec,
        *,
        author: str,
        locations: Sequence[str],
        gone: Sequence[str],
        git_commit: str | None,
        notes: Sequence[str],
        restores: int | None = None,
    ) -> Plan:
        changes = tuple(self._change(each) for each in self.found)
        specs = [spec for each in self.found for spec in self._specs(each)]
        touched = sum(change.action is not Action.CREATE for change in changes)
        return Plan(
            environment=environment.name,
            release=platform_release(),
            specs=specs_digest(),
            base=Base.of(self.tables.state),
            git_commit=git_commit,
            author=author,
            made_at=dt.datetime.now(dt.UTC),
            locations=tuple(locations),
            unchanged=len(self.tables.rows) - touched,
            restores=restores,
            changes=changes,
            marks=(*_gone_marks(gone), *_deletion_marks(changes, limit=environment.control.max_deletes)),
            reach=self.graph.reach(specs),
            notes=tuple(notes),
        ).sealed()

    def _change(self, each: Difference) -> Change:
        key = each.key
        return Change(
            action=each.action,
            kind=key.kind,
            location=key.location,
            address=key.address,
            place=self.declared.place(key) if self.declared and each.after is not None else None,
            before=each.before,
            after=each.after,
            fields=tuple(self._fields(each)),
            marks=tuple(self._marks(each)),
            reach=self.graph.reach(self._specs(each)),
            git_commit=self.declared.commits.get(key.location) if self.declared else None,
        )

    def _fields(self, each: Difference) -> Iterator[FieldChange]:
        if each.before is None or each.after is None:
            return
        for path, before, after in field_differences(each.before, each.after):
            yield FieldChange(
                path=".".join(written_path(each.key.kind, path)),
                before=before,
                after=after,
                place=self.declared.place(each.key, path) if self.declared else None,
            )

    def _specs(self, each: Difference) -> list[Spec]:
        content = each.before if each.after is None else each.after
        if content is None or each.key.kind not in _IN_GRAPH:
            return []
        found = codec(KINDS[each.key.kind])
        return [found.decode(found.row(content), root=_ANYWHERE, state=STATE)]

    def _marks(self, each: Difference) -> Iterator[Mark]:
        if each.after is None:
            yield from self._reader_marks(each)
        elif each.key.kind in _WITH_COLUMNS:
            before = each.before or self._earlier(each)
            if before is not None:
                yield from privacy_marks(before, each.after)
                marks = ingestion_marks if each.key.kind == "ingestion" else processing_marks
                yield from marks(before, each.after)
            elif each.key.kind == "ingestion" and (twin := self._sources.get(_source(each.after))) is not None:
                yield from privacy_marks(twin, each.after)

    def _earlier(self, each: Difference) -> Content | None:
        """What had the same address before: in another location, or until it was deleted."""
        address = (each.key.kind, each.key.address)
        if address in self._moved:
            return self._moved[address]
        return self.tables.gone[address].content if address in self.tables.gone else None

    def _masked_sources(self) -> dict[tuple[Any, ...], Content]:
        """Tables that are or were there, by what they read, so that a second table of the same object is compared."""
        rows = codec(KINDS["ingestion"])
        found = [rows.content(rows.normal(row)) for key, row in self.tables.rows.items() if key.kind == "ingestion"]
        found += [version.content for (kind, _), version in self.tables.gone.items() if kind == "ingestion"]
        return {_source(content): content for content in found if content["columns"]}

    def _reader_marks(self, each: Difference) -> Iterator[Mark]:
        """Readers in locations that this plan does not cover, which their own control files could not warn of."""
        for spec in self._specs(each):
            if not isinstance(spec, (IngestionSpec, ProcessingSpec)) or self._is_made(each):
                continue
            for reader in self.graph.readers(spec.ref):
                location = self.graph.location(reader)
                if location in self.tables.others:
                    yield Mark(
                        kind=MarkKind.READERS,
                        message=f"{reader} in location {location} still reads it",
                        consequence="it fails, or goes on with the last data",
                    )

    def _is_made(self, each: Difference) -> bool:
        """Whether another location makes it from now on."""
        return any(
            other.action is Action.CREATE and (other.key.kind, other.key.address) == (each.key.kind, each.key.address)
            for other in self.found
        )


_IN_GRAPH = frozenset({"connection", "ingestion", "processing", "dbt", "refresh"})


def _source(content: Content) -> tuple[Any, ...]:
    return content["workstream"], content["source"], content["object"], content["query"]


def _gone_marks(locations: Sequence[str]) -> Iterator[Mark]:
    for name in locations:
        yield Mark(
            kind=MarkKind.LOCATION,
            message=f"location {name} is gone, with all that it declared",
            consequence="its tables stay in the lake until they are pruned",
        )


def _deletion_marks(changes: Sequence[Change], *, limit: int) -> Iterator[Mark]:
    deleted = sum(change.action is Action.DELETE for change in changes)
    if deleted > limit:
        yield Mark(
            kind=MarkKind.DELETIONS,
            message=f"{deleted:,} rows are deleted, more than {limit:,} (control.max_deletes of the environment)",
            consequence="data stays in the lake until it is pruned",
        )
