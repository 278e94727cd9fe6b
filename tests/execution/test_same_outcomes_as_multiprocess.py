"""The same definitions under Dagster's multiprocess executor and ours end the same way."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import pytest

from tests.execution.graphs import reconstructable

# What says that a process was started, and not what became of a step.
ABOUT_PROCESSES = {
    "STEP_WORKER_STARTING",
    "STEP_WORKER_STARTED",
    "RESOURCE_INIT_STARTED",
    "RESOURCE_INIT_SUCCESS",
    "ENGINE_EVENT",
    "LOGS_CAPTURED",
}

Execute = Callable[..., dg.JobExecutionResult]


class Outcome(NamedTuple):
    run: dg.DagsterRunStatus
    events: dict[str, list[str]]
    errors: dict[str, list[str | None]]
    retries: dict[str, list[float | None]]


def outcome_of(result: dg.JobExecutionResult, instance: dg.DagsterInstance) -> Outcome:
    """What is in the event log; the order of a step's own events counts, that between steps not."""
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    outcome = Outcome(run.status, {}, {}, {})
    for entry in instance.all_logs(result.run_id):
        event = entry.dagster_event
        if event is None or event.step_key is None or event.event_type_value in ABOUT_PROCESSES:
            continue
        outcome.events.setdefault(event.step_key, []).append(event.event_type_value)
        if event.is_step_failure:
            data = event.step_failure_data
            root = data.error.cause or data.error
            outcome.errors.setdefault(event.step_key, []).append(f"{root.cls_name}: {data.error_source}")
        if event.is_step_up_for_retry:
            outcome.retries.setdefault(event.step_key, []).append(event.step_retry_data.seconds_to_wait)
    for events in outcome.events.values():
        hooks = sorted(event for event in events if event.startswith("HOOK_"))
        if hooks:  # they come last, in the order of a set
            assert sorted(events[-len(hooks) :]) == hooks
            events[-len(hooks) :] = hooks
    return outcome


@pytest.mark.parametrize(
    "graph",
    [
        "one step fails and only its dependents do not run",
        "retries with delay then success and retries used up",
        "ways to fail",
        "a blocking check and a warning",
        "a skippable output and a subset of outputs",
        "hooks that run and one that breaks",
        "a fan out known only at run time",
        "async bodies at once",
    ],
)
def test_every_step_ends_as_it_does_under_multiprocess(
    graph: str, execute: Execute, instance: dg.DagsterInstance
) -> None:
    expected = outcome_of(execute(graph, "multiprocess"), instance)

    assert outcome_of(execute(graph, "threaded"), instance) == expected
    assert expected.events, "the comparison compared something"


def test_a_run_executed_again_from_failure_runs_the_same_steps_as_under_multiprocess(
    execute: Execute, instance: dg.DagsterInstance
) -> None:
    graph = "fails until told otherwise"
    mood = Path(instance.root_directory, "mood")
    outcomes = {}
    for executor in ("multiprocess", "threaded"):
        mood.unlink(missing_ok=True)
        failed = execute(graph, executor)
        assert not failed.success
        mood.touch()
        again = dg.execute_job(
            reconstructable(graph, executor),
            instance=instance,
            reexecution_options=dg.ReexecutionOptions.from_failure(failed.run_id, instance),
        )
        assert again.success
        outcomes[executor] = outcome_of(again, instance)

    assert outcomes["threaded"] == outcomes["multiprocess"]
    assert outcomes["threaded"].events.keys() == {"moody", "last"}


def test_retries_can_be_disabled(execute: Execute, instance: dg.DagsterInstance) -> None:
    result = execute("retries with delay then success and retries used up", "threaded, no retries")

    outcome = outcome_of(result, instance)
    assert outcome.events == {
        "second_time_lucky": ["ASSET_MATERIALIZATION_PLANNED", "STEP_START", "STEP_FAILURE"],
        "after": ["ASSET_MATERIALIZATION_PLANNED"],
        "never": ["ASSET_MATERIALIZATION_PLANNED", "STEP_START", "STEP_FAILURE"],
        "after_never": ["ASSET_MATERIALIZATION_PLANNED"],
    }
