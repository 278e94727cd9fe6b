"""The source delta, on real tables."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import Place, Placed, SourceSuite, many, no_secrets, sample
from platform_core.sources.delta import DeltaSource
from platform_core.specs.ingestion import LoadMode

FEED = {"delta.enableChangeDataFeed": "true"}
UTC = dt.UTC


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "a lake"


@pytest.fixture
def source(lake: Path) -> DeltaSource:
    return DeltaSource(DeltaSource.Options(root=str(lake)), secret=no_secrets)


def ids(*numbers: int, name: str = "a") -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64()), "name": [f"{name}{number}" for number in numbers]})


def read(source: DeltaSource, object_: str = "rows", **request: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = source.read(ReadRequest(object=object_, **request)).read_all().to_pylist()
    return sorted(rows, key=lambda row: tuple(map(str, row.values())))


class TestDelta(SourceSuite):
    @pytest.fixture
    def place(self, lake: Path, source: DeltaSource) -> Place:
        def put(rows: pa.Table) -> Placed:
            write_deltalake(lake / "rows", rows.slice(0, 2))
            write_deltalake(lake / "rows", rows.slice(2), mode="append")
            return source, ReadRequest(object="rows")

        return put

    @pytest.fixture
    def place_more(self, lake: Path) -> Callable[[pa.Table], None]:
        return lambda rows: write_deltalake(lake / "rows", rows, mode="append")

    @pytest.fixture
    def place_broken(self, lake: Path, source: DeltaSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            rows = pa.table({"id": range(50_000), "name": [f"{text} {number}" for number in range(50_000)]})
            write_deltalake(lake / "rows", rows)
            (file,) = (lake / "rows").glob("*.parquet")
            content = bytearray(file.read_bytes())
            content[2000:20_000] = bytes(18_000)
            file.write_bytes(content)
            return source, ReadRequest(object="rows")

        return put


class TestTables:
    def test_a_table_lies_anywhere_below_the_root(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "sales" / "orders", ids(1))
        assert read(source, "sales/orders") == [{"id": 1, "name": "a1"}]

    @pytest.mark.parametrize(
        "path",
        [
            "../outside",
            "rows/../../outside",
            "/etc",
            "~",
            "file:///etc",
            "s3://x/y",
            "",
            "rows/",
            "a//b",
            "a\\b",
            ".",
            "%2e%2e",
        ],
    )
    def test_a_path_cannot_leave_the_root(self, lake: Path, source: DeltaSource, path: str) -> None:
        write_deltalake(lake.parent / "outside", ids(1))
        with pytest.raises(SourceError, match="below the connection's root"):
            read(source, path)

    def test_a_link_cannot_leave_the_root(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake.parent / "outside", ids(1))
        lake.mkdir()
        (lake / "rows").symlink_to(lake.parent / "outside")
        with pytest.raises(SourceError, match="leads out of"):
            read(source)

    @pytest.mark.parametrize(
        "root", ["lake", "file:///etc", "s3://key:secret@bucket/x", "s3://bucket/x?sig=1", "~/lake", ""]
    )
    def test_a_root_is_an_absolute_folder_or_a_plain_url(self, root: str) -> None:
        with pytest.raises(ValidationError):
            DeltaSource.Options(root=root)

    @pytest.mark.parametrize("root", ["/mnt/lake", "abfss://lake@account.dfs.core.windows.net/gold", "s3://bucket"])
    def test_good_roots_are_taken(self, root: str) -> None:
        assert DeltaSource.Options(root=root).root == root

    def test_a_table_is_read_as_of_one_version(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", many(20_000))
        reader = source.read(ReadRequest(object="rows", batch_rows=100))
        first = next(iter(reader)).num_rows
        write_deltalake(lake / "rows", many(5), mode="append")
        assert first + reader.read_all().num_rows == 20_000

    def test_secrets_of_the_store_show_in_no_message(self) -> None:
        options = DeltaSource.Options(
            root="s3://bucket/lake",
            storage_options={
                "secret_access_key": {"secret": "crm/key"},
                "access_key_id": "id",
                "region": "x",
                "endpoint": "http://127.0.0.1:9",
                "allow_http": "true",
                "max_retries": "0",
                "retry_timeout": "1s",
            },
        )
        source = DeltaSource(options, secret=lambda name: Secret(name, b"hush-hush"))
        with pytest.raises(SourceError) as caught:
            read(source)
        assert "hush-hush" not in str(caught.value) + repr(options) + repr(vars(source))

    def test_deleted_rows_of_a_deletion_vector_do_not_come(self, lake: Path, source: DeltaSource) -> None:
        put_deletion_vector(lake / "rows")
        assert read(source) == [{"id": 1, "name": "a1"}, {"id": 3, "name": "a3"}]
        assert read(source, filter="id >= 1") == [{"id": 1, "name": "a1"}, {"id": 3, "name": "a3"}]

    def test_partition_columns_come_with_their_types(self, lake: Path, source: DeltaSource) -> None:
        rows = pa.table({"id": [1, 2], "day": [dt.date(2024, 1, 1), None]})
        write_deltalake(lake / "rows", rows, partition_by=["day"])
        assert read(source) == rows.to_pylist()

    def test_nested_columns_come_as_they_are(self, lake: Path, source: DeltaSource) -> None:
        rows = pa.table({"id": [1], "tags": [["a", None]], "at": [{"x": 1, "y": [1.5]}]})
        write_deltalake(lake / "rows", rows)
        assert read(source) == read(source, filter="id = 1") == rows.to_pylist()

    def test_no_rows_of_other_files_are_read_below_since(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", ids(1, 2))
        (old,) = (lake / "rows").glob("*.parquet")
        write_deltalake(lake / "rows", ids(3, 4), mode="append")
        old.unlink()
        assert [row["id"] for row in read(source, cursor="id", since=3)] == [3, 4]

    def test_until_is_inclusive(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", ids(1, 2, 3, 4))
        assert [row["id"] for row in read(source, cursor="id", since=2, until=3)] == [2, 3]

    def test_not_a_number_is_not_newer_than_a_number(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", pa.table({"id": [1, 2], "x": [float("nan"), 2.0]}))
        assert [row["id"] for row in read(source, cursor="x", since=1.0)] == [2]


class TestFilters:
    def test_a_filter_leaves_out_rows_for_which_it_is_not_true(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", pa.table({"id": [1, 2, 3], "name": ["it's", None, "b"]}))
        assert [row["id"] for row in read(source, filter="name = 'it''s'")] == [1]
        assert [row["id"] for row in read(source, filter="NAME <> 'b'")] == [1]

    def test_a_filter_goes_with_columns_and_cursor(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", pa.table({"id": [1, 2, 3], "name": ["a", "b", "a"], "n": [1, 2, 3]}))
        assert read(source, filter="name = 'a'", columns=("n",), cursor="id", since=2) == [{"n": 3}]

    def test_every_type_passes_a_filter(self, lake: Path, source: DeltaSource) -> None:
        rows = sample()
        write_deltalake(lake / "rows", rows)
        found = source.read(ReadRequest(object="rows", filter="id > 0")).read_all()
        assert found.sort_by("id").equals(rows.sort_by("id"))

    @pytest.mark.parametrize(
        "filter_", ["read_text('/etc/passwd') = 'x'", "id in (select 1)", "id = 1; drop table x", "getenv('HOME') = ''"]
    )
    def test_a_filter_is_one_harmless_condition(self, lake: Path, source: DeltaSource, filter_: str) -> None:
        write_deltalake(lake / "rows", ids(1))
        with pytest.raises(SourceError):
            read(source, filter=filter_)

    def test_what_is_wrong_with_a_text_is_told_without_a_connection(self) -> None:
        with pytest.raises(ValueError, match="SELECT"):
            DeltaSource.check_text(ReadRequest(object="x", query="drop table x"))

    def test_a_filter_on_an_unknown_column_is_an_error(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", ids(1))
        with pytest.raises(SourceError, match="nmae"):
            read(source, filter="nmae = 'x'")


class TestQueries:
    def test_a_query_joins_tables_below_the_root(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "sales" / "orders", pa.table({"id": [1, 2], "who": [1, 1]}))
        write_deltalake(lake / "people", ids(1))
        query = """
            with o as (select * from sales.orders)
            select p.name, count(*) as orders from o join "people" p on p.id = o.who
            where o.id in (select id from "sales/orders") group by all
        """
        assert read(source, "joined", query=query) == [{"name": "a1", "orders": 2}]

    def test_a_query_goes_with_columns_and_cursor(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", ids(1, 2, 3))
        query = "select id, id * 2 as double, name from rows"
        assert read(source, query=query, columns=("double",), cursor="id", since=3) == [{"double": 6}]
        assert source.schema(ReadRequest(object="x", query=query)).names == ["id", "double", "name"]

    def test_times_of_a_query_are_in_utc(self, lake: Path, source: DeltaSource) -> None:
        write_deltalake(lake / "rows", sample("id", "seen"))
        request = ReadRequest(object="x", query="select id, seen from rows")
        assert source.schema(request).field("seen").type == pa.timestamp("us", tz="UTC")
        assert source.read(request).read_all().schema == source.schema(request)

    @pytest.mark.parametrize(
        "query",
        [
            "select * from read_text('/etc/passwd')",
            "select * from '/etc/passwd'",
            'select * from "../outside"',
            "copy rows to '/tmp/x'",
            "select 1; select 2",
            "attach '/tmp/x.db'",
        ],
    )
    def test_a_query_reads_nothing_else(self, lake: Path, source: DeltaSource, query: str) -> None:
        write_deltalake(lake / "rows", ids(1))
        write_deltalake(lake.parent / "outside", ids(1))
        with pytest.raises(SourceError):
            read(source, "x", query=query)

    def test_a_query_sees_no_variable_of_this_process(self, lake: Path, source: DeltaSource) -> None:
        request = ids(1)
        with pytest.raises(SourceError, match="request"):
            read(source, "x", query="select * from request")
        assert request.num_rows == 1

    def test_a_query_that_needs_too_much_memory_says_so_and_writes_nothing(
        self, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_deltalake(lake / "rows", many(400_000))
        source = DeltaSource(DeltaSource.Options(root=str(lake), memory_mb=64), secret=no_secrets)
        before = {*tmp_path.rglob("*")}
        query = (
            "select list(a.name || b.name order by a.name) as x from rows a join rows b on a.id % 1000 = b.id % 1000"
        )
        with closing(source), pytest.raises(SourceError, match="memory_mb"):
            read(source, "x", query=query)
        assert {*tmp_path.rglob("*")} == before


def feed(key: tuple[str, ...] = ("id",)) -> Any:
    return DeltaSource.ObjectOptions(change_data_feed=True, key=key)


def load(lake: Path, state: bytes | None = None, **request: Any) -> tuple[list[dict[str, Any]], bytes | None]:
    """One load of the change data feed: its rows, and what the next one is to know."""
    with closing(DeltaSource(DeltaSource.Options(root=str(lake)), secret=no_secrets)) as source:
        rows = read(source, state=state, **{"options": feed(), "mode": LoadMode.INCREMENTAL, **request})
        return rows, source.state()


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((row["id"], row["name"], row["cdf_deleted"], row["cdf_version"]) for row in rows)


class TestAddedRows:
    """Without a change data feed and a cursor, ``incremental`` and ``append`` go by the files that were added."""

    APPEND: ClassVar[dict[str, Any]] = {"options": None, "mode": LoadMode.APPEND}

    @pytest.fixture
    def table(self, lake: Path) -> Path:
        path = lake / "rows"
        write_deltalake(path, ids(1, 2, 3))
        return path

    def test_rows_that_were_added_are_read_once(self, lake: Path, table: Path) -> None:
        _, state = load(lake, **self.APPEND)
        write_deltalake(table, ids(4), mode="append")
        rows, state = load(lake, state, **self.APPEND)
        assert rows == [{"id": 4, "name": "a4"}]
        assert load(lake, state, **self.APPEND)[0] == []

    def test_compaction_adds_nothing(self, lake: Path, table: Path) -> None:
        write_deltalake(table, ids(4), mode="append")
        _, state = load(lake, **self.APPEND)
        DeltaTable(table).optimize.compact()
        assert load(lake, state, **self.APPEND)[0] == []

    def test_a_filter_goes_with_them(self, lake: Path, table: Path) -> None:
        _, state = load(lake, **self.APPEND)
        write_deltalake(table, ids(4, 5), mode="append")
        assert load(lake, state, **self.APPEND, filter="id > 4", columns=("name",))[0] == [{"name": "a5"}]

    def test_an_append_of_a_changed_table_is_refused(self, lake: Path, table: Path) -> None:
        _, state = load(lake, **self.APPEND)
        DeltaTable(table).delete("id = 1")
        with pytest.raises(SourceError, match="change_data_feed"):
            load(lake, state, **self.APPEND)

    def test_an_incremental_load_of_a_changed_table_reads_it_whole(self, lake: Path, table: Path) -> None:
        _, state = load(lake, **self.APPEND)
        DeltaTable(table).delete("id = 1")
        assert len(load(lake, state, options=None, mode=LoadMode.INCREMENTAL)[0]) == 2

    def test_a_cursor_goes_before_what_is_known(self, lake: Path, table: Path) -> None:
        _, state = load(lake, **self.APPEND)
        assert [row["id"] for row in load(lake, state, **self.APPEND, cursor="id", since=3)[0]] == [3]

    def test_a_query_is_appended_once(self, lake: Path, table: Path) -> None:
        query = "select id from rows"
        _, state = load(lake, **self.APPEND, query=query)
        with pytest.raises(SourceError, match="every row would be there twice"):
            load(lake, state, **self.APPEND, query=query)
        assert load(lake, state, **self.APPEND, query=query, cursor="id", since=3)[0] == [{"id": 3}]


class TestChangeDataFeed:
    @pytest.fixture
    def table(self, lake: Path) -> Path:
        path = lake / "rows"
        write_deltalake(path, ids(1, 2, 3), configuration=FEED)
        return path

    def test_the_first_load_is_the_whole_table(self, lake: Path, table: Path) -> None:
        write_deltalake(table, ids(4), mode="append")
        rows, state = load(lake)
        assert short(rows) == [(number, f"a{number}", False, 1) for number in (1, 2, 3, 4)]
        assert json.loads(state or b"")["version"] == 1
        assert abs(rows[0]["cdf_at"] - dt.datetime.now(UTC)) < dt.timedelta(minutes=5)

    def test_a_later_load_has_the_last_change_of_each_key(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        for name in ("x", "y"):
            DeltaTable(table).update(updates={"name": f"'{name}'"}, predicate="id = 1")
        DeltaTable(table).delete("id = 2")
        write_deltalake(table, ids(5, 6), mode="append")
        DeltaTable(table).delete("id = 6")
        rows, state = load(lake, state)
        assert short(rows) == [(1, "y", False, 2), (2, "a2", True, 3), (5, "a5", False, 4), (6, "a6", True, 5)]
        assert load(lake, state) == ([], state)

    def test_a_returned_key_is_there_again(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        DeltaTable(table).delete("id = 2")
        write_deltalake(table, ids(2, name="new"), mode="append")
        assert short(load(lake, state)[0]) == [(2, "new2", False, 2)]

    def test_a_changed_key_deletes_the_old_one(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        DeltaTable(table).update(updates={"id": "id + 10"}, predicate="id = 3")
        assert short(load(lake, state)[0]) == [(3, "a3", True, 1), (13, "a3", False, 1)]

    def test_a_row_deleted_and_inserted_in_one_commit_is_there(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        write_deltalake(table, ids(1, 9), mode="overwrite")
        rows = short(load(lake, state)[0])
        assert rows == [(1, "a1", False, 1), (2, "a2", True, 1), (3, "a3", True, 1), (9, "a9", False, 1)]

    def test_compaction_changes_nothing(self, lake: Path, table: Path) -> None:
        write_deltalake(table, ids(4), mode="append")
        _, state = load(lake)
        DeltaTable(table).optimize.compact()
        rows, state = load(lake, state)
        assert rows == []
        assert json.loads(state or b"")["version"] == 2

    def test_null_is_a_key_like_any_other(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        write_deltalake(table, pa.table({"id": pa.array([None], pa.int64()), "name": ["n"]}), mode="append")
        assert [row["name"] for row in load(lake, state)[0]] == ["n"]

    def test_a_key_may_have_several_columns_and_odd_names(self, lake: Path) -> None:
        rows = pa.table({'a "b': [1, 1], "c d": ["x", "y"], "v": [1, 1]})
        write_deltalake(lake / "rows", rows, configuration=FEED)
        options = feed(('a "b', "c d"))
        _, state = load(lake, options=options)
        DeltaTable(lake / "rows").update(updates={"v": "2"}, predicate="\"c d\" = 'y'")
        (row,) = load(lake, state, options=options)[0]
        assert (row["c d"], row["v"], row["cdf_deleted"]) == ("y", 2, False)

    def test_every_type_passes_the_feed(self, lake: Path) -> None:
        rows = sample()
        write_deltalake(lake / "rows", rows.slice(0, 0), configuration=FEED)
        _, state = load(lake)
        write_deltalake(lake / "rows", rows, mode="append")
        found, _ = load(lake, state, columns=tuple(rows.schema.names))
        assert sorted(found, key=lambda row: row["id"]) == rows.to_pylist()

    def test_a_new_column_is_null_in_older_changes(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        write_deltalake(table, ids(4), mode="append")
        write_deltalake(table, ids(5).append_column("more", pa.array([7])), mode="append", schema_mode="merge")
        assert [(row["id"], row["more"]) for row in load(lake, state)[0]] == [(4, None), (5, 7)]

    def test_the_columns_of_the_feed_are_part_of_the_schema(self, lake: Path, table: Path) -> None:
        with closing(DeltaSource(DeltaSource.Options(root=str(lake)), secret=no_secrets)) as source:
            request = ReadRequest(object="rows", options=feed())
            assert source.schema(request) == source.read(request).schema
            assert source.schema(request).names[-3:] == ["cdf_deleted", "cdf_version", "cdf_at"]

    def test_keys_alone_can_be_read_to_look_for_deletes(self, lake: Path, table: Path) -> None:
        assert load(lake, columns=("id",))[0] == [{"id": 1}, {"id": 2}, {"id": 3}]
        assert load(lake, columns=("cdf_deleted",))[0] == [{"cdf_deleted": False}] * 3

    def test_mode_full_reads_everything_whatever_is_known(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        assert len(load(lake, state, mode=LoadMode.FULL)[0]) == 3

    def test_state_is_known_only_when_all_is_read(self, lake: Path, table: Path) -> None:
        with closing(DeltaSource(DeltaSource.Options(root=str(lake)), secret=no_secrets)) as source:
            reader = source.read(ReadRequest(object="rows", options=feed(), batch_rows=1))
            next(iter(reader))
            assert source.state() is None
            reader.read_all()
            assert source.state() is not None

    def test_a_cleaned_log_asks_for_a_reload(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        for number in (4, 5, 6):
            write_deltalake(table, ids(number), mode="append")
        DeltaTable(table).create_checkpoint()
        for version in (0, 1, 2):
            (table / "_delta_log" / f"{version:020}.json").unlink()
        with pytest.raises(SourceError, match=r"no longer holds version 1(?s:.)*reload the table"):
            load(lake, state)
        assert len(load(lake)[0]) == 6

    def test_vacuumed_changes_ask_for_a_reload(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        DeltaTable(table).delete("id = 1")
        shutil.rmtree(table / "_change_data")
        with pytest.raises(SourceError, match="reload the table"):
            load(lake, state)

    def test_another_table_in_its_place_asks_for_a_reload(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        shutil.rmtree(table)
        write_deltalake(table, ids(1), configuration=FEED)
        with pytest.raises(SourceError, match=r"another table in its place(?s:.)*reload"):
            load(lake, state)

    def test_a_table_that_was_set_back_asks_for_a_reload(self, lake: Path, table: Path) -> None:
        write_deltalake(table, ids(4), mode="append")
        _, state = load(lake)
        (table / "_delta_log" / f"{1:020}.json").unlink()
        with pytest.raises(SourceError, match=r"version 1 has been read already(?s:.)*reload"):
            load(lake, state)

    def test_a_feed_that_was_off_in_between_asks_for_a_reload(self, lake: Path, table: Path) -> None:
        _, state = load(lake)
        DeltaTable(table).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
        write_deltalake(table, ids(4), mode="append")
        DeltaTable(table).alter.set_table_properties(FEED)
        with pytest.raises(SourceError, match=r"was off in version 1(?s:.)*reload"):
            load(lake, state)

    def test_a_feed_that_is_off_is_an_error(self, lake: Path) -> None:
        write_deltalake(lake / "rows", ids(1))
        with pytest.raises(SourceError, match="enableChangeDataFeed"):
            load(lake)

    def test_deletes_by_deletion_vector_without_a_feed_of_their_own_ask_for_a_reload(self, lake: Path) -> None:
        put_deletion_vector(lake / "rows", configuration=FEED, delete=False)
        _, state = load(lake)
        delete_by_vector(lake / "rows")
        with pytest.raises(SourceError, match=r"deletion vectors(?s:.)*reload"):
            load(lake, state)

    def test_state_of_something_else_is_refused(self, lake: Path, table: Path) -> None:
        with pytest.raises(SourceError, match="reload"):
            load(lake, b'{"files": []}')

    def test_a_filter_is_refused(self, lake: Path, table: Path) -> None:
        with pytest.raises(SourceError, match="filter"):
            load(lake, filter="id > 1")

    def test_a_column_of_the_feeds_name_is_refused(self, lake: Path) -> None:
        write_deltalake(lake / "rows", pa.table({"id": [1], "CDF_at": [1]}), configuration=FEED)
        with pytest.raises(SourceError, match="'cdf_at'"):
            load(lake)

    def test_an_unknown_key_is_named(self, lake: Path, table: Path) -> None:
        with pytest.raises(SourceError, match="nmae"):
            load(lake, options=feed(("nmae",)))

    def test_the_feed_needs_a_key(self) -> None:
        with pytest.raises(ValidationError, match="needs 'key'"):
            DeltaSource.ObjectOptions(change_data_feed=True)


def put_deletion_vector(path: Path, *, configuration: dict[str, str] | None = None, delete: bool = True) -> None:
    """A table of ids 1 to 3 whose protocol has deletion vectors, as Spark and Databricks make them."""
    write_deltalake(path, ids(1, 2, 3), configuration=configuration or {})
    log = path / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            features = {*(action["protocol"].get("writerFeatures") or ()), "deletionVectors"}
            if configuration:
                features.add("changeDataFeed")
            action["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["deletionVectors"],
                "writerFeatures": sorted(features),
            }
        if "metaData" in action:
            action["metaData"]["configuration"]["delta.enableDeletionVectors"] = "true"
    log.write_text("\n".join(map(json.dumps, actions)))
    if delete:
        delete_by_vector(path)


def delete_by_vector(path: Path) -> None:
    """Commit an inline deletion vector that deletes the second row of the table's only file."""
    log = path / "_delta_log"
    (add,) = (
        action["add"] for action in map(json.loads, (log / f"{0:020}.json").read_text().splitlines()) if "add" in action
    )
    vector = {"storageType": "i", "pathOrInlineDv": inline_vector(1), "sizeInBytes": 34, "cardinality": 1}
    remove = {"path": add["path"], "deletionTimestamp": 0, "dataChange": True}
    actions = [{"remove": remove}, {"add": {**add, "deletionVector": vector, "dataChange": True}}]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, actions)))


def inline_vector(row: int) -> str:
    """A 64-bit roaring bitmap of one row in Z85, as the Delta protocol writes it into the log."""
    import struct

    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, row)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = content + bytes(-len(content) % 4)
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = ""
    for (value,) in struct.iter_unpack(">I", padded):
        text += "".join(digits[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text
