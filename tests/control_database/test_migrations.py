"""The tables are brought up to date once, in order, by whoever comes first; nothing else is let pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from platform_core.control import tables
from platform_core.control.loads import migrate
from platform_core.control.migrations import REVISIONS, read_migrations
from platform_core.errors import ControlError, MigrationError
from tests.control_database.conftest import Begin, Place, contending

KNOWN = [each.name for each in read_migrations(REVISIONS)]
NEXT = len(KNOWN) + 1


OLD_CHECKSUMS = {
    "sqlite": "0cd5fa8790c372fe38e709d76b160586b09ba570f2cb4ca916768ccdd00a65ed",
    "postgresql": "b50cc32d1a52653d403ebd1bf72db43461af793954a65b919a17132ed2da1f53",
}
"""Of the SQL files that made the first tables before there was Alembic."""


@pytest.fixture
def folder(place: Place, tmp_path: Path) -> Path:
    """A copy of the migrations, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(REVISIONS, tmp_path / "migrations", ignore=ignored))


def add(folder: Path, number: int, *statements: str) -> str:
    """Write a further migration; its name."""
    before = next((each.stem for each in folder.glob(f"{number - 1:04}_*.py")), None)
    name = f"{number:04}_more"
    body = "".join(f"    op.execute({statement!r})\n" for statement in statements)
    (folder / f"{name}.py").write_text(
        f'"""More."""\nfrom alembic import op\nrevision = "{name}"\ndown_revision = "{before}"\n\n\n'
        f"def upgrade():\n{body}"
    )
    return name


def apply(place: Place, folder: Path) -> list[str]:
    database = place.database(migrations=folder)
    try:
        return database.prepare()
    finally:
        database.close()


def migrate_place(place: Place) -> list[str]:
    return migrate(place.control, state=place.state, secrets=place.secrets)


def test_an_empty_database_gets_all_and_one_that_is_up_to_date_none(place: Place) -> None:
    assert migrate_place(place) == KNOWN
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
            assert sorted(answer.get("ok", answer) for answer in answers) == [[], KNOWN]


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
    assert apply(place, folder) == KNOWN
    name = add(folder, NEXT, "CREATE TABLE more (a BIGINT)", "DROP TABLE more")
    assert apply(place, folder) == [name]
    assert apply(place, folder) == []


def test_a_migration_that_fails_leaves_nothing_behind(place: Place, folder: Path) -> None:
    apply(place, folder)
    add(folder, NEXT, "CREATE TABLE more (a BIGINT)", "CREATE TABLE more (a BIGINT)")
    with pytest.raises(ControlError, match=r"refused a statement|cannot be used"):
        apply(place, folder)
    name = add(folder, NEXT, "CREATE TABLE more (a BIGINT)")
    assert apply(place, folder) == [name]


def test_a_database_from_before_alembic_is_taken_over_with_its_rows(place: Place, folder: Path, tmp_path: Path) -> None:
    """As the platform left it when migrations were SQL files: tables, and one row that says so."""
    only_first = tmp_path / "first"
    only_first.mkdir()
    shutil.copy(folder / "0001_loads.py", only_first)
    apply(place, only_first)
    kind = "sqlite" if place.control.url.startswith("sqlite") else "postgresql"
    checksum = OLD_CHECKSUMS[kind]

    def as_it_was(connection: sa.Connection) -> None:
        prefix = "" if kind == "sqlite" else "control."
        connection.exec_driver_sql(f"DROP TABLE {prefix}alembic_version")
        connection.execute(tables.migrations.update().values(checksum=checksum))
        connection.execute(
            tables.leases.insert().values(workstream="crm", layer="bronze", name="orders", epoch=41, held=False)
        )

    database = place.database(migrations=only_first)
    database.transact(as_it_was)
    database.close()
    assert apply(place, folder) == KNOWN[1:]
    database = place.database()
    assert database.transact(lambda c: c.execute(sa.select(tables.leases.c.epoch)).scalar_one()) == 41
    database.close()


def test_c6_an_edited_migration_is_refused(place: Place, folder: Path) -> None:
    apply(place, folder)
    file = folder / "0001_loads.py"
    file.write_text(file.read_text() + "-- an afterthought\n")
    with pytest.raises(MigrationError, match="migration 0001_loads was edited after it had been applied"):
        apply(place, folder)


def test_c6_a_missing_migration_is_refused(place: Place, folder: Path) -> None:
    for number in (NEXT, NEXT + 1):
        add(folder, number, f"CREATE TABLE more_{number} (a BIGINT)")
    apply(place, folder)
    (folder / f"{NEXT:04}_more.py").unlink()
    with pytest.raises(MigrationError, match="versions must be 1, 2, 3 and so on, without gaps"):
        apply(place, folder)


def test_c6_a_migration_out_of_order_is_refused(place: Place, folder: Path) -> None:
    for number in (NEXT, NEXT + 1):
        add(folder, number, f"CREATE TABLE more_{number} (a BIGINT)")
    apply(place, folder)
    database = place.database(migrations=folder)
    database.transact(lambda c: c.execute(tables.migrations.delete().where(tables.migrations.c.version == NEXT)))
    database.close()
    with pytest.raises(MigrationError, match=f"migration {NEXT:04}_more was not applied, but later ones were"):
        apply(place, folder)


def test_c7_a_database_that_is_newer_than_the_code_is_refused(place: Place, folder: Path, begin: Begin) -> None:
    name = add(folder, NEXT, "CREATE TABLE more (a BIGINT)")
    apply(place, folder)
    with pytest.raises(
        MigrationError, match=f"it is newer than this code: it has migration {name}, the code knows {len(KNOWN)}"
    ):
        begin(place.loads())


@pytest.mark.parametrize("name", ["1_loads.py", "0001-loads.py", "0001_Loads.py", f"0001_{'long' * 8}.py"])
def test_a_file_without_a_version_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(MigrationError, match=r"the name must read like 0001_loads\.py"):
        read_migrations(tmp_path)


def test_each_migration_builds_on_the_one_before() -> None:
    from alembic.script import ScriptDirectory

    revisions = ScriptDirectory(str(REVISIONS.parent), version_locations=[str(REVISIONS)]).walk_revisions()
    assert [(each.revision, each.down_revision) for each in revisions] == [
        (name, before) for name, before in zip(KNOWN, [None, *KNOWN], strict=False)
    ][::-1]
