"""Compares the clock of this machine with others that tables and leases are timed by."""

from __future__ import annotations

import datetime as dt

from platform_core.operations.doctor_findings import Finding, Verdict

_NOTICED = 2.0
"""Seconds: more shows in logs and histories, where what happened later seems to come first."""

_HARMFUL = 15.0
"""Seconds: a quarter of the usual lease, after which its holder must have given a sign of life."""


def clock_finding(
    whose: str, there: dt.datetime, between: tuple[dt.datetime, dt.datetime], *, looked_at: str, unit: float = 0.0
) -> Finding:
    """How far this machine's clock is from another.

    Args:
        whose: a person calls it the clock of this.
        there: what that clock showed, UTC.
        between: before and after it was read, by the clock of this machine, UTC.
        unit: seconds in which that clock counts.
    """
    before, after = between
    behind = (there - after).total_seconds()
    ahead = (before - there).total_seconds() - unit
    off = max(behind, ahead, 0.0)
    if off <= _NOTICED:
        return _finding(whose, Verdict.OK, "agrees with that of this machine", looked_at)
    direction = "behind" if behind > ahead else "ahead of"
    told = f"that of this machine is {off:,.1f} seconds {direction} it"
    return _finding(whose, Verdict.FAILED if off > _HARMFUL else Verdict.WARNING, told, looked_at)


def _finding(whose: str, verdict: Verdict, told: str, looked_at: str) -> Finding:
    advice = (
        "set this machine's clock by a time server (timedatectl set-ntp true), or that of the other: schedules, "
        "ages of files and the end of secrets go by them"
    )
    return Finding(
        area="clock",
        name=whose,
        verdict=verdict,
        told=told,
        looked_at=looked_at,
        advice="" if verdict is Verdict.OK else advice,
    )
