import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.execution.plan.active import ActiveExecution

from platform_core.execution import cancel_requested, threaded
from tests.execution.graphs import EXECUTORS, GRAPHS, STEP_COUNT

Execute = Callable[..., dg.JobExecutionResult]


def overlap(spans: list[tuple[float, float]]) -> int:
    """How many were under way at once, at most."""
    return max(sum(began <= at < ended for began, ended in spans) for at, _ in spans)


def spans_of(result: dg.JobExecutionResult) -> dict[str, tuple[float, float]]:
    spans = {}
    for event in result.all_events:
        if event.is_step_materialization:
            metadata = event.materialization.metadata
            spans[event.step_key] = (metadata["began"].value, metadata["ended"].value)
    return spans


def test_every_log_line_carries_the_key_of_its_step_and_raw_output_is_one_file_a_run(
    execute: Execute, instance: dg.DagsterInstance
) -> None:
    result = execute("steps that wait and log", "threaded, eight at once")

    assert result.success
    found = Counter()
    for entry in instance.all_logs(result.run_id):
        if match := re.match(r"by (context|logger) of (\d+)", entry.user_message):
            assert entry.step_key == f"chatty_{match[2]}", entry.user_message
            found[match[1]] += 1
    assert found == {"context": STEP_COUNT * 6, "logger": STEP_COUNT * 5}, "no line lost, none doubled"

    captured = [event for event in result.all_events if event.event_type_value == "LOGS_CAPTURED"]
    assert len(captured) == 1
    data = captured[0].logs_captured_data
    log_key = instance.compute_log_manager.build_log_key_for_run(result.run_id, data.file_key)
    stdout = instance.compute_log_manager.get_log_data(log_key).stdout
    assert stdout is not None
    assert stdout.decode().count("by print of") == STEP_COUNT * 5
    assert len(data.step_keys) == STEP_COUNT


def test_a_fan_out_is_run_also_where_its_step_has_ended_before_the_run_looks(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(SimpleQueue):
        """Hands out the success of a step together with the end of its thread."""

        def get(self, *given, **options):
            time.sleep(0.2)
            return super().get(*given, **options)

    monkeypatch.setattr(threaded, "SimpleQueue", Late)
    result = execute("a fan out known only at run time", "threaded")
    assert {event.step_key for event in result.all_events if event.is_step_success} == {
        "split",
        *(f"double[part_{part}]" for part in range(3)),
        "total",
    }


def test_a_resource_is_set_up_once_a_run_and_torn_down_after_the_last_step(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("LEDGER", str(ledger))

    assert execute("many steps share a resource").success
    assert ledger.read_text().split() == ["setup", *["use"] * 6, "teardown"]


def test_a_resource_that_cannot_start_fails_the_run_before_any_step(execute: Execute) -> None:
    result = execute("a resource that cannot start")

    assert not result.success
    assert not [event for event in result.all_events if event.is_step_start]
    assert any("no server" in str(event.event_specific_data) for event in result.all_events)


def test_a_connection_is_used_by_no_more_steps_at_once_than_its_limit(execute: Execute) -> None:
    spans = spans_of(execute("steps on two connections", "threaded, tag limits"))

    assert len(spans) == 8
    for connection in ("erp", "crm"):
        assert overlap([span for key, span in spans.items() if key.startswith(connection)]) <= 2
    assert overlap(list(spans.values())) > 2, "the connections do not wait for each other"


def test_no_more_steps_run_at_once_than_allowed(execute: Execute) -> None:
    assert overlap(list(spans_of(execute("steps in a pool", "threaded, one at a time")).values())) == 1


def test_a_pool_of_the_instance_limits_its_steps(execute: Execute, instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("narrow", 1)

    spans = spans_of(execute("steps in a pool"))

    assert len(spans) == 3
    assert overlap(list(spans.values())) == 1
    assert instance.event_log_storage.get_concurrency_info("narrow").active_slot_count == 0


def test_other_steps_go_on_while_one_waits_for_its_retry(execute: Execute) -> None:
    result = execute("a long retry delay beside other work")

    assert result.success
    spans = spans_of(result)
    assert spans["link_1"][1] < spans["delayed"][0]


def test_async_bodies_wait_at_the_same_time(execute: Execute) -> None:
    assert execute("async bodies at once").success


@pytest.mark.timeout(30)
def test_an_error_in_the_thread_around_a_step_fails_the_run_and_its_dependents_do_not_start(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threaded.dagster_event_sequence_for_step

    def breaks_for_good(step_context):
        if step_context.step.key == "good":
            raise RuntimeError("the event log is gone")
        yield from real(step_context)

    monkeypatch.setattr(threaded, "dagster_event_sequence_for_step", breaks_for_good)

    result = execute("one step fails and only its dependents do not run")

    assert not result.success
    assert {event.step_key for event in result.all_events if event.is_step_start} == {"bad"}
    assert "the event log is gone" in str(result.all_events[-1].event_specific_data)


@pytest.mark.timeout(30)
def test_an_error_of_the_executor_itself_fails_the_run_and_waits_for_what_runs(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ActiveExecution.handle_event

    def breaks_on_success(self, event):
        if event.is_step_success:
            raise RuntimeError("the plan is gone")
        real(self, event)

    monkeypatch.setattr(ActiveExecution, "handle_event", breaks_on_success)

    result = execute("steps on two connections", "threaded, eight at once")

    assert not result.success
    assert "the plan is gone" in str(result.all_events[-1].event_specific_data)
    assert len([e for e in result.all_events if e.is_step_start]) <= 8


def test_the_error_of_a_step_is_raised_when_the_caller_asks_for_it(execute: Execute) -> None:
    with pytest.raises(ValueError, match=r"^no$"):
        execute("one step fails and only its dependents do not run", raise_on_error=True)


def test_an_isolated_step_runs_in_a_process_of_its_own_and_a_crash_of_it_is_retried(execute: Execute) -> None:
    result = execute("an isolated step beside threads")

    assert result.success
    pids = {
        event.step_key: event.materialization.metadata["pid"].value
        for event in result.all_events
        if event.is_step_materialization
    }
    assert pids["apart"] != pids["inside"]
    assert [e.step_key for e in result.all_events if e.is_step_up_for_retry] == ["apart"]


def test_an_isolated_step_of_a_job_that_cannot_be_rebuilt_says_so_before_any_step_starts(
    instance: dg.DagsterInstance,
) -> None:
    job = GRAPHS["an isolated step defined in this process"](EXECUTORS["threaded"])
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job, execution_plan=plan)

    result = execute_run(InMemoryJob(job), run, instance)

    assert not result.success
    assert not [event for event in result.all_events if event.is_step_start]
    error = result.all_events[-1].job_failure_data.error
    assert "'apart'" in error.message
    assert "edp/isolated" in error.message
    assert "reconstructable" in error.message


def test_outside_a_threaded_run_nothing_is_ever_cancelled() -> None:
    assert not cancel_requested(dg.build_asset_context())
    assert not cancel_requested(dg.build_op_context())
