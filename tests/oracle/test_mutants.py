"""The oracle finds faults that are put into the platform on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from platform_core.lake import attempt, comparison
from platform_core.lake import watermark as watermarks
from platform_core.operations import ingest
from platform_core.operations.transfer import Transfer
from tests.oracle.machine import Figures
from tests.oracle.table import Bench
from tests.oracle.test_oracle import play

SEEDS = range(4, 24)
"""Most runs of nine tables that a fault may stay hidden for."""

Monkey = pytest.MonkeyPatch


def late_rows_overwrite(monkeypatch: Monkey) -> None:
    made = comparison.make_changes
    monkeypatch.setattr(
        comparison, "make_changes", lambda *given, **named: made(*given, **(named | {"sequence_by": None}))
    )


def missing_rows_stay_current(monkeypatch: Monkey) -> None:
    made = comparison.make_changes
    monkeypatch.setattr(
        comparison, "make_changes", lambda *given, **named: made(*given, **(named | {"snapshot": False}))
    )


def the_breaker_is_off(monkeypatch: Monkey) -> None:
    monkeypatch.setattr(attempt.Attempt, "_check_deletes", lambda *_: None)


def doubled_keys_are_taken_for_vanished(monkeypatch: Monkey) -> None:
    made = comparison.make_changes
    monkeypatch.setattr(
        comparison, "make_changes", lambda *given, **named: made(*given, **(named | {"spare_doubled": False}))
    )


def the_watermark_moves_with_what_was_read(monkeypatch: Monkey) -> None:
    """Also where the load that read it then failed."""
    seen: dict[str, Any] = {}
    read, known = Transfer._new_rows, watermarks.watermark

    def new_rows(self: Transfer, batch: Any) -> Any:
        rows = read(self, batch)
        if self.largest is not None:
            seen[self.spec.table] = self.largest
        return rows

    def watermark(table: Any, cursor: str, **options: Any) -> Any:
        marks = [known(table, cursor, **options), seen.get(table.table_uri.rstrip("/").rpartition("/")[2])]
        return max((mark for mark in marks if mark is not None), default=None)

    monkeypatch.setattr(Transfer, "_new_rows", new_rows)
    monkeypatch.setattr(ingest, "watermark", watermark)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "fault",
    [
        late_rows_overwrite,
        missing_rows_stay_current,
        the_breaker_is_off,
        doubled_keys_are_taken_for_vanished,
        the_watermark_moves_with_what_was_read,
    ],
)
def test_the_oracle_finds(fault: Callable[[Monkey], None], bench: Bench, monkeypatch: Monkey) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        for chosen in SEEDS:
            play(bench, Figures(), chosen=chosen, shrink=False)
