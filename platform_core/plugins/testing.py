"""Conformance suites: what every plug-in of a kind promises, as tests that a team runs on its own.

Subclass a suite in a test module, override its fixtures, and pytest runs the promises::

    class TestOurSource(SourceSuite):
        @pytest.fixture
        def place(self, tmp_path):
            def put(rows):
                ...
                return OurSource(OurSource.Options(...), secret=no_secrets), ReadRequest(object="rows")
            return put

        @pytest.fixture
        def place_broken(self, tmp_path): ...

Have pytest explain failed comparisons: ``pytest.register_assert_rewrite("platform_core.plugins.testing")``
in ``conftest.py``.
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any, ClassVar, NoReturn

import pyarrow as pa
import pytest
from sqlglot import exp

from platform_core.errors import SecretError, SecretMissing, SourceError
from platform_core.plugins.interfaces import Cursor, Mask, ReadRequest, SecretStore, Source
from platform_core.specs.ingestion import LoadMode

UTC = dt.UTC
CANARY = "canary-1f0a6b"
"""A row value that no message may hold."""

Placed = tuple[Source, ReadRequest]
Place = Callable[[pa.Table], Placed]

_TYPES = {
    "id": pa.int64(),
    "name": pa.string(),
    "big": pa.int64(),
    "amount": pa.decimal128(18, 2),
    "ratio": pa.float64(),
    "flag": pa.bool_(),
    "day": pa.date32(),
    "at": pa.timestamp("us"),
    "seen": pa.timestamp("us", tz="UTC"),
    "data": pa.binary(),
}
_NULLS = dict.fromkeys(_TYPES)
_ROWS: tuple[dict[str, Any], ...] = (
    {
        "id": 1,
        "name": "Zoë 北京 🚲",
        "big": 2**63 - 1,
        "amount": Decimal("0.10"),
        "ratio": 0.1,
        "flag": True,
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 1, 1, 10, 0, 0, 123456),
        "seen": dt.datetime(2024, 1, 1, 10, 0, 0, 123456, tzinfo=UTC),
        "data": b"\x00\xff",
    },
    {
        "id": 2,
        "name": 'a "quoted", text\nof two lines',
        "big": -(2**63),
        "amount": Decimal("-9999999999999999.99"),
        "ratio": -1e300,
        "flag": False,
        "day": dt.date(1900, 1, 1),
        "at": dt.datetime(2024, 1, 1, 10, 0, 0, 123457),
        "seen": dt.datetime(2024, 1, 1, 10, 0, 0, 123457, tzinfo=UTC),
        "data": b"text",
    },
    {
        "id": 3,
        "name": "",
        "big": 2**53 + 1,
        "amount": Decimal("9999999999999999.99"),
        "ratio": 5e-324,
        "flag": True,
        "day": dt.date(2024, 3, 1),
        "at": dt.datetime(2024, 1, 1, 10, 0, 0, 123457),
        "seen": dt.datetime(2024, 1, 1, 10, 0, 0, 123457, tzinfo=UTC),
        "data": b"",
    },
    {**_NULLS, "id": 4},
    {
        "id": 5,
        "name": "zz",
        "big": 0,
        "amount": Decimal("0.00"),
        "ratio": 0.0,
        "flag": False,
        "day": dt.date(9999, 12, 31),
        "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
        "seen": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "data": b"\n",
    },
)
_CURSORS: dict[str, Cursor] = {
    "id": 2,
    "name": "a ",
    "big": 2**53 + 1,
    "ratio": 0.0,
    "day": dt.date(2024, 2, 29),
    "at": dt.datetime(2024, 1, 1, 10, 0, 0, 123457),
    "seen": dt.datetime(2024, 1, 1, 10, 0, 0, 123457, tzinfo=UTC),
}


def no_secrets(name: str) -> NoReturn:
    """For a source that needs no secret."""
    raise SecretError(f"this test gives no secret '{name}'")


def sample(*columns: str) -> pa.Table:
    """A few rows with the values that go wrong first; without names, of every type.

    Columns: ``id`` (key), ``name``, ``big``, ``amount`` decimal(18,2), ``ratio``, ``flag``, ``day``, ``at`` (time
    without zone), ``seen`` (time in UTC) and ``data`` (bytes); all but ``id`` hold nulls.
    """
    names = columns or tuple(_TYPES)
    schema = pa.schema([(name, _TYPES[name]) for name in names])
    return pa.Table.from_pylist([{name: row[name] for name in names} for row in _ROWS], schema=schema)


def many(rows: int) -> pa.Table:
    """As many rows of ``id`` and ``name``, for batches."""
    numbers = range(rows)
    return pa.table({"id": pa.array(numbers, pa.int64()), "name": [f"row {number}" for number in numbers]})


class SourceSuite:
    """What every source promises.

    Override the fixtures ``place`` and ``place_broken``, and name in ``left_out`` what the system behind the source
    cannot hold at all.
    """

    left_out: ClassVar[frozenset[str]] = frozenset()
    """Columns of :func:`sample` that the system cannot hold, such as ``data`` for CSV."""

    readers: ClassVar[int] = 4
    """Readers that are asked for where rows are shared."""

    @pytest.fixture
    def place(self) -> Place:
        """A function that puts a table's rows at the source and returns a source and the request that reads them."""
        raise NotImplementedError("override the fixture 'place'")

    @pytest.fixture
    def place_broken(self) -> Callable[[str], Placed]:
        """A function that puts rows at the source of which a later one cannot be read, and holds the given text."""
        raise NotImplementedError("override the fixture 'place_broken'")

    @pytest.fixture
    def place_more(self) -> Callable[[pa.Table], None]:
        """A function that adds rows to those that ``place`` put, where the source keeps state or tells changes."""

        def missing(_: pa.Table) -> None:
            raise NotImplementedError("override the fixture 'place_more': this source keeps state or tells changes")

        return missing

    def test_the_schema_is_that_of_the_rows(self, place: Place) -> None:
        with _placed(place, self._sample()) as (source, request):
            reader = source.read(request)
            assert source.schema(request) == reader.schema
            assert {batch.schema for batch in reader} == {reader.schema}

    def test_every_value_arrives_as_it_is(self, place: Place) -> None:
        rows = self._sample()
        with _placed(place, rows) as (source, request):
            assert _by_id(source.read(request).read_all()) == rows.to_pylist()

    def test_every_type_arrives_as_it_is(self, place: Place) -> None:
        rows = self._sample()
        with _placed(place, rows) as (source, request):
            assert source.schema(request) == rows.schema

    def test_no_batch_is_larger_than_asked_for(self, place: Place) -> None:
        with _placed(place, many(1000)) as (source, request):
            sizes = [batch.num_rows for batch in source.read(dataclasses.replace(request, batch_rows=64))]
            assert (sum(sizes), max(sizes) <= 64, min(sizes) > 0) == (1000, True, True)

    def test_only_the_wanted_columns_come_in_the_wanted_order(self, place: Place) -> None:
        rows = self._sample()
        with _placed(place, rows) as (source, request):
            wanted = dataclasses.replace(request, columns=("name", "id"))
            read = source.read(wanted).read_all()
            assert source.schema(wanted).names == read.schema.names == ["name", "id"]
            assert _by_id(read) == rows.select(["name", "id"]).to_pylist()

    @pytest.mark.parametrize("cursor", sorted(_CURSORS))
    def test_since_is_inclusive_and_keeps_every_tie(self, place: Place, cursor: str) -> None:
        if cursor in self.left_out:
            # A system that has no such type has no such cursor: nothing is promised, and nothing is to be refused.
            return
        since = _CURSORS[cursor]
        rows = sample(*dict.fromkeys(("id", "name", cursor)))
        expected = [row for row in rows.to_pylist() if row[cursor] is not None and row[cursor] >= since]
        with _placed(place, rows) as (source, request):
            read = source.read(dataclasses.replace(request, cursor=cursor, since=since)).read_all()
            assert _by_id(read) == expected

    @pytest.mark.parametrize("cursor", sorted(_CURSORS))
    def test_until_is_inclusive_and_keeps_every_tie(self, place: Place, cursor: str) -> None:
        if cursor in self.left_out:
            return
        until = _CURSORS[cursor]
        rows = sample(*dict.fromkeys(("id", "name", cursor)))
        expected = [row for row in rows.to_pylist() if row[cursor] is not None and row[cursor] <= until]
        with _placed(place, rows) as (source, request):
            read = source.read(dataclasses.replace(request, cursor=cursor, until=until)).read_all()
            assert _by_id(read) == expected

    def test_since_and_until_bound_the_same_read(self, place: Place) -> None:
        with _placed(place, many(100)) as (source, request):
            wanted = dataclasses.replace(request, cursor="id", since=30, until=40)
            assert [row["id"] for row in _by_id(source.read(wanted).read_all())] == [*range(30, 41)]
            nothing = dataclasses.replace(request, cursor="id", since=40, until=30)
            assert source.read(nothing).read_all().num_rows == 0

    def test_a_bound_of_another_kind_than_the_cursor_is_refused(self, place: Place) -> None:
        with _placed(place, many(10)) as (source, request), pytest.raises(SourceError, match="'id'"):
            source.read(dataclasses.replace(request, cursor="id", until=CANARY)).read_all()

    def test_a_filter_leaves_out_the_rows_for_which_it_is_not_true(self, place: Place) -> None:
        rows = sample("id", "name", "big")
        with _placed(place, rows) as (source, request):
            if source.dialect is None:
                return
            filtered = dataclasses.replace(
                request, filter=_sql(exp.GT(this=_column("big"), expression=_number(0)), source)
            )
            expected = [row for row in rows.to_pylist() if row["big"] is not None and row["big"] > 0]
            assert _by_id(source.read(filtered).read_all()) == expected
            both = dataclasses.replace(filtered, columns=("name",), cursor="id", since=1, until=expected[0]["id"])
            read = source.read(both)
            assert source.schema(both) == read.schema
            assert read.read_all().to_pylist() == [{"name": expected[0]["name"]}]

    def test_a_query_stands_in_place_of_a_table(self, place: Place) -> None:
        rows = sample("id", "name", "big")
        with _placed(place, rows) as (source, request):
            if source.dialect is None:
                return
            asked = dataclasses.replace(request, query=self._query(source, request))
            expected = [row for row in rows.select(["id", "name"]).to_pylist() if row["id"] > 1]
            read = source.read(asked)
            assert source.schema(asked) == read.schema == rows.schema.remove(2)
            assert _by_id(read.read_all()) == expected
            part = dataclasses.replace(asked, columns=("name",), cursor="id", since=2, until=2)
            assert source.schema(part).names == ["name"]
            assert source.read(part).read_all().to_pylist() == [
                {"name": row["name"]} for row in expected if row["id"] == 2
            ]

    def test_an_unknown_column_of_a_query_is_named_beside_the_known_ones(self, place: Place) -> None:
        with _placed(place, many(3)) as (source, request):
            if source.dialect is None:
                return
            asked = dataclasses.replace(request, query=self._query(source, request), columns=("id", "nmae"))
            with pytest.raises(SourceError, match=r"nmae[\s\S]*name"):
                source.read(asked).read_all()

    @pytest.mark.parametrize("text", ["DELETE FROM {}", "SELECT 1 AS id; DELETE FROM {}", "no SQL at {}", ""])
    def test_what_only_writes_or_is_no_query_is_refused(self, place: Place, text: str) -> None:
        rows = many(3)
        with _placed(place, rows) as (source, request):
            if source.dialect is None:
                return
            name = _sql(_table(request), source)
            wrong = text.format(name)
            for asked in (dataclasses.replace(request, query=wrong), dataclasses.replace(request, filter=wrong)):
                for ask in (source.schema, source.read):
                    with pytest.raises(SourceError):
                        ask(asked)
            assert _by_id(source.read(request).read_all()) == rows.to_pylist()

    def test_several_readers_of_one_request_read_each_row_once(self, place: Place) -> None:
        rows = many(5000)
        with _placed(place, rows) as (source, request):
            shared = dataclasses.replace(request, parallel=self.readers, split_by="id", batch_rows=500)
            reader = source.read(shared)
            assert reader.schema == source.schema(shared)
            read = reader.read_all()
            # Before the rows themselves: pytest takes a minute to tell in what thousands of them differ.
            assert read.num_rows == rows.num_rows
            assert _by_id(read) == rows.to_pylist()
            bounded = dataclasses.replace(shared, columns=("name",), cursor="id", since=10, until=4000)
            names = source.read(bounded).read_all().column("name").to_pylist()
            assert sorted(names) == sorted(f"row {number}" for number in range(10, 4001))

    def test_rows_without_a_value_to_split_by_are_read_once_too(self, place: Place) -> None:
        rows = sample("id", "name", "big")
        with _placed(place, rows) as (source, request):
            shared = dataclasses.replace(request, parallel=self.readers, split_by="big")
            assert _by_id(source.read(shared).read_all()) == rows.to_pylist()
            asked = dataclasses.replace(shared, split_by="name")
            assert _by_id(source.read(asked).read_all()) == rows.to_pylist()

    def test_a_query_can_be_shared_by_several_readers(self, place: Place) -> None:
        rows = many(2000)
        with _placed(place, rows) as (source, request):
            if source.dialect is None:
                return
            query = self._query(source, request)
            shared = dataclasses.replace(request, query=query, parallel=self.readers, split_by="id")
            assert _by_id(source.read(shared).read_all()) == rows.to_pylist()[2:]

    def test_one_failing_reader_of_several_stops_the_read(self, place_broken: Callable[[str], Placed]) -> None:
        source, request = place_broken(CANARY)
        with closing(source), pytest.raises(SourceError):
            source.read(dataclasses.replace(request, parallel=self.readers, split_by="id")).read_all()

    def test_closing_ends_several_readers(self, place: Place) -> None:
        source, request = place(many(5000))
        reader = source.read(dataclasses.replace(request, parallel=self.readers, split_by="id", batch_rows=50))
        next(iter(reader))
        source.close()
        with pytest.raises(SourceError):
            reader.read_all()

    def test_state_is_given_by_sources_that_keep_it_alone(self, place: Place) -> None:
        with _placed(place, many(10)) as (source, request):
            source.read(request).read_all()
            state = source.state()
            assert isinstance(state, bytes) if source.keeps_state else state is None

    def test_a_source_that_keeps_state_reads_nothing_twice(
        self, place: Place, place_more: Callable[[pa.Table], None]
    ) -> None:
        rows = many(20)
        source, request = place(rows.slice(0, 10))
        with closing(source):
            if not source.keeps_state:
                return
            assert _by_id(source.read(_by_state(request, None)).read_all()) == rows.slice(0, 10).to_pylist()
            first = source.state()
        place_more(rows.slice(10))
        with closing(_again(source)) as source:
            assert _by_id(source.read(_by_state(request, first)).read_all()) == rows.slice(10).to_pylist()
            second = source.state()
        with closing(_again(source)) as source:
            assert source.read(_by_state(request, second)).read_all().num_rows == 0
            # A load that was not committed left no state behind: the rows come again.
            assert _by_id(source.read(_by_state(request, first)).read_all()) == rows.slice(10).to_pylist()
            assert _by_id(source.read(dataclasses.replace(request, state=second)).read_all()) == rows.to_pylist()

    def test_a_source_that_tells_changes_tells_every_one(
        self, place: Place, place_more: Callable[[pa.Table], None]
    ) -> None:
        rows, old, new = many(20), many(20).slice(0, 10), many(20).slice(10)
        source, request = place(old)
        request = dataclasses.replace(request, key=("id",), tracked=True, mode=LoadMode.FULL)
        with closing(source):
            if not source.tells_changes:
                return
            assert _by_id(source.read(request).read_all()) == old.to_pylist()
            first = source.state()
        assert first is not None
        # A source may take rows for changed that are not, but not for ever: what nobody touches comes to rest.
        assert _told(source, request, first) == ([], old["id"].to_pylist(), first)
        place_more(new)
        changed, unchanged, second = _told(source, request, first)
        assert (changed, unchanged) == (new.to_pylist(), old["id"].to_pylist())
        assert _told(source, request, second) == ([], rows["id"].to_pylist(), second)
        # A load that was not committed left no state behind: the same changes come again.
        assert _told(source, request, first) == (changed, unchanged, second)

    def test_a_state_that_it_never_gave_makes_a_source_tell_nothing(self, place: Place) -> None:
        with _placed(place, many(3)) as (source, request):
            asked = dataclasses.replace(request, key=("id",), tracked=True, state=b"{}")
            assert not source.tells_changes or source.read_changes(asked) is None

    def test_state_is_small_and_holds_no_row_value(self, place: Place) -> None:
        rows = pa.table({"id": [1, 2], "name": [CANARY, f"{CANARY} again"]})
        with _placed(place, rows) as (source, request):
            source.read(dataclasses.replace(request, tracked=source.tells_changes)).read_all()
            state = source.state() or b""
            assert (CANARY.encode() in state, len(state) < 4 << 20) == (False, True)

    def test_the_cursor_need_not_be_among_the_columns(self, place: Place) -> None:
        with _placed(place, many(10)) as (source, request):
            read = source.read(dataclasses.replace(request, columns=("name",), cursor="id", since=8)).read_all()
            assert sorted(read.to_pylist(), key=str) == [{"name": "row 8"}, {"name": "row 9"}]

    def test_a_watermark_of_another_kind_than_the_cursor_is_refused(self, place: Place) -> None:
        with _placed(place, many(10)) as (source, request), pytest.raises(SourceError, match="'id'"):
            source.read(dataclasses.replace(request, cursor="id", since=CANARY)).read_all()

    def test_a_table_without_rows_has_its_columns(self, place: Place) -> None:
        rows = self._sample().slice(0, 0)
        with _placed(place, rows) as (source, request):
            read = source.read(request).read_all()
            assert (read.schema, read.num_rows) == (rows.schema, 0)

    def test_a_missing_object_is_named(self, place: Place) -> None:
        with _placed(place, many(1)) as (source, request):
            missing = dataclasses.replace(request, object=f"{request.object}_missing")
            for ask in (source.schema, source.read):
                with pytest.raises(SourceError, match="_missing"):
                    ask(missing)

    def test_an_unknown_column_is_named_beside_the_known_ones(self, place: Place) -> None:
        with _placed(place, many(1)) as (source, request):
            for wrong in ({"columns": ("id", "nmae")}, {"cursor": "nmae", "since": 1}):
                with pytest.raises(SourceError) as caught:
                    source.read(dataclasses.replace(request, **wrong)).read_all()
                assert "nmae" in str(caught.value)
                assert "name" in str(caught.value).replace("nmae", "")

    def test_a_row_that_cannot_be_read_stops_the_read(self, place_broken: Callable[[str], Placed]) -> None:
        source, request = place_broken(CANARY)
        with closing(source), pytest.raises(SourceError):
            source.read(request).read_all()

    def test_an_error_holds_no_row_value(self, place_broken: Callable[[str], Placed]) -> None:
        source, request = place_broken(CANARY)
        with closing(source), pytest.raises(SourceError) as caught:
            source.read(request).read_all()
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert CANARY not in told

    def test_closing_twice_is_safe(self, place: Place) -> None:
        source, request = place(many(100))
        next(iter(source.read(dataclasses.replace(request, batch_rows=10))))
        source.close()
        source.close()

    def test_a_closed_source_does_not_pass_off_a_part_as_all(self, place: Place) -> None:
        source, request = place(many(100))
        reader = source.read(dataclasses.replace(request, batch_rows=10))
        next(iter(reader))
        source.close()
        with pytest.raises(SourceError):
            reader.read_all()

    def test_several_readers_work_at_a_time(self, place: Place) -> None:
        rows = many(2000)
        with _placed(place, rows) as (source, request):
            small = dataclasses.replace(request, batch_rows=100)
            with ThreadPoolExecutor(4) as pool:
                tables = [*pool.map(lambda _: source.read(small).read_all(), range(4))]
            assert [_by_id(table) == rows.to_pylist() for table in tables] == [True] * 4

    def test_a_reader_may_be_drained_by_another_thread(self, place: Place) -> None:
        rows = many(200)
        with _placed(place, rows) as (source, request):
            reader = source.read(dataclasses.replace(request, batch_rows=50))
            with ThreadPoolExecutor(1) as pool:
                assert _by_id(pool.submit(reader.read_all).result()) == rows.to_pylist()

    def _query(self, source: Source, request: ReadRequest) -> str:
        """A query of ``id`` and ``name`` for the rows whose id is above 1."""
        chosen = exp.select(_column("id"), _column("name")).from_(_table(request))
        return _sql(chosen.where(exp.GT(this=_column("id"), expression=_number(1))), source)

    def _sample(self) -> pa.Table:
        return sample(*(name for name in _TYPES if name not in self.left_out))


