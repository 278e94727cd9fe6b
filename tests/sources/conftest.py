"""What the tests of sources share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.http_server import HttpServer, http_server, json_reply


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """An HTTP server that answers as it is told to."""
    with http_server() as running:
        yield running


@pytest.fixture
def canary() -> Iterator[HttpServer]:
    """An HTTP server that nobody may reach."""
    with http_server() as running:
        running.on("/", json_reply([{"id": 666}]))
        yield running
