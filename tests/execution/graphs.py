"""The graphs that the executor tests run, each under several executors.

A child process rebuilds a job by its name and the name of its executor.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from platform_core.execution import cancel_event, raise_if_cancelled, threaded_executor

REPOSITORY_ROOT = Path(__file__).parents[2]

# What a step process would otherwise import for two seconds each time.
PRELOADED = [
    "tests.execution.graphs",
    "alembic.command",
    "antlr4",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "dagster._daemon.asset_daemon",
    "dagster._utils.test.definitions",
]

EXECUTORS: dict[str, dg.ExecutorDefinition] = {
    "threaded": threaded_executor.configured({"max_concurrent": 4, "cancel_wait": 3.0}),
    "threaded, patient": threaded_executor.configured({"cancel_wait": 60.0}),
    "threaded, eight at once": threaded_executor.configured({"max_concurrent": 8}),
    "threaded, no retries": threaded_executor.configured({"retries": {"disabled": {}}}),
    "threaded, one at a time": threaded_executor.configured({"max_concurrent": 1}),
    "threaded, tag limits": threaded_executor.configured(
        {
            "max_concurrent": 8,
            "tag_concurrency_limits": [
                {"key": "edp/connection", "value": {"applyLimitPerUniqueValue": True}, "limit": 2}
            ],
        }
    ),
    "in process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor.configured(
        {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": PRELOADED}},
        }
    ),
}

GRAPHS: dict[str, Callable[[dg.ExecutorDefinition], dg.JobDefinition]] = {}


def graph(build):
    GRAPHS[build.__name__.replace("_", " ")] = build
    return build


def job_of_assets(executor: dg.ExecutorDefinition, *assets, resources=None, hooks=None) -> dg.JobDefinition:
    definitions = dg.Definitions(
        assets=[a for a in assets if not isinstance(a, dg.AssetChecksDefinition)],
        asset_checks=[a for a in assets if isinstance(a, dg.AssetChecksDefinition)],
        jobs=[dg.define_asset_job("job", selection="*", hooks=hooks)],
        executor=executor,
        resources=resources or {},
    )
    return definitions.resolve_job_def("job")


def rebuild(name: str, executor: str) -> dg.JobDefinition:
    return GRAPHS[name](EXECUTORS[executor])


def reconstructable(name: str, executor: str):
    return dg.build_reconstructable_job(
        "tests.execution.graphs",
        "rebuild",
        (name, executor),
        reconstructor_working_directory=str(REPOSITORY_ROOT),
    )


@graph
def one_step_fails_and_only_its_dependents_do_not_run(executor):
    @dg.asset
    def bad() -> int:
        raise ValueError("no")

    @dg.asset
    def good() -> int:
        return 1

    @dg.asset
    def after_bad(bad: int) -> int:
        return bad

    @dg.asset
    def after_after_bad(after_bad: int) -> int:
        return after_bad

    @dg.asset
    def after_good(good: int) -> int:
        return good + 1

    return job_of_assets(executor, bad, good, after_bad, after_after_bad, after_good)


@graph
def retries_with_delay_then_success_and_retries_used_up(executor):
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.3))
    def second_time_lucky(context: dg.AssetExecutionContext) -> int:
        if context.retry_number == 0:
            raise ValueError("not yet")
        return 1

    @dg.asset(deps=[second_time_lucky])
    def after() -> None: ...

    @dg.asset
    def never(context: dg.AssetExecutionContext) -> None:
        raise dg.RetryRequested(max_retries=1)

    @dg.asset(deps=[never])
    def after_never() -> None: ...

    return job_of_assets(executor, second_time_lucky, after, never, after_never)


@graph
def ways_to_fail(executor):
    @dg.asset
    def leaves() -> None:
        raise SystemExit(3)

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=3))
    def refuses_retries() -> None:
        raise dg.Failure("final", metadata={"rows": 3}, allow_retries=False)

    return job_of_assets(executor, leaves, refuses_retries)


@graph
def a_blocking_check_and_a_warning(executor):
    @dg.asset(check_specs=[dg.AssetCheckSpec("rows", asset="blocked", blocking=True)])
    def blocked():
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="rows", passed=False)])

    @dg.asset(deps=[blocked])
    def after_blocked() -> None: ...

    @dg.asset
    def warned() -> None: ...

    @dg.asset_check(asset=warned)
    def fresh() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    @dg.asset(deps=[warned])
    def after_warned() -> None: ...

    return job_of_assets(executor, blocked, after_blocked, warned, fresh, after_warned)


@graph
def a_skippable_output_and_a_subset_of_outputs(executor):
    @dg.multi_asset(outs={"kept": dg.AssetOut(is_required=False), "left_out": dg.AssetOut(is_required=False)})
    def two():
        yield dg.Output(1, "kept")

    @dg.asset
    def after_kept(kept: int) -> None: ...

    @dg.asset
    def after_left_out(left_out: int) -> None: ...

    @dg.multi_asset(specs=[dg.AssetSpec("x"), dg.AssetSpec("y")], can_subset=True)
    def chosen(context: dg.AssetExecutionContext):
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)

    definitions = dg.Definitions(
        assets=[two, after_kept, after_left_out, chosen],
        jobs=[dg.define_asset_job("job", selection=dg.AssetSelection.all() - dg.AssetSelection.assets("y"))],
        executor=executor,
    )
    return definitions.resolve_job_def("job")


@graph
def hooks_that_run_and_one_that_breaks(executor):
    @dg.success_hook
    def praise(context: dg.HookContext) -> None:
        context.log.info("praised")

    @dg.failure_hook
    def blame(context: dg.HookContext) -> None:
        raise ValueError(f"hook breaks on {context.step_key}: {context.op_exception}")

    @dg.op
    def fine() -> None: ...

    @dg.op
    def bad() -> None:
        raise ValueError("no")

    @dg.job(executor_def=executor, hooks={praise, blame})
    def job():
        fine()
        bad()

    return job


@graph
def a_fan_out_known_only_at_run_time(executor):
    @dg.op(out=dg.DynamicOut(int))
    def split():
        for part in range(3):
            yield dg.DynamicOutput(part, mapping_key=f"part_{part}")

    @dg.op
    def double(part: int) -> int:
        if part == 5:
            raise ValueError("no")
        return part * 2

    @dg.op
    def total(context: dg.OpExecutionContext, parts: list[int]) -> None:
        context.log.info(f"total {sum(parts)}")

    @dg.job(executor_def=executor)
    def job():
        total(split().map(double).collect())

    return job


@graph
def async_bodies_at_once(executor):
    import asyncio

    def waiting(name: str):
        @dg.asset(name=name)
        async def body() -> int:
            await asyncio.sleep(0.2)
            return 1

        return body

    return job_of_assets(executor, waiting("a"), waiting("b"))


@graph
def fails_until_told_otherwise(executor):
    @dg.asset
    def first() -> int:
        return 1

    @dg.asset
    def moody(context: dg.AssetExecutionContext, first: int) -> int:
        if not Path(context.instance.root_directory, "mood").exists():
            raise ValueError("not in the mood")
        return first + 1

    @dg.asset
    def last(moody: int) -> None: ...

    @dg.asset
    def apart() -> None: ...

    return job_of_assets(executor, first, moody, last, apart)


class Counted(dg.ConfigurableResource):
    """Writes down when it is set up and torn down."""

    ledger: str

    def _note(self, line: str) -> None:
        with Path(self.ledger).open("a") as ledger:
            ledger.write(line + "\n")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._note("setup")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._note("teardown")

    def use(self) -> None:
        self._note("use")


@graph
def many_steps_share_a_resource(executor):
    def using(name: str):
        @dg.asset(name=name)
        def body(counted: Counted) -> None:
            counted.use()

        return body

    return job_of_assets(
        executor,
        *(using(f"user_{n}") for n in range(6)),
        resources={"counted": Counted(ledger=dg.EnvVar("LEDGER"))},
    )


@graph
def a_resource_that_cannot_start(executor):
    @dg.resource
    def broken(_):
        raise ValueError("no server")

    @dg.asset(required_resource_keys={"broken"})
    def needs_it() -> None: ...

    return job_of_assets(executor, needs_it, resources={"broken": broken})


STEP_COUNT = 8


@graph
def steps_that_wait_and_log(executor):
    together = threading.Barrier(STEP_COUNT, timeout=20)

    def chatty(n: int):
        @dg.asset(name=f"chatty_{n}")
        def body(context: dg.AssetExecutionContext) -> None:
            together.wait()  # all of them run now
            for line in range(5):
                context.log.info(f"by context of {n}, line {line}")
                dg.get_dagster_logger().info(f"by logger of {n}, line {line}")
                print(f"by print of {n}, line {line}", flush=True)  # noqa: T201
                time.sleep(0.01)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(context.log.info, f"by context of {n}, from a thread of its own").result()

        return body

    return job_of_assets(executor, *map(chatty, range(STEP_COUNT)))


def timed(name: str, seconds: float, **attributes):
    @dg.asset(name=name, **attributes)
    def body() -> dg.MaterializeResult:
        began = time.time()
        time.sleep(seconds)
        return dg.MaterializeResult(metadata={"began": began, "ended": time.time()})

    return body


@graph
def steps_on_two_connections(executor):
    return job_of_assets(
        executor,
        *(timed(f"erp_{n}", 0.6, op_tags={"edp/connection": "erp"}) for n in range(4)),
        *(timed(f"crm_{n}", 0.6, op_tags={"edp/connection": "crm"}) for n in range(4)),
    )


@graph
def steps_in_a_pool(executor):
    return job_of_assets(executor, *(timed(f"pooled_{n}", 0.2, pool="narrow") for n in range(3)))


@graph
def a_long_retry_delay_beside_other_work(executor):
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1, delay=2.0))
    def delayed(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        if context.retry_number == 0:
            raise ValueError("later")
        return dg.MaterializeResult(metadata={"began": time.time(), "ended": time.time()})

    return job_of_assets(executor, delayed, timed("link_0", 0.05), timed("link_1", 0.05, deps=["link_0"]))


@graph
def two_steps_that_obey_and_one_that_waits_for_them(executor):
    def obedient(name: str):
        @dg.asset(name=name)
        def body(context: dg.AssetExecutionContext) -> None:
            Path(os.environ["MARKERS"], name).touch()
            cancel_event(context).wait(60)
            raise_if_cancelled(context)

        return body

    @dg.asset(deps=["left", "right"])
    def after() -> None: ...

    return job_of_assets(executor, obedient("left"), obedient("right"), after)


@graph
def an_isolated_step_defined_in_this_process(executor):
    @dg.asset(op_tags={"edp/isolated": "true"})
    def apart() -> None: ...

    return job_of_assets(executor, apart)


@graph
def a_step_that_does_not_listen(executor):
    @dg.asset
    def deaf() -> None:
        Path(os.environ["MARKERS"], "deaf").touch()
        time.sleep(60)

    @dg.asset(deps=[deaf])
    def after() -> None: ...

    return job_of_assets(executor, deaf, after)


@graph
def an_isolated_step_beside_threads(executor):
    @dg.asset(op_tags={"edp/isolated": "true"}, retry_policy=dg.RetryPolicy(max_retries=1))
    def apart(context: dg.AssetExecutionContext) -> int:
        if context.retry_number == 0:
            os._exit(9)
        context.add_output_metadata({"pid": os.getpid()})
        return 1

    @dg.asset
    def inside(context: dg.AssetExecutionContext, apart: int) -> None:
        context.add_output_metadata({"pid": os.getpid()})

    return job_of_assets(executor, apart, inside)


@graph
def an_isolated_step_that_takes_long(executor):
    @dg.asset(op_tags={"edp/isolated": "true"})
    def slow() -> None:
        written = Path(os.environ["MARKERS"], "pid.part")
        written.write_text(str(os.getpid()))
        written.rename(written.with_suffix(""))
        time.sleep(60)

    return job_of_assets(executor, slow)


@graph
def an_isolated_step_whose_interrupt_is_swallowed(executor):
    @dg.asset(op_tags={"edp/isolated": "true"})
    def asking(context: dg.AssetExecutionContext) -> None:
        written = Path(os.environ["MARKERS"], "pid.part")
        written.write_text(str(os.getpid()))
        with suppress(DagsterExecutionInterruptedError):
            written.rename(written.with_suffix(""))
            time.sleep(60)
        cancel_event(context).wait(60)
        raise_if_cancelled(context)
        Path(os.environ["MARKERS"], "finished").touch()

    return job_of_assets(executor, asking)


def waiting_in_a_process_of_its_own(deaf: bool):
    @dg.asset(op_tags={"edp/isolated": "true", "edp/timeout": "60"})
    def waiting(context: dg.AssetExecutionContext) -> None:
        from platform_core.factories.run_policy import Running, bounded  # other graphs start quicker without it

        markers = Path(os.environ["MARKERS"])
        with bounded(context, Running()):
            try:
                (markers / "started").touch()
                time.sleep(60)
            except DagsterExecutionInterruptedError:
                if not deaf:
                    raise
                (markers / "asked").touch()
                time.sleep(60)

    return waiting


@graph
def an_isolated_step_that_obeys_its_limit(executor):
    return job_of_assets(executor, waiting_in_a_process_of_its_own(deaf=False))


@graph
def an_isolated_step_that_ignores_its_limit(executor):
    return job_of_assets(executor, waiting_in_a_process_of_its_own(deaf=True))
