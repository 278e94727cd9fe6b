"""Fixtures of the tests of alerts: an outbox on each kind of control database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from platform_core.control.database import Database
from platform_core.control.outbox import Outbox
from tests.control_database.conftest import Place, postgres_place, sqlite_place

if TYPE_CHECKING:
    from tests.alerts.company import Company

# Before anything imports them.
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


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """A location whose sensor has looked once, and a phone."""
    from tests.alerts.company import opened_company

    with opened_company(tmp_path, monkeypatch) as found:
        yield found
