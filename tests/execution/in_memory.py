"""Run assets that a test defines by itself, in threads of the test's own process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run

from platform_core.execution import threaded_executor


def run_assets(
    assets: list[dg.AssetsDefinition],
    instance: dg.DagsterInstance,
    *,
    tags: Mapping[str, str] | None = None,
    resources: Mapping[str, Any] | None = None,
    **config: Any,
) -> dg.JobExecutionResult:
    """One run of all assets, with the given settings of the executor; nothing is raised."""
    executor = threaded_executor.configured({"max_concurrent": 4, **config})
    definitions = dg.Definitions(
        assets=assets, resources=resources, jobs=[dg.define_asset_job("job", tags=tags)], executor=executor
    )
    job = definitions.resolve_job_def("job")
    run = instance.create_run_for_job(job, execution_plan=create_execution_plan(job), tags=tags)
    return execute_run(InMemoryJob(job), run, instance)


@contextmanager
def own_instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def outcome(result: dg.JobExecutionResult) -> dict[str, list[str]]:
    """The step events of each step, in their order."""
    found: dict[str, list[str]] = {}
    kinds = ("STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_SUCCESS", "STEP_FAILURE")
    for event in result.all_events:
        if event.step_key and event.event_type_value in kinds:
            found.setdefault(event.step_key, []).append(event.event_type_value.removeprefix("STEP_"))
    return found


def failures(result: dg.JobExecutionResult) -> dict[str, str]:
    """The error of each step that failed, its causes included."""
    return {
        str(event.step_key): str(event.step_failure_data.error.to_string())
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error is not None
    }
