"""How long one attempt of a step has run, and what is said of one that does not end in time."""

from time import monotonic

from dagster_shared.error import SerializableErrorInfo

from platform_core.errors import TimeLimitError


class Clock:
    """The time of one attempt.

    Args:
        limit: seconds that it may take; None: there is no limit.

    Attributes:
        was_asked: whether it was asked to stop because they have passed.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.was_asked = False
        self._ends: float | None = None

    def start(self) -> None:
        """The attempt begins."""
        if self.limit is not None:
            self._ends = monotonic() + self.limit

    def grant(self, seconds: float) -> None:
        """The attempt has been asked to stop, and has so many seconds for it."""
        self.was_asked = True
        self._ends = monotonic() + seconds

    @property
    def has_passed(self) -> bool:
        """Whether the limit has passed, and the attempt was not asked to stop yet."""
        return not self.was_asked and self._is_over

    @property
    def grace_has_passed(self) -> bool:
        """Whether the attempt was asked to stop, and has not done so in time."""
        return self.was_asked and self._is_over

    @property
    def _is_over(self) -> bool:
        return self._ends is not None and monotonic() >= self._ends


def limit_error(step: str, clock: Clock, *, killed: bool) -> SerializableErrorInfo:
    """What Dagster stores of a step that was given up.

    Args:
        killed: whether it had a process of its own.
    """
    end = (
        "Its process was killed."
        if killed
        else "Its thread could not be ended from outside and lives as long as the process of the run;"
        " it commits nothing any more."
    )
    name = TimeLimitError.__name__
    return SerializableErrorInfo(
        message=f"{TimeLimitError.__module__}.{name}: step {step} did not end within its limit of {clock.limit:g} s."
        f" {end}\n  give it a longer 'timeout', or find out what it waits for\n",
        stack=[],
        cls_name=name,
    )
