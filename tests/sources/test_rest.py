"""The source rest, against a server that misbehaves on purpose."""

from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import itertools
import json
import logging
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpcore
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Cursor, ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources.rest import RestSource, written
from platform_core.sources.rest_client import Service
from platform_core.sources.rest_guard import AllowedHosts, GuardedNetwork, origin_of, why_refused
from platform_core.sources.types import type_name
from tests.services.http_server import HttpServer, Received, Reply, http_server, json_reply

TOKEN = "tok-5f1c9e2a"
"""A secret that no message, log or foreign server may see."""

UTC = dt.UTC


def secrets(name: str) -> Secret:
    return Secret(name, TOKEN.encode())


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


@pytest.fixture
def canary() -> Iterator[HttpServer]:
    """A server that nobody may reach."""
    with http_server() as running:
        running.on("/", json_reply([{"id": 666}]))
        yield running


def rest(server: HttpServer, **options: Any) -> RestSource:
    quick = {"backoff": 0.01, "connect_timeout": 2, "read_timeout": 2, "answer_timeout": 5}
    given = {"base_url": server.url, "allow_private": True, **quick, **options}
    return RestSource(RestSource.Options(**given), secret=secrets)


def request(object_: str = "items", *, options: dict[str, Any] | None = None, **fields: Any) -> ReadRequest:
    return ReadRequest(object=object_, options=RestSource.ObjectOptions(**(options or {})), **fields)


def rows_of(source: RestSource, object_: str = "items", **fields: Any) -> list[dict[str, Any]]:
    with closing(source):
        rows: list[dict[str, Any]] = source.read(request(object_, **fields)).read_all().to_pylist()
        return rows


def failure_of(source: RestSource, **fields: Any) -> str:
    with pytest.raises(SourceError) as caught:
        rows_of(source, **fields)
    return str(caught.value)


