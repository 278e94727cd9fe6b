"""Reading a source again, and applying landed batches again."""

from __future__ import annotations

import datetime as dt
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import DeletesStopped, LoadError, StorageError
from platform_core.operations.ingest import earlier
from platform_core.operations.reload import Reload, cursor_value
from platform_core.operations.replay import approve, replay
from platform_core.specs.table import TableRef

RIDERS = TableRef("crm", "bronze", "riders")
INCREMENTAL: dict[str, Any] = {"mode": "incremental", "key": ("id",), "cursor": "at"}


def rows(*given: tuple[int, int, str]) -> pa.Table:
    return pa.table({"id": [r[0] for r in given], "at": [r[1] for r in given], "name": [r[2] for r in given]})


ALL = rows((1, 100, "a"), (2, 200, "b"), (3, 300, "c"))


def again(loads: Any, batch: int, **changes: Any) -> Any:
    return replay(loads.declared(**changes), batch, platform=loads.platform)


def test_a_reload_reads_from_the_beginning_and_changes_only_what_differs(loads: Any, source: Any) -> None:
    loads.spec = INCREMENTAL
    loads.load(ALL)
    unseen = rows((1, 100, "corrected without a new time"), (2, 200, "b"), (3, 300, "c"))
    assert loads.load(unseen).rows_read == 1
    result = loads.load(reload=Reload())
    assert (result.rows_read, result.updated, result.unchanged) == (3, 1, 2)
    assert source.requests[-1].since is None


def test_a_reload_may_begin_at_and_end_with_a_cursor_value(loads: Any, source: Any) -> None:
    loads.spec = INCREMENTAL
    loads.load(ALL)
    result = loads.load(reload=Reload(since="200", until="250"))
    assert (source.requests[-1].since, source.requests[-1].until, result.rows_read) == (200, 250, 1)
    assert (result.watermark_from, result.watermark_to) == (300, 300)


def test_a_row_that_bronze_holds_in_a_newer_state_stays(loads: Any) -> None:
    loads.spec = INCREMENTAL
    loads.load(ALL)
    result = loads.load(rows((1, 50, "older"), (2, 200, "b"), (3, 300, "c")), reload=Reload())
    assert (result.late, result.unchanged, loads.rows()[0]["name"]) == (1, 2, "a")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ({"mode": "append", "cursor": "at"}, {}, "mode append cannot be reloaded: every row would be there twice"),
        ({"mode": "full", "key": ("id",)}, {"since": "1"}, "a span of cursor values needs 'cursor'"),
        ({"mode": "full", "key": ("id",)}, {"detect_deletes": True}, "mode full finds deletes with every load"),
    ],
)
def test_a_reload_that_would_do_harm_or_means_nothing_is_refused(
    loads: Any, source: Any, spec: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    loads.spec = spec
    with pytest.raises(LoadError, match=message):
        loads.load(ALL, reload=Reload(**options))
    assert source.requests == []


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("42", pa.int64(), 42),
        ("42", pa.decimal128(20, 0), 42),
        ("0.5", pa.float64(), 0.5),
        ("2026-03-01", pa.date32(), dt.date(2026, 3, 1)),
        ("2026-03-01", pa.timestamp("us"), dt.datetime(2026, 3, 1)),
        ("2026-03-01T06:00:00+02:00", pa.timestamp("us"), dt.datetime(2026, 3, 1, 4)),
        ("2026-03-01T06:00:00", pa.timestamp("us", "UTC"), dt.datetime(2026, 3, 1, 6, tzinfo=dt.UTC)),
        ("2026-03-01T06:00:00+02:00", pa.timestamp("us", "UTC"), dt.datetime(2026, 3, 1, 4, tzinfo=dt.UTC)),
        ("0x1F", pa.string(), "0x1F"),
    ],
)
def test_a_cursor_value_is_read_as_its_column_has_it(text: str, type_: pa.DataType, value: Any) -> None:
    read = cursor_value(text, type_, of=RIDERS)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64(), pa.date32(), pa.timestamp("us")])
def test_a_text_that_is_no_cursor_value_is_refused(type_: pa.DataType) -> None:
    with pytest.raises(LoadError, match="not a value of the cursor"):
        cursor_value("yesterday", type_, of=RIDERS)


def test_a_lookback_before_the_first_day_reads_from_there() -> None:
    week = dt.timedelta(weeks=1)
    assert earlier(dt.date(1, 1, 2), week, of=RIDERS) == dt.date.min
    assert earlier(dt.datetime(1, 1, 2, tzinfo=dt.UTC), week, of=RIDERS) == dt.datetime.min.replace(tzinfo=dt.UTC)


def restored(loads: Any, copy: Path) -> None:
    """Put bronze back as it was when the copy was made."""
    shutil.rmtree(loads.bronze)
    shutil.copytree(copy, loads.bronze)


