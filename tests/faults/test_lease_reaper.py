"""FAULTS A4: the sensor that ends runs whose process is gone."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from platform_core.definitions import build_definitions
from platform_core.factories.lease_reaper import LEASE_REAPER, PATIENCE, abandoned_runs, build_lease_reaper, end_runs
from platform_core.operations.platform import Platform
from platform_core.settings import Settings
from tests.conftest import PROJECT
from tests.faults.loading import open_platform_in
from tests.forked import Forked, start_forked

LEASE = 0.5
HOLDER = """
import datetime as dt, logging, sys, time
from pathlib import Path
from platform_core.specs.table import TableRef
from tests.faults.loading import open_platform_in
from tests.forked import Forked, start_forked

loads = open_platform_in(Path(sys.argv[1]), lease=float(sys.argv[3])).loads
loads.begin(
    TableRef("crm", "bronze", "riders"), mode="full", above=0, run_id=sys.argv[2], wait=dt.timedelta(0),
    log=logging.getLogger(), cancelled=lambda: False,
)
print("held", flush=True)
time.sleep(60)
"""


class Runs:
    """Runs of a real instance, and processes that load in them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, platform: Platform) -> None:
        self.folder = folder
        self.instance = instance
        self.platform = platform
        self.holders: list[Forked] = []

    def start(self) -> str:
        """A run that has begun."""

        @dg.op
        def load() -> None: ...

        @dg.job
        def job() -> None:
            load()

        run = self.instance.create_run_for_job(job)
        self.instance.handle_new_event(_started(run))
        return run.run_id

    def hold(self, run_id: str) -> Forked:
        """A process that holds a lease in the name of a run."""
        process = start_forked([str(self.folder), run_id, str(LEASE)], env=os.environ, cwd=PROJECT, code=HOLDER)
        self.holders.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    def carried_out_by(self, run_id: str, pid: int) -> None:
        """What the process of a run says when it begins."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(pid))

    def reap(self) -> list[str]:
        """End every run that is abandoned."""
        abandoned = abandoned_runs(self.instance, self.platform.loads.silent())
        return end_runs(self.instance, abandoned, only=abandoned)

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status


def _started(run: dg.DagsterRun) -> Any:
    from dagster._core.events import DagsterEvent
    from dagster._core.events.log import EventLogEntry

    event = DagsterEvent(event_type_value="PIPELINE_START", job_name=run.job_name)
    return EventLogEntry(
        error_info=None,
        user_message="",
        level="INFO",
        run_id=run.run_id,
        timestamp=time.time(),
        job_name=run.job_name,
        dagster_event=event,
    )


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "run_retries: {enabled: true, max_retries: 1, retry_on_asset_or_op_failure: false}\n"
    )
    platform = open_platform_in(tmp_path, lease=LEASE)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        made = Runs(tmp_path, instance, platform)
        yield made
        for process in made.holders:
            process.kill()
            process.communicate()
    platform.loads.close()


def _kill(process: Forked) -> None:
    process.kill()
    process.wait()


def test_a4_a_run_whose_process_has_ended_is_marked_failed_and_to_be_retried(runs: Runs) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    assert runs.reap() == []
    _kill(holder)
    assert runs.reap() == [run_id]
    assert runs.status(run_id) is dg.DagsterRunStatus.FAILURE
    run = runs.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags.get(RUN_FAILURE_REASON_TAG) != "STEP_FAILURE"
    assert run.tags["dagster/will_retry"] == "true"
    (said,) = runs.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert f"process {holder.pid} on" in said.dagster_event.message
    assert runs.reap() == [], "once is enough"


def test_a4_a_run_whose_step_has_died_in_a_process_of_its_own_is_left_to_the_run(runs: Runs) -> None:
    run_id = runs.start()
    runs.carried_out_by(run_id, os.getpid())
    _kill(runs.hold(run_id))
    assert len(runs.platform.loads.silent()) == 1
    assert runs.reap() == []
    assert runs.status(run_id) is dg.DagsterRunStatus.STARTED


def test_a4_a_run_that_died_with_its_step_is_marked_failed(runs: Runs) -> None:
    run_id = runs.start()
    worker = subprocess.Popen([sys.executable, "-c", ""])
    worker.wait()
    runs.carried_out_by(run_id, worker.pid)
    _kill(runs.hold(run_id))
    assert runs.reap() == [run_id]


def test_a4_a_paused_process_of_this_machine_is_left_alone(runs: Runs) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    holder.send_signal(signal.SIGSTOP)
    time.sleep(2 * LEASE)
    assert [load.ended for load in runs.platform.loads.silent()] == [False]
    assert runs.reap() == []


@pytest.mark.parametrize("ran_out", [False, True])
def test_a4_of_another_machine_the_lease_tells_whether_a_run_lives(runs: Runs, ran_out: bool) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    if ran_out:
        holder.send_signal(signal.SIGSTOP)
        time.sleep(2 * LEASE)
    engine = sa.create_engine(f"sqlite:///{runs.folder / 'state' / 'control.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET host = 'elsewhere'"))
    engine.dispose()
    assert runs.reap() == ([run_id] if ran_out else [])


def test_a4_a_run_that_has_ended_meanwhile_stays_as_it_is(runs: Runs) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    _kill(holder)
    run = runs.instance.get_run_by_id(run_id)
    assert run is not None
    runs.instance.report_run_canceled(run)
    assert runs.reap() == []
    assert runs.status(run_id) is dg.DagsterRunStatus.CANCELED


def test_a_run_that_ends_while_the_sensor_looks_keeps_its_end(runs: Runs) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    _kill(holder)
    abandoned = abandoned_runs(runs.instance, runs.platform.loads.silent())
    run = runs.instance.get_run_by_id(run_id)
    assert list(abandoned) == [run_id]
    assert run is not None
    runs.instance.report_run_canceled(run)
    assert end_runs(runs.instance, abandoned, only=abandoned) == []
    assert runs.status(run_id) is dg.DagsterRunStatus.CANCELED


def test_a4_a_run_whose_code_server_is_away_waits_for_it_but_not_for_ever(runs: Runs) -> None:
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    _kill(holder)
    abandoned = abandoned_runs(runs.instance, runs.platform.loads.silent())
    assert end_runs(runs.instance, abandoned, only=[]) == []
    later = dt.datetime.now(dt.UTC) + PATIENCE
    assert end_runs(runs.instance, abandoned, only=[], now=lambda: later) == [run_id]


def test_the_sensor_ends_a_run_at_the_second_tick_and_says_so(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform_core.factories.lease_reaper.opened_platform", lambda: runs.platform)
    reaper = build_lease_reaper(runs.platform.environment)
    run_id = runs.start()
    holder = runs.hold(run_id)
    runs.carried_out_by(run_id, holder.pid)
    cursor, said = None, []
    for tick in range(4):
        if tick == 1:
            _kill(holder)
        answer = reaper.evaluate_tick(dg.build_sensor_context(instance=runs.instance, cursor=cursor))
        cursor = answer.cursor
        said.append(answer.skip_message)
    assert said == [
        "every load is alive",
        f"runs to be marked failed when their code server is up: {run_id}",
        f"runs marked failed: {run_id}",
        "every load is alive",
    ]


@pytest.mark.parametrize(("location", "has_it"), [("data_platform", True), ("crm", False)])
def test_only_the_location_with_upkeep_has_the_reaper(tmp_path: Path, location: str, has_it: bool) -> None:
    settings = Settings(project=PROJECT, home=PROJECT / "dagster_home", state=tmp_path, environment="dev")
    control = PROJECT / "code_locations" / location / location / "control"
    sensors = build_definitions(control, settings=settings).sensors or []
    assert (LEASE_REAPER in {sensor.name for sensor in sensors}) is has_it
