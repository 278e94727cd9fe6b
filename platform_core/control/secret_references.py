"""Finds which secrets an environment and its control files refer to, and what depends on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from platform_core.control.load import manifest_of
from platform_core.control.plan.reach import Graph
from platform_core.control.references import Tables
from platform_core.control.secret_names import secret_names
from platform_core.specs.base import Spec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

PLATFORM = "platform"
"""First part of names of secrets that belong to no workstream."""


@dataclass(frozen=True, kw_only=True)
class Dependents:
    """What cannot work without a secret; all empty where nothing refers to it.

    Args:
        environment: parts of the environment, such as ``lake`` and ``control database``.
        connections: ``<workstream>.<name>``.
        tables: of the lake that are read by those connections or made from what is, dbt models included.
        dashboards: that use the secret, or show such a table.
    """

    environment: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    dashboards: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.environment or self.connections or self.tables or self.dashboards)


@dataclass
class _Found:
    """What refers to one secret, as it is being gathered."""

    environment: set[str] = field(default_factory=set)
    specs: dict[tuple[str, ...], Spec] = field(default_factory=dict)


def secret_dependents(
    locations: Sequence[Tables], *, environment: EnvironmentSpec, masking_key: str
) -> dict[str, Dependents]:
    """What depends on each secret that is referred to, by the secret's name.

    Args:
        locations: what was read of every location, those without a fault.
        environment: of which the lake and the databases are.
        masking_key: second part of the names of masking keys, which tables with keyed masks need unsaid.
    """
    manifests = [manifest_of(tables.reading) for tables in locations]
    graph = Graph()
    for tables, manifest in zip(locations, manifests, strict=True):
        graph.add_location(manifest)
        graph.add_dbt(tables, location=manifest.location.name)
    found: dict[str, _Found] = {}
    for part, value in _parts(environment):
        for name in secret_names(value):
            found.setdefault(name, _Found()).environment.add(part)
    for manifest in manifests:
        for name, spec in _references(manifest, masking_key):
            found.setdefault(name, _Found()).specs[_identity(spec)] = spec
    return {name: _dependents(each, graph) for name, each in sorted(found.items())}


def _parts(environment: EnvironmentSpec) -> Iterator[tuple[str, object]]:
    yield "lake", environment.lake
    yield "control database", environment.control
    yield "engine", environment.engine.options
    for name, channel in environment.alerts.channels.items() if environment.alerts else ():
        yield f"alert channel {name}", channel.options
    for name, database in environment.databases.items():
        yield f"database {name}", database
    yield "dbt", environment.dbt


def _references(manifest: Manifest, masking_key: str) -> Iterator[tuple[str, Spec]]:
    specs: list[tuple[Spec, Any]] = [(spec, spec.options) for spec in manifest.connections]
    specs += [(spec, spec.options) for spec in manifest.ingestions]
    specs += [(spec, spec.options) for spec in manifest.refreshes]
    for spec, options in specs:
        for name in secret_names(options):
            yield name, spec
    for table in manifest.ingestions:
        if any(_is_keyed(rule.mask) for rule in table.masks.values()):
            yield f"{table.workstream}/{masking_key}", table


def _is_keyed(mask: str) -> bool:
    from platform_core.plugins.registry import plugin

    return bool(plugin("mask", mask).needs_key)


def _identity(spec: Spec) -> tuple[str, ...]:
    ref = getattr(spec, "ref", None)
    named = (str(ref),) if ref is not None else (str(vars(spec)["workstream"]), str(vars(spec)["name"]))
    return (type(spec).__name__, *named)


def _dependents(found: _Found, graph: Graph) -> Dependents:
    named: dict[str, set[str]] = {"ConnectionSpec": set(), "IngestionSpec": set(), "RefreshSpec": set()}
    for kind, *names in found.specs:
        named[kind].add(".".join(names))
    reach = graph.reach(found.specs.values())
    return Dependents(
        environment=tuple(sorted(found.environment)),
        connections=tuple(sorted(named["ConnectionSpec"])),
        tables=tuple(sorted(named["IngestionSpec"].union(reach.assets, reach.dbt_models))),
        dashboards=tuple(sorted(named["RefreshSpec"].union(reach.dashboards))),
    )
