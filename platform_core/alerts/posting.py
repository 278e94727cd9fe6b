"""Posts one JSON document to a web service, and says of the answer only whether another try may help."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from platform_core.errors import AlertError, AlertRefused

LONGEST_WAIT = 3600.0
"""Most seconds that a service may make us wait before the next try."""

_MOST_READ = 64 * 1024
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def post(url: str, body: Any, *, headers: Mapping[str, str], timeout: float, who: str) -> bytes:
    """Post and return the beginning of the answer of a service that accepted.

    Redirects are not followed: the address is a secret.

    Args:
        timeout: seconds for the whole exchange, and for each wait in it.
        who: the service, for messages.

    Raises:
        AlertRefused: the address cannot be used, or the service refuses.
        AlertError: it is away, busy or too slow.
    """
    import httpx

    host = _checked_host(url, who)
    ends = time.monotonic() + timeout
    try:
        with (
            _unlogged("httpx"),
            # Proxies are for the way out, never for this machine itself.
            httpx.Client(timeout=timeout, follow_redirects=False, trust_env=host not in _LOOPBACK) as client,
            client.stream(
                "POST", url, content=json.dumps(body).encode(), headers={"Content-Type": "application/json", **headers}
            ) as answer,
        ):
            status, wait = answer.status_code, _retry_after(answer.headers.get("Retry-After"))
            said = b""
            for part in answer.iter_bytes(chunk_size=4096):
                said += part
                if len(said) >= _MOST_READ or time.monotonic() > ends:
                    break
    except httpx.TimeoutException:
        fault: AlertError = AlertError(f"{who} did not answer within {timeout:g} seconds")
    except httpx.InvalidURL:
        fault = AlertRefused(f"{who}: its address is no URL\n  set the secret anew")
    except httpx.HTTPError as error:
        fault = AlertError(f"{who} cannot be reached ({type(error).__name__})")
    else:
        if status // 100 == 2:
            return said
        fault = _judged(status, wait, who)
    # Raised outside of the block: the library's error knows the address.
    raise fault


def _judged(status: int, wait: float | None, who: str) -> AlertError:
    if status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AlertError(f"{who} did not take it: HTTP {status}", retry_after=wait)
    if status // 100 == 3:
        return AlertRefused(f"{who} sends us elsewhere: HTTP {status}\n  set the secret to the address it moved to")
    return AlertRefused(f"{who} refuses it: HTTP {status}\n  look whether the address and the token still hold")


def _checked_host(url: str, who: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = None, ""
    if parts is None or not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise AlertRefused(f"{who}: its address must begin with https://\n  set the secret anew")
    return host


def _retry_after(header: str | None) -> float | None:
    """Seconds that the service asks for, written as a number or as a date."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return min(float(text), LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return min(max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds()), LONGEST_WAIT)


class _OtherThreads(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextmanager
def _unlogged(logger: str) -> Iterator[None]:
    """Keep a library from logging the address that this thread posts to: it is a secret."""
    found, drop = logging.getLogger(logger), _OtherThreads()
    found.addFilter(drop)
    try:
        yield
    finally:
        found.removeFilter(drop)
