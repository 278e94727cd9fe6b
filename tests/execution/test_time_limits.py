"""A step that passes its time is asked to stop, and given up where it does not."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from platform_core.execution import cancel_event, passed_limit, time_limits
from tests.execution.in_memory import failures, outcome, own_instance, run_assets

LIMIT = {"edp/timeout": "60"}


class Clock:
    """Goes on only when a step says so, so that a slow machine passes no limit."""

    def __init__(self) -> None:
        self.now = 0.0

    def pass_limit(self) -> None:
        self.now += 61.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_limits, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def in_memory() -> Iterator[dg.DagsterInstance]:
    with own_instance() as instance:
        yield instance


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets go of steps that do not listen; those that a run left behind end with the test."""
    event = threading.Event()
    yield event
    event.set()
    ends_of_step_threads()


def ends_of_step_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("step "):
            thread.join(30)
            assert not thread.is_alive()


def test_a_step_whose_time_has_passed_is_asked_to_stop_and_told_why(
    in_memory: dg.DagsterInstance, clock: Clock
) -> None:
    @dg.asset(op_tags=LIMIT)
    def slow(context: dg.AssetExecutionContext) -> None:
        clock.pass_limit()
        assert cancel_event(context).wait(30)
        raise ValueError(f"asked to stop after {passed_limit(context)} s")

    @dg.asset(deps=[slow])
    def after() -> None: ...

    @dg.asset
    def apart() -> None: ...

    result = run_assets([slow, after, apart], in_memory)

    assert outcome(result) == {"slow": ["START", "FAILURE"], "apart": ["START", "SUCCESS"]}
    assert "asked to stop after 60.0 s" in failures(result)["slow"]
    said = "step slow has not ended within its limit of 60 s, and has 8 s to stop"
    assert [event.step_key for event in result.all_events if said in (event.message or "")] == ["slow"]


def test_only_the_attempt_whose_time_has_passed_is_asked_to_stop(in_memory: dg.DagsterInstance, clock: Clock) -> None:
    asked: list[bool] = []
    stopped = threading.Event()

    @dg.asset(op_tags=LIMIT, retry_policy=dg.RetryPolicy(max_retries=1))
    def second_time_quick(context: dg.AssetExecutionContext) -> None:
        if context.retry_number == 0:
            clock.pass_limit()
            asked.append(cancel_event(context).wait(30))
            stopped.set()
            raise ValueError("asked to stop")
        asked.append(cancel_event(context).is_set())

    @dg.asset
    def beside(context: dg.AssetExecutionContext) -> None:
        assert stopped.wait(30)
        asked.append(cancel_event(context).is_set())

    result = run_assets([second_time_quick, beside], in_memory)

    assert result.success
    assert sorted(asked) == [False, False, True]
    assert outcome(result)["second_time_quick"] == ["START", "UP_FOR_RETRY", "RESTARTED", "SUCCESS"]


def test_a_step_that_does_not_listen_fails_and_the_run_goes_on_without_it(
    in_memory: dg.DagsterInstance, clock: Clock, release: threading.Event
) -> None:
    @dg.asset(op_tags=LIMIT)
    def deaf(context: dg.AssetExecutionContext) -> None:
        clock.pass_limit()
        assert cancel_event(context).wait(30)
        clock.pass_limit()
        release.wait(30)

    @dg.asset(deps=[deaf])
    def after() -> None: ...

    @dg.asset
    def apart() -> None: ...

    result = run_assets([deaf, after, apart], in_memory)

    assert not release.is_set()
    assert outcome(result) == {"deaf": ["START", "FAILURE"], "apart": ["START", "SUCCESS"]}
    error = failures(result)["deaf"]
    assert error.startswith("platform_core.errors.TimeLimitError: step deaf did not end within its limit of 60 s.")
    assert "commits nothing any more" in error


def test_nothing_that_a_step_left_behind_still_does_is_recorded(
    in_memory: dg.DagsterInstance, clock: Clock, release: threading.Event
) -> None:
    told: list[bool] = []

    @dg.asset(op_tags=LIMIT, retry_policy=dg.RetryPolicy(max_retries=1))
    def deaf_once(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        number = context.retry_number
        if number == 0:
            clock.pass_limit()
            assert cancel_event(context).wait(30)
            clock.pass_limit()
            release.wait(30)
            told.append(cancel_event(context).is_set())
            context.log.info("said by the attempt that was left behind")
        yield dg.MaterializeResult(metadata={"attempt": number})

    @dg.asset(deps=[deaf_once])
    def lets_go() -> None:
        release.set()

    result = run_assets([deaf_once, lets_go], in_memory)
    ends_of_step_threads()

    assert result.success
    assert outcome(result)["deaf_once"] == ["START", "UP_FOR_RETRY", "RESTARTED", "SUCCESS"]
    assert told == [True], "it is told for as long as it lives"
    logs = in_memory.all_logs(result.run_id)
    made = [
        entry.dagster_event.step_materialization_data.materialization.metadata["attempt"].value
        for entry in logs
        if entry.dagster_event and entry.dagster_event.is_step_materialization and entry.step_key == "deaf_once"
    ]
    assert made == [1]
    assert not [entry for entry in logs if "said by the attempt" in entry.user_message]


@pytest.fixture
def passes_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The time passes once an isolated step has started, and once it has been asked to stop."""
    monkeypatch.setenv("MARKERS", str(tmp_path))
    monkeypatch.setattr(time_limits, "monotonic", lambda: 61.0 * len(list(tmp_path.iterdir())))
    return tmp_path


def test_an_isolated_step_that_stops_when_it_is_asked_to_names_its_limit(
    passes_when_asked: Path, execute: Callable[..., dg.JobExecutionResult]
) -> None:
    result = execute("an isolated step that obeys its limit")

    assert outcome(result) == {"waiting": ["START", "FAILURE"]}
    assert (
        "TimeLimitError: step waiting did not end within its limit of 60 s and was ended" in failures(result)["waiting"]
    )


def test_an_isolated_step_that_does_not_stop_is_killed(
    passes_when_asked: Path, execute: Callable[..., dg.JobExecutionResult]
) -> None:
    result = execute("an isolated step that ignores its limit")

    assert outcome(result) == {"waiting": ["START", "FAILURE"]}
    error = failures(result)["waiting"]
    assert "TimeLimitError: step waiting did not end within its limit of 60 s. Its process was killed." in error
    assert not multiprocessing.active_children()
