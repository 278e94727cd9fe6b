"""One object of a source, loaded into bronze."""

from __future__ import annotations

import datetime as dt
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from platform_core.errors import LoadError, SchemaError, SecretError, SourceError
from platform_core.lake.delta import APPLICATION
from platform_core.operations.ingest import earlier
from platform_core.specs.table import TableRef

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PEOPLE = pa.table(
    {
        "id": [1, 2, 3],
        "name": ["Anna Vermeulen", "Bob de Wit", None],
        "email": ["Anna.Vermeulen@example.org", "bob@example.org", ""],
        "born": [dt.date(1990, 4, 1), None, dt.date(2001, 12, 31)],
        "city": ["Utrecht", "Utrecht", "Delft"],
    }
)
MASKS = {
    "name": {"mask": "full"},
    "email": {"mask": "hash", "domain": "email"},
    "born": {"mask": "hash", "domain": "date"},
}


def changes(*rows: tuple[int, int | None, str]) -> pa.Table:
    return pa.table(
        {"id": [r[0] for r in rows], "at": pa.array([r[1] for r in rows], pa.int64()), "name": [r[2] for r in rows]}
    )


INCREMENTAL: dict[str, Any] = {"mode": "incremental", "key": ("id",), "cursor": "at"}


def test_a_load_tells_what_it_did(loads: Any, source: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "test.ingest"):
        first = loads.load(PEOPLE)
    assert (first.table, first.batch_id, first.rows_read, first.inserted) == (
        TableRef("crm", "bronze", "riders"),
        1,
        3,
        3,
    )
    assert (first.committed, first.version, set(first.seconds)) == (True, 0, {"extract", "mask", "land", "apply"})
    assert first.bytes_landed > 0
    assert first.bytes_written > 0
    assert first.schema.names[-5:] == ["_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash"]
    assert "crm.bronze.riders: read 3, inserted 3, updated 0, deleted 0, unchanged 0, late 0" in caplog.text
    second = loads.load(PEOPLE.slice(1).set_column(4, "city", pa.array(["Gouda", "Delft"])))
    assert (second.batch_id, second.updated, second.deleted, second.unchanged) == (2, 1, 1, 1)
    assert [row["_modified_at"].day for row in loads.rows()] == [3, 3, 2]
    assert source.closed == 2


def test_a_load_without_changes_makes_no_commit_and_keeps_no_landing(loads: Any) -> None:
    loads.load(PEOPLE)
    before = {path: path.stat().st_mtime_ns for path in loads.bronze.rglob("*")}
    result = loads.load()
    assert (result.committed, result.unchanged, result.version, result.batch_id) == (False, 3, 0, 2)
    assert {path: path.stat().st_mtime_ns for path in loads.bronze.rglob("*")} == before
    assert [path.name for path in loads.landing.iterdir()] == ["000000000001"]


def test_personal_values_are_in_no_byte_of_the_lake(loads: Any) -> None:
    loads.load(PEOPLE, columns=MASKS)
    loads.load(PEOPLE.slice(1), columns=MASKS)
    loads.load(PEOPLE, columns=MASKS)
    raw = ["Anna Vermeulen", "Bob de Wit", "vermeulen@example", "bob@example", "1990-04-01", "2001-12-31"]
    searched = 0
    for path in loads.folder.rglob("*"):
        if not path.is_file() or "secrets" in path.parts:
            continue
        searched += 1
        content = path.read_bytes().lower()
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).lower().encode()
            assert b"utrecht" in content or b"delft" in content
        assert [value for value in raw if value.lower().encode() in content] == [], path
    assert searched > 6
    rows = loads.rows()
    assert [row["name"] for row in rows] == ["***", "***", None]
    assert re.fullmatch(r"[0-9a-f]{8}\.[0-9a-f]{64}", rows[0]["email"])
    assert rows[2]["email"] == ""
    assert rows[1]["born"] is None