@contextmanager
def _placed(place: Place, rows: pa.Table) -> Iterator[Placed]:
    source, request = place(rows)
    with closing(source):
        yield source, request


def _again(source: Source) -> Source:
    """Another instance, as another load makes it."""
    return type(source)(source.options, secret=source.secret)


def _told(
    source: Source, request: ReadRequest, state: bytes | None
) -> tuple[list[dict[str, Any]], list[Any], bytes | None]:
    """The changed rows, the keys of all others, and the state afterwards."""
    with closing(_again(source)) as again:
        changes = again.read_changes(dataclasses.replace(request, state=state))
        assert changes is not None
        changed = _by_id(changes.changed.read_all())
        return changed, sorted(changes.unchanged.read_all()["id"].to_pylist()), again.state()


def _by_state(request: ReadRequest, state: bytes | None) -> ReadRequest:
    return dataclasses.replace(request, mode=LoadMode.APPEND, state=state)


def _sql(node: exp.Expression, source: Source) -> str:
    return str(node.sql(dialect=source.dialect))


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True))


def _number(value: int) -> exp.Literal:
    return exp.Literal.number(value)


def _table(request: ReadRequest) -> exp.Table:
    return exp.to_table(request.object, dialect="postgres")


def _by_id(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=lambda row: row["id"])


