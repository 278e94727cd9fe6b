"""Migrations make a person's tables and schemas, and read what the person has not made from the shared ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from sqlglot import parse_one

from platform_core.control.ddl_catalog import Catalog, Shape
from platform_core.control.ddl_files import Statement
from platform_core.control.ddl_serving import ServingColumn, meaning_in_database
from platform_core.errors import MigrationError
from platform_core.operations.ddl_serving import open_serving
from platform_core.specs.ddl import RunStatement
from platform_core.specs.environment import DatabaseSpec, EnvironmentSpec
from platform_core.specs.person import PEOPLE, Person
from platform_core.specs.table import TableRef
from tests.control_database.conftest import postgres_place
from tests.ddl.conftest import STATIONS, World
from tests.services.postgres import PostgresServer

SHARED_TABLES = {"stations": ("station_id", "name"), "trips": ("trip_id", "station_id")}


@dataclass
class Personal(World):
    """The same location, in the environment of one person."""

    person: str = ""

    @property
    def environment(self) -> EnvironmentSpec:
        spec = super().environment
        return spec if not self.person else spec.model_copy(update={"developer": True}).used_by(Person(self.person))

    def of(self, person: str) -> Personal:
        return replace(self, person=person)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Personal]:
    """An empty lake, and a control database in SQLite."""
    found = Personal(tmp_path)
    yield found
    for each in found.opened:
        each.close()


@pytest.fixture
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Personal]:
    """As `world`, with a serving database in PostgreSQL, which everybody shares."""
    control = postgres_place(tmp_path, request.getfixturevalue("postgres_server")).control
    found = Personal(tmp_path, databases={"serving": DatabaseSpec(url=control.url, password=control.password)})
    yield found
    for each in found.opened:
        each.close()


def lake_of(world: World, *, person: str | None = None) -> dict[str, bytes]:
    """Bytes by path of everybody's files of the lake, or of one person's."""
    top = world.root / "lake" if person is None else world.root / "lake" / PEOPLE / person
    return {
        str(file.relative_to(top)): file.read_bytes()
        for file in top.rglob("*")
        if file.is_file() and (person is not None or file.relative_to(top).parts[0] != PEOPLE)
    }


def test_each_has_their_own_tables_and_their_own_memory_of_migrations(world: Personal) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    before = lake_of(world)
    anna = world.of("anna")
    world.write("0002_city.sql", "ALTER TABLE gold.stations ADD COLUMN city VARCHAR;")
    assert len(anna.apply()) == 2
    assert [(row.environment, row.number) for row in anna.status().applied] == [("test/anna", 1), ("test/anna", 2)]
    assert [row.number for row in world.status().applied] == [1]
    assert world.status().waiting == ("mobility/0002_city",)
    assert lake_of(world) == before
    assert "city" in [field.name for field in anna.delta("gold.stations").schema().fields]


def test_a_view_of_the_persons_own_reads_a_shared_table(world: Personal) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    world.fill("gold.stations", [{"station_id": 1, "name": "Kade"}])
    before = lake_of(world)
    anna = world.of("anna")
    # A person who takes up a later migration alone: a workstream of its own, which reads the first one's table.
    (world.package / "ddl" / "mobility" / "0001_stations.sql").unlink()
    world.write(
        "0001_names.sql", "CREATE VIEW gold.names AS SELECT name FROM mobility.gold.stations;", workstream="crm"
    )
    assert anna.apply() == ["crm/0001_names: create view crm.gold.names over mobility.gold.stations"]
    assert lake_of(world) == before


def test_a_shared_table_is_not_the_persons_to_change_or_drop(world: Personal) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    before = lake_of(world)
    anna = world.of("anna")
    for sql in ("ALTER TABLE gold.stations ADD COLUMN city VARCHAR;", "DROP TABLE gold.stations;"):
        world.write("0001_stations.sql", sql)
        assert "table 'mobility.gold.stations' is a shared one, and not yours to change" in anna.refusal(approve="yes")
    assert lake_of(world) == before


def test_dropping_moves_the_persons_own_table_aside_alone(world: Personal) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    before = lake_of(world)
    world.write("0002_gone.sql", "DROP TABLE gold.stations;")
    anna = world.of("anna")
    anna.apply(approve="not needed")
    assert lake_of(world) == before


def placed(sql: str, *, own: tuple[str, ...] = ()) -> str:
    """The statement as it is run for Anna, who has made some tables of the workstreams herself."""

    def live(ref: TableRef) -> Shape | None:
        return shape(ref) if f"{ref.layer}.{ref.name}" in own else None

    def shape(ref: TableRef) -> Shape | None:
        columns: Mapping[str, tuple[str, ...]] = SHARED_TABLES
        found = columns.get(ref.name)
        return None if found is None else Shape(columns=tuple(ServingColumn(name, "TEXT") for name in found))

    statement = Statement(position=1, sql=sql, line=1, node=parse_one(sql, dialect="postgres"))
    catalog = Catalog(live, makers={}, shared=shape)
    meaning = meaning_in_database(
        statement, workstream="crm", target="serving", catalog=catalog, schema=Person("anna").scoped
    )
    assert isinstance(meaning.change, RunStatement)
    return meaning.change.sql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE crm.new (id BIGINT)", 'CREATE TABLE "_anna__crm".new (id BIGINT)'),
        ("DROP TABLE crm.stations", 'DROP TABLE "_anna__crm".stations'),
        ("DROP VIEW IF EXISTS crm.gone", 'DROP VIEW IF EXISTS "_anna__crm".gone'),
        ("CREATE INDEX i ON crm.stations (name)", 'CREATE INDEX i ON "_anna__crm".stations(name)'),
        ("DROP INDEX crm.i", 'DROP INDEX "_anna__crm".i'),
        ("ALTER TABLE crm.stations ADD COLUMN city TEXT", 'ALTER TABLE "_anna__crm".stations ADD COLUMN city TEXT'),
        ("COMMENT ON TABLE crm.stations IS 'x'", "COMMENT ON TABLE \"_anna__crm\".stations IS 'x'"),
        ("COMMENT ON COLUMN crm.stations.name IS 'x'", "COMMENT ON COLUMN \"_anna__crm\".stations.name IS 'x'"),
        (
            "CREATE TABLE crm.new (id BIGINT REFERENCES crm.stations (station_id))",
            'CREATE TABLE "_anna__crm".new (id BIGINT REFERENCES "_anna__crm".stations (station_id))',
        ),
        (
            "CREATE VIEW crm.v AS SELECT s.name, crm.trips.trip_id FROM crm.stations AS s "
            "JOIN crm.trips USING (station_id)",
            'CREATE VIEW "_anna__crm".v AS SELECT s.name, crm.trips.trip_id FROM "_anna__crm".stations AS s '
            "JOIN crm.trips USING (station_id)",
        ),
        (
            "CREATE VIEW crm.v AS SELECT crm.stations.name FROM crm.stations, mobility.stations AS m",
            'CREATE VIEW "_anna__crm".v AS SELECT "_anna__crm".stations.name FROM "_anna__crm".stations, '
            "mobility.stations AS m",
        ),
    ],
)
def test_all_that_a_statement_changes_is_in_the_persons_schema(sql: str, expected: str) -> None:
    assert placed(sql, own=("crm.stations",)) == expected


@pytest.mark.services
def test_two_people_and_everybody_serve_from_one_database(serving: Personal, postgres_server: PostgresServer) -> None:
    serving.write(
        "0001_stations.sql",
        """
        -- target: serving
        CREATE TABLE mobility.stations (station_id BIGINT PRIMARY KEY, name TEXT);
        CREATE VIEW mobility.names AS SELECT name FROM mobility.stations;
        """,
    )
    serving.apply()
    serving.write("0002_city.sql", "-- target: serving\nALTER TABLE mobility.stations ADD COLUMN city TEXT;\n")
    for name in ("anna", "bo"):
        assert len(serving.of(name).apply()) == 3
        assert serving.of(name).apply() == []
    serving.write("0003_gone.sql", "-- target: serving\nDROP VIEW mobility.names;\nDROP TABLE mobility.stations;\n")
    serving.of("anna").apply(approve="not needed")
    name = str(serving.databases["serving"].url).rpartition("/")[2]
    with psycopg.connect(postgres_server.dsn(name), autocommit=True) as connection:
        columns = connection.execute(
            "SELECT table_schema, table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) "
            "FROM information_schema.columns WHERE table_schema ~ 'mobility$' GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
        applied = connection.execute("SELECT workstream, max(number) FROM edp.ddl_applied GROUP BY 1 ORDER BY 1")
        known = sorted(applied.fetchall())
    assert columns == [
        ("_bo__mobility", "names", "name"),
        ("_bo__mobility", "stations", "station_id name city"),
        ("mobility", "names", "name"),
        ("mobility", "stations", "station_id name"),
    ]
    assert known == [("_anna__mobility", 3), ("_bo__mobility", 2), ("mobility", 1)]


@pytest.mark.services
def test_a_serving_view_of_the_persons_own_reads_a_shared_table(
    serving: Personal, postgres_server: PostgresServer
) -> None:
    serving.write("0001_stations.sql", "-- target: serving\nCREATE TABLE mobility.stations (station_id BIGINT);\n")
    serving.apply()
    serving.file("0001_stations.sql").unlink()
    serving.write(
        "0001_all.sql",
        "-- target: serving\nCREATE VIEW crm.stations AS SELECT station_id FROM mobility.stations;\n",
        workstream="crm",
    )
    serving.of("anna").apply()
    name = str(serving.databases["serving"].url).rpartition("/")[2]
    with psycopg.connect(postgres_server.dsn(name), autocommit=True) as connection:
        connection.execute("INSERT INTO mobility.stations VALUES (7)")
        assert connection.execute('SELECT * FROM "_anna__crm".stations').fetchall() == [(7,)]


def test_a_schema_that_postgresql_would_cut_off_is_refused(world: Personal) -> None:
    target = open_serving(
        "serving",
        DatabaseSpec(url="postgresql+psycopg://edp@localhost/serving"),
        environment="test",
        secrets=world.platform.secrets,
        state=world.root,
        person=Person("a" * 24),
    )
    assert target is not None
    with pytest.raises(MigrationError, match="longer than 63 characters"):
        target.views("w" * 40)
