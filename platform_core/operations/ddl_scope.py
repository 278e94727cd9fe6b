"""Finds the migrations of a workspace, and what writes the tables that its locations declare."""

from __future__ import annotations

from collections.abc import Sequence

from platform_core.control.ddl_catalog import Maker
from platform_core.control.references import Tables
from platform_core.control.workspace import examine
from platform_core.errors import MigrationError
from platform_core.operations.ddl_plan import DdlLocation, DdlScope
from platform_core.settings import Settings
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef


def ddl_scope(settings: Settings, *, only: Sequence[str] = ()) -> DdlScope:
    """The migrations of a project.

    Args:
        only: names of the locations whose migrations are wanted; empty: all.

    Raises:
        ConfigError: control files are wrong: what they declare decides what a migration may change.
        MigrationError: there is no location of a name.
    """
    found = examine(settings)
    found.report.raise_if_any()
    locations = [
        DdlLocation(
            name=manifest.location.name,
            root=manifest.root,
            workstreams=tuple(workstream.name for workstream in manifest.location.workstreams),
        )
        for manifest in found.manifests
    ]
    names = [location.name for location in locations]
    if unknown := [name for name in only if name not in names]:
        raise MigrationError(f"unknown location '{unknown[0]}'\n  known locations: {', '.join(names)}")
    makers: dict[TableRef, Maker] = {}
    for tables in found.read:
        makers |= _makers(tables)
    return DdlScope(
        project=settings.project,
        locations=tuple(locations),
        chosen=frozenset(only) if only else None,
        makers=makers,
    )


def _makers(tables: Tables) -> dict[TableRef, Maker]:
    found = {}
    for ref, entry in tables.made.items():
        spec = entry.spec
        if isinstance(spec, IngestionSpec):
            found[ref] = Maker.INGESTION
        elif isinstance(spec, ProcessingSpec) and spec.write is not WriteMode.OVERWRITE:
            found[ref] = Maker.KEPT
        else:
            found[ref] = Maker.REPLACED
    return found
