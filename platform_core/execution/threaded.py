"""Run each step of a plan in a thread of the run's process.

Dagster has an executor that runs one step after the other and one that starts a process for each;
small tables wait on networks and must not pay for a process. Planning, retries, skipping, limits
and the events are Dagster's own (`ActiveExecution`, `dagster_event_sequence_for_step`); this module
decides which thread they run in. One thread, the executor's, owns the plan's state: step threads
only drive their step and report its events through a queue.

Each event is stored by the thread that made it, before the step goes on. Dagster's log handler and
its SQLite storage each hold a lock around a write, so threads take turns; one writing thread for
all costs as much (`python -m benchmarks.executor`).
"""

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.step_dependency_config import (
    StepDependencyConfig,
    get_step_dependency_config_field,
)
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor.base import Executor
from dagster._core.executor.child_process_executor import ChildProcessCrashException
from dagster._utils import get_run_crash_explanation
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.timing import time_execution_scope
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.utils.timing import format_duration

from platform_core.execution.attribution import (
    STEP_THREAD_PREFIX,
    LineRouter,
    StepLog,
    attribute,
    routed_lines,
)
from platform_core.execution.cancellation import StopRequest, attempt_key, stoppable
from platform_core.execution.isolated import (
    ChildError,
    IsolatedStep,
    check_isolation_is_possible,
    is_isolated,
    time_limit,
)
from platform_core.execution.pools import declare_limits
from platform_core.execution.time_limits import Clock, limit_error

if TYPE_CHECKING:
    from dagster._core.definitions.reconstruct import ReconstructableJob

TICK = 0.1
"""Seconds between looks at the clock: interrupts, delayed retries, pools. Reports do not wait."""

LAST_REPORTS = 0.05
"""Seconds for a report already under way when its step is given up."""


