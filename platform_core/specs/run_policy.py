"""How an entry is run: before which others, how often again, for how long, and whether at all by itself."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from platform_core.errors import Place
from platform_core.specs.base import Duration, Model

LONGEST_RETRYING = timedelta(hours=12)
"""All waits of an entry together: longer than a run may last, they would never come to an end."""

LONGEST_TIMEOUT = timedelta(days=7)
MOST_CONCURRENT = 1000
"""Dagster has no larger pools."""


class Backoff(StrEnum):
    """How the wait grows from one try to the next."""

    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Jitter(StrEnum):
    """How waits are spread, so that steps which failed together do not come back together."""

    NONE = "none"
    FULL = "full"
    PLUS_MINUS = "plus_minus"


class Retries(Model):
    """How often and when a step that failed is tried again, where another try may help.

    What a person has to mend first is never tried again: a table's columns are not what was agreed, a load was stopped
    for its deletes or keys, inputs are not fit to be read, a setting is wrong, a secret is missing.
    """

    max: int = Field(ge=1, le=20, description="Tries after the first one.")
    delay: Duration = Field(default=timedelta(seconds=30), description="Wait before the first further try.")
    backoff: Backoff = Field(
        default=Backoff.EXPONENTIAL,
        description="How the wait grows: exponential: 1, 3, 7, 15 … times the delay; linear: 1, 2, 3 … times; none.",
    )
    jitter: Jitter = Field(
        default=Jitter.PLUS_MINUS,
        description="plus_minus: up to one delay earlier or later; full: at any moment until then; none.",
    )

    def waits(self) -> tuple[timedelta, ...]:
        """The wait before each further try, without jitter."""
        return tuple(self.delay * factor for factor in self._factors())

    def _factors(self) -> list[int]:
        if self.backoff is Backoff.EXPONENTIAL:
            return [2**number - 1 for number in range(1, self.max + 1)]
        if self.backoff is Backoff.LINEAR:
            return list(range(1, self.max + 1))
        return [1] * self.max

    @model_validator(mode="after")
    def _check_waits(self) -> Self:
        # In seconds: the sum of absurd waits is more than a timedelta holds.
        total = self.delay.total_seconds() * sum(self._factors())
        if total > LONGEST_RETRYING.total_seconds():
            raise ValueError(
                f"the waits between tries come to {total / 3600:,.1f} hours; at most "
                f"{LONGEST_RETRYING.total_seconds() / 3600:g} are useful: lower 'max' or 'delay', or choose a slower "
                "'backoff'"
            )
        return self


def _check_timeout(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= LONGEST_TIMEOUT:
        raise ValueError("must be between 1 second and 7 days")
    return value


Priority = Annotated[int, Field(ge=-100, le=100)]
"""Where things wait for room, those with the higher number go first."""

EntryPriority = Annotated[
    Priority | None,
    Field(
        description="-100 to 100: where steps of a run, or runs in the queue, wait for room, the higher number goes "
        "first; default: that of the workstream."
    ),
]
"""The priority of one entry."""

EntryRetries = Annotated[
    Retries | None,
    Field(description="Tries after a failure that may pass by itself; default: none.", examples=[{"max": 3}]),
]
"""The retries of one entry."""

Timeout = Annotated[
    Annotated[Duration, AfterValidator(_check_timeout)] | None,
    Field(description="A try that lasts longer is ended and has failed, 1 second to 7 days; default: no limit."),
]
"""The time that one try of an entry may take."""

Paused = Annotated[bool, Field(description="Neither scheduled nor requested; it can be run by hand.")]
"""Whether nothing but a person starts an entry."""

MaxConcurrent = Annotated[int, Field(ge=1, le=MOST_CONCURRENT)]
"""How many steps may use something at a time, in all runs together."""


class RunPolicy(Protocol):
    """What every entry that is run declares; its spec has these fields."""

    @property
    def priority(self) -> int | None:
        """Its own; None: that of the workstream."""

    @property
    def retries(self) -> Retries | None:
        """Tries after the first one; None: there are none."""

    @property
    def timeout(self) -> timedelta | None:
        """What one try may take; None: there is no limit."""

    @property
    def paused(self) -> bool:
        """Whether nothing but a person starts it."""

    @property
    def place(self) -> Place | None:
        """Where it is declared."""
