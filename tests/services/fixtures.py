"""Fixtures that run real servers; ``tests/conftest.py`` names this module in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.lake.paths import Lake
from tests.services.azurite import AzuriteServer, running_azurite
from tests.services.mariadb import MariaDBServer, running_mariadb
from tests.services.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test session; ``create_database()`` gives each test a database of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """Name of an empty database on the session's server."""
    return postgres_server.create_database()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB of this test session; ``create_database()`` gives each test a database of its own."""
    with running_mariadb() as server:
        yield server


@pytest.fixture
def mariadb_database(mariadb_server: MariaDBServer) -> str:
    """Name of an empty database on the session's server."""
    return mariadb_server.create_database()


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    """An emulator of Azure's blob storage; ``create_container()`` gives each test a container of its own."""
    with running_azurite() as server:
        yield server


@pytest.fixture(params=["disk", pytest.param("azure", marks=pytest.mark.services)])
def any_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """An empty lake: a folder, and a container on Azure storage."""
    if request.param == "disk":
        return Lake(str(tmp_path / "lake"))
    return azure_lake(request.getfixturevalue("azurite"))


def azure_lake(server: AzuriteServer) -> Lake:
    """An empty lake in a container of its own, addressed as in production."""
    root = f"abfss://{server.create_container()}@{server.account}.dfs.core.windows.net/lake"
    return Lake(root, server.storage_options)
