"""The dashboard `webhook`: tells any service, by a signed POST, that what it shows is new.

The form is that of Standard Webhooks (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``), for which there
are libraries in most languages. The id is the same for the same tables, however often it is told, so that a receiver
which keeps ids does its work once.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import email.utils
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from platform_core.dashboards.waiting import Clock, OutOfTimeError, SystemClock, WaitCancelledError, Waiting
from platform_core.dashboards.webhook_options import WebhookConnection, WebhookOptions
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import Dashboard, RefreshRequest, RefreshResult, Secret
from platform_core.specs.base import Model

if TYPE_CHECKING:
    import httpcore

    from platform_core.dashboards.webhook_network import WebhookNetwork

TRIES = 8
"""Most times that a message is sent."""

_LONGEST = dt.timedelta(minutes=10)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_AGAIN = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_SHORTEST_KEY = 24
_PREFIX = "whsec_"


class WebhookDashboard(Dashboard):
    """Any service that takes a webhook. It is up to date once it has accepted the message."""

    Options: ClassVar[type[Model]] = WebhookOptions
    ConnectionOptions: ClassVar[type[Model] | None] = WebhookConnection
    options: WebhookOptions
    connection: WebhookConnection | None

    def __init__(
        self,
        options: WebhookOptions,
        *,
        connection: WebhookConnection | None,
        secret: Callable[[str], Secret],
        root: Path,
        clock: Clock | None = None,
        answer_within: float = 30.0,
        network: WebhookNetwork | None = None,
    ) -> None:
        """Keep the options.

        Args:
            options: an instance of :attr:`Options`.
            connection: an instance of :attr:`ConnectionOptions`.
            secret: gives the value of a named secret.
            root: not used.
            clock: tells the time and waits; None: the machine's.
            answer_within: seconds for each wait for the service.
            network: dials checked addresses; None: as the connection allows.
        """
        super().__init__(options, connection=connection, secret=secret, root=root)
        self._clock = clock or SystemClock()
        self._answer_within = answer_within
        self._network = network

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Send the message until it is accepted.

        Raises:
            RefreshError: it was refused, was not accepted in time, or the run is being cancelled.
        """
        connection = self.connection
        if connection is None:
            raise RefreshError(f"{request.name}: a webhook needs 'connection', of type webhook")
        timeout = request.timeout or _LONGEST
        waiting = Waiting(self._clock, timeout=timeout, cancelled=request.cancelled)
        message = Message.about(request, self.options, to=connection.url)
        host = urlsplit(connection.url).hostname
        tries: list[str] = []
        try:
            with self._pool(connection) as pool:
                status = self._send(pool, connection, message, waiting=waiting, tries=tries, log=request.log)
        except WaitCancelledError:
            raise RefreshError(f"{request.name}: cancelled; {_standing(tries)}") from None
        except OutOfTimeError:
            raise RefreshError(
                f"{request.name}: {host} did not accept the message within {timeout}; {_standing(tries)}"
            ) from None
        except RefreshError as error:
            raise RefreshError(f"{request.name}: {error}") from None
        figures: dict[str, int | float | str] = {"message_id": message.id, "status": status, "requests": len(tries)}
        return RefreshResult(url=self.options.url or connection.url.split("?")[0], figures=figures)

    def _pool(self, connection: WebhookConnection) -> httpcore.ConnectionPool:
        import httpcore
        import httpx

        from platform_core.dashboards.webhook_network import WebhookNetwork

        network = self._network or WebhookNetwork(allow_private=connection.allow_private)
        # As httpx trusts: also what SSL_CERT_FILE names.
        return httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), max_connections=1, network_backend=network
        )

    def _send(
        self,
        pool: httpcore.ConnectionPool,
        connection: WebhookConnection,
        message: Message,
        *,
        waiting: Waiting,
        tries: list[str],
        log: Callable[[str], None],
    ) -> int:
        """The status with which it was accepted; ``tries`` gets what became of each try."""
        while True:
            waiting.check()
            status, wait, failure = self._once(pool, connection, message)
            tries.append(failure)
            if not failure:
                return status
            if status and status not in _AGAIN and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                hint = "sends us elsewhere: declare the address it moved to" if status // 100 == 3 else "refuses it"
                raise RefreshError(f"{urlsplit(connection.url).hostname} {hint}: {failure}")
            if len(tries) == TRIES:
                raise RefreshError(
                    f"{urlsplit(connection.url).hostname} did not accept the message in {TRIES} tries ({failure})"
                )
            log(f"not accepted ({failure}); trying again")
            waiting.pause(max(wait, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (len(tries) - 1))))

    def _once(
        self, pool: httpcore.ConnectionPool, connection: WebhookConnection, message: Message
    ) -> tuple[int, float, str]:
        """Status (0: none), seconds that the service wants us to stay away, and what went wrong (empty: nothing)."""
        import httpcore

        wait = dict.fromkeys(("connect", "read", "write", "pool"), self._answer_within)
        headers = message.headers(self._key(connection), at=self._clock.now())
        try:
            with pool.stream(
                "POST", connection.url, headers=headers, content=message.body, extensions={"timeout": wait}
            ) as answer:
                told = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
                status: int = answer.status
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            return 0, 0.0, type(error).__name__
        away = _retry_after(told.get(b"retry-after", ""), now=self._clock.now())
        return status, away, "" if status // 100 == 2 else f"HTTP {status}"

    def _key(self, connection: WebhookConnection) -> bytes:
        name = connection.key.secret
        key = self.secret(name).reveal()
        if key.startswith(_PREFIX.encode()):
            try:
                key = base64.b64decode(key[len(_PREFIX) :], validate=True)
            except binascii.Error:
                raise RefreshError(f"secret '{name}' begins with {_PREFIX} but is not base64 after that") from None
        if len(key) < _SHORTEST_KEY:
            raise RefreshError(f"secret '{name}' is shorter than {_SHORTEST_KEY} bytes: make a random one")
        return key


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is sent.

    Args:
        id: the same for the same tables.
        body: JSON.
    """

    id: str
    body: bytes

    @classmethod
    def about(cls, request: RefreshRequest, options: WebhookOptions, *, to: str) -> Message:
        """The message about a refresh; names, versions and times of tables, and no row of them."""
        tables = {
            name: {
                "version": shown.version,
                "batch": shown.batch,
                "made_at": shown.made_at.isoformat() if shown.made_at else None,
            }
            for name, shown in sorted(request.cut.items())
        }
        content = {
            "type": "dashboard.refresh",
            "timestamp": request.as_of.isoformat(),
            "data": {
                "dashboard": request.name,
                "title": request.title,
                "tables": tables,
                "parameters": options.parameters,
            },
        }
        body = json.dumps(content, sort_keys=True).encode()
        return cls(id=f"edp_{hashlib.sha256(to.encode() + b'.' + body).hexdigest()[:40]}", body=body)

    def headers(self, key: bytes, *, at: dt.datetime) -> list[tuple[bytes, bytes]]:
        """Headers of one try; the signature is over id, time and body.

        Args:
            key: of the signature.
            at: when it is sent, UTC.
        """
        moment = str(int(at.timestamp()))
        signed = hmac.digest(key, f"{self.id}.{moment}.".encode() + self.body, "sha256")
        told = {
            "Content-Type": "application/json",
            "Idempotency-Key": self.id,
            "webhook-id": self.id,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        return [(name.encode(), value.encode()) for name, value in told.items()]


def _retry_after(text: str, *, now: dt.datetime) -> float:
    """Seconds that a service asks for, written as a number or as a date."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=dt.UTC)
    return max(0.0, (until - now).total_seconds())


def _standing(tries: list[str]) -> str:
    return f"it may have been taken: {len(tries)} tries, the last: {tries[-1]}" if tries else "it was not sent"
