"""Tell a step that its run has been asked to stop.

Python delivers signals to the main thread only, so a step in a thread is never interrupted from
outside: it asks. Under any other executor, and in an isolated step, Dagster raises inside the
body instead, and the event found here is never set.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext

# Weak, so that a step which outlives its run still finds the event that told it to stop.
_events: WeakValueDictionary[str, threading.Event] = WeakValueDictionary()


@contextmanager
def cancellable(run_id: str) -> Iterator[threading.Event]:
    """The event of one run, which the run's steps find by `cancel_event`."""
    event = threading.Event()
    _events[run_id] = event
    yield event


def cancel_event(context: StepContext) -> threading.Event:
    """The event that is set once the run is asked to stop; `wait(seconds)` is a sleep that obeys.

    Operations know nothing of Dagster: hand them this event.
    """
    op_context = context if isinstance(context, dg.OpExecutionContext) else context.op_execution_context
    return _events.get(op_context.run_id) or threading.Event()


def cancel_requested(context: StepContext) -> bool:
    """Whether the run has been asked to stop."""
    return cancel_event(context).is_set()


def raise_if_cancelled(context: StepContext) -> None:
    """End the step as interrupted, as Dagster's own executors do, if the run is asked to stop."""
    if cancel_requested(context):
        raise DagsterExecutionInterruptedError("The run was asked to stop.")
