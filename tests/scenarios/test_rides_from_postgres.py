"""The same registration loads the same rows from a PostgreSQL server as from the demo's SQLite file."""

import datetime as dt
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable
from mobility.sample import lay_out

from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest
from platform_core.operations.ingest import ingest
from platform_core.operations.platform import Platform, open_platform
from platform_core.secrets.vault import VaultSecrets
from platform_core.settings import Settings
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.manifest import Manifest
from tests.conftest import PROJECT, Day
from tests.scenarios import oracle
from tests.scenarios.oracle import Expected
from tests.scenarios.test_demo_values import assert_bronze, keyed
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.services, pytest.mark.slow]

TABLES: dict[str, tuple[str, Callable[[int], Expected]]] = {
    "rides": ("ride_id", oracle.rides),
    "ride_events": ("event_id", oracle.ride_events),
    "seasons": ("season", oracle.seasons),
}
DEFINITIONS = (
    "create table rides (ride_id integer primary key, ride_hour timestamp not null, casual integer not null,"
    " registered integer not null, updated_at timestamp not null)",
    "create table ride_events (event_id integer primary key, ride_id integer not null, noted_at timestamp not null,"
    " kind text not null)",
    "create table seasons (season text primary key, months text not null, position integer not null)",
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        project=PROJECT,
        home=PROJECT / "dagster_home",
        state=tmp_path / "state",
        environment="dev",
    )


@pytest.fixture
def platform(settings: Settings) -> Platform:
    platform = open_platform(load_environment(settings), state=settings.state)
    assert isinstance(platform.secrets, VaultSecrets)
    platform.secrets.prepare()
    return platform


def copy_to_postgres(database_file: Path, server: PostgresServer, database: str) -> None:
    """Make the tables of PostgreSQL equal to those of the SQLite file."""
    source = sqlite3.connect(database_file)
    try:
        with server.connect(database) as connection, connection.cursor() as cursor:
            for table in TABLES:
                rows = source.execute(f"select * from {table}").fetchall()
                cursor.execute(f"truncate {table}")
                names = [column[0] for column in source.execute(f"select * from {table} limit 0").description]
                places = ", ".join(
                    f"%s{'::text::timestamp' if name.endswith('_at') or name == 'ride_hour' else ''}" for name in names
                )
                cursor.executemany(f"insert into {table} values ({places})", rows)
    finally:
        source.close()


def test_both_days_of_rides_come_from_postgres_as_they_come_from_sqlite(
    settings: Settings, platform: Platform, tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    postgres_server.execute(*DEFINITIONS, database=postgres_database)
    platform.secrets.set("mobility/rides_password", postgres_server.password.encode())
    connection = ConnectionSpec(
        name="rides",
        workstream="mobility",
        type="postgres",
        options={
            "host": postgres_server.host,
            "port": postgres_server.port,
            "database": postgres_database,
            "user": postgres_server.user,
            "password": {"secret": "mobility/rides_password"},
        },
    )
    manifest: Manifest = load_manifest(
        PROJECT / "code_locations" / "mobility" / "mobility" / "control",
        environment="dev",
        state=settings.state,
    )
    days: dict[int, Day] = {}
    for day in (1, 2):
        sources = tmp_path / "sources"
        sources.mkdir(exist_ok=True)
        lay_out(sources, day=day)
        copy_to_postgres(sources / "rides.db", postgres_server, postgres_database)
        started = dt.datetime.now(dt.UTC)
        for spec in manifest.ingestions:
            if spec.source == "rides":
                ingest(spec, connection=connection, platform=platform)
        days[day] = Day(settings.state / "lake", started, dt.datetime.now(dt.UTC), "")
        for table, (key, expected) in TABLES.items():
            rows = DeltaTable(str(days[day].lake / "mobility" / "bronze" / table)).to_pyarrow_table().to_pylist()
            assert_bronze(keyed(rows, key), expected(day), days=days, day=day)
