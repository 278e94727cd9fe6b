"""Run a step in a process of its own, which never outlives the run.

The child is the one Dagster's multiprocess executor starts. On Linux the kernel kills it when the
thread that started it ends, and that thread lives exactly as long as the step. Elsewhere a thread
in the child watches the run process; it needs the interpreter, so a step stuck in native code that
holds Python's lock is noticed only when it lets go. Processes that the step itself started are its
own affair.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.errors import DagsterUnmetExecutorRequirementsError
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext, StepExecutionContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import IExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.child_process_executor import (
    ChildProcessSystemErrorEvent,
    execute_child_process_command,
)
from dagster._core.executor.multiprocess import MultiprocessExecutorChildProcessCommand
from dagster_shared.error import SerializableErrorInfo

from platform_core.execution.cancellation import StopRequest, stoppable

ISOLATED_TAG = "edp/isolated"
TIMEOUT_TAG = "edp/timeout"
PR_SET_PDEATHSIG = 1


def is_isolated(step: IExecutionStep) -> bool:
    return (step.tags or {}).get(ISOLATED_TAG, "").lower() == "true"


def time_limit(step: IExecutionStep) -> float | None:
    """Seconds that one attempt of a step may take; None: there is no limit."""
    text = (step.tags or {}).get(TIMEOUT_TAG)
    return None if text is None else float(text)


def check_isolation_is_possible(plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> None:
    """Refuse a run whose isolated steps could not be started, before any step starts."""
    isolated = [
        str(handle.to_key())
        for handle in execution_plan.step_handles_to_execute
        if is_isolated(execution_plan.step_dict[handle])
    ]
    if not isolated:
        return
    steps = ", ".join(repr(key) for key in isolated)
    if not isinstance(plan_context.job, ReconstructableJob):
        raise DagsterUnmetExecutorRequirementsError(
            f"step {steps} is tagged {ISOLATED_TAG}, but job {plan_context.job_name!r} was defined"
            " in this process and cannot be loaded again in another one\n"
            "  run it from a code location, or from dg.reconstructable(...) in a test,"
            f" or remove the tag {ISOLATED_TAG}"
        )
    if plan_context.instance.is_ephemeral:
        raise DagsterUnmetExecutorRequirementsError(
            f"step {steps} is tagged {ISOLATED_TAG}, but the Dagster instance lives in the memory"
            " of this process\n"
            f"  set DAGSTER_HOME, or remove the tag {ISOLATED_TAG}"
        )


class ChildError(Exception):
    """A step's process reported an error from outside the step, or that it was interrupted."""

    def __init__(self, error_info: SerializableErrorInfo) -> None:
        super().__init__(error_info.to_string())
        self.is_interrupt = error_info.cls_name in {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}


class IsolatedStep:
    """One attempt of one step, in a child process."""

    def __init__(
        self,
        step_context: StepExecutionContext,
        *,
        job: ReconstructableJob,
        known_state: KnownExecutionState,
        retries: RetryMode,
    ) -> None:
        self._context = step_context
        self._spawn = multiprocessing.get_context("spawn")
        self._asked_to_stop = self._spawn.Event()
        self._limit_passed = self._spawn.Event()
        self._process: BaseProcess | None = None
        self._command = _DiesWithTheRun(
            run_pid=os.getpid(),
            limit=time_limit(step_context.step),
            limit_passed=self._limit_passed,
            run_config=step_context.run_config,
            dagster_run=step_context.dagster_run,
            step_key=step_context.step.key,
            instance_ref=step_context.instance.get_ref(),
            term_event=self._asked_to_stop,
            recon_pipeline=job,
            retry_mode=retries,
            # The executor's own thread goes on adding to the set while this one pickles it.
            known_state=known_state._replace(ready_outputs=set(known_state.ready_outputs or ())),
            repository_load_data=step_context.execution_plan.repository_load_data,
        )

    def events(self) -> Iterator[DagsterEvent]:
        """The step's events as the child reports them; the child has already stored them."""
        yield DagsterEvent.step_worker_starting(
            self._context,
            f'Launching a process of its own for "{self._context.step.key}".',
            metadata={},
        )
        for report in execute_child_process_command(self._spawn, self._command):
            if isinstance(report, DagsterEvent):
                yield report
            elif isinstance(report, BaseProcess):
                self._process = report
            elif isinstance(report, ChildProcessSystemErrorEvent):
                raise ChildError(report.error_info)

    def ask_to_stop(self, *, limit_passed: bool) -> None:
        """Interrupt the body, as Dagster's multiprocess executor does.

        Args:
            limit_passed: whether it is because its time has passed; the body is told.
        """
        if limit_passed:
            self._limit_passed.set()
        self._asked_to_stop.set()

    def kill(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()


class _DiesWithTheRun(MultiprocessExecutorChildProcessCommand):
    def __init__(self, *, run_pid: int, limit: float | None, limit_passed: Event, **command: Any) -> None:
        super().__init__(**command)
        self._run_pid = run_pid
        self._limit = limit
        self._limit_passed = limit_passed

    def execute(self) -> Iterator[DagsterEvent]:
        tie_to_process(self._run_pid)
        attempts = self.known_state.get_retry_state().get_attempt_count(self.step_key) if self.known_state else 0
        request = StopRequest(limit_of_process=lambda: self._limit if self._limit_passed.is_set() else None)
        stoppable((self.dagster_run.run_id, self.step_key, attempts), request)
        # Dagster raises in the body once, and some of its own blocks swallow that: a body can ask as well.
        threading.Thread(target=self._pass_on, args=(request,), name="stop request", daemon=True).start()
        yield from super().execute()

    def _pass_on(self, request: StopRequest) -> None:
        self.term_event.wait()
        request.ask(limit=None)


def tie_to_process(parent_pid: int) -> None:
    """End this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it ended before the line above
            os._exit(1)
    else:
        watch_parent(on_end=lambda: os._exit(1))


def watch_parent(*, on_end: Callable[[], None]) -> None:
    """Call back when the process that started this one by multiprocessing has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        on_end()

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