class ThreadedExecutor(Executor):
    """Steps in threads of the run process; a step may ask for a process of its own."""

    def __init__(
        self,
        *,
        max_concurrent: int,
        tag_concurrency_limits: list[dict[str, Any]],
        retries: RetryMode,
        step_dependency_config: StepDependencyConfig,
        cancel_wait: float,
        run_tags: Mapping[str, str],
        pool_limits: Mapping[str, int | None],
    ) -> None:
        self._pool_limits = pool_limits
        self._max_concurrent = max_concurrent
        self._tag_concurrency_limits = tag_concurrency_limits
        self._retries = retries
        self._step_dependency_config = step_dependency_config
        self._cancel_wait = cancel_wait
        self._run_tags = run_tags

    @property
    def retries(self) -> RetryMode:
        return self._retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self._step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        check_isolation_is_possible(plan_context, execution_plan)
        self._tag_run(plan_context)
        declare_limits(plan_context.instance, self._pool_limits)
        pid = os.getpid()
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in up to {self._max_concurrent} threads (pid: {pid})",
            event_specific_data=EngineEventData.in_process(pid, execution_plan.step_keys_to_execute),
        )
        with time_execution_scope() as timer:
            yield from ExecuteRunWithPlanIterable(
                execution_plan=execution_plan,
                iterator=self._execute_steps,
                execution_context_manager=PlanExecutionContextManager(
                    job=plan_context.job,
                    retry_mode=plan_context.retry_mode,
                    execution_plan=execution_plan,
                    run_config=plan_context.run_config,
                    dagster_run=plan_context.dagster_run,
                    instance=plan_context.instance,
                    raise_on_error=plan_context.raise_on_error,
                    output_capture=plan_context.output_capture,
                    step_dependency_config=self._step_dependency_config,
                ),
            )
        yield DagsterEvent.engine_event(
            plan_context,
            f"Finished steps in threads (pid: {pid}) in {format_duration(timer.millis)}",
            event_specific_data=EngineEventData.in_process(pid, execution_plan.step_keys_to_execute),
        )

    def _tag_run(self, plan_context: PlanOrchestrationContext) -> None:
        """Put the tags on the run, however it was started; those of a run that it repeats may be old."""
        run = plan_context.dagster_run
        if wrong := {name: value for name, value in self._run_tags.items() if run.tags.get(name) != value}:
            plan_context.instance.add_run_tags(run.run_id, wrong)

    def _execute_steps(
        self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        with ExitStack() as stack:
            pools = stack.enter_context(InstanceConcurrencyContext(job_context.instance, job_context.dagster_run))
            active = stack.enter_context(
                ActiveExecution(
                    execution_plan,
                    retry_mode=self._retries,
                    max_concurrent=self._max_concurrent,
                    tag_concurrency_limits=self._tag_concurrency_limits,
                    instance_concurrency_context=pools,
                    step_dependency_config=self._step_dependency_config,
                )
            )
            captured = stack.enter_context(ExitStack())
            yield from _begin_log_capture(captured, job_context, execution_plan)
            floor = StepFloor(
                self,
                job_context,
                active,
                router=stack.enter_context(routed_lines(job_context)),
                max_concurrent=self._max_concurrent,
                cancel_wait=self._cancel_wait,
            )
            yield from floor.run()
            try:
                captured.close()
            except Exception:  # noqa: BLE001 - becomes an event: a lost log file is no lost run
                yield from _handle_compute_log_teardown_error(job_context, sys.exc_info())


def _begin_log_capture(
    stack: ExitStack, job_context: PlanExecutionContext, execution_plan: ExecutionPlan
) -> Iterator[DagsterEvent]:
    """Capture stdout and stderr of the whole process into one file a run, as in-process does."""
    compute_logs = job_context.instance.compute_log_manager
    log_key = compute_logs.build_log_key_for_run(job_context.run_id, create_compute_log_file_key())  # type: ignore[no-untyped-call]
    step_keys = [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]
    try:
        log_context = stack.enter_context(compute_logs.capture_logs(log_key))
        yield DagsterEvent.capture_logs(job_context, step_keys, log_key, log_context)
    except Exception:  # noqa: BLE001 - becomes an event: a lost log file is no lost run
        yield from _handle_compute_log_setup_error(job_context, sys.exc_info())


class Report(NamedTuple):
    """What a step's thread says: one event, or that the attempt is over and how."""

    attempt: "Attempt"
    event: DagsterEvent | None = None
    error: BaseException | None = None


class Attempt:
    """One attempt of one step, driven by one thread."""

    def __init__(
        self,
        step_context: StepExecutionContext,
        log: StepLog,
        *,
        process: IsolatedStep | None,
        report: Callable[[Report], None],
    ) -> None:
        self.key = step_context.step.key
        self.settled = False
        self.abandoned = False
        self.is_isolated = process is not None
        self.clock = Clock(time_limit(step_context.step))
        self._context = step_context
        self._log = log
        self._process = process
        self._report = report
        self._given_up = False
        # Kept here, and so for as long as the thread, whose body may ask for it.
        self._stop = stoppable(attempt_key(step_context), StopRequest())

    def start(self) -> None:
        self.clock.start()
        # A daemon: a step that ignores the request to stop must not keep the process alive.
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._drive,),
            name=f"{STEP_THREAD_PREFIX}{self.key}",
            daemon=True,
        ).start()

    def ask_to_stop(self, *, limit: float | None = None) -> None:
        """Ask the body to end, because its run is asked to stop, or because so many seconds have passed."""
        self._stop.ask(limit=limit)
        if self._process is not None:
            self._process.ask_to_stop(limit_passed=limit is not None)

    def give_up(self) -> None:
        """Wait for it no longer: nothing it still does reaches the event log."""
        self._given_up = True
        self._log.mute()
        if self._process is not None:
            self._process.kill()

    def _drive(self) -> None:
        error: BaseException | None = None
        try:
            for event in self._process.events() if self._process else self._events_of_this_thread():
                self._report(Report(self, event=event))
        except BaseException as raised:  # noqa: BLE001 - raised again in the executor's thread
            error = raised
        finally:
            self._report(Report(self, error=error))

    def _events_of_this_thread(self) -> Iterator[DagsterEvent]:
        # The run's event loop serves one thread at a time; an async body needs its own.
        loop = asyncio.new_event_loop()
        self._context._event_loop = loop
        events = []
        try:
            sequence = cast("Generator[DagsterEvent]", dagster_event_sequence_for_step(self._context))
            for event in sequence:
                events.append(event)
                yield event
                if self._given_up:
                    sequence.throw(DagsterExecutionInterruptedError("The run has ended."))
            yield from _trigger_hook(self._context, events)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, ChildError):
        return error.is_interrupt
    return isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt)


