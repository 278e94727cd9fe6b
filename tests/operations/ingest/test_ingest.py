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
from platform_core.faults import InjectedFault, armed
from platform_core.lake import batch_sink
from platform_core.lake.delta import APPLICATION, DeltaTableReader
from platform_core.lake.landing import read_batch
from platform_core.operations.ingest import earlier
from platform_core.operations.versions import versions
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
    assert (first.committed, first.version) == (True, 0)
    assert set(first.seconds) == {"lease", "extract", "mask", "hash", "land", "apply"}
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
    assert loads.batches == [1]


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
    assert loads.batches == [1]


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
    assert not (loads.folder / "lake").exists()
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
    assert len(asked) >= 3
    assert not (loads.folder / "lake").exists()
    assert loads.log[-1].status == "cancelled"
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

    def fence(self, uri: str, **options: Any) -> None:
        self.engine.fence(uri, **options)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("mode", ["full", "incremental", "append"])
def test_a11_after_a_crash_around_the_commit_a_rerun_gives_the_same_bronze(loads: Any, mode: str, after: bool) -> None:
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
    assert DeltaTable(loads.bronze).transaction_version(APPLICATION) == (2 if after else 3)
    assert loads.batches == ([1, 2] if after else [1, 3])


def test_a10_what_an_unfinished_landing_left_under_the_same_id_is_replaced(loads: Any) -> None:
    """The control database counts ids, and may have been lost."""
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
    assert loads.batches == []


