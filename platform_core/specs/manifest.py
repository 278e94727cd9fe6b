"""All specs of one code location for one environment, cross-checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec


class Manifest(Model):
    """Everything one location declares; the input of every factory."""

    root: Path = Field(description="Folder of the location's package; relative paths in specs count from here.")
    location: LocationSpec
    connections: tuple[ConnectionSpec, ...] = ()
    ingestions: tuple[IngestionSpec, ...] = ()
    steps: tuple[ProcessingSpec, ...] = ()
    dbt: tuple[DbtSpec, ...] = ()
    refreshes: tuple[RefreshSpec, ...] = ()

    def connection(self, workstream: str, name: str) -> ConnectionSpec:
        """The named connection of a workstream; KeyError where there is none."""
        for connection in self.connections:
            if (connection.workstream, connection.name) == (workstream, name):
                return connection
        raise KeyError(f"{workstream}.{name}")

    def workstream(self, name: str) -> WorkstreamSpec:
        """The named workstream; KeyError where there is none."""
        for workstream in self.location.workstreams:
            if workstream.name == name:
                return workstream
        raise KeyError(name)
