"""Checks run side by side, each within its time, and none hides another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from platform_core.operations.doctor_findings import AT_A_TIME, Check, Finding, Subject, Verdict, run_checks


def check(name: str, work: Callable[[], object] = lambda: None) -> Check:
    about = Subject(area="storage", name=name)

    def look() -> Iterator[Finding]:
        work()
        yield about.finding(Verdict.OK, "well")

    return Check(about=about, look=look)


def test_findings_come_in_the_order_of_the_checks() -> None:
    found = run_checks([check("slow", lambda: time.sleep(0.2)), check("quick")], limit=5)
    assert [each.name for each in found.findings] == ["slow", "quick"]
    assert found.is_good


def test_a_check_that_does_not_answer_is_given_up_and_the_others_are_not() -> None:
    released = threading.Event()
    began = time.monotonic()
    found = run_checks([*(check(f"hangs {n}", released.wait) for n in range(AT_A_TIME)), check("last")], limit=0.3)
    assert time.monotonic() - began < 3
    released.set()
    verdicts = {each.name: each.verdict for each in found.findings}
    assert verdicts.pop("last") is Verdict.OK
    assert set(verdicts.values()) == {Verdict.FAILED}
    assert found.abandoned
    assert not found.is_good
    assert found.findings[0].told == "no answer within 0.3 seconds"


def test_an_error_keeps_what_was_found_before_it_and_none_of_its_text() -> None:
    about = Subject(area="storage", name="lake")

    def look() -> Iterator[Finding]:
        yield about.finding(Verdict.OK, "well so far")
        raise ValueError("row (1, 'ada@example.com')")

    found = run_checks([Check(about=about, look=look), check("other")], limit=5)
    assert [each.verdict for each in found.findings] == [Verdict.OK, Verdict.FAILED, Verdict.OK]
    assert "ValueError" in found.findings[1].told
    assert "ada" not in repr(found)
    assert not found.abandoned
