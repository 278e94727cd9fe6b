from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from platform_core.dashboards.webhook import WebhookDashboard
from platform_core.dashboards.webhook_network import WebhookNetwork
from platform_core.dashboards.webhook_options import WebhookConnection, WebhookOptions
from platform_core.errors import RefreshError
from platform_core.plugins.checked_network import why_refused
from platform_core.plugins.interfaces import RefreshRequest, Secret, ShownTable
from tests.dashboards.powerbi_server import ManualClock
from tests.dashboards.suite import DashboardSuite
from tests.dashboards.webhook_server import WebhookServer, webhook_server

KEY = b"k3y-of-the-tests-0123456789abcdef"
CUT = {"mobility.gold.daily": ShownTable(version=12, batch=7, made_at=dt.datetime(2026, 11, 21, 6, 0, tzinfo=dt.UTC))}


@pytest.fixture
def receiver() -> Iterator[WebhookServer]:
    with webhook_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def webhook(
    receiver: WebhookServer, clock: ManualClock, *, key: bytes = KEY, allow_private: bool = True, **options: Any
) -> WebhookDashboard:
    connection = WebhookConnection(url=receiver.url, key={"secret": "mobility/hook"}, allow_private=allow_private)
    return WebhookDashboard(
        WebhookOptions(**options),
        connection=connection,
        secret=lambda name: Secret(name, key),
        root=Path(),
        clock=clock,
        answer_within=5.0,
    )


class TestSuite(DashboardSuite):
    @pytest.fixture
    def working(self, receiver: WebhookServer, clock: ManualClock) -> WebhookDashboard:
        return webhook(receiver, clock, url="https://dashboards.example/1")

    @pytest.fixture
    def failing(self, receiver: WebhookServer, clock: ManualClock) -> WebhookDashboard:
        receiver.answers = [(403, {})]
        return webhook(receiver, clock)

    @pytest.fixture
    def request_(self, requests) -> RefreshRequest:
        return requests(cut=CUT)

    @pytest.fixture
    def name(self) -> str:
        return "webhook"

    def cancelled_request(self, requests) -> RefreshRequest:
        return requests(cancelled=lambda: True)


def test_the_message_says_which_versions_are_new(receiver: WebhookServer, clock: ManualClock, requests) -> None:
    webhook(receiver, clock, parameters={"extract": "rides"}).refresh(requests(cut=CUT))
    (got,) = receiver.got
    assert json.loads(got.body) == {
        "type": "dashboard.refresh",
        "timestamp": "2026-11-21T06:30:00+00:00",
        "data": {
            "dashboard": "mobility.dashboard.ridership",
            "title": "Ridership",
            "tables": {"mobility.gold.daily": {"version": 12, "batch": 7, "made_at": "2026-11-21T06:00:00+00:00"}},
            "parameters": {"extract": "rides"},
        },
    }


@pytest.mark.parametrize("key", [KEY, b"whsec_" + base64.b64encode(KEY)], ids=["as it is", "whsec_"])
def test_the_signature_is_that_of_standard_webhooks(
    receiver: WebhookServer, clock: ManualClock, requests, key: bytes
) -> None:
    webhook(receiver, clock, key=key).refresh(requests(cut=CUT))
    (got,) = receiver.got
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert got.headers["webhook-timestamp"] == str(int(clock.now().timestamp()))
    assert got.headers["idempotency-key"] == got.headers["webhook-id"]


def test_the_same_tables_have_the_same_id_and_newer_ones_another(
    receiver: WebhookServer, clock: ManualClock, requests
) -> None:
    for version in (12, 12, 13):
        shown = {"mobility.gold.daily": ShownTable(version=version)}
        webhook(receiver, clock).refresh(requests(cut=shown))
    first, again, newer = (got.headers["webhook-id"] for got in receiver.got)
    assert first == again != newer


