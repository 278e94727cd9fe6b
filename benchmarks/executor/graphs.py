"""The graphs that are timed; importable, because step processes rebuild them."""

import time

import dagster as dg

from platform_core.execution import threaded_executor


def executor_named(name: str) -> dg.ExecutorDefinition:
    """`in process`, `multiprocess 2`, `threaded 8`: the number is how many steps at once."""
    kind, _, at_once = name.rpartition(" ")
    if kind == "threaded":
        return threaded_executor.configured({"max_concurrent": int(at_once)})
    if kind == "multiprocess":
        return dg.multiprocess_executor.configured({"max_concurrent": int(at_once)})
    return dg.in_process_executor


def independent_assets(count: int, seconds: float, executor: str) -> dg.JobDefinition:
    """Assets that depend on nothing, each waiting for so many seconds."""

    def waiting(n: int) -> dg.AssetsDefinition:
        @dg.asset(name=f"asset_{n}")
        def body() -> dg.MaterializeResult[None]:
            if seconds:
                time.sleep(seconds)
            return dg.MaterializeResult()

        return body

    return dg.Definitions(
        assets=[waiting(n) for n in range(count)],
        jobs=[dg.define_asset_job("job", selection="*")],
        executor=executor_named(executor),
    ).resolve_job_def("job")
