"""Turns one ingestion spec into a bronze asset and the external asset of its source."""

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.automation import PROCESSING
from platform_core.factories.inputs import built_inputs
from platform_core.factories.quality import build_checks, checked_against
from platform_core.factories.run_policy import running
from platform_core.operations.ingest import ingest
from platform_core.operations.load_result import LoadResult
from platform_core.operations.platform import Platform
from platform_core.operations.versions import versions
from platform_core.plugins.registry import plugin
from platform_core.specs.column_names import normalised
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec
from platform_core.specs.manifest import Manifest


def build_ingestion_assets(manifest: Manifest) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All bronze assets of a location, and the sources they are read from."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    sources: dict[dg.AssetKey, dg.AssetSpec] = {}
    for spec in manifest.ingestions:
        connection = manifest.connection(spec.workstream, spec.source)
        sources.setdefault(translation.source_key(spec), _source(spec, connection, manifest))
        assets.append(build_ingestion_asset(spec, connection=connection, manifest=manifest))
        if spec.snapshot_history:
            assets.append(build_history_asset(spec, manifest=manifest))
    return [*sources.values(), *assets]


def build_ingestion_asset(
    spec: IngestionSpec, *, connection: ConnectionSpec, manifest: Manifest
) -> dg.AssetsDefinition:
    """The asset of one bronze table; its body is one call."""

    def load(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        return load_metadata(ingest(spec, connection=connection, platform=platform, run_id=context.run.run_id), spec)

    return build_asset(
        dg.AssetSpec(
            translation.asset_key(spec.ref),
            deps=[
                translation.source_key(spec),
                *(translation.asset_key(ref) for ref in built_inputs(checked_against(spec), manifest=manifest)),
            ],
            group_name=translation.group_name(spec.workstream, "bronze"),
            description=spec.description or f"{spec.source} · {spec.object}, ingested {spec.mode}.",
            owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
            kinds={connection.type, "deltalake"},
            tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
            metadata=translation.declared_columns(_declared(spec)) | translation.code_reference(spec.place),
        ),
        name=translation.op_name(spec.ref),
        body=load,
        how=running(
            spec,
            workstream=manifest.workstream(spec.workstream),
            isolated=spec.isolated,
            connection=connection,
        ),
        checks=build_checks(spec),
    )


def build_history_asset(spec: IngestionSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The asset of the table of all versions; the load of its bronze table has written it by then."""

    def look(_: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        found = versions(spec, platform=platform)
        return dg.MaterializeResult(
            metadata={
                "edp/batch": found.batch,
                "edp/version": found.version,
                "dagster/table_name": str(spec.history_ref),
                "dagster/column_schema": translation.built_columns(found.schema, _declared(spec)),
            }
        )

    return build_asset(
        dg.AssetSpec(
            translation.asset_key(spec.history_ref),
            deps=[translation.asset_key(spec.ref)],
            group_name=translation.group_name(spec.workstream, "bronze"),
            description=f"Every version of every row of {spec.ref}.",
            owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
            kinds={"deltalake"},
            tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
            metadata=translation.code_reference(spec.place),
            automation_condition=None if spec.paused else PROCESSING,
        ),
        name=translation.op_name(spec.history_ref),
        body=look,
    )


def load_metadata(result: LoadResult, spec: IngestionSpec) -> dg.MaterializeResult[None]:
    """What a load did, as metadata of the materialisation."""
    return dg.MaterializeResult(
        metadata={
            "edp/mode": str(result.mode),
            **_metadata_of_parts(result),
            "edp/read": result.rows_read,
            "edp/inserted": result.inserted,
            "edp/updated": result.updated,
            "edp/deleted": result.deleted,
            "edp/unchanged": result.unchanged,
            "edp/late": result.late,
            "edp/quarantined": result.quarantined,
            "edp/batch": result.batch_id,
            "edp/version": result.version,
            "edp/committed": result.committed,
            "edp/landed_bytes": result.bytes_landed,
            "edp/written_bytes": result.bytes_written,
            **{
                f"edp/watermark_{end}": str(mark)
                for end, mark in (("from", result.watermark_from), ("to", result.watermark_to))
                if mark is not None
            },
            **{f"edp/seconds_{phase}": seconds for phase, seconds in result.seconds.items()},
            "edp/seconds": sum(result.seconds.values()),
            "dagster/table_name": str(spec.ref),
            "dagster/column_schema": translation.built_columns(result.schema, _declared(spec)),
            "dagster/column_lineage": translation.column_lineage(
                {name: [(translation.source_key(spec), source)] for name, source in result.columns.items()}
            ),
        }
    )


def _metadata_of_parts(result: LoadResult) -> dict[str, int | str]:
    """What belongs to the load, and was done before or after it, or said by the source."""
    metadata: dict[str, int | str] = {}
    if result.approved is not None:
        metadata["edp/approved_batch"] = result.approved.landed_batch or result.approved.batch_id
        metadata["edp/deleted_by_approval"] = result.approved.deleted
    if result.keys is not None:
        metadata["edp/deleted_by_keys"] = result.keys.deleted
    if result.notes:
        metadata["edp/notes"] = "\n".join(result.notes)
    return metadata


def _declared(spec: IngestionSpec) -> dict[str, ColumnSpec]:
    """What is said about columns, by their names in the lake."""
    return {normalised(name): column for name, column in spec.columns.items()}


def _source(spec: IngestionSpec, connection: ConnectionSpec, manifest: Manifest) -> dg.AssetSpec:
    kind = plugin("source", connection.type).kind or connection.type
    return dg.AssetSpec(
        key=translation.source_key(spec),
        group_name=translation.group_name(spec.workstream, "source"),
        description=connection.description or f"{spec.object}, read from {connection.name} ({connection.type}).",
        owners=translation.owners((), manifest.workstream(spec.workstream)),
        kinds={kind},
        tags=translation.tags(spec.workstream, {}),
        metadata=translation.code_reference(connection.place),
    )