@pytest.mark.parametrize("status", [0, 408, 409, 425, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again_with_the_same_id(
    receiver: WebhookServer, clock: ManualClock, requests, status: int
) -> None:
    receiver.answers = [(status, {}), (status, {})]
    result = webhook(receiver, clock).refresh(requests(cut=CUT))
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert result.figures["requests"] == 3
    assert clock.seconds == 3


@pytest.mark.parametrize("wait", ["90", "Sat, 21 Nov 2026 06:01:30 GMT"])
def test_it_stays_away_as_long_as_it_is_told(receiver: WebhookServer, clock: ManualClock, requests, wait: str) -> None:
    receiver.answers = [(429, {"Retry-After": wait})]
    webhook(receiver, clock).refresh(requests(cut=CUT))
    assert clock.seconds == 90


def test_a_wait_beyond_the_limit_ends_at_once(receiver: WebhookServer, clock: ManualClock, requests) -> None:
    receiver.answers = [(429, {"Retry-After": "7200"})]
    with pytest.raises(
        RefreshError, match="did not accept the message within 0:10:00; it may have been taken: 1 tries"
    ):
        webhook(receiver, clock).refresh(requests(cut=CUT))


def test_it_does_not_try_for_ever(receiver: WebhookServer, clock: ManualClock, requests) -> None:
    receiver.answers = [(503, {})] * 20
    with pytest.raises(RefreshError, match=r"in 8 tries \(HTTP 503\)"):
        webhook(receiver, clock).refresh(requests(cut=CUT))
    assert len(receiver.got) == 8


@pytest.mark.parametrize(("status", "told"), [(400, "refuses it: HTTP 400"), (410, "refuses it: HTTP 410")])
def test_a_refusal_is_final(receiver: WebhookServer, clock: ManualClock, requests, status: int, told: str) -> None:
    receiver.answers = [(status, {})]
    with pytest.raises(RefreshError, match=told):
        webhook(receiver, clock).refresh(requests(cut=CUT))
    assert len(receiver.got) == 1


def test_a_redirect_is_not_followed(receiver: WebhookServer, clock: ManualClock, requests) -> None:
    receiver.answers = [(307, {"Location": "http://169.254.169.254/latest"})]
    with pytest.raises(RefreshError, match="sends us elsewhere"):
        webhook(receiver, clock).refresh(requests(cut=CUT))
    assert len(receiver.got) == 1


def test_this_machine_is_not_dialled_unless_that_is_meant(
    receiver: WebhookServer, clock: ManualClock, requests
) -> None:
    with pytest.raises(RefreshError, match=r"127\.0\.0\.1, which is not dialled"):
        webhook(receiver, clock, allow_private=False).refresh(requests(cut=CUT))
    assert receiver.got == []


def test_a_name_that_leads_inside_is_not_dialled(clock: ManualClock, requests) -> None:
    hook = WebhookDashboard(
        WebhookOptions(),
        connection=WebhookConnection(url="https://hooks.example/x", key={"secret": "mobility/hook"}),
        secret=lambda name: Secret(name, KEY),
        root=Path(),
        clock=clock,
        network=WebhookNetwork(allow_private=False, resolve=lambda host, port: ["93.184.216.34", "10.0.0.8"]),
    )
    with pytest.raises(RefreshError, match=r"10\.0\.0\.8, which is not dialled"):
        hook.refresh(requests(cut=CUT))


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("93.184.216.34", (True, True)),
        ("10.1.2.3", (False, True)),
        ("127.0.0.1", (False, True)),
        ("::1", (False, True)),
        ("fd12::1", (False, True)),
        ("169.254.169.254", (False, False)),
        ("::ffff:169.254.169.254", (False, False)),
        ("64:ff9b::a9fe:a9fe", (False, False)),
        ("168.63.129.16", (False, False)),
        ("fe80::1%eth0", (False, False)),
        ("224.0.0.1", (False, False)),
        ("0.0.0.0", (False, False)),
    ],
)
def test_which_addresses_are_dialled(address: str, dialled: tuple[bool, bool]) -> None:
    assert tuple(why_refused(address, allow_private=allow) is None for allow in (False, True)) == dialled


def test_a_cancelled_run_says_that_it_may_have_been_taken(
    receiver: WebhookServer, clock: ManualClock, requests
) -> None:
    receiver.answers = [(503, {})] * 20
    with pytest.raises(RefreshError, match="cancelled; it may have been taken: 4 tries"):
        webhook(receiver, clock).refresh(requests(cut=CUT, cancelled=lambda: clock.seconds >= 10))


@pytest.mark.parametrize(
    ("key", "told"), [(b"short", "shorter than 24 bytes"), (b"whsec_***", "not base64"), (b"whsec_", "shorter")]
)
def test_a_key_that_protects_nothing_is_refused(
    receiver: WebhookServer, clock: ManualClock, requests, key: bytes, told: str
) -> None:
    with pytest.raises(RefreshError, match=told):
        webhook(receiver, clock, key=key).refresh(requests(cut=CUT))
    assert receiver.got == []


def test_the_key_is_in_no_error_log_or_repr(
    receiver: WebhookServer, clock: ManualClock, requests, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answers = [(503, {}), (403, {})]
    hook = webhook(receiver, clock)
    with pytest.raises(RefreshError) as raised:
        hook.refresh(requests(cut=CUT))
    assert KEY.decode() not in caplog.text + str(raised.value) + repr(vars(hook)) + "".join(requests.lines)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "https://user:word@hooks.example",
        "https://",
        "https://h.example/a b",
        "ftp://127.0.0.1",
    ],
)
def test_an_address_that_would_tell_in_clear_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        WebhookConnection(url=url, key={"secret": "a/b"})
