"""The job and the schedule of each workstream, and the sensors of a location."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from platform_core.factories import translation
from platform_core.factories.standing import ACTIVE
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import CatchUp, Overlap, WorkstreamSpec
from platform_core.specs.manifest import Manifest

MISSED = dt.timedelta(minutes=10)
"""A schedule that is evaluated so long after its time has missed it: nothing was up to start it."""

TICK_SECONDS = 30
"""Time between two evaluations of the conditions."""

MOST_CONDITIONS = 450
"""Dagster refuses a sensor of more than 500 conditions that are evaluated where the code is."""


def build_job(
    workstream: WorkstreamSpec, keys: list[dg.AssetKey], *, metadata: Mapping[str, str]
) -> UnresolvedAssetJobDefinition:
    """The job that runs a workstream's whole graph: ingestion, processing, dbt and refresh.

    Args:
        workstream: its spec.
        keys: every executable asset of the workstream.
        metadata: tags that tell which metadata a run is of.
    """
    return dg.define_asset_job(
        translation.job_name(workstream.name),
        selection=dg.AssetSelection.assets(*keys),
        description=workstream.description or None,
        tags={
            translation.WORKSTREAM_TAG: workstream.name,
            **translation.priority_tags(workstream.priority),
            **metadata,
        },
    )


def build_schedule(workstream: WorkstreamSpec, *, running: bool) -> list[dg.ScheduleDefinition]:
    """The schedule of a workstream's job; none where none is declared."""
    schedule = workstream.schedule
    if schedule is None:
        return []

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        # Of several times that passed during downtime, Dagster asks for the last one only.
        if schedule.catch_up is CatchUp.NONE and _late(context.scheduled_execution_time):
            return dg.SkipReason(f"missed at {context.scheduled_execution_time:%Y-%m-%d %H:%M %Z}; catch_up is 'none'")
        if reason := _overlap(context.instance, workstream.name, schedule.overlap):
            return dg.SkipReason(reason)
        return dg.RunRequest()

    return [
        dg.ScheduleDefinition(
            name=translation.schedule_name(workstream.name),
            job_name=translation.job_name(workstream.name),
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone,
            execution_fn=evaluate,
            default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        )
    ]


def _late(due: dt.datetime) -> bool:
    return dt.datetime.now(dt.UTC) - due > MISSED


def _overlap(instance: dg.DagsterInstance, workstream: str, policy: Overlap) -> str | None:
    """Why a run of a workstream is not to be started now; None where it is."""
    runs = instance.get_runs(dg.RunsFilter(job_name=translation.job_name(workstream), statuses=list(ACTIVE)))
    # The queue holds a run back until the one before it has ended; a second one behind it would do nothing new.
    waiting = [run for run in runs if policy is Overlap.SKIP or run.status is dg.DagsterRunStatus.QUEUED]
    if not waiting:
        return None
    state = "waits already" if waiting[0].status is dg.DagsterRunStatus.QUEUED else "is active"
    return f"run {waiting[0].run_id[:8]} {state}; overlap is '{policy}'"


def build_automation_sensors(
    manifest: Manifest,
    environment: EnvironmentSpec,
    keys: Mapping[dg.AssetKey, int],
    *,
    metadata: Mapping[str, str],
) -> list[dg.AutomationConditionSensorDefinition]:
    """The sensors that request what must run across runs and locations.

    Args:
        manifest: of the location.
        environment: where it runs.
        keys: assets that have a condition, each with its priority, which is that of the runs that are requested for
            it; a sensor requests runs of one priority, and takes :data:`MOST_CONDITIONS` assets.
        metadata: as of :func:`build_job`.
    """
    parts = list(_parts(keys))
    running = dg.DefaultSensorStatus.RUNNING if environment.schedules else dg.DefaultSensorStatus.STOPPED
    return [
        dg.AutomationConditionSensorDefinition(
            translation.sensor_name(manifest.location.name, part=part.number, priority=part.priority),
            # Of external assets some are looked at by a condition of their own.
            target=dg.AssetSelection.assets(*part.keys)
            if len(parts) > 1
            else dg.AssetSelection.all(include_sources=True),
            # Conditions of our own cannot be serialised for the daemon.
            use_user_code_server=True,
            run_tags={**translation.priority_tags(part.priority), **metadata},
            default_status=running,
            minimum_interval_seconds=TICK_SECONDS,
        )
        for part in parts or [_Part(priority=0, number=1, keys=())]
    ]


class _Part(NamedTuple):
    """What one sensor takes care of."""

    priority: int
    number: int
    keys: Sequence[dg.AssetKey]


def _parts(keys: Mapping[dg.AssetKey, int]) -> Iterator[_Part]:
    for priority in sorted(set(keys.values()), reverse=True):
        alike = [key for key, own in keys.items() if own == priority]
        for number, at in enumerate(range(0, len(alike), MOST_CONDITIONS), start=1):
            yield _Part(priority, number, alike[at : at + MOST_CONDITIONS])
