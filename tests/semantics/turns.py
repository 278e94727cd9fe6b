"""Dagster's scheduler and run queue, taken one turn at a time, at moments that a test names; runs are processes.

The turns are those that a daemon takes when its clock says so. Each begins as that of a daemon which has just started:
what it knows is what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._config import UserConfigSchema
from dagster._core.execution.submit_asset_runs import submit_asset_run
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler import DagsterDaemonScheduler
from dagster._core.storage.tags import SCHEDULED_EXECUTION_TIME_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._grpc.types import ExecuteRunArgs
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster_shared.error import SerializableErrorInfo

from tests.forked import Forked, start_forked
from tests.services.http_server import Answering, HttpServer, Received, Reply, json_reply

PATIENCE = 120
"""Seconds after which something that is waited for counts as lost; nothing is measured by it."""

LOGGER = logging.getLogger(__name__)
LAUNCHER = "\nrun_launcher: {module: tests.semantics.turns, class: ForkedRuns}\n"
"""Of dagster.yaml: whose processes run what the queue lets go."""


class ForkedRuns(RunLauncher, ConfigurableClass):
    """Runs in processes of their own; those that are left end with the instance."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster's own is not typed
        self._inst_data = inst_data
        self._processes: dict[str, Forked] = {}
        self._ends: dict[str, threading.Thread] = {}
        self.output: dict[str, str] = {}

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> ForkedRuns:
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        run_id, origin = context.dagster_run.run_id, context.job_code_origin
        assert origin is not None
        asked = ExecuteRunArgs(origin, run_id, self._instance.get_ref(), set_exit_code_on_failure=True)
        process = start_forked(
            ["api", "execute_run", serialize_value(asked)],
            env=os.environ,
            cwd=Path(os.environ["EDP_PROJECT"]),
            module="dagster.__main__",
        )
        process.stdin.close()
        self._processes[run_id] = process
        # What it says is read while it runs: a full pipe would hold it up.
        self._ends[run_id] = threading.Thread(target=self._follow, args=(run_id, process))
        self._ends[run_id].start()

    def _follow(self, run_id: str, process: Forked) -> None:
        self.output[run_id] = "".join(process.communicate())

    def wait(self, run_id: str) -> None:
        """Wait for the end of a run's process."""
        self._ends[run_id].join(PATIENCE)
        assert not self._ends[run_id].is_alive(), f"run {run_id} has not ended within {PATIENCE} s"

    def terminate(self, run_id: str) -> bool:
        if not self._ends[run_id].is_alive():
            return False
        # Not by the process itself, whose end the thread waits for.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._processes[run_id].pid, signal.SIGKILL)
        self._ends[run_id].join()
        return True

    def dispose(self) -> None:
        for run_id in self._processes:
            self.terminate(run_id)


