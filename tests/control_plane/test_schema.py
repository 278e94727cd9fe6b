"""The control tables are made and brought up to date once, by whoever comes first, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from platform_core.control.ddl_tables import ddl_history
from platform_core.control.migrations import REVISIONS, read_migrations
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.tables import PROVENANCE, SPEC_TABLES, applies, history, locks, state
from platform_core.errors import MigrationError
from tests.control_plane.conftest import Databases, Project

TABLES = (*SPEC_TABLES.values(), state, applies, history, locks, ddl_history)
ADDED = [*(each.name for each in read_migrations(REVISIONS)), *sorted(KINDS)]


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> Project:
    """A project whose control database holds nothing."""
    return databases.project(tmp_path)


def one_name(type_: str) -> str:
    """Types that have two names, by one of them."""
    return type_.replace("DATETIME", "TIMESTAMP").replace("DOUBLE PRECISION", "FLOAT")


def inspected(project: Project) -> dict[str, dict[str, str]]:
    def look(connection: sa.Connection) -> dict[str, dict[str, str]]:
        schema = "control" if connection.dialect.name == "postgresql" else None
        found = sa.inspect(connection)
        return {
            table.name: {
                each["name"]: one_name(each["type"].compile(connection.dialect))
                for each in found.get_columns(table.name, schema=schema)
            }
            for table in TABLES
        }

    return project.store().read(look)


def test_an_empty_database_gets_everything_and_one_that_is_up_to_date_nothing(empty: Project) -> None:
    assert empty.store().prepare() == ADDED
    assert empty.store().prepare() == []


def test_every_kind_has_a_table_with_a_column_for_each_field(project: Project) -> None:
    for name, kind in KINDS.items():
        columns = SPEC_TABLES[name].columns.keys()
        fields = {field.alias or key for key, field in kind.model.model_fields.items() if key not in kind.parts}
        # The field that names a row is the column `name`.
        assert set(columns) - {"location", "workstream", "name", *PROVENANCE} == fields - {
            "workstream",
            kind.identity[-1],
        }
        assert {"location", "workstream", "name"} <= set(columns)


def test_the_tables_are_those_that_queries_expect(project: Project) -> None:
    dialect = project.store().read(lambda connection: connection.dialect)
    wanted = {
        table.name: {each.name: one_name(each.type.compile(dialect)) for each in table.columns} for table in TABLES
    }
    assert inspected(project) == wanted


def test_a_new_field_reaches_a_database_with_rows(applied: Project) -> None:
    applied.sql("ALTER TABLE control.ingestion DROP COLUMN delete_floor")
    forget(applied, "ingestion", "delete_floor")
    assert applied.store().prepare() == ["ingestion.delete_floor"]
    assert applied.sql("SELECT DISTINCT delete_floor FROM control.ingestion") == [(10,)]
    assert applied.plan().changes == ()


def test_a_new_kind_reaches_a_database_with_rows(applied: Project) -> None:
    applied.sql("DROP TABLE control.upkeep")
    forget(applied, "upkeep")
    assert applied.store().prepare() == ["upkeep"]


def test_a_database_with_a_column_that_no_spec_has_is_newer(applied: Project) -> None:
    remember(applied, "ingestion", "wholly_new", "Text")
    with pytest.raises(MigrationError, match=r"it is newer than this code: it has ingestion\.wholly_new"):
        applied.plan()


def test_a_field_that_changed_its_type_needs_a_migration(applied: Project) -> None:
    remember(applied, "ingestion", "parallel", "Text")
    with pytest.raises(MigrationError, match=r"ingestion\.parallel is Text there and BigInteger in this code"):
        applied.plan()


def test_a_database_with_a_migration_that_this_code_lacks_is_newer(applied: Project) -> None:
    applied.sql(
        "INSERT INTO control.migrations (version, name, checksum, applied_at) "
        "VALUES (99, '0099_later', 'x', CURRENT_TIMESTAMP)"
    )
    applied.begin_anew()
    with pytest.raises(MigrationError, match="it is newer than this code: it has migration 0099_later"):
        applied.plan()


def test_processes_that_start_at_once_make_the_tables_once(empty: Project) -> None:
    added = [answer["added"] for answer in empty.worker().ask("race 3 prepare")]
    # Whoever comes second may find the migrations done and the tables of the specs missing, or all done.
    assert sorted(name for each in added for name in each) == sorted(ADDED)


def test_a_process_that_is_killed_half_way_leaves_nothing_half_made(empty: Project) -> None:
    worker = empty.worker()
    kills = 0
    for nth in range(1, 200, 7):
        if "killed" not in worker.ask(f"prepare {nth}"):
            break
        kills += 1
    assert kills > 3
    assert empty.store().prepare() == []
    assert empty.apply().serial == 1


def known(project: Project) -> dict[str, dict[str, str]]:
    [(text,)] = project.sql("SELECT CAST(layout AS TEXT) FROM control.state")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def write(project: Project, found: dict[str, dict[str, str]]) -> None:
    cast = "CAST(:layout AS JSON)" if project.password else ":layout"
    project.sql(f"UPDATE control.state SET layout = {cast}", layout=json.dumps(found))
    project.begin_anew()


def forget(project: Project, table: str, column: str | None = None) -> None:
    """As if the database were of a time before there was this field."""
    found = known(project)
    if column is None:
        del found[table]
    else:
        del found[table][column]
    write(project, found)


def remember(project: Project, table: str, column: str, type_: str) -> None:
    """As if the database were of another version of the code."""
    found = known(project)
    found[table][column] = type_
    write(project, found)
