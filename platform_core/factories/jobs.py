"""The job and the schedule of each workstream, and the sensor of a location."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from platform_core.factories import translation
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.manifest import Manifest


def build_job(workstream: WorkstreamSpec, keys: list[dg.AssetKey]) -> UnresolvedAssetJobDefinition:
    """The job that runs a workstream's whole graph: ingestion, processing, dbt and refresh.

    Args:
        workstream: its spec.
        keys: every executable asset of the workstream.
    """
    return dg.define_asset_job(
        translation.job_name(workstream.name),
        selection=dg.AssetSelection.assets(*keys),
        description=workstream.description or None,
        tags={translation.WORKSTREAM_TAG: workstream.name},
    )


def build_schedule(workstream: WorkstreamSpec, *, running: bool) -> list[dg.ScheduleDefinition]:
    """The schedule of a workstream's job; none where none is declared."""
    if workstream.schedule is None:
        return []
    return [
        dg.ScheduleDefinition(
            name=translation.schedule_name(workstream.name),
            job_name=translation.job_name(workstream.name),
            cron_schedule=workstream.schedule.cron,
            execution_timezone=workstream.schedule.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        )
    ]


def build_automation_sensor(manifest: Manifest, environment: EnvironmentSpec) -> dg.AutomationConditionSensorDefinition:
    """The sensor that requests what must run across runs and locations."""
    return dg.AutomationConditionSensorDefinition(
        translation.sensor_name(manifest.location.name),
        target=dg.AssetSelection.all(),
        # Conditions of our own cannot be serialised for the daemon.
        use_user_code_server=True,
        default_status=dg.DefaultSensorStatus.RUNNING if environment.schedules else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=30,
    )
