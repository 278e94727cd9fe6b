"""Turns differences between rows into a plan: what changes, with marks, reach, and the places where it is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from platform_core.control.load import manifest_of
from platform_core.control.plan.declared import STATE, written_path
from platform_core.control.plan.difference import Difference, differences, field_differences
from platform_core.control.plan.overlay import Overlaid, deletion_mark
from platform_core.control.plan.plan import Action, Base, Change, FieldChange, Mark, MarkKind, Origin, Plan
from platform_core.control.plan.privacy import privacy_marks
from platform_core.control.plan.reach import Graph
from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.plan.reloads import ingestion_marks, processing_marks
from platform_core.control.references import Tables
from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.history import Version, last_deleted
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.overrides import Override, read_overrides
from platform_core.control.store.rows import AppliedState, RowKey, read_manifest, read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.errors import ControlError, PlanError
from platform_core.specs.base import Spec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec

WITH_COLUMNS = ("ingestion", "processing")
"""Kinds whose rows say what is known of columns."""

ANYWHERE = Path("/${location.root}")
"""Stands for the folder of a location that is read from the tables, where no path of it is used."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the control tables hold.

    Args:
        rows: of the locations that are planned.
        others: manifests of the other locations.
        gone: what was deleted last of each kind and address, and has no row any more.
        overrides: of the locations that are planned.
        other_rows: of the other locations, where overrides must be checked against them.
        today: UTC.
    """

    state: AppliedState
    rows: Mapping[RowKey, Row]
    locations: tuple[str, ...]
    others: Mapping[str, Manifest]
    gone: Mapping[tuple[str, str], Version]
    overrides: Sequence[Override]
    other_rows: Mapping[RowKey, Row]
    today: dt.date


def look_at(
    connection: sa.Connection,
    store: ControlStore,
    *,
    planned: Collection[str],
    known: Sequence[str],
    read: Collection[str],
) -> Seen:
    others = [name for name in known if name not in planned and name not in read]
    overrides = read_overrides(connection, locations=planned)
    unplanned = [name for name in known if name not in planned] if overrides else []
    return Seen(
        state=read_state(connection),
        rows=read_rows(connection, locations=planned),
        locations=tuple(name for name in known if name in planned),
        others=read_manifests(connection, others),
        gone=last_deleted(connection, kinds=WITH_COLUMNS),
        overrides=overrides,
        other_rows=read_rows(connection, locations=unplanned) if unplanned else {},
        today=store.database.clock(connection).date(),
    )


def read_manifests(connection: sa.Connection, locations: Sequence[str]) -> dict[str, Manifest]:
    """What is applied of locations, as far as it can be read, for whoever follows references only."""
    found = {}
    for name in locations:
        # Another team's row that somebody has spoiled must not keep this one from its plan.
        with suppress(ControlError):
            found[name] = read_manifest(connection, name, root=ANYWHERE, state=STATE, passing_over=True)
    return found


def check_environment(state: AppliedState, environment: EnvironmentSpec) -> None:
    """Make sure that the tables are this environment's.

    Raises:
        PlanError: they are another one's.
    """
    if state.environment not in (None, environment.name):
        raise PlanError(
            f"the control tables hold environment '{state.environment}', this is '{environment.name}'\n"
            "  one database serves one environment: look at control.url of the environment's file"
        )


def graph_of(read: Mapping[str, Tables], others: Mapping[str, Manifest]) -> Graph:
    """Everything that is known: the control files of each location that is here, the tables of the others."""
    graph = Graph()
    for name, tables in read.items():
        graph.add_location(manifest_of(tables.reading))
        graph.add_dbt(tables, location=name)
    for manifest in others.values():
        graph.add_location(manifest)
    return graph


class Places(Protocol):
    """Says where a row, or a value in it, is written."""

    @property
    def commits(self) -> Mapping[str, str | None]:
        """Commit of git by location."""

    def place(self, key: RowKey, path: Sequence[str] = ()) -> str | None:
        """File and line; None where that is not known."""


class Maker:
    """Turns differences into a plan."""

    def __init__(
        self,
        wanted: Mapping[RowKey, Row],
        tables: Seen,
        graph: Graph,
        *,
        places: Places | None = None,
        deleted: Mapping[RowKey, Sequence[Override]] | None = None,
    ) -> None:
        self.wanted = wanted
        self.tables = tables
        self.graph = graph
        self.places = places
        self.deleted = deleted or {}
        self.found = differences(tables.rows, wanted)
        self._moved = {
            (each.key.kind, each.key.address): each.before
            for each in self.found
            if each.action is Action.DELETE and each.before is not None
        }
        self._made = {(each.key.kind, each.key.address) for each in self.found if each.action is Action.CREATE}
        self._sources = self._masked_sources() if self._made else {}

    def plan(
        self,
        environment: EnvironmentSpec,
        *,
        author: str,
        locations: Sequence[str],
        gone: Sequence[str],
        git_commit: str | None,
        notes: Sequence[str],
        over: Overlaid,
        restores: int | None = None,
        origin: Origin = Origin.GIT,
    ) -> Plan:
        """The plan.

        Args:
            locations: whose rows it covers.
            gone: locations that leave with all they have.
            over: the overrides that it leaves alone, and those that it ends.
            restores: the serial that it goes back to.
        """
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
            origin=origin,
            overrides=over.standing,
            ends=over.ended,
            changes=changes,
            marks=(*_gone_marks(gone), *_deletion_marks(changes, limit=environment.control.max_deletes), *over.marks),
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
            place=self.places.place(key) if self.places else None,
            before=each.before,
            after=each.after,
            fields=tuple(self._fields(each)),
            marks=tuple(self._marks(each)),
            reach=self.graph.reach(self._specs(each)),
            git_commit=self.places.commits.get(key.location) if self.places else None,
        )

    def _fields(self, each: Difference) -> Iterator[FieldChange]:
        if each.before is None or each.after is None:
            return
        for path, before, after in field_differences(each.before, each.after):
            yield FieldChange(
                path=".".join(written_path(each.key.kind, path)),
                before=before,
                after=after,
                place=self.places.place(each.key, path) if self.places else None,
            )

    def _specs(self, each: Difference) -> list[Spec]:
        content = each.before if each.after is None else each.after
        if content is None or each.key.kind not in _IN_GRAPH:
            return []
        found = codec(KINDS[each.key.kind])
        try:
            return [found.decode(found.row(content), root=ANYWHERE, state=STATE)]
        except ControlError:
            if each.after is not None:
                raise
            # A row that a person wrote, and that is no spec: nothing was made of it, and it can be deleted.
            return []

    def _marks(self, each: Difference) -> Iterator[Mark]:
        if each.after is None:
            if overrides := self.deleted.get(each.key):
                yield deletion_mark(overrides)
            yield from self._reader_marks(each)
        elif each.key.kind in WITH_COLUMNS:
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
        return (each.key.kind, each.key.address) in self._made


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