def plain(value: object) -> Any:
    """A value as services put it into JSON."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def encoded(rows: list[dict[str, Any]]) -> bytes:
    """JSON with numbers that keep their digits."""
    return json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]).encode()


def paged(pages: list[list[dict[str, Any]]], *, param: str = "page") -> Callable[[Received], Reply]:
    return lambda received: json_reply(
        pages[number - 1] if (number := int(received.query[param])) <= len(pages) else []
    )


IDS: dict[str, Any] = {"columns": {"id": "integer"}}
PAGES: dict[str, Any] = {**IDS, "paging": {"style": "page"}}


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
        since = dt.datetime(2024, 1, 2, tzinfo=UTC)
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


class TestFaults:
    """FAULTS B15: bounded repetitions, guards of size and time, and never a part as if it were all."""

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_b15_a_passing_failure_is_repeated(self, server: HttpServer, status: int) -> None:
        server.on("/items", Reply(status), Reply(status), json_reply([{"id": 1}]))
        assert rows_of(rest(server), options=IDS) == [{"id": 1}]
        assert len(server.requests) == 3

    def test_b15_a_lasting_failure_ends_after_the_declared_repetitions(self, server: HttpServer) -> None:
        server.on("/items", Reply(500, CANARY.encode()))
        told = failure_of(rest(server, retries=3), options=IDS)
        assert "no good answer in 4 attempts: status 500" in told
        assert CANARY not in told
        assert len(server.requests) == 4

    @pytest.mark.parametrize("status", [400, 403, 404, 410, 206])
    def test_b15_a_refusal_is_not_repeated(self, server: HttpServer, status: int) -> None:
        server.on("/items", Reply(status, b"[]"))
        assert f"status {status}" in failure_of(rest(server), options=IDS)
        assert len(server.requests) == 1

    def test_b15_retry_after_in_seconds_is_waited_for(self, server: HttpServer) -> None:
        server.on("/items", Reply(429, headers={"Retry-After": "1"}), json_reply([{"id": 1}]))
        begin = time.monotonic()
        assert rows_of(rest(server), options=IDS) == [{"id": 1}]
        assert time.monotonic() - begin >= 1

    def test_b15_retry_after_as_a_date_is_waited_for(self, server: HttpServer) -> None:
        when = email.utils.format_datetime(dt.datetime.now(UTC) + dt.timedelta(seconds=2), usegmt=True)
        server.on("/items", Reply(503, headers={"Retry-After": when}), json_reply([{"id": 1}]))
        begin = time.monotonic()
        assert rows_of(rest(server), options=IDS) == [{"id": 1}]
        assert 0.9 <= time.monotonic() - begin < 4

    def test_b15_a_server_that_asks_to_wait_for_too_long_is_not_waited_for(self, server: HttpServer) -> None:
        server.on("/items", Reply(429, headers={"Retry-After": "99999999999999999999"}))
        assert "asks to wait" in failure_of(rest(server), options=IDS)
        assert len(server.requests) == 1

    def test_b15_invalid_json_is_repeated_and_then_an_error_without_the_text(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=b'[{"id": 1}, {"name": "' + CANARY.encode()))
        told = failure_of(rest(server, retries=2), options=IDS)
        assert "is not JSON" in told
        assert CANARY not in told
        assert len(server.requests) == 3

    def test_b15_a_body_shorter_than_declared_is_repeated(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=b'[{"id": 1}]', declared=100, cut=True), json_reply([{"id": 1}, {"id": 2}]))
        assert len(rows_of(rest(server), options=IDS)) == 2

    def test_b15_chunks_without_their_end_are_repeated(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=[b'[{"id": 1}]'], cut=True), json_reply([{"id": 1}, {"id": 2}]))
        assert len(rows_of(rest(server), options=IDS)) == 2

    def test_b15_a_cut_gzip_body_is_repeated(self, server: HttpServer) -> None:
        packed = gzip.compress(b"[" + b'{"id": 1},' * 1000 + b'{"id": 2}]')
        whole = Reply(body=gzip.compress(b'[{"id": 3}]'), headers={"Content-Encoding": "gzip"})
        server.on("/items", Reply(body=packed[:-20], headers={"Content-Encoding": "gzip"}), whole)
        assert rows_of(rest(server), options=IDS) == [{"id": 3}]

    def test_a_gzip_body_of_several_members_is_whole(self, server: HttpServer) -> None:
        body = gzip.compress(b'[{"id": 1},') + gzip.compress(b'{"id": 2}]')
        server.on("/items", Reply(body=body, headers={"Content-Encoding": "gzip"}))
        assert len(rows_of(rest(server), options=IDS)) == 2

    def test_b15_a_gzip_bomb_is_not_unpacked(self, server: HttpServer) -> None:
        packer = zlib.compressobj(9, wbits=31)
        zeros = bytes(1 << 20)
        bomb = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
        server.on("/items", Reply(body=bomb, headers={"Content-Encoding": "gzip"}))
        tracemalloc.start()
        told = failure_of(rest(server), options={**IDS, "largest_page_mb": 2})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "larger than 2 MB" in told
        assert len(server.requests) == 1
        assert peak < 12 << 20

    def test_b15_a_bomb_within_a_bomb_is_refused(self, server: HttpServer) -> None:
        body = gzip.compress(gzip.compress(b"[]"))
        server.on("/items", Reply(body=body, headers={"Content-Encoding": "gzip, gzip"}))
        assert "in another way than gzip" in failure_of(rest(server), options=IDS)

    def test_b15_a_body_of_ten_gigabytes_is_not_begun(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=(bytes(1 << 20) for _ in range(10_240)), declared=10 << 30))
        assert "larger than 1 MB" in failure_of(rest(server), options={**IDS, "largest_page_mb": 1})
        assert len(server.requests) == 1

    def test_b15_a_body_without_end_stops_at_the_limit(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=(b" " * (1 << 16) for _ in itertools.count())))
        assert "larger than 1 MB" in failure_of(rest(server), options={**IDS, "largest_page_mb": 1})
        assert server.bytes_sent < 16 << 20

    def test_b15_a_body_that_drips_stops_at_the_time_for_an_answer(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=(b" " for _ in range(1000)), pause=0.05))
        begin = time.monotonic()
        told = failure_of(rest(server, answer_timeout=0.5, retries=1), options=IDS)
        assert "took too long" in told
        assert time.monotonic() - begin < 4

    def test_b15_a_silent_server_stops_at_the_read_timeout(self, server: HttpServer) -> None:
        server.on("/items", Reply(body=[b"["], pause=3.0))
        assert "took too long" in failure_of(rest(server, read_timeout=0.3, retries=0), options=IDS)

    def test_a_failure_on_a_later_page_does_not_pass_off_a_part_as_all(self, server: HttpServer) -> None:
        rows = [{"id": number} for number in range(1000)]
        server.on("/items", json_reply(rows), Reply(500))
        with closing(rest(server, retries=1)) as source:
            reader = source.read(request(options=PAGES))
            with pytest.raises(SourceError, match="status 500"):
                reader.read_all()

    def test_a_server_that_is_gone_is_named(self) -> None:
        with http_server() as gone:
            pass
        assert f"{gone.url}/items" in failure_of(rest(gone, retries=1), options=IDS)

    def test_closing_ends_a_wait(self, server: HttpServer) -> None:
        rows = [{"id": number} for number in range(1000)]
        server.on("/items", json_reply(rows), Reply(429, headers={"Retry-After": "60"}))
        source = rest(server)
        reader = source.read(request(options=PAGES))
        begin = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            draining = pool.submit(reader.read_all)
            time.sleep(0.3)
            source.close()
            with pytest.raises(SourceError, match="closed"):
                draining.result()
        assert time.monotonic() - begin < 10

    def test_requests_keep_the_declared_pace(self, server: HttpServer) -> None:
        server.on("/items", paged([[{"id": number}] for number in range(5)]))
        begin = time.monotonic()
        rows_of(rest(server, requests_per_second=10), options=PAGES)
        assert time.monotonic() - begin >= 0.5


OAUTH = {"type": "oauth2", "client_id": "we", "client_secret": {"secret": "crm/secret"}}


class TestCredentials:
    @pytest.mark.parametrize(
        ("auth", "header", "value"),
        [
            ({"type": "bearer", "token": {"secret": "crm/token"}}, "Authorization", f"Bearer {TOKEN}"),
            ({"type": "api_key", "header": "X-Key", "key": {"secret": "crm/token"}}, "X-Key", TOKEN),
            (
                {"type": "basic", "user": "we", "password": {"secret": "x/y"}},
                "Authorization",
                "Basic d2U6dG9rLTVmMWM5ZTJh",
            ),
        ],
    )
    def test_they_are_sent_as_declared(self, server: HttpServer, auth: Any, header: str, value: str) -> None:
        server.on("/items", json_reply([{"id": 1}]))
        rows_of(rest(server, auth=auth), options=IDS)
        assert server.requests[0].headers[header] == value

    def test_client_credentials_are_changed_for_a_token_once(self, server: HttpServer) -> None:
        server.on("/token", json_reply({"access_token": "good", "expires_in": 3600}))
        server.on("/items", paged([[{"id": 1}], [{"id": 2}]]))
        rows_of(rest(server, auth={**OAUTH, "token_url": f"{server.url}/token", "scope": "read"}), options=PAGES)
        assert [asked.headers["Authorization"] for asked in server.asked("/items")] == ["Bearer good"] * 3
        (asked,) = server.asked("/token")
        assert asked.method == "POST"
        assert asked.body.decode() == f"grant_type=client_credentials&scope=read&client_id=we&client_secret={TOKEN}"

    def test_b15_a_token_refused_mid_paging_is_renewed_once(self, server: HttpServer) -> None:
        server.on("/token", json_reply({"access_token": "first"}), json_reply({"access_token": "second"}))

        def answer(asked: Received) -> Reply:
            if asked.query["page"] != "1" and asked.headers["Authorization"] == "Bearer first":
                return Reply(401)
            return paged([[{"id": 1}], [{"id": 2}]])(asked)

        server.on("/items", answer)
        source = rest(server, auth={**OAUTH, "token_url": f"{server.url}/token"})
        assert rows_of(source, options=PAGES) == [{"id": 1}, {"id": 2}]
        assert len(server.asked("/token")) == 2
        assert len(server.asked("/items")) == 4

    def test_b15_a_token_refused_again_is_an_error(self, server: HttpServer) -> None:
        server.on("/token", json_reply({"access_token": "any"}))
        server.on("/items", Reply(401))
        told = failure_of(rest(server, auth={**OAUTH, "token_url": f"{server.url}/token"}), options=IDS)
        assert "refuses the credentials" in told
        assert (len(server.asked("/token")), len(server.asked("/items"))) == (2, 2)

    def test_a_fixed_token_is_not_tried_again(self, server: HttpServer) -> None:
        server.on("/items", Reply(401))
        failure_of(rest(server, auth={"type": "bearer", "token": {"secret": "crm/token"}}), options=IDS)
        assert len(server.requests) == 1

    def test_a_token_is_renewed_before_it_expires(self, server: HttpServer) -> None:
        server.on("/token", json_reply({"access_token": "short", "expires_in": 0}))
        server.on("/items", paged([[{"id": 1}]]))
        rows_of(rest(server, auth={**OAUTH, "token_url": f"{server.url}/token"}), options=PAGES)
        assert len(server.asked("/token")) == 2

    @pytest.mark.parametrize(
        "reply", [Reply(401), json_reply({}), Reply(body=b"<html>"), Reply(302, headers={"Location": "/x"})]
    )
    def test_a_token_endpoint_that_gives_none_is_named(self, server: HttpServer, reply: Reply) -> None:
        server.on("/token", reply)
        told = failure_of(rest(server, auth={**OAUTH, "token_url": f"{server.url}/token"}), options=IDS)
        assert f"{server.url}/token" in told
        assert TOKEN not in told
        assert not server.asked("/items")

    def test_secrets_are_in_no_message_and_no_log(self, server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        server.on("/token", json_reply({"access_token": TOKEN}))
        server.on("/items", json_reply([{"id": 1}], Link=f"</gone?key={TOKEN}>; rel=next", Set_Cookie=TOKEN))
        source = rest(
            server,
            auth={**OAUTH, "token_url": f"{server.url}/token"},
            headers={"X-Tenant": {"secret": "crm/tenant"}},
        )
        told = failure_of(source, options={**IDS, "params": {"q": "x"}, "paging": {"style": "link"}})
        assert "/gone" in told
        assert TOKEN not in told + caplog.text + repr(source.options) + repr(vars(source))

    def test_a_secret_that_no_header_can_hold_is_refused_without_it(self, server: HttpServer) -> None:
        auth = {"type": "bearer", "token": {"secret": "crm/token"}}
        options = RestSource.Options(base_url=server.url, allow_private=True, auth=auth)
        source = RestSource(options, secret=lambda name: Secret(name, f"{CANARY}\r\nX: y".encode()))
        told = failure_of(source, options=IDS)
        assert "HTTP cannot send" in told
        assert CANARY not in told


class TestHosts:
    """FAULTS E8: nothing but the declared hosts is reached, whatever a service answers."""

    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3"),
            *("169.254.1.1", "169.254.169.254", "168.63.129.16", "100.100.100.200", "224.0.0.1", "255.255.255.255"),
            *(
                "::1",
                "::",
                "fe80::1%eth0",
                "fc00::1",
                "fd00:ec2::254",
                "ff02::1",
                "::ffff:127.0.0.1",
                "::ffff:a9fe:a9fe",
            ),
            *("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        ],
    )
    def test_e8_addresses_inside_are_refused(self, address: str) -> None:
        assert why_refused(address, allow_private=False)

    @pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    def test_e8_public_addresses_are_not(self, address: str) -> None:
        assert why_refused(address, allow_private=False) is None

    @pytest.mark.parametrize(
        ("address", "refused"),
        [
            ("127.0.0.1", False),
            ("10.1.2.3", False),
            ("::ffff:127.0.0.1", False),
            ("169.254.169.254", True),
            ("::ffff:169.254.169.254", True),
            ("168.63.129.16", True),
            ("100.100.100.200", True),
            ("fd00:ec2::254", True),
            ("fe80::1", True),
            ("0.0.0.0", True),
            ("224.0.0.1", True),
        ],
    )
    def test_e8_private_networks_can_be_allowed_and_metadata_services_cannot(self, address: str, refused: bool) -> None:
        assert (why_refused(address, allow_private=True) is not None) == refused

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
    )
    def test_e8_no_form_of_an_address_reaches_this_machine(self, canary: HttpServer, host: str) -> None:
        source = rest(canary, base_url=f"http://{host}:{canary.port}", allow_private=False, retries=0)
        assert "items" in failure_of(source, options=IDS)
        assert canary.requests == []

    @pytest.mark.parametrize(
        "target",
        [
            "http://localhost:{port}/",
            "http://2130706433:{port}/",
            "http://0x7f000001:{port}/",
            "http://[::ffff:127.0.0.1]:{port}/",
            "http://127.0.0.1:{port}/",
            "//127.0.0.1:{port}/",
            "http://user@127.0.0.1:{own}/x@127.0.0.1:{port}/",
            "http://127.0.0.1:{own}@127.0.0.1:{port}/",
            "http://127.0.0.1:{own}\\@127.0.0.1:{port}/",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
            "ftp://127.0.0.1:{port}/",
            "gopher://127.0.0.1:{port}/",
        ],
    )
    @pytest.mark.parametrize("way", ["redirect", "link", "next_url"])
    def test_e8_no_answer_leads_elsewhere(self, server: HttpServer, canary: HttpServer, target: str, way: str) -> None:
        url = target.format(port=canary.port, own=server.port)
        options: dict[str, Any] = {**IDS, "records_at": "/d"}
        if way == "redirect":
            server.on("/items", Reply(302, headers={"Location": url}))
        elif way == "link":
            options["paging"] = {"style": "link"}
            server.on("/items", json_reply({"d": [{"id": 1}]}, Link=f"<{url}>; rel=next"))
        else:
            options["paging"] = {"style": "next_url", "at": "/next"}
            server.on("/items", json_reply({"d": [{"id": 1}], "next": url}))
        failure_of(rest(server, retries=0), options=options)
        assert canary.requests == []
        assert len(server.requests) == 1

    def test_e8_credentials_do_not_follow_to_another_declared_host(self, server: HttpServer) -> None:
        with http_server() as other:
            server.on("/items", json_reply({"d": [{"id": 1}], "next": f"{other.url}/two"}))
            other.on("/two", Reply(307, headers={"Location": f"{other.url}/three"}))
            other.on("/three", json_reply({"d": [{"id": 2}]}))
            source = rest(
                server,
                allowed_hosts=[f"127.0.0.1:{other.port}"],
                auth={"type": "bearer", "token": {"secret": "crm/token"}},
                headers={"X-Tenant": {"secret": "crm/tenant"}},
            )
            options = {**IDS, "records_at": "/d", "paging": {"style": "next_url", "at": "/next"}}
            assert rows_of(source, options=options) == [{"id": 1}, {"id": 2}]
            assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
            assert len(other.requests) == 2
            assert TOKEN not in repr(other.requests)

    def test_e8_a_redirect_on_the_same_host_is_followed_with_credentials(self, server: HttpServer) -> None:
        server.on("/items", Reply(301, headers={"Location": "/moved?x=1"}))
        server.on("/moved", json_reply([{"id": 1}]))
        auth = {"type": "bearer", "token": {"secret": "crm/token"}}
        assert rows_of(rest(server, auth=auth), options=IDS) == [{"id": 1}]
        assert server.asked("/moved")[0].headers["Authorization"] == f"Bearer {TOKEN}"

    def test_e8_endless_redirects_end(self, server: HttpServer) -> None:
        server.on("/items", Reply(302, headers={"Location": "/items"}))
        assert "redirects in a row" in failure_of(rest(server), options=IDS)
        assert len(server.requests) == 6

    def test_e8_a_link_may_not_lead_from_https_to_http(self) -> None:
        hosts = AllowedHosts("https://api.example.com/v1", hosts=["api.example.com:80"])
        assert str(hosts.check("https://API.example.com./x", where="w", what="l")) == "https://api.example.com"
        with pytest.raises(SourceError, match="from https to http"):
            hosts.check("http://api.example.com/x", where="w", what="l")

    def test_e8_what_was_checked_is_what_is_dialled(self) -> None:
        dialled = Dialled()
        answers = iter([["93.184.215.14"], ["127.0.0.1"]])
        network = GuardedNetwork(
            allow_private=False, where="w", network=dialled, resolve=lambda host, port: next(answers)
        )
        network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == ["93.184.215.14"]
        with pytest.raises(SourceError, match="this machine"):
            network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == ["93.184.215.14"]

    def test_e8_one_bad_address_among_good_ones_is_refused(self) -> None:
        dialled = Dialled()
        network = GuardedNetwork(
            allow_private=False, where="w", network=dialled, resolve=lambda host, port: ["93.184.215.14", "10.0.0.1"]
        )
        with pytest.raises(SourceError, match="private"):
            network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == []

    def test_e8_rebinding_between_two_pages_reaches_nothing(self, canary: HttpServer) -> None:
        dialled = Dialled(httpcore.SyncBackend(), canary.port)
        seen: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            seen.append(host)
            return ["93.184.215.14"] if len(seen) == 1 else ["127.0.0.1"]

        options = RestSource.Options(base_url=f"http://api.example.com:{canary.port}", retries=0)
        service = Service(options, secret=no_secrets, network=dialled, resolve=resolve)
        for _ in range(2):
            with closing(service.client(where="w")) as client, pytest.raises(SourceError):
                client.get(f"{options.base_url}/", limit=1 << 20, what="x", read=lambda answer: answer)
        assert seen == ["api.example.com"] * 2
        assert canary.requests == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"base_url": "file:///etc/passwd"},
            {"base_url": "http://user:secret@example.com"},
            {"base_url": "https://example.com/?key=1"},
            {"base_url": "example.com"},
            {"base_url": "https://example.com", "allowed_hosts": ["*.example.com"]},
            {"base_url": "https://example.com", "allowed_hosts": ["https://x"]},
            {"base_url": "https://example.com", "headers": {"Host": "x"}},
            {"base_url": "https://example.com", "headers": {"X\r\nY": "x"}},
            {"base_url": "https://example.com", "auth": {"type": "bearer", "token": "in clear"}},
        ],
    )
    def test_what_is_wrong_in_a_connection_is_refused_when_declared(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            RestSource.Options(**wrong)

    @pytest.mark.parametrize(
        "path", ["../admin", "a/../b", "a?x=1", "a#b", "%2e%2e/a", "", "/", "a//b", "\\\\host\\x", "a\nb", "./a"]
    )
    def test_a_path_cannot_leave_the_base_url(self, server: HttpServer, path: str) -> None:
        with closing(rest(server)) as source, pytest.raises(SourceError, match="below the connection's base URL"):
            source.read(request(path, options=IDS))
        assert server.requests == []

    @pytest.mark.parametrize(
        "url", ["http://a b/", "http://\\x/", "http:///x", "mailto:x", "http://a:99999/", "http://0177.0.0.1/"]
    )
    def test_what_is_no_url_has_no_origin(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"URL|host|http|port"):
            origin_of(url)


class TestTls:
    """The checked address is dialled; the certificate is the name's."""

    NAME = "api.example.test"

    @pytest.fixture
    def secured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(tmp_path / "own.pem", self.NAME))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        with http_server(tls=context) as server:
            server.on("/items", json_reply([{"id": 1}]))
            yield server

    def asked(self, server: HttpServer, name: str) -> Any:
        options = RestSource.Options(base_url=f"https://{name}:{server.port}", allow_private=True, retries=0)
        service = Service(options, secret=no_secrets, resolve=lambda host, port: ["127.0.0.1"])
        with closing(service.client(where="w")) as client:
            url = f"{options.base_url}/items"
            return client.get(url, limit=1 << 20, what="x", read=lambda answer: json.loads(answer.body))

    def test_a_certificate_of_the_name_is_taken(self, secured: HttpServer) -> None:
        assert self.asked(secured, self.NAME) == [{"id": 1}]
        assert secured.requests[0].headers["Host"] == f"{self.NAME}:{secured.port}"

    def test_a_certificate_of_another_name_is_refused(self, secured: HttpServer) -> None:
        with pytest.raises(SourceError, match="cannot be reached"):
            self.asked(secured, "other.example.test")
        assert secured.requests == []

    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, secured: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate(tmp_path / "another.pem", self.NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "another.pem"))
        with pytest.raises(SourceError, match="cannot be reached"):
            self.asked(secured, self.NAME)
        assert secured.requests == []


def certificate(path: Path, name: str) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class Dialled(httpcore.NetworkBackend):
    """Remembers whom it was asked to dial; dials them only where a real network is given, and never the canary."""

    def __init__(self, network: httpcore.NetworkBackend | None = None, canary: int = 0) -> None:
        self.hosts: list[str] = []
        self._network = network
        self._canary = canary

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        self.hosts.append(host)
        if self._network is not None and host == "127.0.0.1":
            return self._network.connect_tcp(host, self._canary, timeout)
        if self._network is not None:
            raise httpcore.ConnectError("there is no such network here")
        return httpcore.MockStream([])
