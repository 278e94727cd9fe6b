"""Whether the tables that a dashboard shows are fit to be shown, asked inside the asset.

A manual run bypasses automation conditions, and the checks of another location are invisible to them; the
event log sees both.
"""

from collections.abc import Sequence

import dagster as dg
from dagster import DagsterInstance

from platform_core.factories import translation
from platform_core.specs.table import TableRef


def unfit_tables(instance: DagsterInstance, refs: Sequence[TableRef]) -> dict[TableRef, str]:
    """The tables that must not be shown now, each with the reason.

    A table is fit if its last attempt built it and the step that did so succeeded, blocking checks included.

    Args:
        instance: where events are kept.
        refs: shown tables, and whatever they are made from.
    """
    keys = [translation.asset_key(ref) for ref in refs]
    entries = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(keys)}
    reasons: dict[TableRef, str] = {}
    for ref, key in zip(refs, keys, strict=True):
        entry = entries.get(key)
        record = entry.last_materialization_record if entry else None
        if record is None:
            reasons[ref] = "was never built"
            continue
        planned = instance.event_log_storage.get_latest_planned_materialization_info(key)
        if planned is not None and planned.storage_id > record.storage_id and planned.run_id != record.run_id:
            reasons[ref] = f"was not rebuilt by run {planned.run_id[:8]}, which set out to"
        elif _step_failed(instance, record):
            reasons[ref] = f"failed a blocking check in run {record.run_id[:8]}"
    return reasons


def _step_failed(instance: DagsterInstance, record: dg.EventLogRecord) -> bool:
    step = record.event_log_entry.step_key
    if step is None:  # reported from outside a run
        return False
    stats = instance.get_run_step_stats(record.run_id, step_keys=[step])
    return any(stat.status is not None and stat.status.value == "FAILURE" for stat in stats)
