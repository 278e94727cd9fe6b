"""Runs in processes of their own, stopped by real signals."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest

from platform_core.execution.isolated import watch_parent

OBEDIENT = "two steps that obey and one that waits for them"
DEAF = "a step that does not listen"


@pytest.mark.parametrize(
    ("signal_number", "through_the_ui", "status"),
    [
        (signal.SIGINT, False, dg.DagsterRunStatus.FAILURE),
        (signal.SIGTERM, True, dg.DagsterRunStatus.CANCELED),
    ],
    ids=["Ctrl-C, which Dagster calls a failure", "terminated in the UI"],
)
def test_running_steps_are_asked_to_stop_and_no_other_step_starts(
    run_worker: Callable, signal_number: signal.Signals, through_the_ui: bool, status: dg.DagsterRunStatus
) -> None:
    worker = run_worker(OBEDIENT)
    worker.wait_for("left")
    worker.wait_for("right")
    if through_the_ui:
        worker.ask_dagster_to_cancel()

    worker.send(signal_number)

    worker.wait(within=10)
    assert worker.status == status
    assert worker.outcome() == {
        "left": ["STEP_START", "STEP_FAILURE"],
        "right": ["STEP_START", "STEP_FAILURE"],
    }


def test_a_step_that_does_not_listen_is_given_up_after_the_wait(run_worker: Callable) -> None:
    worker = run_worker(DEAF)
    worker.wait_for("deaf")
    worker.ask_dagster_to_cancel()

    worker.send(signal.SIGTERM)

    assert worker.wait(within=20) > 2.5
    assert worker.status == dg.DagsterRunStatus.CANCELED
    assert worker.outcome() == {"deaf": ["STEP_START", "STEP_FAILURE"]}


def test_a_second_signal_ends_the_wait(run_worker: Callable) -> None:
    worker = run_worker(DEAF, "threaded, patient")
    worker.wait_for("deaf")
    worker.send(signal.SIGINT)
    time.sleep(0.5)
    assert worker.process.is_alive()

    worker.send(signal.SIGINT)

    worker.wait(within=10)
    assert worker.outcome()["deaf"][-1] == "STEP_FAILURE"


def test_an_isolated_step_is_interrupted_with_its_run(run_worker: Callable) -> None:
    worker = run_worker("an isolated step that takes long", "threaded, patient")
    pid = int(worker.wait_for("pid"))
    worker.ask_dagster_to_cancel()

    worker.send(signal.SIGTERM)

    worker.wait(within=30)
    assert worker.status == dg.DagsterRunStatus.CANCELED
    assert worker.outcome()["slow"][-1] == "STEP_FAILURE"
    assert not psutil.pid_exists(pid)


def test_an_isolated_step_whose_interrupt_was_swallowed_learns_of_it_when_it_asks(
    run_worker: Callable, tmp_path: Path
) -> None:
    worker = run_worker("an isolated step whose interrupt is swallowed", "threaded, patient")
    worker.wait_for("pid")
    worker.ask_dagster_to_cancel()

    worker.send(signal.SIGTERM)

    worker.wait(within=30)
    assert worker.status == dg.DagsterRunStatus.CANCELED
    assert worker.outcome()["asking"][-1] == "STEP_FAILURE"
    assert not [*tmp_path.rglob("finished")]


def test_an_isolated_step_dies_with_a_run_that_is_killed(run_worker: Callable) -> None:
    worker = run_worker("an isolated step that takes long")
    step = psutil.Process(int(worker.wait_for("pid")))
    assert step.pid != worker.process.pid

    worker.send(signal.SIGKILL)

    _, alive = psutil.wait_procs([step], timeout=5)
    assert not alive


def test_where_the_kernel_does_not_do_it_a_step_process_watches_the_run(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    parent = multiprocessing.get_context("forkserver").Process(target=_start_a_watching_child, args=(str(marker),))
    parent.start()
    while not marker.exists() or not marker.read_text():
        time.sleep(0.02)
    child = psutil.Process(int(marker.read_text()))

    parent.kill()

    _, alive = psutil.wait_procs([child], timeout=5)
    assert not alive


def _start_a_watching_child(marker: str) -> None:
    multiprocessing.get_context("fork").Process(target=_watch_and_wait, args=(marker,)).start()
    time.sleep(60)


def _watch_and_wait(marker: str) -> None:
    watch_parent(on_end=lambda: os._exit(1))
    Path(marker).write_text(str(os.getpid()))
    time.sleep(60)