MaskOf = Callable[[], Mask]

_MASKED_TYPES: dict[pa.DataType, list[Any]] = {
    pa.string(): ["jan.jansen@example.com", None, "Zoë 北京 🚲", "", "+31 6 12345678", "123456789"],
    pa.large_string(): ["jan.jansen@example.com", None],
    pa.int64(): [123_456_789, None, -1],
    pa.float64(): [1.5, None],
    pa.decimal128(18, 2): [Decimal("1234.50"), None],
    pa.bool_(): [True, None],
    pa.date32(): [dt.date(1980, 2, 29), None],
    pa.timestamp("us"): [dt.datetime(1980, 2, 29, 1, 2, 3), None],
    pa.timestamp("us", tz="UTC"): [dt.datetime(1980, 2, 29, 1, 2, 3, tzinfo=UTC), None],
    pa.binary(): [b"\x00\xff", None],
    pa.list_(pa.string()): [["jan.jansen@example.com"], None],
    pa.struct([("name", pa.string())]): [{"name": "Jan Jansen"}, None],
}


class MaskSuite:
    """What every mask promises, whatever its options; override the fixture ``mask_of``."""

    @pytest.fixture
    def mask_of(self) -> MaskOf:
        """A function that makes the mask anew, each time with the same options and key."""
        raise NotImplementedError("override the fixture 'mask_of'")

    def test_it_takes_text(self, mask_of: MaskOf) -> None:
        assert isinstance(mask_of().output_type(pa.string()), pa.DataType)

    @pytest.mark.parametrize("type_", _MASKED_TYPES, ids=str)
    def test_the_result_has_the_announced_type(self, mask_of: MaskOf, type_: pa.DataType) -> None:
        values = pa.array(_MASKED_TYPES[type_], type_)
        for part in (values, values[:0], values[1:], pa.nulls(3, type_)) if _takes(mask_of(), type_) else ():
            masked = mask_of().apply(part)
            assert (masked.type, len(masked)) == (mask_of().output_type(type_), len(part))

    @pytest.mark.parametrize("type_", _MASKED_TYPES, ids=str)
    def test_null_stays_null_and_nothing_else_becomes_it(self, mask_of: MaskOf, type_: pa.DataType) -> None:
        values = pa.array(_MASKED_TYPES[type_], type_)
        for part in (values, values[1:]) if _takes(mask_of(), type_) else ():
            were, are = part.is_null().to_pylist(), mask_of().apply(part).is_null().to_pylist()
            if mask_of().makes_null:
                assert [now for before, now in zip(were, are, strict=True) if before] == [True] * sum(were)
            else:
                assert are == were

    @pytest.mark.parametrize("type_", _MASKED_TYPES, ids=str)
    def test_the_given_values_stay_as_they_are(self, mask_of: MaskOf, type_: pa.DataType) -> None:
        values = pa.array(_MASKED_TYPES[type_], type_)
        if _takes(mask_of(), type_):
            mask_of().apply(values)
            assert values.to_pylist() == _MASKED_TYPES[type_]

    def test_a_value_is_masked_alike_in_every_batch(self, mask_of: MaskOf) -> None:
        values = pa.array(_MASKED_TYPES[pa.string()], pa.string())
        together = mask_of().apply(values).to_pylist()
        mask = mask_of()
        assert [mask.apply(values.slice(index, 1)).to_pylist()[0] for index in range(len(values))] == together
        assert mask.apply(pa.concat_arrays([values] * 50)).to_pylist() == together * 50

    def test_no_long_text_shows(self, mask_of: MaskOf) -> None:
        values = [f"{CANARY}-{number}" for number in range(100)]
        masked = mask_of().apply(pa.array(values, pa.string())).to_pylist()
        assert not [text for text in masked if CANARY in str(text)]

    def test_a_type_that_it_cannot_take_is_refused_by_name(self, mask_of: MaskOf) -> None:
        for type_ in (*_MASKED_TYPES, pa.map_(pa.string(), pa.int8())):
            if not _takes(mask_of(), type_):
                with pytest.raises(ValueError, match=re.escape(str(type_))):
                    mask_of().output_type(type_)

    def test_its_key_does_not_show(self, mask_of: MaskOf) -> None:
        mask = mask_of()
        if mask.needs_key:
            assert mask.key is not None
            assert repr(mask.key.reveal()) not in repr(mask) + repr(vars(mask))


