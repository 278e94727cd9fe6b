"""Follows what is made from what, across locations, to say what lies downstream of a change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from platform_core.control.ddl_declared import declared_by_migrations
from platform_core.control.plan.plan import Reach
from platform_core.control.references import Tables
from platform_core.specs.base import Spec
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef

Owners = tuple[str, ...]


class NodeKind(StrEnum):
    """What stands in the graph."""

    ASSET = "asset"
    DBT_MODEL = "dbt model"
    DASHBOARD = "dashboard"


@dataclass(frozen=True)
class _Node:
    kind: NodeKind
    location: str
    owners: Owners


@dataclass
class Graph:
    """Who reads what, over all locations that are known."""

    _nodes: dict[TableRef, _Node] = field(default_factory=dict)
    _readers: dict[TableRef, list[TableRef]] = field(default_factory=dict)
    _users: dict[tuple[str, str], list[TableRef]] = field(default_factory=dict)
    _models: dict[tuple[str, str], list[TableRef]] = field(default_factory=dict)

    def add_location(self, manifest: Manifest) -> None:
        """Add what a location declares, views of its migrations included; dbt models come with :meth:`add_dbt`."""
        owners = {spec.name: spec.owners for spec in manifest.location.workstreams}
        name = manifest.location.name
        for table in manifest.ingestions:
            node = _Node(NodeKind.ASSET, name, table.owners or owners.get(table.workstream, ()))
            self._add(table.ref, node, ())
            self._users.setdefault((table.workstream, table.source), []).append(table.ref)
            if table.snapshot_history:
                self._add(table.history_ref, node, (table.ref,))
        for step in manifest.steps:
            node = _Node(NodeKind.ASSET, name, step.owners or owners.get(step.workstream, ()))
            self._add(step.ref, node, step.inputs)
            if step.source:
                self._users.setdefault((step.workstream, step.source), []).append(step.ref)
        for dashboard in manifest.refreshes:
            node = _Node(NodeKind.DASHBOARD, name, dashboard.owners or owners.get(dashboard.workstream, ()))
            self._add(dashboard.ref, node, dashboard.inputs)
            if dashboard.connection:
                self._users.setdefault((dashboard.workstream, dashboard.connection), []).append(dashboard.ref)
        for view, inputs in declared_by_migrations(manifest.root, owners).views.items():
            # A view is nothing that runs: it is only passed through.
            for each in inputs:
                self._readers.setdefault(each, []).append(view)

    def add_dbt(self, tables: Tables, *, location: str) -> None:
        """Add the models of a location's dbt projects, as far as dbt has written them down."""
        owners = {entry.spec.name: entry.spec.owners for entry in tables.reading.workstreams}
        for project in tables.dbt:
            spec = project.entry.spec
            node = _Node(NodeKind.DBT_MODEL, location, spec.owners or owners.get(spec.workstream, ()))
            for model, inputs in project.inputs.items():
                self._add(model, node, inputs)
                self._models.setdefault((spec.workstream, spec.name), []).append(model)

    def readers(self, ref: TableRef) -> Sequence[TableRef]:
        """What reads a table itself."""
        return self._readers.get(ref, ())

    def location(self, ref: TableRef) -> str | None:
        """Where something is declared; None where that is not known."""
        node = self._nodes.get(ref)
        return node.location if node else None

    def reach(self, specs: Iterable[Spec]) -> Reach:
        """What lies downstream of these specs, themselves left out."""
        starts: set[TableRef] = set()
        touched: set[TableRef] = set()
        for spec in specs:
            own, affected = self._start(spec)
            starts.update(own)
            touched.update(affected)
        return self._told(self._downstream(starts | touched) - starts)

    def _add(self, ref: TableRef, node: _Node, inputs: Iterable[TableRef]) -> None:
        self._nodes.setdefault(ref, node)
        for each in inputs:
            self._readers.setdefault(each, []).append(ref)

    def _start(self, spec: Spec) -> tuple[Sequence[TableRef], Sequence[TableRef]]:
        """What a spec makes, and what it affects beside that."""
        if isinstance(spec, (IngestionSpec, ProcessingSpec, RefreshSpec)):
            return (spec.ref,), ()
        if isinstance(spec, ConnectionSpec):
            return (), self._users.get((spec.workstream, spec.name), ())
        if isinstance(spec, DbtSpec):
            return (), self._models.get((spec.workstream, spec.name), ())
        return (), ()

    def _downstream(self, starts: set[TableRef]) -> set[TableRef]:
        seen = set(starts)
        waiting = deque(starts)
        while waiting:
            for reader in self._readers.get(waiting.popleft(), ()):
                if reader not in seen:
                    seen.add(reader)
                    waiting.append(reader)
        return seen

    def _told(self, refs: set[TableRef]) -> Reach:
        known = [(ref, self._nodes[ref]) for ref in sorted(refs) if ref in self._nodes]
        if not known:
            return Reach()

        def of(kind: NodeKind) -> tuple[str, ...]:
            return tuple(str(ref) for ref, node in known if node.kind is kind)

        return Reach(
            assets=of(NodeKind.ASSET),
            dbt_models=of(NodeKind.DBT_MODEL),
            dashboards=of(NodeKind.DASHBOARD),
            owners=tuple(sorted({owner for _, node in known for owner in node.owners})),
            locations=tuple(sorted({node.location for _, node in known})),
        )
