"""Migrations of a serving database: checked as those of the lake are, each one transaction."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from platform_core.control.ddl_serving import widens_in_database
from platform_core.errors import ControlError, MigrationError
from platform_core.faults import DdlPoint
from platform_core.specs.environment import DatabaseSpec
from tests.ddl.conftest import Appliers, World
from tests.services.postgres import PostgresServer

TABLE = """
    -- target: serving
    CREATE TABLE mobility.stations (
      station_id BIGINT PRIMARY KEY,
      name VARCHAR(40) NOT NULL DEFAULT 'unknown',
      capacity INTEGER CHECK (capacity > 0)
    );
    CREATE INDEX stations_by_name ON mobility.stations (name);
    CREATE VIEW mobility.large AS SELECT station_id, name FROM mobility.stations WHERE capacity > 10;
    COMMENT ON TABLE mobility.stations IS '100 % of them';
    """


def _ask(world: World, server: PostgresServer, sql: str) -> list[tuple[object, ...]]:
    """Ask the serving database."""
    name = str(world.databases["serving"].url).rpartition("/")[2]
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        found = connection.execute(sql)
        return found.fetchall() if found.description else []


@pytest.mark.services
def test_tables_views_and_indexes_are_made_in_one_transaction(serving: World, postgres_server: PostgresServer) -> None:
    serving.write("0001_stations.sql", TABLE)

    said = serving.apply()

    assert said[0] == "mobility/0001_stations: serving: create table mobility.stations (3 columns)"
    _ask(serving, postgres_server, "INSERT INTO mobility.stations VALUES (1, 'Kade', 20), (2, 'Laan', 2)")
    assert _ask(serving, postgres_server, "SELECT * FROM mobility.large") == [(1, "Kade")]
    assert _ask(serving, postgres_server, "SELECT obj_description('mobility.stations'::regclass)") == [
        ("100 % of them",)
    ]
    assert _ask(serving, postgres_server, "SELECT workstream, number, name, author FROM edp.ddl_applied") == [
        ("mobility", 1, "0001_stations", "Ada <ada@example.com>")
    ]
    (row,) = serving.status().applied
    assert (row.target, row.status, row.done) == ("serving", "applied", 4)
    assert serving.apply() == []


@pytest.mark.services
def test_a_statement_that_the_database_refuses_leaves_nothing_and_shows_no_row(
    serving: World, postgres_server: PostgresServer
) -> None:
    serving.write("0001_stations.sql", TABLE)
    serving.apply()
    _ask(serving, postgres_server, "INSERT INTO mobility.stations VALUES (1, 'Geheim', 20), (2, 'Geheim', 2)")
    serving.write(
        "0002_unique.sql",
        """
        -- target: serving
        ALTER TABLE mobility.stations ADD COLUMN city TEXT;
        ALTER TABLE mobility.stations ADD CONSTRAINT one_name UNIQUE (name);
        """,
    )

    said = serving.refusal()

    assert said.startswith(
        "mobility/ddl/mobility/0002_unique.sql:3: the database refused statement 2; "
        "nothing of the migration was applied\n"
        "  psycopg.UniqueViolation [23505] (its text is withheld: it may hold row values)\n"
    )
    assert "Geheim" not in said
    assert _ask(serving, postgres_server, "SELECT * FROM mobility.stations ORDER BY 1") == [
        (1, "Geheim", 20),
        (2, "Geheim", 2),
    ]
    assert [row.status for row in serving.status().applied] == ["applied", "failed"]


@pytest.mark.services
def test_columns_change_and_what_destroys_needs_approval(serving: World, postgres_server: PostgresServer) -> None:
    serving.write("0001_stations.sql", TABLE.replace(" WHERE capacity > 10", ""))
    serving.write(
        "0002_wider.sql", "-- target: serving\nALTER TABLE mobility.stations ALTER COLUMN capacity TYPE BIGINT;"
    )
    serving.apply()
    serving.write(
        "0003_less.sql",
        """
        -- target: serving
        DROP VIEW mobility.large;
        ALTER TABLE mobility.stations RENAME COLUMN name TO title;
        ALTER TABLE mobility.stations ALTER COLUMN title TYPE VARCHAR(10);
        ALTER TABLE mobility.stations ALTER COLUMN title DROP NOT NULL, DROP COLUMN capacity;
        """,
    )

    assert serving.refusal().splitlines()[:5] == [
        "1 of 1 migrations would destroy something; nothing was applied",
        "  mobility/ddl/mobility/0003_less.sql: loses view mobility.large",
        "  mobility/ddl/mobility/0003_less.sql: loses values of mobility.stations.title that VARCHAR(10) does not have",
        "  mobility/ddl/mobility/0003_less.sql: loses the promise that mobility.stations.title is never null, column "
        "mobility.stations.capacity",
        '  if that is meant, say why: edp ddl apply --env test --approve "<reason>"',
    ]
    serving.apply(approve="a test")

    found = _ask(
        serving,
        postgres_server,
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'mobility' ORDER BY 1",
    )
    assert found == [("station_id", "bigint", "NO"), ("title", "character varying", "YES")]


@pytest.mark.services
@pytest.mark.parametrize(
    "point",
    [DdlPoint.BEGUN, DdlPoint.AFTER_STATEMENT, DdlPoint.SERVING_BEFORE_COMMIT, DdlPoint.SERVING_AFTER_COMMIT],
)
def test_a_killed_migration_is_whole_or_not_there(
    serving: World, postgres_server: PostgresServer, appliers: Appliers, point: DdlPoint
) -> None:
    serving.write("0001_stations.sql", TABLE)

    assert appliers.one(serving.job(fault=f"{point}:kill:1")).code == -9
    tables = _ask(
        serving, postgres_server, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'mobility'"
    )
    again = appliers.one(serving.job())

    assert tables == [(2,)] if point is DdlPoint.SERVING_AFTER_COMMIT else tables == [(0,)]
    assert again.code == 0, again
    assert [(row.status, row.done) for row in serving.status().applied] == [("applied", 4)]
    assert _ask(serving, postgres_server, "SELECT count(*) FROM edp.ddl_applied") == [(1,)]


@pytest.mark.services
def test_what_does_not_fit_the_live_schema_is_told_before_anything_runs(
    serving: World, postgres_server: PostgresServer
) -> None:
    serving.write("0001_stations.sql", TABLE)
    serving.apply()

    def said(sql: str) -> str:
        file = serving.write("0002_try.sql", f"-- target: serving\n{sql};")
        try:
            return serving.refusal().removeprefix("mobility/ddl/mobility/0002_try.sql:2: ")
        finally:
            file.unlink()

    assert said("ALTER TABLE mobility.stations DROP COLUMN nme") == (
        "table 'serving.mobility.stations' has no column 'nme'\n  columns: station_id, name, capacity\n"
        "  did you mean 'name'?"
    )
    assert said("CREATE VIEW mobility.v AS SELECT nme FROM mobility.stations").startswith(
        "the view's SELECT does not fit its tables: Column 'nme' could not be resolved"
    )
    assert said("CREATE TABLE mobility.stations (a INTEGER)").startswith("table 'mobility.stations' exists already")
    assert said("CREATE TABLE crm.x (a INTEGER)").startswith("'crm.x' is not in the schema of workstream 'mobility'")
    assert said("CREATE TABLE x (a INTEGER)").startswith("'x' must be written schema.name")
    assert said("DROP TABLE mobility.stations").startswith("view 'mobility.large' reads 'mobility.stations'")
    assert said("GRANT SELECT ON mobility.stations TO bob").startswith(
        "a migration of a serving database cannot say GRANT SELECT"
    )
    assert said("INSERT INTO mobility.stations VALUES (1)").startswith(
        "a migration of a serving database cannot say INSERT INTO"
    )
    assert said("CREATE VIEW mobility.v AS SELECT pg_read_file('/etc/passwd') AS a").startswith(
        "function 'pg_read_file' reaches outside of the tables"
    )
    assert said("CREATE TABLE mobility.y (a INTEGER REFERENCES mobility.nothing (id))").startswith(
        "there is no table 'serving.mobility.nothing'"
    )
    assert said("CREATE TABLE mobility.y (a INTEGER, CHECK (b > 0))").startswith(
        "table 'serving.mobility.y' has no column 'b'"
    )
    assert said("ALTER TABLE mobility.stations ALTER COLUMN name TYPE INTEGER USING length(name)").startswith(
        "USING may only cast the column itself"
    )
    assert _ask(serving, postgres_server, "SELECT count(*) FROM edp.ddl_applied") == [(1,)]


@pytest.mark.services
def test_an_edit_after_a_lost_control_database_is_noticed_by_the_serving_one(
    serving: World, postgres_server: PostgresServer
) -> None:
    file = serving.write("0001_stations.sql", TABLE)
    serving.apply()
    for each in (serving.root / "state").glob("control.db*"):
        each.unlink()
    assert [each.meaning for each in serving.only().statements] == [None] * 4

    file.write_text(file.read_text().replace("40", "50"))

    with pytest.raises(MigrationError, match="migration 0001 was edited after it had been applied"):
        serving.plan()


@pytest.mark.services
def test_the_password_is_in_no_error(serving: World, postgres_server: PostgresServer) -> None:
    serving.write("0001_stations.sql", TABLE)
    secret = Path(serving.root) / "secrets" / "platform" / "control"
    secret.write_text("wrong-password-canary")
    secret.chmod(0o600)

    with pytest.raises(ControlError) as caught:
        serving.plan()

    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None or "canary" not in repr(caught.value.__context__)
    assert "look at the server and its log, and at databases.serving of the environment" in str(caught.value)


def test_migrations_of_a_database_that_an_environment_does_not_have_are_left_out(world: World) -> None:
    world.databases = {"serving": DatabaseSpec(url=None)}
    world.write("0001_stations.sql", TABLE)
    world.write("0002_lake.sql", "CREATE TABLE gold.a (id BIGINT);")

    plan = world.plan()

    assert [str(each) for each in plan.left_out] == ["mobility/0001_stations"]
    assert [str(each.migration) for each in plan.migrations] == ["mobility/0002_lake"]
    world.apply()
    assert world.columns("gold.a") == {"id": "long"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x.db", "must begin with postgresql+psycopg://: tables are served from PostgreSQL"),
        ("postgresql://u:canary@h/d", "holds a password: keep it in the secret store"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(world: World, url: str, said: str) -> None:
    world.databases = {"serving": DatabaseSpec(url=url)}
    world.write("0001_stations.sql", TABLE)

    told = world.refusal()

    assert told.startswith(f"environment 'test': databases.serving.url {said}")
    assert "canary" not in told


@pytest.mark.parametrize(
    ("old", "new", "widens"),
    [
        ("INTEGER", "BIGINT", True),
        ("BIGINT", "INTEGER", False),
        ("VARCHAR(10)", "VARCHAR(20)", True),
        ("VARCHAR(20)", "VARCHAR(10)", False),
        ("VARCHAR(20)", "TEXT", True),
        ("TEXT", "VARCHAR(20)", False),
        ("NUMERIC(8, 2)", "NUMERIC(10, 2)", True),
        ("NUMERIC(8, 2)", "NUMERIC(8, 3)", False),
        ("NUMERIC(8, 2)", "NUMERIC", True),
        ("REAL", "DOUBLE PRECISION", True),
        ("TEXT", "INTEGER", False),
        ("DATE", "TIMESTAMP", True),
        ("TIMESTAMP", "DATE", False),
    ],
)
def test_which_types_of_postgresql_are_wider(old: str, new: str, widens: bool) -> None:
    assert widens_in_database(old, new) is widens