def test_a_missing_masking_key_stops_the_load_before_anything_is_landed(loads: Any) -> None:
    (loads.folder / "secrets" / "crm" / "masking_key").unlink()
    with pytest.raises(SecretError, match="secret 'crm/masking_key' is missing"):
        loads.load(PEOPLE, columns=MASKS)
    assert not (loads.folder / "lake").exists()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"columns": {"e-mail": {"mask": "full"}, "phone": {"personal": True}}}, "e-mail, phone"),
        ({"key": ("number",)}, "number"),
        ({"deleted_flag": "gone"}, "gone"),
        ({"mode": "incremental", "cursor": "at"}, "at"),
    ],
)
def test_a_declared_column_that_is_not_there_is_named_with_those_that_are(
    loads: Any, options: dict[str, Any], missing: str
) -> None:
    with pytest.raises(SchemaError, match=f"riders has no column {missing}\n  columns: id, name, email, born, city"):
        loads.load(PEOPLE, **options)
    assert not (loads.folder / "lake").exists()


def test_a_mask_that_cannot_take_a_column_says_so(loads: Any) -> None:
    with pytest.raises(SchemaError, match="column 'born': mask hash with domain email cannot take date32"):
        loads.load(PEOPLE, columns={"born": {"mask": "hash", "domain": "email"}})


def test_masks_see_values_and_never_encodings(loads: Any) -> None:
    encoded = PEOPLE.set_column(2, "email", PEOPLE["email"].dictionary_encode())
    loads.load(PEOPLE, columns=MASKS)
    assert loads.load(encoded, columns=MASKS).committed is False


def test_incremental_reads_from_the_watermark_less_the_lookback(loads: Any, source: Any) -> None:
    loads.spec = INCREMENTAL
    first = loads.load(changes((1, 100, "a"), (2, 200, "b")))
    assert (first.watermark_from, first.watermark_to) == (None, 200)
    second = loads.load(changes((1, 100, "a"), (2, 200, "b"), (3, 300, "c")), lookback="1 minute")
    assert (second.watermark_from, second.watermark_to, second.rows_read) == (200, 300, 2)
    assert [request.since for request in source.requests] == [None, 140]
    assert (second.inserted, second.unchanged) == (1, 1)


def test_a_late_row_does_not_overwrite_a_newer_one(loads: Any) -> None:
    loads.spec = INCREMENTAL | {"lookback": "1 day"}
    loads.load(changes((1, 100, "new")))
    result = loads.load(changes((1, 90, "old"), (2, 95, "late but new here")))
    assert (result.late, result.inserted, result.watermark_to) == (1, 1, 100)
    assert [row["name"] for row in loads.rows()] == ["new", "late but new here"]


def test_sequence_by_decides_where_it_is_declared(loads: Any) -> None:
    loads.spec = INCREMENTAL | {"sequence_by": "id"}
    loads.load(changes((1, 100, "a")))
    assert loads.load(changes((1, 100, "b"))).updated == 1


def test_an_append_takes_rows_above_the_watermark_only(loads: Any) -> None:
    loads.spec = {"mode": "append", "cursor": "at"}
    loads.load(changes((1, 100, "a"), (2, 200, "b")))
    assert loads.load().committed is False
    result = loads.load(changes((2, 200, "b"), (3, 300, "c"), (4, 300, "d")))
    assert (result.rows_read, result.inserted, result.unchanged) == (3, 2, 0)
    assert [row["id"] for row in loads.rows()] == [1, 2, 3, 4]


def test_an_append_without_a_cursor_is_loaded_once(loads: Any) -> None:
    loads.spec = {"mode": "append"}
    loads.load(changes((1, 100, "a")))
    with pytest.raises(LoadError, match="an append without a cursor can be loaded once only"):
        loads.load()
    assert len(loads.rows()) == 1


def test_an_append_cannot_look_back(loads: Any) -> None:
    with pytest.raises(LoadError, match="mode append cannot look back"):
        loads.load(changes((1, 100, "a")), mode="append", key=(), cursor="at", lookback="1 day")


def test_an_incremental_load_without_rows_changes_nothing(loads: Any) -> None:
    loads.spec = INCREMENTAL
    loads.load(changes((1, 100, "a")))
    result = loads.load(changes())
    assert (result.rows_read, result.committed, result.watermark_to) == (0, False, 100)


@pytest.mark.parametrize(
    ("mark", "hours", "expected"),
    [
        (DAY, 2, DAY - dt.timedelta(hours=2)),
        (dt.date(2026, 1, 10), 2, dt.date(2026, 1, 9)),
        (dt.date(2026, 1, 10), 24, dt.date(2026, 1, 9)),
        (dt.date(2026, 1, 10), 25, dt.date(2026, 1, 8)),
        (10_000, 1, 6_400),
        (10_000.5, 1, 6_400.5),
        ("x", 0, "x"),
    ],
)
def test_the_lookback_is_taken_from_every_kind_of_cursor(mark: Any, hours: int, expected: Any) -> None:
    assert earlier(mark, dt.timedelta(hours=hours), of=TableRef("a", "b", "c")) == expected


