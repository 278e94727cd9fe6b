"""Bronze and its history after any sequence of loads equal what a few lines of plain Python say they should be."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from platform_core.lake.row_hash import row_hashes
from platform_core.specs.ingestion import OnBadKey
from tests.examples import examples

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
OWN = ("id", "part", "value", "seq", "gone")
Key = tuple[str, int]
Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One load.

    Args:
        keys_only: the rows stand for the keys of the source.
        held: the batch is in memory.
        extra: the source has got one more column.
        wide: its column ``part`` has got a wider type.
    """

    rows: tuple[Row, ...]
    keys_only: bool = False
    held: bool = False
    extra: bool = False
    wide: bool = False


def row(*, bad: bool) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": st.sampled_from(["a", "b", "c", "", *([None] if bad else [])]),
            "part": st.integers(0, 2),
            "value": st.sampled_from([None, "", "x", "y"]),
            "seq": st.sampled_from([None, 1, 2, 3]),
            "gone": st.sampled_from([None, False, False, True]),
            "extra": st.sampled_from([None, None, 1.5]),
        }
    )


def steps(*, bad: bool = False, keys: bool = False, evolving: bool = False) -> st.SearchStrategy[list[Step]]:
    unique = None if bad else (lambda row: (row["id"], row["part"]))
    rows = st.lists(row(bad=bad), max_size=10, unique_by=unique).map(tuple)
    yes = st.sampled_from([False, False, True])
    return st.lists(
        st.builds(
            Step,
            rows=rows,
            held=st.booleans(),
            keys_only=yes if keys else st.just(False),
            extra=yes if evolving else st.just(False),
            wide=yes if evolving else st.just(False),
        ),
        min_size=1,
        max_size=5,
    )


@dataclass
class Oracle:
    """Bronze and its history as dictionaries."""

    snapshot: bool
    flag: bool
    order: bool
    winner: bool = False
    rows: dict[Key, Row] = field(default_factory=dict)
    versions: dict[Key, list[Row]] = field(default_factory=dict)
    batch: int = 0
    exists: bool = False

    def load(self, step: Step, schema: pa.Schema) -> dict[str, int]:
        self.batch += 1
        counts = dict.fromkeys(("inserted", "updated", "deleted", "unchanged", "late", "quarantined"), 0)
        stamp = {"_modified_at": DAY + dt.timedelta(days=self.batch), "_batch_id": self.batch}
        rows = [{name: row[name] for name in schema.names} for row in step.rows]
        batch, spared, counts["quarantined"] = self.good(rows, schema)
        after = {key: dict.fromkeys(schema.names) | old for key, old in self.rows.items()}
        if step.keys_only:
            counts["quarantined"], counts["unchanged"], batch = 0, len(rows) if self.exists else 0, {}
            seen = {(row["id"], row["part"]) for row in rows}
        else:
            seen = {*batch, *spared}
        for key, new in batch.items():
            gone = self.flag and bool(new["gone"])
            written = {**new, "_is_current": not gone, "_is_deleted": gone, **stamp}
            old = after.get(key)
            if old is None:
                what = "inserted"
            elif self.order and older(new["seq"], old["seq"]):
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
        if self.snapshot or step.keys_only:
            for key, old in after.items():
                if key not in seen and old["_is_current"]:
                    after[key] = {**old, "_is_current": False, "_is_deleted": True, **stamp}
                    counts["deleted"] += 1
        self.follow(after, stamp["_modified_at"])
        self.rows = after
        return counts

    def good(self, rows: list[Row], schema: pa.Schema) -> tuple[dict[Key, Row], set[Key], int]:
        """The rows that are loaded, the keys that none is loaded of, and how many rows are set aside."""
        by_key: dict[Key, list[tuple[Any, Row]]] = {}
        hashes = row_hashes(pa.RecordBatch.from_pylist(rows, schema=schema)).to_pylist()
        for new, hash_ in zip(rows, hashes, strict=True):
            if new["id"] is not None:
                order = (new["seq"] is not None, new["seq"] or 0, hash_)
                by_key.setdefault((new["id"], new["part"]), []).append((order, new))
        kept = {key: max(found, key=lambda one: one[0])[1] for key, found in by_key.items()}
        spared = set() if self.winner else {key for key, found in by_key.items() if len(found) > 1}
        good = {key: new for key, new in kept.items() if key not in spared}
        return good, spared, len(rows) - len(good)

    def follow(self, after: dict[Key, Row], moment: dt.datetime) -> None:
        batch = self.batch
        for key, new in after.items():
            if new["_batch_id"] != batch:
                continue
            open_ = next((one for one in self.versions.get(key, []) if one["_valid_to"] is None), None)
            own = {name: value for name, value in new.items() if not name.startswith("_")}
            if open_ is not None and new["_is_current"] and all(open_.get(name) == own[name] for name in own):
                continue
            if open_ is not None:
                open_ |= {"_valid_to": moment, "_is_deleted": not new["_is_current"], "_batch_id": batch}
            if new["_is_current"]:
                version = {"_valid_from": moment, "_valid_to": None, "_is_deleted": False, "_batch_id": batch}
                self.versions.setdefault(key, []).append({**own, **version})


