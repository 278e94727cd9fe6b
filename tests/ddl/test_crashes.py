"""Processes that end in the middle of a migration, and those that go on after them."""

from __future__ import annotations

import pytest

from platform_core.faults import DdlPoint
from tests.ddl.conftest import Appliers, World

FOUR = """
    CREATE TABLE gold.stations (station_id BIGINT NOT NULL, capacity INTEGER, old VARCHAR);
    ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity >= 0 OR capacity IS NULL);
    CREATE VIEW gold.large AS SELECT station_id FROM gold.stations WHERE capacity > 10;
    ALTER TABLE gold.stations ALTER COLUMN capacity TYPE BIGINT;
    """
KILLED = -9
KILLS = [
    *((DdlPoint.BEGUN, 1), (DdlPoint.BEFORE_END, 1)),
    *((point, nth) for nth in (1, 2, 3, 4) for point in (DdlPoint.BEFORE_STATEMENT, DdlPoint.AFTER_STATEMENT)),
]


@pytest.mark.parametrize(("point", "nth"), KILLS)
def test_a_killed_migration_converges_when_it_is_applied_again(
    world: World, appliers: Appliers, point: DdlPoint, nth: int
) -> None:
    """FAULTS C6: killed at any point, and each statement is made once."""
    world.write("0001_four.sql", FOUR)

    killed = appliers.one(world.job(fault=f"{point}:kill:{nth}"))
    assert killed.code == KILLED, killed
    again = appliers.one(world.job())

    assert again.code == 0, again
    (row,) = world.status().applied
    assert (row.status, row.done) == ("applied", 4)
    # One commit for each statement about the table, and none twice.
    assert world.delta("gold.stations").version() == 2
    assert world.columns("gold.stations") == {
        "station_id": "long!",
        "capacity": "long",
        "old": "string",
    }
    assert world.plan().migrations == ()


def test_a_drop_that_was_made_and_not_written_down_is_recognised(world: World, appliers: Appliers) -> None:
    world.write("0001_a.sql", "CREATE TABLE gold.a (id BIGINT);\nCREATE TABLE gold.b (id BIGINT);")
    world.apply()
    world.write("0002_drop.sql", "DROP TABLE gold.a;\nCOMMENT ON TABLE gold.b IS 'x';")

    killed = appliers.one(world.job(fault=f"{DdlPoint.AFTER_STATEMENT}:kill:1", approve="a test"))
    assert killed.code == KILLED, killed
    again = appliers.one(world.job())

    assert again.code == 0, again
    assert world.delta("gold.b").metadata().description == "x"
    assert world.status().applied[1].approved == "a test"


def test_a_full_disk_leaves_the_table_and_the_rest_is_applied_later(world: World, appliers: Appliers) -> None:
    world.write("0001_four.sql", FOUR)

    failed = appliers.one(world.job(fault=f"{DdlPoint.BEFORE_STATEMENT}:enospc:2"))

    assert failed.code != 0
    (row,) = world.status().applied
    assert (row.status, row.done) == ("failed", 1)
    assert row.error == "OSError: No space left on device"
    assert appliers.one(world.job()).code == 0
    assert world.delta("gold.stations").version() == 2


def test_processes_that_apply_at_once_make_everything_once(any_world: World, appliers: Appliers) -> None:
    any_world.write("0001_four.sql", FOUR)
    any_world.write("0002_more.sql", "ALTER TABLE gold.stations ADD COLUMN floor VARCHAR;")

    ended = appliers.run(*(any_world.job() for _ in range(4)))

    assert [each.code for each in ended] == [0, 0, 0, 0], ended
    assert sum(statements for each in ended for _, statements in each.made) == 5
    assert any_world.delta("gold.stations").version() == 3


def test_another_writer_between_plan_and_change_is_met_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_core.lake import table_changes

    world.write("0001_four.sql", FOUR)
    world.apply()
    world.write("0002_widen.sql", "ALTER TABLE gold.stations ALTER COLUMN station_id TYPE DECIMAL(20, 0);")
    rewrite, met = table_changes._rewrite, []

    def interrupted(*given: object, **more: object) -> int:
        if not met:
            met.append(1)
            world.fill("gold.stations", [{"station_id": 5, "capacity": 50, "old": None}])
        return rewrite(*given, **more)

    monkeypatch.setattr(table_changes, "_rewrite", interrupted)
    world.apply()

    assert [int(row["station_id"]) for row in world.by_delta("gold.stations")] == [5]
    assert world.columns("gold.stations")["station_id"] == "decimal(20,0)!"


def test_a_load_under_way_looks_again_after_a_comment_on_its_table(world: World) -> None:
    from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
    from deltalake.exceptions import CommitFailedError
    from deltalake.schema import PrimitiveType

    from platform_core.control.ddl_catalog import Maker
    from platform_core.lake.delta import batch_of
    from platform_core.specs.table import TableRef

    uri = world.uri("bronze.rides")
    DeltaTable.create(
        uri,
        Schema([Field("id", PrimitiveType("long"))]),
        commit_properties=CommitProperties(app_transactions=[Transaction("edp", 41)]),
    )
    world.makers[TableRef("mobility", "bronze", "rides")] = Maker.INGESTION
    world.write("0001_comment.sql", "COMMENT ON COLUMN bronze.rides.id IS 'key';")
    load = DeltaTable(uri)

    world.apply()

    assert batch_of(DeltaTable(uri)) == 41
    with pytest.raises(CommitFailedError):
        load.create_write_transaction(
            [],
            mode="append",
            schema=load.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction("edp", 42)], max_commit_retries=0),
        )
