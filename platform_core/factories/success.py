"""Remembers, with each materialisation, when a step started and how far it had read."""

import datetime as dt
from typing import Any

import dagster as dg

from platform_core.operations.process import LastSuccess, StepResult

_STARTED = "edp/started_at"
_READ = "edp/read_batches"


def success_metadata(result: StepResult) -> dict[str, Any]:
    """What :func:`last_success` reads back."""
    if result.success is None:
        return {}
    return {
        _STARTED: dg.MetadataValue.timestamp(result.success.started_at),
        _READ: dg.MetadataValue.json(dict(result.success.read_batches)),
    }


def last_success(instance: dg.DagsterInstance, key: dg.AssetKey) -> LastSuccess | None:
    """Start of the last successful run of a step, and the batches that it had read up to; None if there is none.

    A backfill of a range repeats what was told before it.
    """
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    metadata = event.asset_materialization.metadata
    started, read = metadata.get(_STARTED), metadata.get(_READ)
    if not isinstance(started, dg.TimestampMetadataValue) or not isinstance(read, dg.JsonMetadataValue):
        return None
    batches = read.value if isinstance(read.value, dict) else {}
    return LastSuccess(
        started_at=dt.datetime.fromtimestamp(started.value, tz=dt.UTC),
        read_batches={str(table): int(batch) for table, batch in batches.items()},
    )
