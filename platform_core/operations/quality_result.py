"""What came of expectations: counts of rows, and never a value of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from platform_core.specs.expectation import ExpectationKind, Severity
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """What came of one expectation.

    Args:
        check: its name.
        passed: whether it is met.
        checked: rows that were looked at; None where that is not known: it could not be evaluated, or is a SELECT.
        failing: rows that fail; None where it is no matter of single rows.
        message: what a person should know, in one line, without a row value; empty where counts say all.
    """

    check: str
    kind: ExpectationKind
    severity: Severity
    blocking: bool
    passed: bool
    checked: int | None = None
    failing: int | None = None
    message: str = ""

    @property
    def ratio(self) -> float | None:
        """Share of the rows that fail."""
        if self.failing is None or self.checked is None:
            return None
        return self.failing / self.checked if self.checked else 0.0

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "check": self.check,
            "kind": str(self.kind),
            "severity": str(self.severity),
            "blocking": self.blocking,
            "passed": self.passed,
            "checked": self.checked,
            "failing": self.failing,
            "ratio": self.ratio,
            "message": self.message,
        }


@dataclass(frozen=True, kw_only=True)
class QualityResult:
    """What came of the expectations of one table.

    Args:
        version: Delta version that was looked at.
        results: in declared order.
        queries: how many were run; all expectations of single rows share one.
        quarantined: rows in the side table now; None where it was not written.
        seconds: how long it took.
    """

    table: TableRef
    version: int
    results: tuple[ExpectationResult, ...]
    queries: int
    quarantined: int | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing but warnings failed."""
        return all(each.passed or each.severity is Severity.WARN for each in self.results)