def test_a12_batches_that_bronze_lost_are_applied_again_in_order_and_once(loads: Any, tmp_path: Path) -> None:
    loads.spec = INCREMENTAL
    loads.load(ALL)
    shutil.copytree(loads.bronze, tmp_path / "copy")
    loads.load(rows((2, 400, "b2")))
    loads.load(rows((4, 500, "d")))
    expected = [(row["id"], row["name"]) for row in loads.rows()]
    restored(loads, tmp_path / "copy")
    with pytest.raises(LoadError, match="was read after batch 2, but bronze holds batch 1"):
        again(loads, 3)
    assert again(loads, 2).updated == 1
    assert again(loads, 2).committed is False
    assert again(loads, 3).inserted == 1
    assert [(row["id"], row["name"]) for row in loads.rows()] == expected
    with pytest.raises(LoadError, match="batch 2 is older than bronze, which holds batch 3"):
        again(loads, 2)
    assert loads.load(rows((5, 600, "e"))).inserted == 1


def test_a_batch_that_was_read_after_an_approved_one_follows_it(loads: Any, tmp_path: Path) -> None:
    loads.spec = INCREMENTAL | {"delete_floor": 1}
    loads.load(ALL)
    with pytest.raises(DeletesStopped):
        loads.load(ALL.slice(0, 1), reload=Reload(detect_deletes=True))
    approve(loads.declared(), 3, platform=loads.platform, by="a.user", why="closed")
    shutil.copytree(loads.bronze, tmp_path / "copy")
    landed = loads.load(rows((4, 500, "d"))).batch_id
    restored(loads, tmp_path / "copy")
    assert again(loads, landed).inserted == 1


def test_a12_an_append_is_not_doubled_by_a_replay(loads: Any, tmp_path: Path) -> None:
    loads.spec = {"mode": "append", "cursor": "at"}
    loads.load(ALL)
    shutil.copytree(loads.bronze, tmp_path / "copy")
    loads.load(rows((4, 400, "d")))
    assert (again(loads, 2).committed, again(loads, 2).unchanged) == (False, 1)
    restored(loads, tmp_path / "copy")
    assert again(loads, 2).inserted == 1
    assert [row["id"] for row in loads.rows()] == [1, 2, 3, 4]


def test_a12_a_snapshot_may_follow_any_older_one(loads: Any, tmp_path: Path) -> None:
    loads.load(ALL)
    shutil.copytree(loads.bronze, tmp_path / "copy")
    loads.load(ALL.slice(1))
    loads.load(ALL.slice(2))
    restored(loads, tmp_path / "copy")
    assert again(loads, 3).deleted == 2
    with pytest.raises(LoadError, match="older than bronze"):
        again(loads, 2)


def test_a_replay_into_a_lake_without_bronze_makes_the_table(loads: Any) -> None:
    loads.load(ALL)
    shutil.rmtree(loads.bronze)
    assert again(loads, 1).inserted == 3


def test_a_batch_that_is_not_landed_is_named_with_those_that_are(loads: Any) -> None:
    loads.load(ALL)
    with pytest.raises(LoadError, match="batch 9 is not in the landing\n  newest batches there: 1"):
        again(loads, 9)


@pytest.mark.parametrize("offset", [0, 3, 200, -9, -5, -1])
def test_a8_a_torn_landing_is_not_applied(loads: Any, offset: int) -> None:
    loads.load(ALL)
    shutil.rmtree(loads.bronze)
    (part,) = Path(loads.landing, f"{1:012d}").glob("part-*")
    part.write_bytes(part.read_bytes()[:offset])
    with pytest.raises(StorageError, match="not what was landed"):
        again(loads, 1)
    assert not loads.bronze.exists()


def test_a10_files_without_a_manifest_are_no_batch(loads: Any) -> None:
    loads.load(ALL)
    shutil.rmtree(loads.bronze)
    Path(loads.landing, f"{1:012d}", "_manifest.json").unlink()
    with pytest.raises(LoadError, match="batch 1 is not in the landing"):
        again(loads, 1)


def test_a_replay_that_would_delete_too_much_is_stopped(loads: Any, tmp_path: Path) -> None:
    many = rows(*((i, i, "x") for i in range(40)))
    loads.load(many)
    shutil.copytree(loads.bronze, tmp_path / "copy")
    loads.load(many.slice(30), max_delete_ratio=1.0)
    restored(loads, tmp_path / "copy")
    with pytest.raises(LoadError, match="batch 2 would flag 30 of 40 current rows deleted"):
        again(loads, 2)
    assert loads.log[-1].status == "failed"


def test_a_number_cursor_keeps_its_type() -> None:
    assert cursor_value("10", pa.decimal128(38, 0), of=RIDERS) == Decimal(10)
