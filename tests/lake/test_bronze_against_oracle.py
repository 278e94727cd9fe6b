"""Bronze after any sequence of loads equals what a few lines of plain Python say it should be."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMA = pa.schema(
    [("id", pa.string()), ("part", pa.int32()), ("value", pa.string()), ("seq", pa.int64()), ("gone", pa.bool_())]
)
DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

row = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c", ""]),
        "part": st.integers(0, 2),
        "value": st.sampled_from([None, "", "x", "y"]),
        "seq": st.sampled_from([None, 1, 2, 3]),
        "gone": st.sampled_from([None, False, False, True]),
    }
)
snapshot = st.lists(row, max_size=10, unique_by=lambda row: (row["id"], row["part"]))
history = st.lists(snapshot, min_size=1, max_size=5)


@dataclass
class Oracle:
    """Bronze as a dictionary."""

    rows: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    batch: int = 0

    def load(self, batch: list[dict[str, Any]], *, snapshot: bool) -> dict[str, int]:
        counts = dict.fromkeys(("inserted", "updated", "deleted", "unchanged", "late"), 0)
        stamp = {"_modified_at": DAY + dt.timedelta(days=self.batch + 1), "_batch_id": self.batch + 1}
        after = dict(self.rows)
        for new in batch:
            key, gone = (new["id"], new["part"]), bool(new["gone"])
            written = {**new, "_is_current": not gone, "_is_deleted": gone, **stamp}
            old = self.rows.get(key)
            if old is None:
                what = "inserted"
            elif older(new["seq"], old["seq"]):
                what = "late"
            elif gone and old["_is_current"]:
                what = "deleted"
            elif {name: old[name] for name in new} != new or (not gone and not old["_is_current"]):
                what = "updated"
            else:
                what = "unchanged"
            counts[what] += 1
            if what in ("inserted", "updated", "deleted"):
                after[key] = written
        if snapshot:
            seen = {(new["id"], new["part"]) for new in batch}
            for key, old in self.rows.items():
                if key not in seen and old["_is_current"]:
                    after[key] = {**old, "_is_current": False, "_is_deleted": True, **stamp}
                    counts["deleted"] += 1
        if after != self.rows or self.batch == 0:
            self.batch += 1
        self.rows = after
        return counts


def older(new: int | None, old: int | None) -> bool:
    return old is not None and (new is None or new < old)


def check(Bronze: type, session: Any, loads: list[list[dict[str, Any]]], *, mode: str, flag: bool, order: bool) -> None:  # noqa: N803
    oracle = Oracle()
    with tempfile.TemporaryDirectory() as folder:
        table = Bronze(Path(folder), session, key=("id", "part"))
        for rows in loads:
            shown = [
                {**row, "gone": row["gone"] if flag else None, "seq": row["seq"] if order else None} for row in rows
            ]
            expected = oracle.load(shown, snapshot=mode == "full")
            outcome = table.load(
                pa.Table.from_pylist(shown, schema=SCHEMA),
                mode,
                sequence_by="seq" if order else None,
                deleted_flag="gone" if flag else None,
            )
            found = {name: getattr(outcome, name) for name in expected}
            assert found == expected
            assert table.rows() == [oracle.rows[key] for key in sorted(oracle.rows, key=str)]
            assert outcome.version == oracle.batch - 1
            changed = expected["inserted"] + expected["updated"] + expected["deleted"]
            assert outcome.committed == (
                changed > 0 or (outcome.version == 0 and oracle.batch == 1 and rows is loads[0])
            )


many = settings(
    max_examples=70, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(loads=history)
def test_full_loads_agree_with_the_oracle(riders: Any, loads: list[list[dict[str, Any]]]) -> None:
    check(type(riders), riders.session, loads, mode="full", flag=False, order=False)


@many
@given(loads=history)
def test_incremental_loads_agree_with_the_oracle(riders: Any, loads: list[list[dict[str, Any]]]) -> None:
    check(type(riders), riders.session, loads, mode="incremental", flag=True, order=True)


@many
@given(loads=history)
def test_full_loads_with_a_deleted_flag_agree_with_the_oracle(riders: Any, loads: list[list[dict[str, Any]]]) -> None:
    check(type(riders), riders.session, loads, mode="full", flag=True, order=False)


def test_the_oracle_notices_a_row_that_moved_without_cause() -> None:
    oracle = Oracle()
    oracle.load([{"id": "a", "part": 1, "value": "x", "seq": None, "gone": None}], snapshot=True)
    before = dict(oracle.rows)
    oracle.load([{"id": "a", "part": 1, "value": "x", "seq": None, "gone": None}], snapshot=True)
    assert oracle.rows == before
    with pytest.raises(AssertionError):
        assert oracle.rows[("a", 1)]["_batch_id"] == 2
