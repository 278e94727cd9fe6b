"""What a run asks of all its steps: to make whole tables anew, or a range of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from platform_core.errors import ConfigError, Issue, Place

RUN_CONFIG = "run config"
COMMAND_LINE = "command line"

_EXAMPLES = "write it such as 2026-01-31 or 2026-01-31T12:00+01:00"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The range of time that a backfill is for.

    Args:
        start: the first moment in it, UTC.
        end: the first moment after it, UTC.
    """

    start: dt.datetime
    end: dt.datetime

    def __str__(self) -> str:
        return f"{self.start.isoformat()} up to {self.end.isoformat()}"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What holds for every step of a run.

    Args:
        run: id of the run, shared by all that re-execute it; None outside of runs.
        full_refresh: make every table anew, as if no run had been before.
        window: the range of a backfill; None: the run is none.
    """

    run: str | None = None
    full_refresh: bool = False
    window: Window | None = None


def run_options(
    *,
    run: str | None,
    full_refresh: bool,
    since: str | None,
    until: str | None,
    now: dt.datetime,
    given_in: str = RUN_CONFIG,
) -> RunOptions:
    """What a run asks of its steps, from what a person wrote.

    Args:
        run: as of :class:`RunOptions`.
        full_refresh: as of :class:`RunOptions`.
        since: first moment of a backfill in ISO 8601; without a zone it is UTC, without a time the day's beginning.
        until: likewise the first moment after it; None: now.
        now: UTC.
        given_in: where it was written, for messages.

    Raises:
        ConfigError: a text is no moment, the range is empty or without a beginning, or both ways were asked for.
    """
    place = Place(Path(given_in))
    if since is None and until is None:
        return RunOptions(run=run, full_refresh=full_refresh)
    if full_refresh:
        raise _refused(place, "full refresh and a range exclude each other", "ask for whole tables, or a range of them")
    if since is None:
        raise _refused(place, "'until' needs 'since'", "say where the range begins")
    start = _moment(since, "since", place)
    end = now if until is None else _moment(until, "until", place)
    if start >= end:
        raise _refused(
            place,
            f"the range from {start.isoformat()} up to {end.isoformat()} is empty",
            "'until' is the first moment after it: for all of 31 January, since 2026-01-31 until 2026-02-01",
        )
    return RunOptions(run=run, window=Window(start=start, end=end))


def _moment(text: str, name: str, place: Place) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise _refused(place, f"'{name}' is no date or time: '{text[:40]}'", _EXAMPLES) from None


def _refused(place: Place, message: str, hint: str) -> ConfigError:
    return ConfigError([Issue(place, message, (hint,))])
