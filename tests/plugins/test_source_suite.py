"""The suite of sources, run by a source of fifty lines, and shown to find what breaks its promises."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.plugins.testing import Place, Placed, SourceSuite, no_secrets
from platform_core.sources.sqlite import SqliteSource
from platform_core.specs.ingestion import LoadMode


class ListSource(Source):
    """Tables that are held in a dictionary; the class attributes are the faults it can be given."""

    compare: Any = staticmethod(pc.greater_equal)
    batch_rows: int | None = None
    shows_values = False
    ends_early = False

    def __init__(self, tables: dict[str, pa.Table], **broken: str) -> None:
        super().__init__(None, secret=no_secrets)
        self.tables = tables
        self.broken = broken
        self.closed = False

    def schema(self, request: ReadRequest) -> pa.Schema:
        if request.object not in self.tables:
            raise SourceError(f"there is no '{request.object}'")
        table = self.tables[request.object]
        for name in (*(request.columns or ()), *filter(None, [request.cursor])):
            if name not in table.schema.names:
                raise SourceError(f"there is no column '{name}', only {table.schema.names}")
        names = request.columns or table.schema.names
        return pa.schema([table.schema.field(name) for name in names])

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        schema = self.schema(request)
        return pa.RecordBatchReader.from_batches(schema, self._batches(request, schema))

    def _batches(self, request: ReadRequest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        table = self.tables[request.object]
        for value, compare in ((request.since, self.compare), (request.until, pc.less_equal)):
            if request.cursor and value is not None:
                try:
                    bound = pa.scalar(value, table.schema.field(request.cursor).type)
                except (pa.ArrowException, TypeError):
                    raise SourceError(f"the watermark does not fit '{request.cursor}'") from None
                table = table.filter(compare(table.column(request.cursor), bound))
        for batch in table.select(schema.names).to_batches(max_chunksize=self.batch_rows or request.batch_rows):
            if self.closed and not self.ends_early:
                raise SourceError("closed before the end")
            if self.closed:
                return
            yield batch
        if self.broken:
            raise SourceError(f"a row cannot be read{self.broken['text'] if self.shows_values else ''}")

    def close(self) -> None:
        self.closed = True


class LedgerSource(ListSource):
    """It remembers how many rows it has handed out, and adds nothing to them."""

    keeps_state = True
    forgets = False
    tells_values = False
    shelf: ClassVar[dict[str, pa.Table]] = {}

    def __init__(self, options: Any, *, secret: Any) -> None:
        super().__init__(self.shelf)
        self.read_to = 0

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        rows = self.tables[request.object]
        self.read_to = rows.num_rows
        if request.mode is LoadMode.APPEND and request.state and not self.forgets:
            rows = rows.slice(int(request.state.split()[0]))
        return rows.to_reader()

    def state(self) -> bytes | None:
        values = str(self.tables["rows"].to_pylist()) if self.tells_values else ""
        return f"{self.read_to} {values}".encode()


def shelved(kind: type[LedgerSource]) -> tuple[Place, Callable[[pa.Table], None]]:
    def put(rows: pa.Table) -> Placed:
        kind.shelf["rows"] = rows
        return kind(None, secret=no_secrets), ReadRequest(object="rows")

    def more(rows: pa.Table) -> None:
        kind.shelf["rows"] = pa.concat_tables([kind.shelf["rows"], rows])

    return put, more


def test_the_suite_takes_a_source_that_keeps_state() -> None:
    place, more = shelved(LedgerSource)
    SourceSuite().test_a_source_that_keeps_state_reads_nothing_twice(place, more)
    SourceSuite().test_state_is_small_and_holds_no_row_value(place)
    SourceSuite().test_state_is_given_by_sources_that_keep_it_alone(place)


class Forgetful(LedgerSource):
    forgets = True


class Gossip(LedgerSource):
    tells_values = True


def test_the_suite_finds_a_source_that_forgets_what_it_has_read() -> None:
    with pytest.raises(AssertionError):
        SourceSuite().test_a_source_that_keeps_state_reads_nothing_twice(*shelved(Forgetful))


def test_the_suite_finds_a_state_that_holds_row_values() -> None:
    with pytest.raises(AssertionError):
        SourceSuite().test_state_is_small_and_holds_no_row_value(shelved(Gossip)[0])


def placed(kind: type[ListSource]) -> Place:
    return lambda rows: (kind({"rows": rows}), ReadRequest(object="rows"))


def broken(kind: type[ListSource]) -> Callable[[str], Placed]:
    return lambda text: (kind({"rows": pa.table({"id": [1]})}, text=text), ReadRequest(object="rows"))


class TestListSource(SourceSuite):
    @pytest.fixture
    def place(self) -> Place:
        return placed(ListSource)

    @pytest.fixture
    def place_broken(self) -> Callable[[str], Placed]:
        return broken(ListSource)


class Exclusive(ListSource):
    compare = staticmethod(pc.greater)


class LargeBatches(ListSource):
    batch_rows = 1000


class Unbounded(ListSource):
    """It reads beyond ``until``."""

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        return super().read(dataclasses.replace(request, until=None))


class Doubling(ListSource):
    """Each of its readers reads everything."""

    def _batches(self, request: ReadRequest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for _ in range(request.parallel):
            yield from super()._batches(request, schema)


class Unfiltered(SqliteSource):
    """It takes a filter and a query, and reads the whole table."""

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        return super().read(dataclasses.replace(request, filter=None, query=None))


class Talkative(ListSource):
    shows_values = True


class Hasty(ListSource):
    ends_early = True


@pytest.mark.parametrize(
    ("kind", "promise", "arguments"),
    [
        (Exclusive, "test_since_is_inclusive_and_keeps_every_tie", ("id",)),
        (LargeBatches, "test_no_batch_is_larger_than_asked_for", ()),
        (Unbounded, "test_until_is_inclusive_and_keeps_every_tie", ("id",)),
        (Unbounded, "test_since_and_until_bound_the_same_read", ()),
        (Doubling, "test_several_readers_of_one_request_read_each_row_once", ()),
    ],
)
def test_the_suite_finds_a_source_that_breaks_a_promise(
    kind: type[ListSource], promise: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError):
        getattr(SourceSuite(), promise)(placed(kind), *arguments)


@pytest.mark.parametrize(
    "promise",
    [
        "test_a_filter_leaves_out_the_rows_for_which_it_is_not_true",
        "test_a_query_stands_in_place_of_a_table",
    ],
)
def test_the_suite_finds_a_source_that_ignores_filter_or_query(promise: str, tmp_path: Path) -> None:
    def put(rows: pa.Table) -> Placed:
        path = tmp_path / "rows.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE rows (id INTEGER, name TEXT, big INTEGER)")
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", [(*row.values(),) for row in rows.to_pylist()])
            connection.commit()
        return Unfiltered(Unfiltered.Options(path=str(path)), secret=no_secrets), ReadRequest(object="rows")

    with pytest.raises(AssertionError):
        getattr(SourceSuite(), promise)(put)


def test_the_suite_finds_a_source_that_shows_values() -> None:
    with pytest.raises(AssertionError):
        SourceSuite().test_an_error_holds_no_row_value(broken(Talkative))


def test_the_suite_finds_a_source_that_passes_off_a_part_as_all() -> None:
    with pytest.raises(pytest.fail.Exception):
        SourceSuite().test_a_closed_source_does_not_pass_off_a_part_as_all(placed(Hasty))
