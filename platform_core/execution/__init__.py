"""How a run executes its steps: in threads of its own process."""

from platform_core.execution.cancellation import (
    cancel_event,
    cancel_requested,
    passed_limit,
    raise_if_cancelled,
)
from platform_core.execution.threaded import threaded_executor

__all__ = ["cancel_event", "cancel_requested", "passed_limit", "raise_if_cancelled", "threaded_executor"]
