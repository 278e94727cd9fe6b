"""The sensor that ends runs whose process is gone: Dagster's default launcher cannot tell, and would wait for hours."""

import datetime as dt
import json
from collections.abc import Callable, Collection, Iterable, Mapping

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

from platform_core.control.holders import is_running
from platform_core.control.loads import SilentLoad
from platform_core.factories.resource import opened_platform
from platform_core.specs.environment import EnvironmentSpec

LEASE_REAPER = "lease_reaper"
"""Name of the sensor."""

INTERVAL = dt.timedelta(seconds=30)
"""A run ends at most twice this long, and the time of a lease, after its process, if its code server is up."""

PATIENCE = dt.timedelta(minutes=10)
"""A run ends after this time at the latest, though its code server is away, and so without a retry."""

_UNDER_WAY = frozenset({dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING})


def build_lease_reaper(environment: EnvironmentSpec) -> dg.SensorDefinition:
    """The sensor, for one location of an installation: it looks at the runs of all.

    Dagster tries once to retry a failed run, and never again where the code server is not up at that moment. So a run
    whose process died with its code server ends once that server has answered at two ticks in a row: by the second one
    the daemon knows it again, too.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        instance = context.instance
        abandoned = abandoned_runs(instance, opened_platform().loads.silent())
        answered = json.loads(context.cursor or "[]")
        answering = [run_id for run_id in abandoned if _can_be_retried(instance, run_id)]
        ended = end_runs(instance, abandoned, only=set(answering) & set(answered))
        context.update_cursor(json.dumps([run_id for run_id in answering if run_id not in ended]))
        for run_id in ended:
            context.log.warning("run %s is marked failed: its process has ended", run_id)
        if ended:
            return dg.SkipReason(f"runs marked failed: {', '.join(ended)}")
        if abandoned:
            return dg.SkipReason(f"runs to be marked failed when their code server is up: {', '.join(abandoned)}")
        return dg.SkipReason("every load is alive")

    return dg.SensorDefinition(
        name=LEASE_REAPER,
        evaluation_fn=evaluate,
        minimum_interval_seconds=int(INTERVAL.total_seconds()),
        description="Marks runs failed that hold a lease and whose process is gone, so that Dagster retries them.",
        default_status=dg.DefaultSensorStatus.RUNNING if environment.schedules else dg.DefaultSensorStatus.STOPPED,
    )


def abandoned_runs(instance: dg.DagsterInstance, silent: Iterable[SilentLoad]) -> dict[str, SilentLoad]:
    """The runs whose process is gone, each with a load that it left.

    A step in a process of its own may die while its run goes on: then the run's process deals with it. Where that one
    is on another machine, nothing is known of it, and the run is left to Dagster's longest run time. A process of this
    machine that is only paused, or cannot reach the control database, is left alone: it may go on.

    Args:
        silent: loads whose holder gives no sign of life.
    """
    abandoned: dict[str, SilentLoad] = {}
    for load in silent:
        run = None if load.run_id in abandoned else instance.get_run_by_id(load.run_id)
        if run is not None and run.status in _UNDER_WAY and _is_gone(load, _processes(instance, load.run_id)):
            abandoned[load.run_id] = load
    return abandoned


def end_runs(
    instance: dg.DagsterInstance,
    abandoned: Mapping[str, SilentLoad],
    *,
    only: Collection[str],
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> list[str]:
    """Mark runs failed; run retries begin with that.

    Args:
        only: runs that can be retried; others wait for it, as long as :data:`PATIENCE`.

    Returns:
        Ids of the runs that were marked.
    """
    ended: list[str] = []
    for run_id, load in abandoned.items():
        run = instance.get_run_by_id(run_id)
        # It may have come to its end since it was looked at; a report would then undo its success.
        if run is None or run.status not in _UNDER_WAY or (run_id not in only and now() - load.seen < PATIENCE):
            continue
        how = "has ended" if load.ended else f"has given no sign of life since {load.seen:%Y-%m-%d %H:%M:%S} UTC"
        instance.report_run_failed(
            run, f"{load.holder}, which was loading {load.table} (batch {load.batch_id}) in this run, {how}."
        )
        ended.append(run_id)
    return ended


def _can_be_retried(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the code server of a run is up; one that Dagster starts by itself when it needs it counts as such."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.remote_job_origin is None:
        return True
    origin = run.remote_job_origin.repository_origin.code_location_origin
    if not isinstance(origin, GrpcServerCodeLocationOrigin):
        return True
    try:
        origin.create_client().ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


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
