"""Tell a step that it has been asked to stop: with its run, or because its time has passed.

Python delivers signals to the main thread only, so a step in a thread is never interrupted from
outside: it asks. In an isolated step Dagster raises inside the body, once, and the event found here
is set as well. Under any other executor Dagster raises alone, and the event is never set.
"""

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.context.system import StepExecutionContext

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext


class StopRequest(threading.Event):
    """Set once one attempt of a step is asked to stop; it stays set, however long the attempt lives on."""

    def __init__(self, *, limit_of_process: Callable[[], float | None] = lambda: None) -> None:
        """Nothing is asked yet.

        Args:
            limit_of_process: seconds, once the process of an isolated step is asked to stop because they have passed.
        """
        super().__init__()
        self._limit: float | None = None
        self._limit_of_process = limit_of_process

    def ask(self, *, limit: float | None) -> None:
        """Ask to stop.

        Args:
            limit: seconds that the attempt was given and that have passed; None: its run is asked to stop.
        """
        self._limit = limit
        self.set()

    @property
    def passed_limit(self) -> float | None:
        """Seconds that the attempt was given, if it was asked to stop for that; else None."""
        return self._limit if self._limit is not None else self._limit_of_process()


AttemptKey = tuple[str, str, int]
"""Id of the run, key of the step, and how often that was tried before."""

# Weak, so that an attempt which outlives its run, or its time, still finds what told it to stop.
_requests: WeakValueDictionary[AttemptKey, StopRequest] = WeakValueDictionary()


def stoppable(attempt: AttemptKey, request: StopRequest) -> StopRequest:
    """Let the body of an attempt find its request, by `cancel_event`, for as long as the caller keeps it."""
    _requests[attempt] = request
    return request


def attempt_key(step_context: StepExecutionContext) -> AttemptKey:
    """What tells one attempt of a step from every other."""
    return step_context.run_id, step_context.step.key, step_context.previous_attempt_count


def cancel_event(context: StepContext) -> StopRequest:
    """The event that is set once the step is asked to stop; `wait(seconds)` is a sleep that obeys.

    Operations know nothing of Dagster: hand them this event.
    """
    op_context = context if isinstance(context, dg.OpExecutionContext) else context.op_execution_context
    # A context that a test builds by itself belongs to no step.
    step_context = getattr(op_context, "_step_execution_context", None)
    found = None if step_context is None else _requests.get(attempt_key(step_context))
    return StopRequest() if found is None else found


def cancel_requested(context: StepContext) -> bool:
    """Whether the step has been asked to stop."""
    return cancel_event(context).is_set()


def passed_limit(context: StepContext) -> float | None:
    """Seconds that the step was given, if it was asked to stop because they have passed; else None."""
    return cancel_event(context).passed_limit


def raise_if_cancelled(context: StepContext) -> None:
    """End the step as interrupted, as Dagster's own executors do, if it is asked to stop."""
    if cancel_requested(context):
        raise DagsterExecutionInterruptedError("The step was asked to stop.")
