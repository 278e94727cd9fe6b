"""The kinds of specs that are applied, and what names one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_core.specs.alerts import AlertRule
from platform_core.specs.base import Spec
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.upkeep import UpkeepSpec
from platform_core.specs.variable import VariableSpec


@dataclass(frozen=True, kw_only=True)
class SpecKind:
    """One kind of spec, and its control table.

    Args:
        name: of the table.
        model: the spec of one row.
        identity: fields that name a spec within a location; the last one is the column ``name``.
        member: field of the manifest that holds its specs; None: they are parts of the location's own spec.
        parts: fields that are rows of other kinds.
    """

    name: str
    model: type[Spec]
    identity: tuple[str, ...]
    member: str | None
    parts: frozenset[str] = frozenset()

    def specs(self, manifest: Manifest) -> tuple[Spec, ...]:
        """The specs of this kind that a manifest holds."""
        if self.name == "location":
            return (manifest.location,)
        if self.name == "workstream":
            return manifest.location.workstreams
        found: tuple[Spec, ...] = getattr(manifest, str(self.member))
        return found

    def column(self, field: str, *, key: str) -> str:
        """Name of the column of a field.

        Args:
            key: under which the model takes the field.
        """
        return "name" if field == self.identity[-1] else key

    def address(self, spec: Spec) -> str:
        """What names a spec within its location: ``crm.customers``, or ``crm.silver.visits`` for a step."""
        return ".".join(str(getattr(spec, field)) for field in self.identity)


KINDS = {
    kind.name: kind
    for kind in (
        SpecKind(
            name="location",
            model=LocationSpec,
            identity=("name",),
            member=None,
            parts=frozenset({"workstreams"}),
        ),
        SpecKind(name="workstream", model=WorkstreamSpec, identity=("name",), member=None),
        SpecKind(name="variable", model=VariableSpec, identity=("name",), member="variables"),
        SpecKind(name="connection", model=ConnectionSpec, identity=("workstream", "name"), member="connections"),
        SpecKind(name="ingestion", model=IngestionSpec, identity=("workstream", "table"), member="ingestions"),
        SpecKind(name="processing", model=ProcessingSpec, identity=("workstream", "layer", "name"), member="steps"),
        SpecKind(name="dbt", model=DbtSpec, identity=("workstream", "name"), member="dbt"),
        SpecKind(name="refresh", model=RefreshSpec, identity=("workstream", "name"), member="refreshes"),
        SpecKind(name="upkeep", model=UpkeepSpec, identity=("workstream", "name"), member="upkeep"),
        SpecKind(name="alert", model=AlertRule, identity=("workstream", "name"), member="alerts"),
    )
}
"""Every kind by name, in the order in which a plan lists them."""


def in_order(manifest: Manifest) -> Manifest:
    """The manifest with its specs in the order of their addresses, as the control tables give them.

    The order in which things are declared is not content: two manifests that differ in nothing else are the same.
    """
    sorted_: dict[str, Any] = {
        kind.member: tuple(sorted(kind.specs(manifest), key=kind.address))
        for kind in KINDS.values()
        if kind.member is not None
    }
    workstreams = tuple(sorted(manifest.location.workstreams, key=lambda spec: spec.name))
    location = manifest.location.model_copy(update={"workstreams": workstreams})
    return manifest.model_copy(update={"location": location, **sorted_})


def all_specs(manifest: Manifest) -> Iterator[tuple[SpecKind, Spec]]:
    """Every spec of a manifest with its kind."""
    for kind in KINDS.values():
        for spec in kind.specs(manifest):
            yield kind, spec


def assembled(specs: Mapping[str, Sequence[Spec]], *, root: Path) -> Manifest:
    """The manifest of one location's specs by kind, each of them validated."""
    [declared] = specs["location"]
    assert isinstance(declared, LocationSpec)  # noqa: S101 - the model of that kind
    members: dict[str, Any] = {
        kind.member: tuple(specs[name]) for name, kind in KINDS.items() if kind.member is not None
    }
    location = declared.model_copy(update={"workstreams": tuple(specs["workstream"])})
    # Each spec was validated when it was decoded.
    return Manifest.model_construct(root=root, location=location, **members)
