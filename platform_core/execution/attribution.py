"""Give lines of Python's loggers to the step whose thread wrote them.

While user code runs, Dagster hangs the step's handler on the global loggers it manages. With many
steps at once the first handler takes every line. Here one router hangs there for the whole run,
and picks the handler by thread.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dagster._core.execution.context.system import PlanExecutionContext, StepExecutionContext
from dagster._core.log_manager import DagsterLogHandler, DagsterLogManager


class LineRouter(logging.Handler):
    """Hand each line to the step that its thread is running."""

    def __init__(self, of_the_run: DagsterLogHandler) -> None:
        super().__init__()
        self._of_the_run = of_the_run
        self._by_thread: dict[int, DagsterLogHandler] = {}
        self._executor_thread = threading.get_ident()

    def begin(self, handler: DagsterLogHandler) -> None:
        self._by_thread[threading.get_ident()] = handler

    def end(self) -> None:
        self._by_thread.pop(threading.get_ident(), None)

    def handle(self, record: logging.LogRecord) -> bool:
        # Not under this handler's lock: the one it hands over to has its own.
        thread = threading.get_ident()
        handler = self._by_thread.get(thread)
        if handler is None:
            # A thread that a step started belongs to no step we could know: the run keeps its
            # lines. Lines of the framework itself are dropped, as Dagster does.
            if not self._by_thread or thread == self._executor_thread or _drives_a_step():
                return False
            handler = self._of_the_run
        return bool(handler.handle(record))


class StepLog(DagsterLogManager):
    """A step's `context.log`, which captures Python's loggers in its own thread only."""

    def __init__(self, log: DagsterLogManager, router: LineRouter) -> None:
        super().__init__(dagster_handler=log._dagster_handler, level=log.level)
        self._router = router

    def begin_python_log_capture(self) -> None:
        self._router.begin(self._dagster_handler)

    def end_python_log_capture(self) -> None:
        self._router.end()

    def mute(self) -> None:
        """Let nothing more into the event log; an entry that is being written is finished."""
        lock = self._dagster_handler.lock
        locked = lock.acquire(timeout=1) if lock else False
        try:
            self._dagster_handler._handlers = []
            self._dagster_handler._loggers = []
        finally:
            if lock and locked:
                lock.release()


STEP_THREAD_PREFIX = "step "


def _drives_a_step() -> bool:
    return threading.current_thread().name.startswith(STEP_THREAD_PREFIX)


@contextmanager
def routed_lines(job_context: PlanExecutionContext) -> Iterator[LineRouter]:
    """Route the managed Python loggers while the run's steps execute."""
    router = LineRouter(job_context.log._dagster_handler)
    loggers = job_context.log._managed_loggers
    for logger in loggers:
        logger.addHandler(router)
    try:
        yield router
    finally:
        for logger in loggers:
            logger.removeHandler(router)


def attribute(step_context: StepExecutionContext, *, router: LineRouter) -> StepLog:
    """Give the step a log of its own, and return it."""
    log = StepLog(step_context.log, router)
    step_context._log_manager = log
    return log
