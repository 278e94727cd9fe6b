"""Turns one ingestion spec into a bronze asset and the external asset of its source."""

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.operations.ingest import LoadResult, ingest
from platform_core.operations.platform import Platform
from platform_core.plugins.registry import plugin
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, IngestionSpec
from platform_core.specs.manifest import Manifest


def build_ingestion_assets(manifest: Manifest) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All bronze assets of a location, and the sources they are read from."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    sources: dict[dg.AssetKey, dg.AssetSpec] = {}
    for spec in manifest.ingestions:
        connection = manifest.connection(spec.workstream, spec.source)
        sources.setdefault(translation.source_key(spec), _source(spec, connection, manifest))
        assets.append(build_ingestion_asset(spec, connection=connection, manifest=manifest))
    return [*sources.values(), *assets]


def build_ingestion_asset(
    spec: IngestionSpec, *, connection: ConnectionSpec, manifest: Manifest
) -> dg.AssetsDefinition:
    """The asset of one bronze table; its body is one call."""

    def load(_: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        return load_metadata(ingest(spec, connection=connection, platform=platform), spec)

    return build_asset(
        dg.AssetSpec(
            translation.asset_key(spec.ref),
            deps=[translation.source_key(spec)],
            group_name=translation.group_name(spec.workstream, "bronze"),
            description=spec.description or f"{spec.source} · {spec.object}, ingested {spec.mode}.",
            owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
            kinds={connection.type, "deltalake"},
            tags=translation.tags(spec.workstream, spec.tags),
            metadata=translation.declared_columns(spec.columns) | translation.code_reference(spec.place),
        ),
        name=translation.op_name(spec.ref),
        body=load,
        op_tags=translation.op_tags(isolated=spec.isolated, connection=connection),
    )


def load_metadata(result: LoadResult, spec: IngestionSpec) -> dg.MaterializeResult[None]:
    """What a load did, as metadata of the materialisation."""
    return dg.MaterializeResult(
        metadata={
            "edp/mode": str(result.mode),
            "edp/read": result.rows_read,
            "edp/inserted": result.inserted,
            "edp/updated": result.updated,
            "edp/deleted": result.deleted,
            "edp/unchanged": result.unchanged,
            "edp/late": result.late,
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
            "dagster/column_schema": translation.built_columns(result.schema, spec.columns),
            "dagster/column_lineage": translation.column_lineage(
                {
                    name: [(translation.source_key(spec), name)]
                    for name in result.schema.names
                    if name not in TECHNICAL_COLUMNS
                }
            ),
        }
    )


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
