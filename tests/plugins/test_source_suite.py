"""The suite of sources, run by a source of fifty lines, and shown to find what breaks its promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.plugins.testing import Place, Placed, SourceSuite, no_secrets


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
        if request.cursor and request.since is not None:
            type_ = table.schema.field(request.cursor).type
            try:
                since = pa.scalar(request.since, type_)
            except (pa.ArrowException, TypeError):
                raise SourceError(f"the watermark does not fit '{request.cursor}'") from None
            table = table.filter(self.compare(table.column(request.cursor), since))
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


class Talkative(ListSource):
    shows_values = True


class Hasty(ListSource):
    ends_early = True


@pytest.mark.parametrize(
    ("kind", "promise", "arguments"),
    [
        (Exclusive, "test_since_is_inclusive_and_keeps_every_tie", ("id",)),
        (LargeBatches, "test_no_batch_is_larger_than_asked_for", ()),
    ],
)
def test_the_suite_finds_a_source_that_breaks_a_promise(
    kind: type[ListSource], promise: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError):
        getattr(SourceSuite(), promise)(placed(kind), *arguments)


def test_the_suite_finds_a_source_that_shows_values() -> None:
    with pytest.raises(AssertionError):
        SourceSuite().test_an_error_holds_no_row_value(broken(Talkative))


def test_the_suite_finds_a_source_that_passes_off_a_part_as_all() -> None:
    with pytest.raises(pytest.fail.Exception):
        SourceSuite().test_a_closed_source_does_not_pass_off_a_part_as_all(placed(Hasty))