@pytest.fixture(params=["held", "landed"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a batch is held in memory until it is known to change something, or is landed as it comes."""
    if request.param == "landed":
        monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)
    return request.param


def test_a_batch_does_the_same_held_or_landed(loads: Any, where: str) -> None:
    many = pa.concat_tables([PEOPLE] * 20).set_column(0, "id", pa.array(range(60)))
    assert loads.load(many, columns=MASKS).inserted == 60
    result = loads.load(many.slice(0, 59), columns=MASKS)
    assert (result.unchanged, result.deleted, result.bytes_landed > 0) == (59, 1, True)
    again = loads.load(columns=MASKS)
    assert (again.committed, again.unchanged) == (False, 59)
    assert (again.bytes_landed > 0) == (where == "landed")
    assert loads.batches == [1, 2]


@pytest.mark.parametrize("after", [False, True])
def test_a_failed_load_leaves_no_landing_unless_it_was_committed(loads: Any, where: str, after: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        loads.with_platform(engine=Faulty(loads.platform.engine, after=after)).load(PEOPLE)
    assert loads.batches == ([1] if after else [])
    assert loads.log[-1].status == "cancelled"


def test_the_landing_is_there_before_anything_is_committed(loads: Any, where: str) -> None:
    with armed("bronze-before-commit:raise"), pytest.raises(InjectedFault):
        loads.load(PEOPLE)
    assert loads.log[-1].status == "failed"
    loads.load()
    landed = read_batch(str(loads.landing / f"{2:012d}"), storage_options={})
    assert landed is not None
    assert (landed.rows, landed.held_batch, landed.mode) == (3, 0, "full")


def test_b9_rows_of_equal_cursor_at_the_boundary_are_all_read_once(loads: Any) -> None:
    loads.spec = INCREMENTAL
    loads.load(changes((1, 100, "a"), (2, 200, "b")))
    result = loads.load(changes((1, 100, "a"), (2, 200, "b"), (3, 200, "tie"), (2, 200, "b")).slice(0, 3))
    assert (result.rows_read, result.inserted, result.unchanged) == (2, 1, 1)
    assert [row["name"] for row in loads.rows()] == ["a", "b", "tie"]


def test_b10_a_row_committed_late_at_the_source_is_found_within_the_lookback(loads: Any) -> None:
    loads.spec = INCREMENTAL | {"lookback": "1 minute"}
    loads.load(changes((1, 100, "a"), (2, 200, "b")))
    result = loads.load(changes((1, 100, "a"), (2, 200, "b"), (3, 150, "committed late"), (4, 139, "too late")))
    assert result.inserted == 1
    assert [row["id"] for row in loads.rows()] == [1, 2, 3]


def test_b12_a_row_that_is_gone_and_comes_back_is_current_again(loads: Any) -> None:
    loads.load(PEOPLE)
    loads.load(PEOPLE.slice(1))
    assert loads.state()[0] == (1, False, 3)
    result = loads.load(PEOPLE)
    assert (result.updated, result.unchanged) == (1, 2)
    assert loads.state() == [(1, True, 4), (2, True, 2), (3, True, 2)]


def test_b12_a_changed_key_is_a_row_that_is_gone_and_a_new_one(loads: Any) -> None:
    loads.load(PEOPLE)
    result = loads.load(PEOPLE.set_column(0, "id", pa.array([1, 2, 9])))
    assert (result.inserted, result.deleted, result.unchanged) == (1, 1, 2)
    assert loads.state() == [(1, True, 2), (2, True, 2), (3, False, 3), (9, True, 3)]


def test_a_flag_of_the_source_deletes_a_row_that_keeps_its_values(loads: Any) -> None:
    loads.spec = INCREMENTAL | {"deleted_flag": "gone"}
    rows = changes((1, 100, "a"), (2, 200, "b"))
    loads.load(rows.append_column("gone", pa.array([False, False])))
    result = loads.load(changes((1, 300, "a")).append_column("gone", pa.array([True])))
    assert result.deleted == 1
    assert [(row["name"], row["_is_deleted"]) for row in loads.rows()] == [("a", True), ("b", False)]


def test_b7_doubled_keys_are_set_aside_and_the_newest_is_loaded_where_that_is_declared(loads: Any) -> None:
    doubled = changes((1, 100, "old"), (1, 200, "new"), (2, 100, "b"), (None, 100, "no key"))  # type: ignore[arg-type]
    result = loads.load(doubled, on_bad_key="quarantine", sequence_by="at")
    assert (result.inserted, result.quarantined, result.rows_read) == (2, 2, 4)
    assert [row["name"] for row in loads.rows()] == ["new", "b"]
    quarantine = loads.folder / "lake" / "crm" / "quarantine" / "riders" / f"{1:012d}"
    reasons = pa.concat_tables(pq.read_table(file) for file in quarantine.iterdir())["_reason"].to_pylist()
    assert sorted(reasons) == ["doubled_key", "null_key"]


def test_every_version_of_a_row_is_kept_where_history_is_asked_for(loads: Any) -> None:
    loads.spec |= {"snapshot_history": True}
    loads.load(PEOPLE)
    loads.load(PEOPLE.set_column(4, "city", pa.array(["Gouda", "Utrecht", "Delft"])))
    table = DeltaTableReader.open(f"{loads.bronze}_history", storage_options={})
    assert table is not None
    rows = [row for row in table.read().read_all().to_pylist() if row["id"] == 1]
    spans = sorted((row["_valid_from"].day, row["_valid_to"] and row["_valid_to"].day, row["city"]) for row in rows)
    assert spans == [(2, 3, "Utrecht"), (3, None, "Gouda")]
    found = versions(loads.declared(), platform=loads.platform)
    assert (found.batch, "_valid_to" in found.schema.names) == (2, True)


def test_what_a_source_says_of_what_it_read_is_told(loads: Any, caplog: pytest.LogCaptureFixture) -> None:
    loads.source = "noted"
    with caplog.at_level(logging.WARNING, "test.ingest"):
        result = loads.load(PEOPLE)
    assert result.notes == ("one row was set aside",)
    assert "crm.bronze.riders: one row was set aside" in caplog.text
    assert loads.log[-1].figures["notes"] == ["one row was set aside"]


def test_columns_filter_query_and_readers_reach_the_source(loads: Any, source: Any) -> None:
    spec = {"query": "select * from riders", "select": ("id", "name"), "parallel": 4}
    loads.load(PEOPLE, **spec)
    request = source.requests[-1]
    assert (request.query, request.columns, request.parallel) == ("select * from riders", ("id", "name"), 4)
    assert (request.split_by, request.mode) == ("id", "full")
    loads.load(PEOPLE.select(["id", "name"]), filter="id > 0", parallel=2, split_by="name")
    assert (source.requests[-1].filter, source.requests[-1].split_by) == ("id > 0", "name")


def test_the_first_load_of_an_empty_source_makes_the_table(loads: Any) -> None:
    result = loads.load(PEOPLE.slice(0, 0))
    assert (result.committed, result.rows_read) == (True, 0)
    assert loads.rows() == []
