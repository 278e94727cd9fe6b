"""The tables are brought up to date once, in order, by whoever comes first; nothing else is let pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from platform_core.control import migrations, tables
from platform_core.control.loads import migrate
from platform_core.control.migrations import read_migrations
from platform_core.errors import ControlError, MigrationError
from tests.control_database.conftest import Begin, Place, contending

FOLDER = Path(migrations.__file__).parent
FIRST = "0001_loads"


@pytest.fixture
def folder(place: Place, tmp_path: Path) -> Path:
    """A copy of the migrations, to be changed."""
    kind = "sqlite" if place.control.url.startswith("sqlite") else "postgresql"
    return Path(shutil.copytree(FOLDER / kind, tmp_path / "migrations"))


def apply(place: Place, folder: Path) -> list[str]:
    database = place.database(migrations=folder)
    try:
        return database.prepare()
    finally:
        database.close()


def migrate_place(place: Place) -> list[str]:
    return migrate(place.control, state=place.state, secrets=place.secrets)


def test_an_empty_database_gets_all_and_one_that_is_up_to_date_none(place: Place) -> None:
    assert migrate_place(place) == [FIRST]
    assert migrate_place(place) == []


def test_the_first_load_brings_the_tables_up_to_date(place: Place, begin: Begin) -> None:
    with begin(place.loads()) as ticket:
        ticket.finish(status="succeeded", figures={})
    assert migrate_place(place) == []


def test_the_tables_are_those_that_queries_expect(place: Place) -> None:
    def columns(connection: sa.Connection) -> dict[str, dict[str, tuple[str, bool]]]:
        schema = tables.SCHEMA if connection.dialect.name == "postgresql" else None
        found = sa.inspect(connection)
        return {
            table.name: {
                each["name"]: (str(each["type"].compile(connection.dialect)), each["nullable"])
                for each in found.get_columns(table.name, schema=schema)
            }
            for table in (tables.leases, tables.loads, tables.approvals, tables.migrations)
        }

    database = place.database()
    made = database.transact(columns)
    dialect = database._opened().dialect
    for table in (tables.leases, tables.loads, tables.approvals, tables.migrations):
        wanted = {each.name: (str(each.type.compile(dialect)), bool(each.nullable)) for each in table.columns}
        # Both names stand for the same type of SQLite.
        shown = {name: (type_.replace("DATETIME", "TIMESTAMP"), null) for name, (type_, null) in wanted.items()}
        given = {
            name: (type_.replace("DATETIME", "TIMESTAMP"), null) for name, (type_, null) in made[table.name].items()
        }
        assert given == shown, table.name
    database.close()


def test_c6_processes_that_start_at_once_on_an_empty_database_all_go_on_and_one_makes_the_tables(
    place: Place, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with contending(place, 2) as starters:
        for _ in range(10):
            _empty(place)
            for each in starters:
                each.tell("migrate")
            answers = [each.answer() for each in starters]
            assert sorted(answer.get("ok", answer) for answer in answers) == [[], [FIRST]]


def _empty(place: Place) -> None:
    if place.control.url.startswith("sqlite"):
        for file in place.state.glob("control.db*"):
            file.unlink()
        return
    database = place.database()
    with database._opened().begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS control CASCADE")
    database.close()


def test_a_new_migration_is_applied_alone(place: Place, folder: Path) -> None:
    assert apply(place, folder) == [FIRST]
    (folder / "0002_more.sql").write_text("-- Why; and why not.\nCREATE TABLE more (a BIGINT);\nDROP TABLE more;\n")
    assert apply(place, folder) == ["0002_more"]
    assert apply(place, folder) == []


def test_a_migration_that_fails_leaves_nothing_behind(place: Place, folder: Path) -> None:
    apply(place, folder)
    (folder / "0002_more.sql").write_text("CREATE TABLE more (a BIGINT);\nCREATE TABLE more (a BIGINT);\n")
    with pytest.raises(ControlError, match=r"refused a statement|cannot be used"):
        apply(place, folder)
    (folder / "0002_more.sql").write_text("CREATE TABLE more (a BIGINT);\n")
    assert apply(place, folder) == ["0002_more"]


def test_c6_an_edited_migration_is_refused(place: Place, folder: Path) -> None:
    apply(place, folder)
    file = folder / f"{FIRST}.sql"
    file.write_text(file.read_text() + "-- an afterthought\n")
    with pytest.raises(MigrationError, match="migration 0001_loads was edited after it had been applied"):
        apply(place, folder)


def test_c6_a_missing_migration_is_refused(place: Place, folder: Path) -> None:
    for number in (2, 3):
        (folder / f"000{number}_more.sql").write_text(f"CREATE TABLE more_{number} (a BIGINT);\n")
    apply(place, folder)
    (folder / "0002_more.sql").unlink()
    with pytest.raises(MigrationError, match="versions must be 1, 2, 3 and so on, without gaps"):
        apply(place, folder)


def test_c6_a_migration_out_of_order_is_refused(place: Place, folder: Path) -> None:
    for number in (2, 3):
        (folder / f"000{number}_more.sql").write_text(f"CREATE TABLE more_{number} (a BIGINT);\n")
    apply(place, folder)
    database = place.database(migrations=folder)
    database.transact(lambda c: c.execute(tables.migrations.delete().where(tables.migrations.c.version == 2)))
    database.close()
    with pytest.raises(MigrationError, match="migration 0002_more was not applied, but later ones were"):
        apply(place, folder)


def test_c7_a_database_that_is_newer_than_the_code_is_refused(place: Place, folder: Path, begin: Begin) -> None:
    (folder / "0002_more.sql").write_text("CREATE TABLE more (a BIGINT);\n")
    apply(place, folder)
    with pytest.raises(
        MigrationError, match="it is newer than this code: it has migration 0002_more, the code knows 1"
    ):
        begin(place.loads())


@pytest.mark.parametrize("name", ["1_loads.sql", "0001-loads.sql", "0001_Loads.sql"])
def test_a_file_without_a_version_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(MigrationError, match=r"the name must read like 0001_loads\.sql"):
        read_migrations(tmp_path)


def test_both_databases_have_the_same_migrations() -> None:
    names = [[each.name for each in read_migrations(FOLDER / kind)] for kind in ("sqlite", "postgresql")]
    assert names[0] == names[1]
