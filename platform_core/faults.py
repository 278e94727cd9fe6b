"""Named points at which a test can make a process fail, as a crash, a full disk or a hung call would."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class FaultPoint(StrEnum):
    """Every moment of a load at which something may end it; the fault tests hit each."""

    PLAN_READ = "plan-read"
    LEASE_ACQUIRED = "lease-acquired"
    EXTRACT_FIRST_BATCH = "extract-first-batch"
    EXTRACT_MID = "extract-mid"
    EXTRACT_LAST = "extract-last"
    MASK_BATCH = "mask-batch"
    LANDING_WRITE_TMP = "landing-write-tmp"
    LANDING_FSYNC = "landing-fsync"
    LANDING_RENAME = "landing-rename"
    MANIFEST_WRITE = "manifest-write"
    BRONZE_READ = "bronze-read"
    BRONZE_BEFORE_COMMIT = "bronze-before-commit"
    BRONZE_AFTER_COMMIT = "bronze-after-commit"
    STATE_WRITE = "state-write"
    HISTORY_COMMIT = "history-commit"
    AUDIT_COMMIT = "audit-commit"
    LEASE_RELEASE = "lease-release"
    LANDING_CLEANUP = "landing-cleanup"


class DdlPoint(StrEnum):
    """Every moment of a migration at which something may end it."""

    BEGUN = "ddl-begun"
    BEFORE_STATEMENT = "ddl-before-statement"
    AFTER_STATEMENT = "ddl-after-statement"
    BEFORE_END = "ddl-before-end"
    SERVING_BEFORE_COMMIT = "ddl-serving-before-commit"
    SERVING_AFTER_COMMIT = "ddl-serving-after-commit"


class PublishPoint(StrEnum):
    """Every moment of publishing a snapshot at which something may end it."""

    BEGUN = "publish-begun"
    CONTENT_WRITE = "publish-content-write"
    CONTENT_SYNC = "publish-content-sync"
    CONTENT_RENAME = "publish-content-rename"
    POINTER_WRITE = "publish-pointer-write"
    POINTER_SYNC = "publish-pointer-sync"
    POINTER_RENAME = "publish-pointer-rename"
    POINTED = "publish-pointed"
    CLEANUP = "publish-cleanup"


class AlertPoint(StrEnum):
    """Every moment of an alert at which something may end it."""

    RECORDING = "alert-recording"
    RECORDED = "alert-recorded"
    CLAIMED = "alert-claimed"
    SENT = "alert-sent"
    NOTED = "alert-noted"


Point = FaultPoint | DdlPoint | PublishPoint | AlertPoint


class Action(StrEnum):
    """What happens at an armed point."""

    KILL = "kill"
    RAISE = "raise"
    ENOSPC = "enospc"
    EIO = "eio"
    SLEEP = "sleep"
    STOP = "stop"


class InjectedFault(Exception):  # noqa: N818 - it stands for any error of any library
    """The error that a test asked for."""


@dataclass
class _Armed:
    point: Point
    action: Action
    nth: int
    seconds: float
    reached: int = 0


_lock = threading.Lock()
_armed: _Armed | None = None
_reached: Counter[FaultPoint] | None = None


def reach(point: Point) -> None:
    """Say that this moment has come; costs nothing unless a test armed something."""
    if _armed is None and _reached is None:
        return
    _act(point)


@contextmanager
def armed(fault: str) -> Iterator[None]:
    """Arm one point for the block: ``<point>:<action>[:<nth>[:<seconds>]]``, counted from 1."""
    arm(fault)
    try:
        yield
    finally:
        disarm()


def arm(fault: str) -> None:
    """Arm one point of this process until :func:`disarm`.

    Args:
        fault: ``<point>:<action>[:<nth>[:<seconds>]]``; the nth time the point is reached the action happens, once.

    Raises:
        ValueError: there is no such point or action, or the text does not read so.
    """
    global _armed
    point, action, *rest = fault.split(":")
    if len(rest) > 2:
        raise ValueError(f"fault '{fault}': expected <point>:<action>[:<nth>[:<seconds>]]")
    nth = int(rest[0]) if rest else 1
    seconds = float(rest[1]) if len(rest) > 1 else 3600.0
    _armed = _Armed(_point(point), Action(action), nth, seconds)


def disarm() -> None:
    """Let every point pass again."""
    global _armed
    _armed = None


@contextmanager
def counted() -> Iterator[Counter[FaultPoint]]:
    """How often each point is reached within the block, so that a test can strike at every time."""
    global _reached
    _reached = Counter()
    try:
        yield _reached
    finally:
        _reached = None


@contextmanager
def recorded() -> Iterator[Set[FaultPoint]]:
    """The points that are reached within the block."""
    with counted() as reached:
        yield reached.keys()


def _point(name: str) -> Point:
    for points in (DdlPoint, PublishPoint, AlertPoint):
        if name in {*points}:
            return points(name)
    return FaultPoint(name)


def _act(point: Point) -> None:
    fault = _armed
    # Loads of several tables run in threads of one process.
    with _lock:
        if _reached is not None and isinstance(point, FaultPoint):
            _reached[point] += 1
        if fault is None or fault.point is not point:
            return
        fault.reached += 1
        if fault.reached != fault.nth:
            return
    match fault.action:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Action.RAISE:
            raise InjectedFault(f"injected at {point}")
        case Action.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case Action.EIO:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        case Action.SLEEP:
            time.sleep(fault.seconds)
