"""The sensor that ends runs whose process is gone: Dagster's default launcher cannot tell, and would wait for hours."""

import datetime as dt
from collections.abc import Iterable

import dagster as dg

from platform_core.control.holders import is_running
from platform_core.control.loads import SilentLoad
from platform_core.factories.resource import opened_platform
from platform_core.specs.environment import EnvironmentSpec

LEASE_REAPER = "lease_reaper"
"""Name of the sensor."""

INTERVAL = dt.timedelta(seconds=30)
"""A run ends at most this long, and the time of a lease, after its process."""

_UNDER_WAY = frozenset({dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING})


def build_lease_reaper(environment: EnvironmentSpec) -> dg.SensorDefinition:
    """The sensor, for one location of an installation: it looks at the runs of all."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = end_abandoned_runs(context.instance, opened_platform().loads.silent())
        for run_id in ended:
            context.log.warning("run %s is marked failed: its process has ended", run_id)
        return dg.SkipReason(f"{len(ended)} runs marked failed: {', '.join(ended)}" if ended else "every load is alive")

    return dg.SensorDefinition(
        name=LEASE_REAPER,
        evaluation_fn=evaluate,
        minimum_interval_seconds=int(INTERVAL.total_seconds()),
        description="Marks runs failed that hold a lease and whose process is gone, so that Dagster retries them.",
        default_status=dg.DefaultSensorStatus.RUNNING if environment.schedules else dg.DefaultSensorStatus.STOPPED,
    )


def end_abandoned_runs(instance: dg.DagsterInstance, silent: Iterable[SilentLoad]) -> list[str]:
    """Mark the runs failed whose process is gone; run retries begin with that.

    A step in a process of its own may die while its run goes on: then the run's process deals with it. Where that one
    is on another machine, nothing is known of it, and the run is left to Dagster's longest run time. A process of this
    machine that is only paused, or cannot reach the control database, is left alone: it may go on.

    Args:
        silent: loads whose holder gives no sign of life.

    Returns:
        Ids of the runs that were ended.
    """
    ended: list[str] = []
    for load in silent:
        run = None if load.run_id in ended else instance.get_run_by_id(load.run_id)
        if run is None or run.status not in _UNDER_WAY or not _is_gone(load, _processes(instance, load.run_id)):
            continue
        how = "has ended" if load.ended else f"has given no sign of life since {load.seen:%Y-%m-%d %H:%M:%S} UTC"
        instance.report_run_failed(
            run, f"{load.holder}, which was loading {load.table} (batch {load.batch_id}) in this run, {how}."
        )
        ended.append(load.run_id)
    return ended


def _processes(instance: dg.DagsterInstance, run_id: str) -> set[int]:
    """Numbers of the processes that said that they carry out the run, not only one of its steps."""
    found = set()
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = record.dagster_event
        if event is None or event.step_key is not None:
            continue
        pid = event.engine_event_data.metadata.get("pid")
        if pid is not None and str(pid.value).isdecimal():
            found.add(int(str(pid.value)))
    return found


def _is_gone(load: SilentLoad, processes: set[int]) -> bool:
    if not load.holder.is_here():
        return load.holder.pid in processes
    if load.holder.pid in processes:
        return load.ended
    return bool(processes) and not any(is_running(pid) for pid in processes)
