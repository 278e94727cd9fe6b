"""FAULTS A2 to A5: processes of a running Dagster are killed while a table is being loaded."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest

from tests.faults.deployed import Deployed, deployed, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAUSE = "bronze-before-commit:sleep:1:60"
FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
NOTICED_SECONDS = 120.0
"""Far more than it takes: on a machine with other work to do everything takes longer."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Code servers and daemon; every test leaves them running."""
    with pytest.MonkeyPatch.context() as patch, deployed(tmp_path_factory.mktemp("deployed"), patch) as started:
        yield started


@pytest.fixture(autouse=True)
def _at_rest(live: Deployed) -> None:
    """A run of the test before, or its retry, would load what this one has filled in."""
    live.rest()


def _begun(live: Deployed, workstream: str) -> tuple[str, psutil.Process, psutil.Process]:
    """A run that sleeps right before its commit: its id, its process, and the process of its step."""
    live.meet(PAUSE)
    run_id = live.launch(workstream)
    row = live.loading(run_id)
    live.met(row.pid)
    worker = live.worker(run_id)
    live.meet(None)
    return run_id, worker, psutil.Process(row.pid)


def _gone(process: psutil.Process, *, within: float) -> None:
    until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        within=within,
        what=f"the end of process {process.pid}",
    )


def test_a2_a_killed_step_process_fails_the_run_and_the_next_one_converges(live: Deployed) -> None:
    live.fill(30)
    run_id, worker, step = _begun(live, "apart")
    assert step.pid != worker.pid
    step.kill()
    assert live.ended(run_id, within=NOTICED_SECONDS) is FAILURE
    again = live.retry_of(run_id) or live.launch("apart")
    live.succeeds(again)
    assert live.ids("apart") == list(range(30))
    assert {row.status for row in live.loads.recent() if row.run_id == run_id} == {"crashed"}


def test_a3_the_step_process_of_a_killed_run_dies_with_it_and_commits_nothing(live: Deployed) -> None:
    live.fill(35)
    run_id, worker, step = _begun(live, "apart")
    before = live.batches("apart")
    worker.kill()
    _gone(step, within=30)
    assert live.ended(run_id, within=NOTICED_SECONDS) is FAILURE
    again = until(lambda: live.retry_of(run_id), within=60, what="the retry")
    live.succeeds(again)
    assert live.ids("apart") == list(range(35))
    assert len(live.batches("apart")) == len(before) + 1


def test_a4_a_run_that_dies_with_its_code_server_is_marked_failed_and_retried(live: Deployed) -> None:
    live.fill(40)
    run_id, worker, _ = _begun(live, "threads")
    live.kill("rides")
    worker.kill()
    until(lambda: live.put_off(run_id) >= 2, within=120, what="a reaper that finds the run and leaves it")
    assert live.status(run_id) is dg.DagsterRunStatus.STARTED, "a retry would fail now, and never be tried again"
    live.start("rides")
    live.wait_for_server("rides")
    assert live.ended(run_id, within=NOTICED_SECONDS) is FAILURE
    (failure,) = live.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.dagster_event is not None
    said = str(failure.dagster_event.message)
    assert f"process {worker.pid} on" in said
    assert "threads.bronze.riders" in said
    live.succeeds(until(lambda: live.retry_of(run_id), within=90, what="the retry"))
    assert live.ids("threads") == list(range(40))


def test_a5_a_daemon_that_dies_in_the_middle_of_a_run_launches_nothing_twice(live: Deployed) -> None:
    live.fill(45)
    live.meet("bronze-before-commit:sleep:1:8")
    before = live.instance.get_runs_count()
    run_id = live.launch("threads")
    worker = live.worker(run_id)
    live.meet(None)
    for _ in range(2):
        live.kill("daemon")
        live.start("daemon")
    assert worker.is_running()
    live.succeeds(run_id)
    until(lambda: len(_heartbeats(live)) > 0, within=60, what="a daemon that works")
    assert live.instance.get_runs_count() == before + 1
    started = [*live.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)]
    assert len(started) == 1
    assert live.ids("threads") == list(range(45))


def test_a3_a_paused_orphan_is_refused_once_its_run_was_retried(live: Deployed) -> None:
    live.fill(50)
    run_id, worker, _ = _begun(live, "threads")
    os.kill(worker.pid, signal.SIGSTOP)
    live.instance.report_run_failed(live.instance.get_run_by_id(run_id))
    live.fill(55)
    again = live.launch("threads")
    live.succeeds(again)
    after = live.batches("threads")
    os.kill(worker.pid, signal.SIGCONT)
    _gone(worker, within=90)
    assert live.batches("threads") == after, "zombie commits: 0"
    assert live.ids("threads") == list(range(55))


def _heartbeats(live: Deployed) -> dict[str, object]:
    return dict(live.instance.get_daemon_heartbeats())


def test_a13_a_run_that_is_cancelled_before_its_commit_gives_back_its_lease_and_leaves_nothing(live: Deployed) -> None:
    live.fill(60)
    before = live.batches("apart"), live.ids("apart")
    run_id, worker, _ = _begun(live, "apart")
    run = live.instance.get_run_by_id(run_id)
    assert run is not None
    live.instance.report_run_canceling(run)
    worker.send_signal(signal.SIGTERM)
    assert live.ended(run_id, within=NOTICED_SECONDS) is CANCELED
    (row,) = [row for row in live.loads.recent() if row.run_id == run_id]
    assert row.status == "cancelled", live.told(run_id)
    assert (live.batches("apart"), live.ids("apart")) == before
    assert live.loads.silent() == []
    again = live.launch("apart")
    live.succeeds(again)
    (row,) = [row for row in live.loads.recent() if row.run_id == again]
    assert not row.taken_over
    assert live.ids("apart") == list(range(60))
