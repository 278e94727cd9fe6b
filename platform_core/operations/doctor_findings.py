"""What doctor finds: a verdict for each thing looked at, and what to do."""

from __future__ import annotations

import datetime as dt
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from platform_core.errors import redacted

AT_A_TIME = 8


class Verdict(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one thing; it holds no secret and no value of a row.

    Args:
        area: such as ``storage``.
        name: of the thing within its area.
        told: what was found.
        looked_at: where.
        advice: what to do; empty where nothing is.
    """

    area: str
    name: str
    verdict: Verdict
    told: str
    looked_at: str = ""
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that is looked at by itself.

    Args:
        looked_at: where, for a person.
    """

    area: str
    name: str
    looked_at: str = ""

    def finding(self, verdict: Verdict, told: str, *, advice: str = "", name: str = "") -> Finding:
        """A finding about this, or about a part of it that has a name of its own."""
        return Finding(
            area=self.area,
            name=name or self.name,
            verdict=verdict,
            told=told,
            looked_at=self.looked_at,
            advice=advice,
        )

    def failure(self, error: BaseException, *, name: str = "") -> Finding:
        """What an error tells: its first line is what was found, the others say what to do."""
        told, *more = redacted(error).splitlines() or [type(error).__name__]
        advice = "\n".join(line.strip() for line in more if line.strip())
        return self.finding(Verdict.FAILED, told, advice=advice, name=name)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One look at a subject.

    Args:
        look: gives what it found; whatever it raises is a finding, too.
    """

    about: Subject
    look: Callable[[], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What came of all checks.

    Args:
        findings: in the order of the checks.
        abandoned: whether a check is still waiting for an answer, in a thread that cannot be ended.
    """

    findings: tuple[Finding, ...]
    abandoned: bool

    @property
    def is_good(self) -> bool:
        """Whether nothing failed."""
        return all(each.verdict is not Verdict.FAILED for each in self.findings)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is asked of this machine itself.

    Args:
        now: its clock, UTC.
        space: bytes that may still be written, and bytes altogether, on the disk of a folder.
        version: of an installed package; None: it is not installed.
    """

    now: Callable[[], dt.datetime]
    space: Callable[[str], tuple[int, int]]
    version: Callable[[str], str | None]


def run_checks(checks: Sequence[Check], *, limit: float) -> Examined:
    """Look at everything, several at a time; no check keeps another from being looked at.

    Args:
        limit: seconds after which a check that has not answered counts as failed.
    """
    answers: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    waiting = list(enumerate(checks))[::-1]
    running: dict[int, float] = {}
    found: dict[int, list[Finding]] = {}
    abandoned = False

    def work(number: int, check: Check) -> None:
        answers.put((number, _answer(check)))

    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            number, check = waiting.pop()
            running[number] = time.monotonic() + limit
            # Not of a pool: the interpreter would wait for its threads, and one of them may hang.
            threading.Thread(target=work, args=(number, check), name=f"doctor-{check.about.area}", daemon=True).start()
        try:
            number, findings = answers.get(timeout=max(0.0, min(running.values()) - time.monotonic()))
        except queue.Empty:
            for number in [number for number, until in running.items() if until <= time.monotonic()]:
                del running[number]
                found[number] = [_no_answer(checks[number], limit)]
                abandoned = True
            continue
        if running.pop(number, None) is not None:
            found[number] = findings
    return Examined(
        findings=tuple(finding for number in sorted(found) for finding in found[number]), abandoned=abandoned
    )


def _answer(check: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check.look())
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and nothing may hide the other checks
        found.append(check.about.failure(error))
    return found


def _no_answer(check: Check, limit: float) -> Finding:
    return check.about.finding(
        Verdict.FAILED,
        f"no answer within {limit:g} seconds",
        advice="look whether it is up and reached from this machine; wait longer with --limit",
    )
