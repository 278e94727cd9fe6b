"""The source rest, against a service that fails, lies and asks who is there (FAULTS B15)."""

from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import itertools
import logging
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.plugins.testing import CANARY
from platform_core.sources.rest import RestSource
from tests.services.http_server import HttpServer, Received, Reply, http_server, json_reply
from tests.sources.rest_service import IDS, PAGES, TOKEN, failure_of, paged, request, rest, rows_of


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
        when = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2), usegmt=True)
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