def _takes(mask: Mask, type_: pa.DataType) -> bool:
    try:
        mask.output_type(type_)
    except ValueError:
        return False
    return True


Put = Callable[[str, bytes], None]

_VALUES = (CANARY.encode(), "geheim é 北京".encode(), b" a b ", b"a=b;c'd\"e\\f$g`h", b"x" * 20_000)
_LEADING_ELSEWHERE = (
    "../key",
    "suite/../key",
    "key",
    "/etc/passwd",
    "suite/",
    "a/b/c",
    "suite/.hidden",
    "suite/k\n",
    "",
)


class SecretStoreSuite:
    """What every secret store promises; override the fixtures ``store`` and ``put``."""

    @pytest.fixture
    def store(self) -> SecretStore:
        """The store, without a secret of the workstream ``suite``."""
        raise NotImplementedError("override the fixture 'store'")

    @pytest.fixture
    def put(self, store: SecretStore) -> Put:
        """A function that puts a value under a name; default: the store's own way, for one that can be written."""

        def set_(name: str, value: bytes) -> None:
            store.set(name, value)

        return set_

    @pytest.mark.parametrize("value", _VALUES, ids=range(len(_VALUES)))
    def test_a_value_comes_back_as_it_was_put(self, store: SecretStore, put: Put, value: bytes) -> None:
        put("suite/value", value)
        assert store.get("suite/value").reveal() == value
        assert store.fresh("suite/value").reveal() == value

    def test_secrets_of_like_names_are_told_apart(self, store: SecretStore, put: Put) -> None:
        names = ("suite/a", "suite/b", "suite/ab", "suite_a/b")
        for name in names:
            put(name, name.encode())
        assert [store.get(name).reveal().decode() for name in names] == list(names)

    def test_a_missing_secret_is_told_by_its_name(self, store: SecretStore) -> None:
        for ask in (store.get, store.fresh):
            with pytest.raises(SecretMissing, match="suite/missing"):
                ask("suite/missing")

    @pytest.mark.parametrize("name", _LEADING_ELSEWHERE)
    def test_a_name_that_leads_elsewhere_is_refused(self, store: SecretStore, name: str) -> None:
        with pytest.raises(SecretError):
            store.get(name)

    def test_no_value_shows(self, store: SecretStore, put: Put) -> None:
        put("suite/shown", CANARY.encode())
        secret = store.get("suite/shown")
        assert CANARY not in repr(secret) + str(secret) + repr(store) + repr(vars(store))
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(secret)

    def test_what_was_put_last_is_what_a_fresh_look_finds(self, store: SecretStore, put: Put) -> None:
        put("suite/changed", b"old")
        assert store.get("suite/changed").reveal() == b"old"
        put("suite/changed", b"new")
        assert store.fresh("suite/changed").reveal() == b"new"
        assert store.get("suite/changed").reveal() == b"new"

    def test_several_threads_may_ask_at_a_time(self, store: SecretStore, put: Put) -> None:
        for number in range(4):
            put(f"suite/n{number}", str(number).encode())
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda number: store.get(f"suite/n{number % 4}").reveal(), range(40)))
        assert found == [str(number % 4).encode() for number in range(40)]

    def test_what_cannot_be_written_says_so(self, store: SecretStore) -> None:
        if not store.writable:
            for change in (lambda: store.set("suite/set", CANARY.encode()), lambda: store.remove("suite/set")):
                with pytest.raises(SecretError, match=r"suite/set.*cannot be written") as caught:
                    change()
                assert CANARY not in _chain(caught.value)

    def test_what_cannot_be_listed_says_so(self, store: SecretStore) -> None:
        if not store.listable:
            with pytest.raises(SecretError, match="cannot tell"):
                store.entries()

    def test_a_value_that_no_store_takes_is_refused_without_showing_it(self, store: SecretStore) -> None:
        for value in (b"", (CANARY * 3_000).encode()) if store.writable else ():
            with pytest.raises(SecretError, match="suite/odd") as caught:
                store.set("suite/odd", value)
            assert CANARY not in _chain(caught.value)
            with pytest.raises(SecretMissing):
                store.get("suite/odd")

    def test_a_removed_secret_is_gone_and_the_others_are_not(self, store: SecretStore) -> None:
        if store.writable:
            store.set("suite/kept", b"kept")
            store.set("suite/removed", b"removed")
            assert store.remove("suite/removed")
            assert not store.remove("suite/removed")
            with pytest.raises(SecretMissing):
                store.get("suite/removed")
            assert store.get("suite/kept").reveal() == b"kept"

    def test_the_list_tells_names_and_times_and_no_value(self, store: SecretStore, put: Put) -> None:
        if store.listable:
            before = dt.datetime.now(UTC) - dt.timedelta(seconds=2)
            put("suite/b", CANARY.encode())
            put("suite/a", CANARY.encode())
            entries = [entry for entry in store.entries() if entry.name.startswith("suite/")]
            assert [entry.name for entry in entries] == ["suite/a", "suite/b"]
            assert all(entry.created_at is not None and entry.created_at >= before for entry in entries)
            assert CANARY not in repr(entries)

    def test_owner_and_expiry_are_kept_or_refused(self, store: SecretStore) -> None:
        ends = dt.datetime(2031, 1, 31, tzinfo=UTC)
        if store.writable and not store.keeps_metadata:
            with pytest.raises(SecretError, match="keeps no owner and no expiry"):
                store.set("suite/dated", b"x", owner="team:suite", expires_at=ends)
            with pytest.raises(SecretMissing):
                store.get("suite/dated")
        elif store.writable:
            store.set("suite/dated", b"x", owner="team:suite", expires_at=ends)
            assert store.get("suite/dated").expires_at == ends
            (entry,) = (entry for entry in store.entries() if entry.name == "suite/dated")
            assert (entry.owner, entry.expires_at, entry.enabled) == ("team:suite", ends, True)

    def test_a_new_value_keeps_the_owner_and_not_the_expiry(self, store: SecretStore) -> None:
        if store.writable and store.keeps_metadata:
            store.set("suite/dated", b"x", owner="team:suite", expires_at=dt.datetime(2031, 1, 31, tzinfo=UTC))
            entry = store.set("suite/dated", b"y")
            assert (entry.owner, entry.expires_at) == ("team:suite", None)
            assert store.fresh("suite/dated").expires_at is None


def _chain(error: BaseException) -> str:
    """An error as it would be logged, with everything that it came from."""
    return "".join(traceback.format_exception(error))