class Turns:
    """The daemon of an instance, one turn at a time."""

    def __init__(self, context: WorkspaceProcessContext) -> None:
        self._context = context
        self.instance: dg.DagsterInstance = context.instance

    # Turns of the daemon

    def look_at_schedules(self, at: dt.datetime) -> None:
        """What the scheduler does when it is so late; it never goes back."""
        errors = self._look(at)
        assert not errors, errors

    def look_in_vain(self, at: dt.datetime) -> None:
        """The same, where something refuses."""
        assert self._look(at)

    def _look(self, at: dt.datetime) -> list[SerializableErrorInfo]:
        scheduler = self.instance.scheduler
        assert isinstance(scheduler, DagsterDaemonScheduler)
        turn = launch_scheduled_runs(
            self._context,
            LOGGER,
            at,
            iteration_times={},
            max_catchup_runs=scheduler.max_catchup_runs,
            max_tick_retries=scheduler.max_tick_retries,
        )
        return [said for said in turn if isinstance(said, SerializableErrorInfo)]

    def let_go(self) -> list[str]:
        """Let the queue start all that it would start now; returns their ids."""
        waiting = self.queued()
        with QueuedRunCoordinatorDaemon(interval_seconds=1) as queue:
            list(queue.run_iteration(self._context))
        left = self.queued()
        return [run_id for run_id in waiting if run_id not in left]

    def request(self, key: dg.AssetKey) -> str:
        """Put a run of one asset into the queue, as the conditions do; returns its id."""
        submitting = submit_asset_run(
            None,
            dg.RunRequest(asset_selection=[key]),
            0,
            self.instance,
            self._context,
            self._context.create_request_context(),
            run_request_execution_data_cache={},
            debug_crash_flags={},
            logger=LOGGER,
        )
        return asyncio.run(submitting).run_id

    # What a person sees

    def queued(self) -> list[str]:
        """The ids of the runs that wait, in the order in which they were asked for."""
        waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        return [run.run_id for run in self.instance.get_runs(waiting, ascending=True)]

    def jobs(self, runs: Iterable[str]) -> list[str]:
        """The job of each run."""
        found = {run.run_id: run.job_name for run in self.instance.get_runs()}
        return [found[run_id] for run_id in runs]

    def due(self, job: str) -> list[dt.datetime]:
        """For which times of its schedule the runs of a job were asked for, the first one first; UTC."""
        runs = self.instance.get_runs(dg.RunsFilter(job_name=job), ascending=True)
        return [dt.datetime.fromisoformat(run.tags[SCHEDULED_EXECUTION_TIME_TAG]) for run in runs]

    def ends_well(self, run_id: str) -> None:
        """Wait for the end of a run, which has succeeded."""
        launcher = self.instance.run_launcher
        assert isinstance(launcher, ForkedRuns)
        launcher.wait(run_id)
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS, launcher.output[run_id]

    def ends_unseen(self, run_id: str) -> None:
        """Take a run out of the queue."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_canceled(run)

    def wait_for_line(self, pool: str) -> None:
        """Wait until a step waits for room in a pool."""
        deadline = time.monotonic() + PATIENCE
        while not self.instance.event_log_storage.get_concurrency_info(pool).pending_step_count:
            assert time.monotonic() < deadline, f"no step has waited in {pool} within {PATIENCE} s"
            time.sleep(0.05)


@contextlib.contextmanager
def turns(*locations: str, root: Path, configuration: str = "dagster.yaml") -> Iterator[Turns]:
    """The daemon over some locations of the project that the variables of this process point at; nothing has run yet.

    Args:
        root: folder of the project.
        configuration: of the instance.
    """
    origins = [
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name=f"{name}.definitions", working_directory=str(root)), location_name=name
        )
        for name in locations
    ]
    with (
        dg.DagsterInstance.from_config(str(root / "dagster_home"), configuration) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origins)) as context,
    ):
        instance.wipe()
        instance.wipe_all_schedules()
        for pool in instance.event_log_storage.get_pool_limits():
            instance.event_log_storage.delete_concurrency_limit(pool.name)
        yield Turns(context)


@dataclass
class Gate:
    """A service whose answers wait until it is opened, and which knows how many have waited at a time.

    Args:
        server: where it is.
    """

    server: HttpServer
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _inside: Counter[str] = field(default_factory=Counter)
    _opened: bool = False
    most: Counter[str] = field(default_factory=Counter)

    def on(self, path: str) -> None:
        """Answer a path with one record; its first part is the room in which answers are counted."""
        self.server.on(path, self._answering(path.split("/")[1]))

    def shut(self) -> None:
        """Hold back what is asked from now on."""
        with self._changed:
            self._opened = False
            self.most.clear()

    def open(self) -> None:
        """Answer all."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()

    def wait_for(self, room: str) -> None:
        """Wait until somebody has come into a room."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._inside[room] > 0, PATIENCE), f"nobody came into {room}"

    def _answering(self, room: str) -> Answering:
        def answer(_: Received) -> Reply:
            with self._changed:
                self._inside[room] += 1
                self.most[room] = max(self.most[room], self._inside[room])
                self._changed.notify_all()
                opened = self._changed.wait_for(lambda: self._opened, PATIENCE)
                self._inside[room] -= 1
            return json_reply([{"id": 1}]) if opened else Reply(503)

        return answer
