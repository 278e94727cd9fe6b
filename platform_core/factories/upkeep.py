"""Turns one upkeep policy into the asset that carries it out."""

import datetime as dt
from typing import Any

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.run_policy import running
from platform_core.operations.platform import Platform
from platform_core.operations.upkeep import UpkeepResult, keep_up
from platform_core.specs.manifest import Manifest
from platform_core.specs.upkeep import UpkeepSpec

_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def build_upkeep_asset(spec: UpkeepSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The asset of one policy."""

    def policy(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        oldest = _oldest_start(context.instance)
        return upkeep_metadata(keep_up(spec, platform=platform, oldest_reader=oldest, run_id=context.run_id))

    return build_asset(
        dg.AssetSpec(
            translation.asset_key(spec.ref),
            group_name=translation.group_name(spec.workstream, "upkeep"),
            description=spec.description or f"{str(spec.operation).capitalize()} of {', '.join(spec.tables)}.",
            owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
            kinds={"upkeep", "delta"},
            tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
            metadata=translation.code_reference(spec.place),
        ),
        name=translation.op_name(spec.ref),
        body=policy,
        how=running(spec, workstream=manifest.workstream(spec.workstream)),
    )


def upkeep_metadata(result: UpkeepResult) -> dg.MaterializeResult[None]:
    """What an operation freed, as metadata of the materialisation."""
    rows = [
        dg.TableRecord(
            {
                "table": str(kept.table),
                "files freed": kept.freed.files,
                "bytes freed": kept.freed.bytes,
                "files merged away": kept.compacted.files_before - kept.compacted.files_after if kept.compacted else 0,
                "busy": kept.busy,
            }
        )
        for kept in result.tables
    ]
    metadata: dict[str, Any] = {
        "edp/tables_looked_at": result.looked_at,
        "edp/files_freed": result.freed.files,
        "edp/bytes_freed": result.freed.bytes,
        "edp/files_merged_away": result.merged,
        "edp/tables_busy": len(result.busy),
        "edp/seconds": result.seconds,
    }
    if result.retention is not None:
        metadata["edp/retention_hours"] = result.retention / dt.timedelta(hours=1)
    if rows:
        metadata["tables"] = dg.MetadataValue.table(rows)
    return dg.MaterializeResult(metadata=metadata)


def _oldest_start(instance: dg.DagsterInstance) -> dt.datetime | None:
    """When the oldest run that still goes on began: what it may read must stay."""
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY), limit=1, ascending=True)
    starts = [dt.datetime.fromtimestamp(record.start_time, dt.UTC) for record in records if record.start_time]
    return min(starts, default=None)
