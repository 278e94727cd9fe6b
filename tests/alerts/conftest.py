"""Fixtures of the tests of alerts: an outbox on each kind of control database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.control.database import Database
from platform_core.control.outbox import Outbox
from tests.control_database.conftest import Place, postgres_place, sqlite_place

pytest.register_assert_rewrite("platform_core.plugins.testing_alerts", "tests.alerts.services")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty control database, of each kind."""
    if request.param == "sqlite":
        return sqlite_place(tmp_path)
    return postgres_place(tmp_path, request.getfixturevalue("postgres_server"))


@pytest.fixture
def outbox(place: Place) -> Iterator[Outbox]:
    """An empty outbox."""
    database: Database = place.database()
    yield Outbox(database)
    database.close()
