"""Which files are migrations, and how they must fit what an environment remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ddl.conftest import STATIONS, World

TAKEN = "2026"


@pytest.fixture
def applied(any_world: World) -> World:
    """Migrations 1 and 2 are applied."""
    any_world.write("0001_stations.sql", STATIONS)
    any_world.write("0002_city.sql", "ALTER TABLE gold.stations ADD COLUMN city VARCHAR;")
    any_world.apply()
    return any_world


def _without_times(text: str) -> str:
    import re

    return re.sub(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC", "on <day>", text)


def test_everything_is_remembered_of_what_was_applied(applied: World) -> None:
    rows = applied.status().applied

    assert [(row.name, row.status, row.done, row.statements, row.target) for row in rows] == [
        ("0001_stations", "applied", 1, 1, "lake"),
        ("0002_city", "applied", 1, 1, "lake"),
    ]
    assert rows[0].author == "Ada <ada@example.com>"
    assert rows[0].location == "mobility"
    assert rows[0].environment == "test"
    assert rows[0].applied_at is not None
    assert rows[0].applied_at >= rows[0].started_at
    assert rows[0].seconds > 0
    assert len(rows[0].checksum) == 64


def test_applying_again_has_nothing_to_do(applied: World) -> None:
    version = applied.delta("gold.stations").version()

    assert applied.apply() == []
    assert applied.delta("gold.stations").version() == version


def test_an_environment_remembers_for_itself(applied: World) -> None:
    other = World(applied.root, control=applied.control, name="other", opened=applied.opened)

    # The lake is the same here, so that the tables tell that all is made.
    assert [each.pending.before for each in other.plan().migrations] == [None, None]


def test_an_edited_migration_is_refused_with_its_line(applied: World) -> None:
    file = applied.file("0001_stations.sql")
    file.write_text(file.read_text() + "\nCOMMENT ON TABLE gold.stations IS 'x';\n")

    assert _without_times(applied.refusal()) == (
        "mobility/ddl/mobility/0001_stations.sql:8: migration 0001 was edited after it had been applied\n"
        "  it was applied in environment 'test' on <day> by Ada <ada@example.com>\n"
        "  put its text back (git log shows it), and make the change in a new migration"
    )


def test_other_line_ends_are_no_edit(applied: World) -> None:
    file = applied.file("0001_stations.sql")
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))

    assert applied.plan().migrations == ()


def test_a_missing_migration_is_refused(applied: World) -> None:
    applied.file("0002_city.sql").unlink()

    assert _without_times(applied.refusal()) == (
        "mobility/ddl/mobility/0002_city.sql: the file of migration 0002 is missing\n"
        "  it was applied in environment 'test' on <day> by Ada <ada@example.com>\n"
        "  restore the file from git"
    )


def test_a_renamed_migration_is_refused(applied: World) -> None:
    applied.file("0002_city.sql").rename(applied.file("0002_town.sql"))

    assert _without_times(applied.refusal()) == (
        "mobility/ddl/mobility/0002_town.sql: migration 0002 had another name when it was applied: 0002_city.sql\n"
        "  it was applied in environment 'test' on <day> by Ada <ada@example.com>\n"
        "  give the file its old name back"
    )


def test_a_number_in_the_middle_is_refused(applied: World) -> None:
    applied.file("0002_city.sql").rename(applied.file("0003_city.sql"))
    applied.write("0002_new.sql", "COMMENT ON TABLE gold.stations IS 'x';")

    said = _without_times(applied.refusal())

    assert "0002_new.sql:1: migration 0002 was edited after it had been applied" in said


def test_a_later_migration_that_was_applied_alone_is_told_as_out_of_order(applied: World) -> None:
    import sqlalchemy as sa

    from platform_core.control.ddl_tables import ddl_history

    applied.database.transact(
        lambda connection: connection.execute(sa.delete(ddl_history).where(ddl_history.c.number == 1))
    )

    assert _without_times(applied.refusal()) == (
        "mobility/ddl/mobility/0001_stations.sql: migration 0001 was not applied, but the later 0002 was\n"
        "  0002_city was applied in environment 'test' on <day> by Ada <ada@example.com>\n"
        "  give this file the next free number; a number in the middle would make environments differ"
    )


def test_a_number_that_is_taken_is_refused(world: World) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.write("0001_other.sql", STATIONS)

    assert world.refusal() == (
        "mobility/ddl/mobility/0001_stations.sql: number 0001 is taken by 0001_other.sql\n"
        "  give the one that was applied nowhere yet the next free number, 0002"
    )


def test_a_gap_is_refused(world: World) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.write("0003_city.sql", "ALTER TABLE gold.stations ADD COLUMN city VARCHAR;")

    assert world.refusal() == (
        "mobility/ddl/mobility/0003_city.sql: number 0003 follows 0001: there is no migration 0002\n"
        "  restore 0002 from git if it was applied; else rename this file to 0002_…"
    )


@pytest.mark.parametrize(
    "name", ["1_stations.sql", "0001-stations.sql", "0001_Stations.sql", "stations.sql", "0001_a.txt"]
)
def test_a_file_with_another_name_is_refused(world: World, name: str) -> None:
    world.write(name, STATIONS)

    assert world.refusal() == (
        f"mobility/ddl/mobility/{name}: is no migration\n"
        "  name it with four digits and words: 0001_create_stations.sql, counted on"
    )


def test_a_folder_that_is_no_workstream_is_refused(world: World) -> None:
    world.write("0001_stations.sql", STATIONS, workstream="mobilty")

    assert world.refusal() == (
        "mobility/ddl/mobilty: 'mobilty' is no workstream of location 'mobility'\n"
        "  known workstreams of the location: mobility\n"
        "  did you mean 'mobility'?"
    )


def test_a_file_beside_the_folders_is_refused(world: World) -> None:
    (world.package / "ddl").mkdir(parents=True)
    (world.package / "ddl" / "0001_a.sql").write_text(STATIONS)

    assert world.refusal() == (
        "mobility/ddl/0001_a.sql: a migration lies in the folder of its workstream\n  move it to ddl/mobility/"
    )


def test_a_target_elsewhere_than_in_the_first_line_is_refused(world: World) -> None:
    world.write("0001_a.sql", "-- stations\n-- target: serving\nSELECT 1;")

    assert world.refusal() == (
        "mobility/ddl/mobility/0001_a.sql:2: a target is named in the first line, such as: -- target: serving"
    )


def test_an_unknown_target_is_refused(world: World) -> None:
    world.write("0001_a.sql", "-- target: servng\nCREATE TABLE mobility.a (id BIGINT);")

    assert world.refusal() == (
        "mobility/ddl/mobility/0001_a.sql:1: target 'servng' is not known in environment 'test'\n"
        "  known targets: lake\n"
        "  name it in the environment's file: databases: {servng: {url: …}} (url: null where an environment has none)"
    )


def test_an_empty_file_is_refused(world: World) -> None:
    world.write("0001_a.sql", "-- nothing yet\n")

    assert world.refusal() == (
        "mobility/ddl/mobility/0001_a.sql: holds no statement\n  write one, or remove the file if it was never applied"
    )


def test_a_migration_is_applied_by_one_process_at_a_time(any_world: World) -> None:
    import datetime as dt

    from platform_core.control.ddl_lock import locked
    from platform_core.errors import MigrationError
    from platform_core.operations.ddl import apply_ddl

    any_world.write("0001_stations.sql", STATIONS)
    second = dt.timedelta(seconds=60)
    hold = {"environment": "test", "workstream": "mobility", "length": second, "wait": dt.timedelta(0)}
    said = r"mobility: its migrations are being applied by process \d+ on"
    world, now = any_world, dt.timedelta(0)
    with (
        locked(world.database, log=world.platform.log, **hold),
        pytest.raises(MigrationError, match=said),
    ):
        apply_ddl(world.scope, platform=world.platform, database=world.database, author="Bob", wait=now)
    assert not Path(any_world.uri("gold.stations")).exists()

    any_world.apply()
    assert Path(any_world.uri("gold.stations")).exists()


def test_a_mended_statement_goes_on_where_the_migration_failed(any_world: World) -> None:
    any_world.write("0001_stations.sql", STATIONS)
    any_world.apply()
    any_world.fill("gold.stations", [{"station_id": 1, "name": None, "capacity": 5, "price": None}])
    file = any_world.write(
        "0002_two.sql",
        "ALTER TABLE gold.stations ADD COLUMN city VARCHAR;\n"
        "ALTER TABLE gold.stations ADD CONSTRAINT c CHECK (capacity > 9);",
    )
    assert (
        "0002_two.sql:2: statement 2 failed; what stands before it is made, and stays (1 of 2)" in any_world.refusal()
    )
    (_, row) = any_world.status().applied
    assert (row.status, row.done) == ("failed", 1)

    file.write_text(file.read_text().replace("> 9", "> 1"))
    said = any_world.apply()

    assert len(said) == 1
    assert any_world.delta("gold.stations").metadata().configuration == {"delta.constraints.c": "capacity > 1"}
    assert [row.status for row in any_world.status().applied] == ["applied", "applied"]


def test_a_statement_that_is_made_cannot_be_edited_in_a_failed_migration(world: World) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    world.fill("gold.stations", [{"station_id": 1, "name": None, "capacity": 5, "price": None}])
    file = world.write(
        "0002_two.sql",
        "ALTER TABLE gold.stations ADD COLUMN city VARCHAR;\n"
        "ALTER TABLE gold.stations ADD CONSTRAINT c CHECK (capacity > 9);",
    )
    world.refusal()
    file.write_text(file.read_text().replace("city", "town"))

    assert _without_times(world.refusal()) == (
        "mobility/ddl/mobility/0002_two.sql:1: statement 1 of migration 0002 is made already, but was edited\n"
        "  1 of 2 statements were made in environment 'test' on <day> by Ada <ada@example.com>\n"
        "  put its text back; what was not made yet may be mended"
    )


def test_a_lost_control_database_is_filled_again_from_the_tables(world: World) -> None:
    world.write("0001_stations.sql", STATIONS + "\nCOMMENT ON TABLE gold.stations IS 'x';")
    world.write("0002_view.sql", "CREATE VIEW gold.names AS SELECT name FROM gold.stations;")
    world.apply()
    version = world.delta("gold.stations").version()
    for file in (world.root / "state").glob("control.db*"):
        file.unlink()

    assert world.apply() == []

    assert [(row.name, row.status) for row in world.status().applied] == [
        ("0001_stations", "applied"),
        ("0002_view", "applied"),
    ]
    assert world.delta("gold.stations").version() == version


def test_an_edit_is_noticed_by_the_tables_where_the_control_database_was_lost(world: World) -> None:
    file = world.write("0001_stations.sql", STATIONS)
    world.apply()
    for each in (world.root / "state").glob("control.db*"):
        each.unlink()
    file.write_text(file.read_text().replace("capacity", "places"))

    assert "statement 1 of migration 0001 was edited after it had changed this table" in world.refusal()


def test_the_reason_of_an_approval_is_kept(any_world: World) -> None:
    any_world.write("0001_stations.sql", STATIONS)
    any_world.write("0002_drop.sql", "ALTER TABLE gold.stations DROP COLUMN price;")

    assert any_world.refusal() == (
        "1 of 2 migrations would destroy something; nothing was applied\n"
        "  mobility/ddl/mobility/0002_drop.sql: loses column mobility.gold.stations.price\n"
        '  if that is meant, say why: edp ddl apply --env test --approve "<reason>"'
    )
    assert any_world.status().applied == ()

    any_world.apply(approve="prices moved to crm")

    assert [row.approved for row in any_world.status().applied] == [None, "prices moved to crm"]
