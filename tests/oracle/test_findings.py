"""What the oracle has found, in as few loads as show it."""

from __future__ import annotations

import datetime as dt

from tests.oracle.model import BASE, Declared, Row
from tests.oracle.table import Bench, Table

MOMENT = dt.datetime(2026, 1, 1, 12, 0, 0, 390_979, tzinfo=dt.UTC)


def row(key: int, value: str) -> Row:
    return dict.fromkeys(BASE) | {"id": key, "value": value}


def test_b11_moments_of_a_compacted_history_do_not_run_backwards(bench: Bench) -> None:
    table = Table(bench, "compacted", Declared(mode="full", key=("id",), history=True))
    for minutes, value in ((0, "first"), (1, "second")):
        table.offer([row(1, value), row(2, "stays")], BASE)
        table.load(started_at=MOMENT + dt.timedelta(minutes=minutes))
    table.keep_up("compact")
    table.offer([row(1, "third"), row(2, "stays")], BASE)
    table.load(started_at=MOMENT - dt.timedelta(days=1))
    history = table.history()
    assert history is not None
    versions = sorted((one for one in history[1] if one["id"] == 1), key=lambda one: one["_valid_from"])
    assert [one["value"] for one in versions] == ["first", "second", "third"]
    assert all(one["_valid_from"] < one["_valid_to"] for one in versions[:-1])