def older(new: int | None, old: int | None) -> bool:
    return old is not None and (new is None or new < old)


def schema_of(*, extra: bool, wide: bool) -> pa.Schema:
    types = {"id": pa.string(), "part": pa.int64() if wide else pa.int32(), "value": pa.string(), "seq": pa.int64()}
    more = {"gone": pa.bool_(), **({"extra": pa.float64()} if extra else {})}
    return pa.schema(list((types | more).items()))


def check(
    riders: Any, loads: list[Step], *, mode: str, flag: bool = False, order: bool = False, winner: bool = False
) -> None:
    oracle = Oracle(snapshot=mode == "full", flag=flag, order=order, winner=winner)
    extra = wide = False
    with tempfile.TemporaryDirectory() as folder:
        table = type(riders)(Path(folder), riders.session, key=("id", "part"))
        table.options = {"history_uri": f"{folder}/history", "on_bad_key": OnBadKey.QUARANTINE}
        for step in loads:
            exists = oracle.exists
            evolves = exists and not step.keys_only and ((step.extra and not extra) or (step.wide and not wide))
            if not step.keys_only:
                extra, wide = extra or step.extra, wide or step.wide
            event(f"evolves: {evolves}")
            schema = schema_of(extra=extra, wide=wide)
            expected = oracle.load(step, schema)
            columns = ["id", "part"] if step.keys_only else schema.names
            shown = [{name: row[name] for name in columns} for row in step.rows]
            outcome = table.load(
                pa.Table.from_pylist(shown, schema=pa.schema([schema.field(name) for name in columns])),
                mode,
                batch_id=oracle.batch,
                held=step.held,
                keys_only=step.keys_only,
                sequence_by="seq" if order and not step.keys_only else None,
                deleted_flag="gone" if flag and not step.keys_only else None,
                winner_by="seq" if winner and not step.keys_only else None,
            )
            assert {name: getattr(outcome, name) for name in expected} == expected
            changed = expected["inserted"] + expected["updated"] + expected["deleted"] > 0
            assert outcome.committed == (changed or evolves or (not exists and not step.keys_only))
            oracle.exists = exists or outcome.committed
            if not oracle.exists:
                assert table.table is None
                continue
            names = [*schema_of(extra=extra, wide=wide).names]
            kept = [{name: row.get(name) for name in (*names, *TECHNICAL)} for row in oracle.rows.values()]
            assert table.rows() == sorted(kept, key=lambda row: (row["id"], str(row["part"])))
            versions = [
                {name: version.get(name) for name in (*names, *VERSION)}
                for found in oracle.versions.values()
                for version in found
            ]
            order_ = lambda row: ([row["id"], str(row["part"])], row["_valid_from"])  # noqa: E731
            assert table.history() == sorted(versions, key=order_)
            assert len(table.quarantined(oracle.batch)) == expected["quarantined"]
            assert_scd2(table.history(), table.rows())


TECHNICAL = ("_is_current", "_is_deleted", "_modified_at", "_batch_id")
VERSION = ("_valid_from", "_valid_to", "_is_deleted", "_batch_id")


def assert_scd2(versions: list[Row], rows: list[Row]) -> None:
    """No version overlaps the next of its key, and exactly the current rows have one that is open."""
    open_ = sorted((row["id"], row["part"]) for row in versions if row["_valid_to"] is None)
    assert open_ == sorted((row["id"], row["part"]) for row in rows if row["_is_current"])
    for one, two in pairwise(versions):
        if (one["id"], one["part"]) == (two["id"], two["part"]):
            assert one["_valid_from"] < one["_valid_to"] <= two["_valid_from"]
            assert one["_is_deleted"] or one["_valid_to"] == two["_valid_from"]


many = settings(
    max_examples=examples(10),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@many
@given(loads=steps(keys=True, evolving=True))
def test_full_loads_agree_with_the_oracle(riders: Any, loads: list[Step]) -> None:
    check(riders, loads, mode="full")


@many
@given(loads=steps(keys=True, evolving=True))
def test_b12_incremental_loads_agree_with_the_oracle(riders: Any, loads: list[Step]) -> None:
    check(riders, loads, mode="incremental", flag=True, order=True)


@many
@given(loads=steps())
def test_full_loads_with_a_deleted_flag_agree_with_the_oracle(riders: Any, loads: list[Step]) -> None:
    check(riders, loads, mode="full", flag=True)


@many
@given(loads=steps(bad=True), mode=st.sampled_from(["full", "incremental"]), winner=st.booleans())
def test_b8_loads_with_bad_keys_agree_with_the_oracle(riders: Any, loads: list[Step], mode: str, winner: bool) -> None:
    check(riders, loads, mode=mode, winner=winner)


def test_the_oracle_notices_a_row_that_moved_without_cause() -> None:
    oracle = Oracle(snapshot=True, flag=False, order=False)
    step = Step(({"id": "a", "part": 1, "value": "x", "seq": None, "gone": None},))
    schema = schema_of(extra=False, wide=False)
    oracle.load(step, schema)
    before = dict(oracle.rows)
    oracle.load(step, schema)
    assert oracle.rows == before
    with pytest.raises(AssertionError):
        assert oracle.rows[("a", 1)]["_batch_id"] == 2