def test_a_text_cursor_cannot_look_back() -> None:
    with pytest.raises(LoadError, match="a text cursor cannot look back"):
        earlier("x", dt.timedelta(hours=1), of=TableRef("a", "b", "c"))


def test_changed_columns_stop_the_load(loads: Any) -> None:
    loads.load(PEOPLE)
    with pytest.raises(SchemaError, match="missing: city"):
        loads.load(PEOPLE.drop_columns(["city"]))
    assert [path.name for path in loads.landing.iterdir()] == ["000000000001"]


def test_a_column_without_values_takes_the_type_it_has_in_bronze(loads: Any) -> None:
    loads.load(PEOPLE)
    result = loads.load(PEOPLE.set_column(3, "born", pa.nulls(3)))
    assert result.updated == 2
    assert [row["born"] for row in loads.rows()] == [None, None, None]


def test_an_error_of_a_driver_shows_no_value_and_applies_nothing(loads: Any, source: Any) -> None:
    source.fail_after = ValueError("could not parse 'Anna Vermeulen'")
    with pytest.raises(SourceError) as caught:
        loads.load(PEOPLE)
    assert str(caught.value).startswith("crm.bronze.riders: riders cannot be read from rows (rows)")
    assert "Anna" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert not loads.bronze.exists()
    assert list(loads.landing.iterdir()) == []
    assert source.closed == 1


def test_an_error_of_the_source_passes_as_it_is(loads: Any, source: Any) -> None:
    source.fail_after = SourceError("the server went away")
    with pytest.raises(SourceError, match=r"^the server went away$"):
        loads.load(PEOPLE)


def test_a_cancelled_load_applies_nothing(loads: Any) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    many = pa.concat_tables([PEOPLE] * 20).set_column(0, "id", pa.array(range(60)))
    with pytest.raises(LoadError, match="the load was cancelled; nothing was applied"):
        loads.with_platform(cancelled=cancelled).load(many)
    assert len(asked) == 3
    assert not loads.bronze.exists()
    assert list(loads.landing.iterdir()) == []
    assert loads.load(many).inserted == 60


class Faulty:
    """The local engine, which fails before or after its work."""

    def __init__(self, engine: Any, *, after: bool) -> None:
        self.engine = engine
        self.after = after

    def apply(self, load: Any) -> Any:
        if self.after:
            self.engine.apply(load)
        raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("mode", ["full", "incremental", "append"])
def test_after_a_crash_around_the_commit_a_rerun_gives_the_same_bronze(loads: Any, mode: str, after: bool) -> None:
    loads.spec = {
        "mode": mode,
        **({} if mode == "append" else {"key": ("id",)}),
        **({} if mode == "full" else {"cursor": "at"}),
    }
    loads.load(changes((1, 100, "a"), (2, 200, "b")))
    rows = changes((2, 200, "b"), (3, 300, "c"))
    with pytest.raises(KeyboardInterrupt):
        loads.with_platform(engine=Faulty(loads.platform.engine, after=after)).load(rows)
    loads.load()
    assert [(row["id"], row["_is_current"]) for row in loads.rows()] == [(1, mode != "full"), (2, True), (3, True)]
    assert loads.load().committed is False
    assert DeltaTable(loads.bronze).transaction_version(APPLICATION) == 2


def test_after_a_crash_while_landing_a_rerun_replaces_what_was_left(loads: Any) -> None:
    torn = Path(loads.landing, "000000000001")
    torn.mkdir(parents=True)
    (torn / "part-00000.parquet").write_bytes(b"torn")
    (torn / "part-00007.parquet").write_bytes(b"torn")
    assert loads.load(PEOPLE).inserted == 3
    assert sorted(path.name for path in torn.iterdir()) == ["_manifest.json", "part-00000.parquet"]


def test_keys_that_are_not_unique_stop_the_load_and_leave_nothing(loads: Any) -> None:
    with pytest.raises(LoadError, match="1 rows a key that another row"):
        loads.load(pa.concat_tables([PEOPLE, PEOPLE.slice(0, 1)]))
    assert not loads.bronze.exists()
