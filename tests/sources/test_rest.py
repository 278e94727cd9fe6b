"""The source rest: columns, paging and increments, against a server of the tests."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.plugin_options import check_options
from platform_core.control.report import Report
from platform_core.plugins.interfaces import Cursor
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite
from platform_core.sources.rest import RestSource, written
from platform_core.sources.types import type_name
from tests.services.http_server import HttpServer, Received, Reply, json_reply
from tests.sources.rest_service import IDS, PAGES, failure_of, paged, request, rest, rows_of


def plain(value: object) -> Any:
    """A value as services put it into JSON."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).isoformat()
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def encoded(rows: list[dict[str, Any]]) -> bytes:
    """JSON with numbers that keep their digits."""
    return json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]).encode()


class TestRest(SourceSuite):
    left_out = frozenset({"data"})  # JSON has no bytes

    @pytest.fixture
    def place(self, server: HttpServer) -> Place:
        def put(rows: pa.Table) -> Placed:
            values = rows.to_pylist()
            size = 400

            def answer(received: Received) -> Reply:
                first = int(received.query["offset"])
                return Reply(body=encoded(values[first : first + size]))

            server.on("/rows", answer)
            types = {field.name: type_name(field.type) for field in rows.schema}
            return rest(server), request("rows", options={"columns": types, "paging": {"style": "offset"}})

        return put

    @pytest.fixture
    def place_broken(self, server: HttpServer) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            server.on("/rows", paged([[{"id": 1}], [{"id": text}]]))
            return rest(server), request("rows", options=PAGES)

        return put


class TestColumns:
    def test_undeclared_keys_are_text_or_json_text(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=b'[{"a": 1.10, "b": {"c": [1, "x", null]}, "d": true, "e": "t"}, {"a": null}]'))
        assert rows_of(rest(server)) == [
            {"a": "1.10", "b": '{"c":[1,"x",null]}', "d": "true", "e": "t"},
            {"a": None, "b": None, "d": None, "e": None},
        ]

    def test_a_number_keeps_every_digit(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=b'[{"x": 12345678901234567.89}]'))
        read = rows_of(rest(server), options={"columns": {"x": "decimal(20,2)"}})
        assert read == [{"x": Decimal("12345678901234567.89")}]

    def test_a_key_that_first_comes_later_is_an_error(self, server: HttpServer) -> None:
        pages = [[{"id": number}] for number in range(10)]
        pages[8][0]["extra"] = 1
        server.on("/items", paged(pages))
        told = failure_of(rest(server), options={"paging": {"style": "page"}})
        assert "page 9, record 1: has a key that is not among the columns: extra" in told

    def test_undeclared_keys_can_be_ignored(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": 1, "more": 2}]))
        assert rows_of(rest(server), options={**IDS, "undeclared": "ignore"}) == [{"id": 1}]

    def test_undeclared_keys_can_be_refused(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": 1, "more": 2}]))
        assert "columns: more" in failure_of(rest(server), options={**IDS, "undeclared": "refuse"})

    def test_a_declared_key_that_records_lack_is_null(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": 1}]))
        assert rows_of(rest(server), options={"columns": {"id": "integer", "x": "date"}}) == [{"id": 1, "x": None}]

    def test_a_load_without_news_has_the_columns_of_older_records(self, server: HttpServer) -> None:
        server.on("/items", lambda asked: json_reply([] if "since" in asked.query else [{"id": 1, "name": "a"}]))
        options = {**IDS, "cursor_param": "since"}
        with closing(rest(server)) as source:
            read = source.read(request(options=options, cursor="id", since=5)).read_all()
        assert (read.schema.names, read.num_rows) == (["id", "name"], 0)

    def test_no_record_and_no_declared_column_is_an_error(self, server: HttpServer) -> None:
        server.on("/items", json_reply([]))
        assert "declare them" in failure_of(rest(server))

    def test_half_a_surrogate_pair_is_refused(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=b'[{"name": "\\ud800"}]'))
        assert "'name'" in failure_of(rest(server))


class TestRecords:
    def test_records_are_found_by_pointer(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"a/b": {"list": [{"id": 1}]}}))
        assert rows_of(rest(server), options={**IDS, "records_at": "/a~1b/list"}) == [{"id": 1}]

    def test_an_answer_without_records_is_an_error_that_names_keys_only(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"error": CANARY}))
        told = failure_of(rest(server), options={**IDS, "records_at": "/data"})
        assert "no records at '/data'" in told
        assert "1 keys: error" in told
        assert CANARY not in told

    def test_an_object_is_not_taken_for_a_record(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"items": [{"id": 1}]}))
        assert "set 'records_at' to the list" in failure_of(rest(server), options=IDS)

    def test_missing_records_can_be_declared_an_empty_page(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"kind": "list"}))
        assert rows_of(rest(server), options={**IDS, "records_at": "/items", "missing_is_empty": True}) == []

    def test_no_content_is_an_empty_page_where_that_is_declared(self, server: HttpServer) -> None:
        server.on("/items", Reply(204))
        assert rows_of(rest(server), options=IDS) == []