class StepFloor:
    """The executor's own thread: starts attempts, takes their reports, and moves the plan on."""

    def __init__(
        self,
        executor: Executor,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        *,
        router: LineRouter,
        max_concurrent: int,
        cancel_wait: float,
    ) -> None:
        self._executor = executor
        self._job_context = job_context
        self._active = active
        self._router = router
        self._max_concurrent = max_concurrent
        self._cancel_wait = cancel_wait
        self._running: set[Attempt] = set()
        self._reports: SimpleQueue[Report] = SimpleQueue()
        self._errors: list[BaseException] = []
        self._halted = False
        self._plan_moved = True
        self._give_up_at: float | None = None

    def run(self) -> Iterator[DagsterEvent]:
        try:
            while self._running or not self._stopping:
                yield from self._heed_interrupts()
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    yield from self._give_up()
                    break
                yield from self._heed_limits()
                if self._plan_moved and not self._stopping:
                    self._plan_moved = False
                    yield from self._active.plan_events_iterator(self._job_context)
                    yield from self._start_steps()
                # Asked only now: the steps of a fan-out are part of the plan once it was looked at after what fans out.
                if not self._running and self._active.is_complete:
                    break
                yield from self._take_reports()
        finally:
            self._leave_nothing_running()
        if self._give_up_at is not None:
            raise DagsterExecutionInterruptedError("The run was asked to stop.")
        if self._errors:
            raise self._errors[0]

    @property
    def _stopping(self) -> bool:
        return self._give_up_at is not None or self._halted

    def _heed_interrupts(self) -> Iterator[DagsterEvent]:
        if not self._active.check_for_interrupts():
            return
        if self._give_up_at is not None:  # asked a second time: wait no longer
            self._give_up_at = time.monotonic()
            return
        keys = sorted(attempt.key for attempt in self._running)
        self._give_up_at = time.monotonic() + self._cancel_wait
        self._active.mark_interrupted()
        self._ask_to_stop()
        yield DagsterEvent.engine_event(
            self._job_context,
            f"Threaded executor: asked to stop; no step starts any more, and {len(keys)} running"
            f" have {self._cancel_wait:g} s to end",
            EngineEventData.interrupted(keys),
        )

    def _heed_limits(self) -> Iterator[DagsterEvent]:
        """Ask steps to stop whose time has passed, and wait no longer for those that do not."""
        if self._give_up_at is not None:  # the run is about to end, and they with it
            return
        for attempt in [running for running in self._running if running.clock.limit is not None]:
            if attempt.settled or attempt not in self._running:  # it ended in time, or while another was given up
                continue
            if attempt.clock.has_passed:
                attempt.clock.grant(self._cancel_wait)
                attempt.ask_to_stop(limit=attempt.clock.limit)
                yield DagsterEvent.engine_event(
                    self._fresh_context(attempt),
                    f"Threaded executor: step {attempt.key} has not ended within its limit of"
                    f" {attempt.clock.limit:g} s, and has {self._cancel_wait:g} s to stop",
                    EngineEventData(metadata={}),
                )
            elif attempt.clock.grace_has_passed:
                yield from self._abandon(attempt)

    def _abandon(self, attempt: Attempt) -> Iterator[DagsterEvent]:
        """Fail a step that ignores its limit: its process is killed, its thread is left behind and heard no more."""
        attempt.give_up()
        time.sleep(LAST_REPORTS)
        yield from self._take_reports()
        attempt.abandoned = True
        self._running.discard(attempt)
        if not attempt.settled:
            yield from self._fail_or_retry(attempt, limit_error(attempt.key, attempt.clock, killed=attempt.is_isolated))

    def _ask_to_stop(self) -> None:
        for attempt in self._running:
            attempt.ask_to_stop()

    def _start_steps(self) -> Iterator[DagsterEvent]:
        room = self._max_concurrent - len(self._running)
        if room <= 0:  # the attempt that makes room sets the plan moving again
            return
        for step in self._active.get_steps_to_execute(limit=room):
            attempt = self._attempt(step)
            attempt.start()
            self._running.add(attempt)
        yield from self._active.concurrency_event_iterator(self._job_context)

    def _attempt(self, step: ExecutionStep) -> Attempt:
        known_state = self._active.get_known_state()
        step_context = self._job_context.for_step(step, known_state)
        process = None
        if is_isolated(step):
            job = cast("ReconstructableJob", self._job_context.job)  # checked before the first step
            process = IsolatedStep(step_context, job=job, known_state=known_state, retries=self._executor.retries)
        return Attempt(
            step_context,
            attribute(step_context, router=self._router),
            process=process,
            report=self._reports.put,
        )

    def _take_reports(self) -> Iterator[DagsterEvent]:
        """Wait for a report, then take all there are."""
        try:
            report = self._reports.get(timeout=TICK)
        except Empty:
            self._plan_moved = True  # the clock moved: a retry may be due, or a pool have room
            return
        while True:
            yield from self._take(report)
            try:
                report = self._reports.get_nowait()
            except Empty:
                return

    def _take(self, report: Report) -> Iterator[DagsterEvent]:
        attempt, event, error = report
        if attempt.abandoned:
            return
        if event is None:
            self._running.discard(attempt)
            self._plan_moved = True
            yield from self._settle(attempt, error)
            return
        yield event
        self._active.handle_event(event)
        if event.is_step_failure or event.is_step_success or event.is_step_up_for_retry:
            attempt.settled = True
            self._plan_moved = True
        elif event.is_resource_init_failure:  # in the process of an isolated step
            error_info = cast("SerializableErrorInfo", event.engine_event_data.error)
            yield from self._fail_or_retry(attempt, error_info)

    def _settle(self, attempt: Attempt, error: BaseException | None) -> Iterator[DagsterEvent]:
        """See to it that an attempt which is over has an outcome, and that no error is lost."""
        if attempt.is_isolated and attempt.clock.was_asked and not attempt.settled:  # its process was killed
            yield from self._fail_or_retry(attempt, limit_error(attempt.key, attempt.clock, killed=True))
            return
        if error is not None and not _is_interrupt(error):
            if attempt.settled and self._job_context.raise_on_error and not attempt.is_isolated:
                self._halted = True  # the step's own error: the caller asked for it to be raised
                self._errors.append(error)
            else:
                yield from self._take_unexpected(attempt, error)
        if not attempt.settled:
            self._active.verify_complete(self._job_context, attempt.key)

    def _take_unexpected(self, attempt: Attempt, error: BaseException) -> Iterator[DagsterEvent]:
        """Log an error from around a step; independent steps go on, the run fails in the end."""
        error_info = serializable_error_info_from_exc_info(
            (type(error), error, error.__traceback__)  # type: ignore[arg-type]
        )
        message = f"Threaded executor: unexpected error while running step {attempt.key}"
        if isinstance(error, ChildProcessCrashException):
            message = get_run_crash_explanation(
                prefix=f"Threaded executor: process of step {attempt.key}", exit_code=error.exit_code
            )
        yield DagsterEvent.engine_event(self._job_context, message, EngineEventData.engine_error(error_info))
        if attempt.is_isolated and not attempt.settled:
            yield from self._fail_or_retry(attempt, error_info)
        else:
            self._errors.append(error)

    def _fail_or_retry(self, attempt: Attempt, error_info: SerializableErrorInfo) -> Iterator[DagsterEvent]:
        event = self._executor.log_failure_or_retry_event_after_error(
            self._fresh_context(attempt), error_info, self._active.get_known_state()
        )
        self._active.handle_event(event)
        attempt.settled = True
        self._plan_moved = True
        yield event

    def _give_up(self) -> Iterator[DagsterEvent]:
        """Fail the steps that have not ended in time; their threads end with the process."""
        for attempt in self._running:
            attempt.give_up()
        time.sleep(LAST_REPORTS)
        yield from self._take_reports()
        for attempt in sorted(self._running, key=lambda running: running.key):
            if attempt.settled:
                continue
            event = DagsterEvent.step_failure_event(
                self._fresh_context(attempt),
                StepFailureData(  # type: ignore[no-untyped-call]
                    error=SerializableErrorInfo(
                        message="DagsterExecutionInterruptedError: The run was asked to stop, and"
                        f" step {attempt.key} did not end within {self._cancel_wait:g} s."
                        " Its thread ends with the process of the run.\n",
                        stack=[],
                        cls_name=DagsterExecutionInterruptedError.__name__,
                    ),
                    user_failure_data=None,
                    error_source=ErrorSource.INTERRUPT,
                ),
            )
            self._active.handle_event(event)
            attempt.settled = True
            yield event
        self._running.clear()

    def _fresh_context(self, attempt: Attempt) -> StepExecutionContext:
        """The step's context with a log that is not muted."""
        return self._job_context.for_step(self._active.get_step_by_key(attempt.key), self._active.get_known_state())

    def _leave_nothing_running(self) -> None:
        """After an error of the executor itself: stop what runs, without waiting for ever."""
        if not self._running:
            return
        self._ask_to_stop()
        deadline = time.monotonic() + self._cancel_wait
        while self._running and (left := deadline - time.monotonic()) > 0:
            try:
                report = self._reports.get(timeout=left)
            except Empty:
                break
            if report.event is None:
                self._running.discard(report.attempt)
        for attempt in self._running:
            attempt.give_up()


