"""What the tests of the source rest share: a source of a test server, and how its rows and failures are had."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.rest import RestSource
from tests.services.http_server import HttpServer, Received, Reply, json_reply

TOKEN = "tok-5f1c9e2a"
"""A secret that no message, log or foreign server may see."""


def secrets(name: str) -> Secret:
    return Secret(name, TOKEN.encode())


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


def paged(pages: list[list[dict[str, Any]]], *, param: str = "page") -> Callable[[Received], Reply]:
    return lambda received: json_reply(
        pages[number - 1] if (number := int(received.query[param])) <= len(pages) else []
    )


IDS: dict[str, Any] = {"columns": {"id": "integer"}}
PAGES: dict[str, Any] = {**IDS, "paging": {"style": "page"}}