class TestPaging:
    def test_the_link_header_is_followed(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": 1}], Link=f'<{server.url}/more?p=2>; rel="next", </x>; rel="last"'))
        server.on("/more", json_reply([{"id": 2}]))
        assert rows_of(rest(server), options={**IDS, "paging": {"style": "link"}}) == [{"id": 1}, {"id": 2}]

    def test_a_url_in_the_body_is_followed(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"d": [{"id": 1}], "next": "items2?x=1"}))
        server.on("/items2", json_reply({"d": [{"id": 2}], "next": None}))
        options = {**IDS, "records_at": "/d", "paging": {"style": "next_url", "at": "/next"}}
        assert rows_of(rest(server), options=options) == [{"id": 1}, {"id": 2}]

    def test_a_cursor_in_the_body_is_handed_back_beside_the_parameters(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"d": [{"id": 1}], "c": "a b&c"}), json_reply({"d": [{"id": 2}], "c": ""}))
        options = {
            **IDS,
            "records_at": "/d",
            "params": {"all": True},
            "paging": {"style": "cursor", "at": "/c", "param": "after"},
        }
        assert rows_of(rest(server), options=options) == [{"id": 1}, {"id": 2}]
        assert [asked.query for asked in server.asked("/items")] == [{"all": "true"}, {"all": "true", "after": "a b&c"}]

    def test_an_offset_counts_what_came_and_not_what_was_asked_for(self, server: HttpServer) -> None:
        rows = [{"id": number} for number in range(7)]
        server.on("/items", lambda asked: json_reply(rows[(o := int(asked.query["offset"])) : o + 3]))
        assert rows_of(rest(server), options={**IDS, "paging": {"style": "offset", "size": 5}}) == rows

    def test_pages_are_counted_to_the_empty_one(self, server: HttpServer) -> None:
        server.on("/items", paged([[{"id": 1}, {"id": 2}], [{"id": 3}]]))
        assert len(rows_of(rest(server), options=PAGES)) == 3
        assert [asked.query["page"] for asked in server.asked("/items")] == ["1", "2", "3"]

    def test_the_total_ends_the_pages_and_is_held_against_them(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"d": [{"id": 1}], "t": 2}), json_reply({"d": [{"id": 2}], "t": 2}))
        options = {**PAGES, "records_at": "/d", "total_at": "/t"}
        assert rows_of(rest(server), options=options) == [{"id": 1}, {"id": 2}]
        assert len(server.requests) == 2

    def test_fewer_records_than_announced_are_not_all(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"d": [{"id": 1}], "t": 2}))
        told = failure_of(rest(server), options={**IDS, "records_at": "/d", "total_at": "/t"})
        assert "announced 2 records but gave 1" in told

    def test_b15_a_changed_total_stops_the_read(self, server: HttpServer) -> None:
        server.on("/items", json_reply({"d": [{"id": 1}], "t": 3}), json_reply({"d": [{"id": 2}], "t": 4}))
        told = failure_of(rest(server), options={**PAGES, "records_at": "/d", "total_at": "/t"})
        assert "announced 3 records at first and 4 on page 2" in told

    def test_b15_a_page_loop_stops_the_read(self, server: HttpServer) -> None:
        numbers = itertools.count()
        server.on("/items", lambda _: json_reply({"d": [{"id": next(numbers)}], "next": "/items2"}))
        server.on("/items2", lambda _: json_reply({"d": [{"id": next(numbers)}], "next": "/items"}))
        options = {**IDS, "records_at": "/d", "paging": {"style": "next_url", "at": "/next"}}
        assert "leads back to an earlier page" in failure_of(rest(server), options=options)
        assert len(server.requests) <= 4

    def test_b15_a_duplicated_page_stops_the_read(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": 1}]))
        assert "same records as an earlier page" in failure_of(rest(server), options=PAGES)
        assert len(server.requests) == 2

    def test_too_many_pages_stop_the_read(self, server: HttpServer) -> None:
        server.on("/items", lambda asked: json_reply([{"id": int(asked.query["page"])}]))
        assert "more than 20 pages" in failure_of(rest(server), options={**PAGES, "most_pages": 20})

    def test_memory_does_not_grow_with_the_pages(self, server: HttpServer) -> None:
        body = json.dumps([{"id": number, "text": "x" * 200} for number in range(1000)]).encode()
        server.on(
            "/items",
            lambda asked: (
                Reply(body=body.replace(b'"id": 0,', b'"id": -%d,' % number))
                if (number := int(asked.query["page"])) <= 60
                else json_reply([])
            ),
        )
        with closing(rest(server)) as source:
            reader = source.read(
                request(options={**PAGES, "columns": {"id": "integer", "text": "text"}}, batch_rows=1000)
            )
            tracemalloc.start()
            rows = sum(batch.num_rows for batch in reader)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert rows == 60_000
        assert peak < 20 * len(body)


class TestIncremental:
    def test_since_is_handed_to_the_service_and_checked_again(self, server: HttpServer) -> None:
        server.on(
            "/items", json_reply([{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-01-02T00:00:00Z"}])
        )
        since = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
        options = {
            "columns": {"id": "integer", "at": "timestamptz"},
            "cursor_param": "$filter",
            "cursor_template": "modified ge {since}",
        }
        assert [row["id"] for row in rows_of(rest(server), options=options, cursor="at", since=since)] == [2]
        assert server.requests[0].query == {"$filter": "modified ge 2024-01-02T00:00:00Z"}

    def test_until_is_inclusive(self, server: HttpServer) -> None:
        server.on("/items", json_reply([{"id": number} for number in range(5)]))
        assert rows_of(rest(server), options=IDS, cursor="id", since=1, until=2) == [{"id": 1}, {"id": 2}]

    @pytest.mark.parametrize(
        ("format_", "text"),
        [
            ("iso", "2024-01-02T03:04:05.678901Z"),
            ("iso_seconds", "2024-01-02T03:04:05Z"),
            ("date", "2024-01-02"),
            ("unix", "1704164645"),
            ("unix_ms", "1704164645678"),
            ("%Y%m%d%H%M", "202401020304"),
        ],
    )
    def test_a_time_is_written_as_declared_and_never_later_than_it_is(self, format_: str, text: str) -> None:
        since = dt.datetime(2024, 1, 2, 5, 4, 5, 678901, tzinfo=dt.timezone(dt.timedelta(hours=2)))
        assert written(since, RestSource.ObjectOptions(cursor_format=format_)) == text

    def test_a_time_without_zone_a_date_and_a_number_are_written_as_they_are(self) -> None:
        options = RestSource.ObjectOptions()
        values: list[Cursor] = [dt.datetime(2024, 1, 2, 3), dt.date(2024, 1, 2), 17]
        assert [written(value, options) for value in values] == ["2024-01-02T03:00:00", "2024-01-02", "17"]


class TestDeclarations:
    @pytest.mark.parametrize(
        ("model", "options", "expected"),
        [
            (RestSource.Options, {"auth": {"type": "beerer"}}, "unknown type 'beerer'"),
            (RestSource.Options, {"auth": {"token": {"secret": "a/b"}}}, "'type' is missing"),
            (RestSource.ObjectOptions, {"paging": {"style": "cursr"}}, "unknown style 'cursr'"),
        ],
    )
    def test_an_unknown_kind_is_told_beside_the_known_ones(self, model: Any, options: Any, expected: str) -> None:
        given = {"base_url": "https://a.example", **options} if model is RestSource.Options else options
        (found,), _ = check_options(model, given, Report())
        assert found.message == expected

    def test_secrets_are_found_wherever_they_stand(self) -> None:
        options = {
            "base_url": "https://a.example",
            "auth": {"type": "bearer", "token": {"secret": "crm/a"}},
            "headers": {"X": {"secret": "crm/b"}},
        }
        faults, named = check_options(RestSource.Options, options, Report())
        assert (faults, sorted(named)) == ([], ["crm/a", "crm/b"])
