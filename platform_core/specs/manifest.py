"""All specs of one code location for one environment, cross-checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from platform_core.specs.alerts import AlertRule
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef
from platform_core.specs.upkeep import UpkeepSpec
from platform_core.specs.variable import VariableSpec


class Manifest(Model):
    """Everything one location declares; the input of every factory."""

    root: Path = Field(description="Folder of the location's package; relative paths in specs count from here.")
    location: LocationSpec
    variables: tuple[VariableSpec, ...] = ()
    connections: tuple[ConnectionSpec, ...] = ()
    ingestions: tuple[IngestionSpec, ...] = ()
    steps: tuple[ProcessingSpec, ...] = ()
    dbt: tuple[DbtSpec, ...] = ()
    refreshes: tuple[RefreshSpec, ...] = ()
    upkeep: tuple[UpkeepSpec, ...] = ()
    alerts: tuple[AlertRule, ...] = ()

    def connection(self, workstream: str, name: str) -> ConnectionSpec:
        """The named connection of a workstream; KeyError where there is none."""
        return self._connections[workstream, name]

    def workstream(self, name: str) -> WorkstreamSpec:
        """The named workstream; KeyError where there is none."""
        return self._workstreams[name]

    def table(self, ref: TableRef) -> IngestionSpec | ProcessingSpec:
        """What makes a table; KeyError where this location's tables and steps do not make it (dbt may)."""
        return self._tables[ref]

    @cached_property
    def _connections(self) -> dict[tuple[str, str], ConnectionSpec]:
        return {(spec.workstream, spec.name): spec for spec in self.connections}

    @cached_property
    def _workstreams(self) -> dict[str, WorkstreamSpec]:
        return {spec.name: spec for spec in self.location.workstreams}

    @cached_property
    def _tables(self) -> dict[TableRef, IngestionSpec | ProcessingSpec]:
        made: tuple[IngestionSpec | ProcessingSpec, ...] = (*self.ingestions, *self.steps)
        return {spec.ref: spec for spec in made}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with some fields replaced."""
        copied = super().model_copy(update=update, deep=deep)
        # The indexes belong to the specs they were made from.
        for name in ("_connections", "_workstreams", "_tables"):
            copied.__dict__.pop(name, None)
        return copied