@dg.executor(
    name="threaded",
    config_schema=dg.Field(
        {
            "max_concurrent": dg.Field(
                dg.Noneable(int),
                default_value=None,
                description="How many steps may run at once. By default four more than the"
                " processors, at most 32: steps are expected to wait more than they compute.",
            ),
            "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
            "retries": get_retries_config(),  # type: ignore[no-untyped-call]
            "step_dependency_config": get_step_dependency_config_field(),  # type: ignore[no-untyped-call]
            "cancel_wait": dg.Field(
                float,
                default_value=8.0,
                description="Seconds that running steps have to end once the run is asked to"
                " stop. Containers are usually killed after ten.",
            ),
            "run_tags": dg.Field(
                dg.Map(str, str),  # type: ignore[no-untyped-call]
                default_value={},
                description="Tags that are put on every run when it starts.",
            ),
            "pool_limits": dg.Field(
                dg.Map(str, dg.Noneable(int)),  # type: ignore[no-untyped-call]
                default_value={},
                description="How many steps of all runs may be in a pool at a time, by the name of"
                " the pool; null: as many as like. The instance is told when a run starts.",
            ),
        },
        description="Execute each step in a thread of the run process.",
    ),
)
def threaded_executor(init_context: dg.InitExecutorContext) -> ThreadedExecutor:
    """Run each step in a thread of the run process; tag `edp/isolated: "true"` for a process."""
    config = cast("dict[str, Any]", init_context.executor_config)
    return ThreadedExecutor(
        max_concurrent=config["max_concurrent"] or min(32, (os.cpu_count() or 1) + 4),
        tag_concurrency_limits=config.get("tag_concurrency_limits", []),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
        cancel_wait=config["cancel_wait"],
        run_tags=config["run_tags"],
        pool_limits=config["pool_limits"],
    )
