"""Changes of Delta tables, read back by delta-rs and by DuckDB."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.control.ddl_catalog import Maker
from platform_core.errors import LoadError
from platform_core.lake.delta import write
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef
from tests.ddl.conftest import STATIONS, World, both_read

REF = TableRef("mobility", "gold", "stations")
ROWS = [
    {"station_id": 1, "name": "Kade", "capacity": 20, "price": Decimal("1.50")},
    {"station_id": 2, "name": None, "capacity": None, "price": None},
]


@pytest.fixture
def filled(world: World) -> World:
    """A table with two rows in two files, made by migration 1."""
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    for row in ROWS:
        world.fill("gold.stations", [row])
    return world


def _change(world: World, sql: str, *, approve: str | None = None) -> int:
    """Apply one more migration; returns how many commits it made."""
    before = world.delta("gold.stations").version()
    number = len(list((world.package / "ddl" / "mobility").iterdir())) + 1
    world.write(f"{number:04d}_change.sql", sql)
    world.apply(approve=approve)
    return world.delta("gold.stations").version() - before


def test_a_table_is_made_with_columns_partitions_comments_and_properties(world: World) -> None:
    world.write(
        "0001_days.sql",
        """
        CREATE TABLE gold.days (
          day DATE, station_id BIGINT NOT NULL COMMENT 'key', at TIMESTAMP, seen TIMESTAMPTZ,
          names VARCHAR[], place STRUCT(lat DOUBLE, lon DOUBLE), labels MAP(VARCHAR, INTEGER)
        ) PARTITIONED BY (day) COMMENT 'One row a day'
        TBLPROPERTIES ('delta.checkpointInterval' = '20', 'team' = 'mobility');
        """,
    )

    world.apply()

    table = world.delta("gold.days")
    assert world.columns("gold.days")["station_id"] == "long!"
    assert world.columns("gold.days")["at"] == "timestamp_ntz"
    assert world.columns("gold.days")["seen"] == "timestamp"
    assert table.metadata().partition_columns == ["day"]
    assert table.metadata().description == "One row a day"
    assert table.metadata().configuration == {"delta.checkpointInterval": "20", "team": "mobility"}
    assert table.schema().fields[1].metadata == {"comment": "key"}


def test_rows_of_a_partitioned_table_are_read_by_both(world: World) -> None:
    world.write("0001_days.sql", "CREATE TABLE gold.days (day DATE, rides BIGINT) PARTITIONED BY (day);")
    world.apply()
    rows = [{"day": dt.date(2026, 1, day), "rides": day} for day in (1, 2)]

    world.fill("gold.days", rows)

    key = lambda row: row["rides"]  # noqa: E731 - DuckDB reads partition columns last
    assert sorted(world.by_delta("gold.days"), key=key) == sorted(world.by_duckdb("gold.days"), key=key) == rows


def test_a_new_column_is_null_in_old_rows_and_rewrites_nothing(filled: World) -> None:
    before = set(filled.delta("gold.stations").file_uris())

    commits = _change(
        filled, "ALTER TABLE gold.stations ADD COLUMN city VARCHAR COMMENT 'where', ADD COLUMN floor INTEGER;"
    )

    assert commits == 1
    assert set(filled.delta("gold.stations").file_uris()) == before
    assert filled.columns("gold.stations")["city"] == "string"
    assert filled.by_delta("gold.stations")[0]["city"] is None


@pytest.mark.parametrize(
    ("column", "type_", "written", "value"),
    [
        ("capacity", "BIGINT", "long", 20),
        ("capacity", "DOUBLE", "double", 20.0),
        ("price", "DECIMAL(10, 3)", "decimal(10,3)", Decimal("1.500")),
    ],
)
def test_a_wider_type_takes_one_commit_and_no_approval(
    filled: World, column: str, type_: str, written: str, value: object
) -> None:
    commits = _change(filled, f"ALTER TABLE gold.stations ALTER COLUMN {column} TYPE {type_};")

    assert commits == 1
    assert filled.columns("gold.stations")[column] == written
    assert filled.columns("gold.stations")["station_id"] == "long!"
    assert filled.delta("gold.stations").schema().fields[0].metadata == {"comment": "key of the operator"}
    both_read(filled, "gold.stations", [{**ROWS[0], column: value}, ROWS[1]])


def test_a_narrower_type_needs_approval_and_keeps_values_that_fit(filled: World) -> None:
    filled.write("0002_narrow.sql", "ALTER TABLE gold.stations ALTER COLUMN station_id TYPE INTEGER;")
    assert "--approve" in filled.refusal()

    filled.apply(approve="ids are small")

    both_read(filled, "gold.stations", ROWS)
    assert filled.columns("gold.stations")["station_id"] == "integer!"


def test_a_value_that_does_not_fit_leaves_the_table_and_shows_no_value(filled: World) -> None:
    filled.fill("gold.stations", [{"station_id": 8_888_888_888, "name": "Far", "capacity": 1, "price": None}])
    version = filled.delta("gold.stations").version()
    filled.write("0002_narrow.sql", "ALTER TABLE gold.stations ALTER COLUMN station_id TYPE INTEGER;")

    said = filled.refusal(approve="ids are small")

    assert said == (
        "mobility/ddl/mobility/0002_narrow.sql:1: statement 1 failed; nothing is made\n"
        "  mobility.gold.stations: column 'station_id' holds a value that int32 cannot hold; nothing was changed\n"
        "    it is int64 now\n    mend the rows first, or choose a wider type\n"
        "  mend what is wrong, or this statement, and apply again: it goes on from here"
    )
    assert filled.delta("gold.stations").version() == version
    assert "8888888888" not in str(filled.status())


def test_rename_and_drop_are_rewrites_without_column_mapping(filled: World) -> None:
    commits = _change(
        filled,
        """
        ALTER TABLE gold.stations RENAME COLUMN name TO title;
        ALTER TABLE gold.stations ADD COLUMN city VARCHAR, ADD COLUMN floor VARCHAR;
        ALTER TABLE gold.stations DROP COLUMN price, DROP COLUMN floor;
        """,
        approve="prices moved",
    )

    assert commits == 3
    assert "delta.columnMapping.mode" not in filled.delta("gold.stations").metadata().configuration
    both_read(
        filled,
        "gold.stations",
        [
            {"station_id": row["station_id"], "title": row["name"], "capacity": row["capacity"], "city": None}
            for row in ROWS
        ],
    )


def test_a_rewrite_keeps_comment_properties_constraints_and_partitions(world: World) -> None:
    world.write(
        "0001_days.sql",
        """
        CREATE TABLE gold.days (day DATE, rides INTEGER, old VARCHAR) PARTITIONED BY (day)
        COMMENT 'days' TBLPROPERTIES ('team' = 'mobility');
        ALTER TABLE gold.days ADD CONSTRAINT some CHECK (rides >= 0);
        """,
    )
    world.apply()
    world.fill("gold.days", [{"day": dt.date(2026, 1, 1), "rides": 3, "old": "x"}])
    world.write("0002_drop.sql", "ALTER TABLE gold.days DROP COLUMN old;")

    world.apply(approve="unused")

    metadata = world.delta("gold.days").metadata()
    assert metadata.partition_columns == ["day"]
    assert metadata.description == "days"
    assert metadata.configuration == {"team": "mobility", "delta.constraints.some": "rides >= 0"}


def test_not_null_is_refused_while_there_are_nulls_and_kept_afterwards(filled: World) -> None:
    filled.write("0002_not_null.sql", "ALTER TABLE gold.stations ALTER COLUMN name SET NOT NULL;")
    assert "column 'name' holds nulls, so it cannot be NOT NULL; nothing was changed" in filled.refusal()
    write_deltalake(
        filled.delta("gold.stations"),
        pa.table({**{k: [v] for k, v in ROWS[0].items()}}).cast(
            pa.schema(
                [
                    ("station_id", pa.int64()),
                    ("name", pa.string()),
                    ("capacity", pa.int32()),
                    ("price", pa.decimal128(6, 2)),
                ]
            )
        ),
        mode="overwrite",
    )

    filled.apply()

    assert filled.columns("gold.stations")["name"] == "string!"


def test_not_null_can_be_taken_back_with_approval(filled: World) -> None:
    commits = _change(filled, "ALTER TABLE gold.stations ALTER COLUMN station_id DROP NOT NULL;", approve="imports")

    assert commits == 1
    assert filled.columns("gold.stations")["station_id"] == "long"
    both_read(filled, "gold.stations", ROWS)


def test_a_constraint_holds_for_later_writes_until_it_is_dropped(filled: World) -> None:
    _change(filled, "ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity > 0 OR capacity IS NULL);")
    bad = pa.table(
        {
            "station_id": [3],
            "name": ["X"],
            "capacity": pa.array([-1], pa.int32()),
            "price": pa.array([None], pa.decimal128(6, 2)),
        }
    )

    with pytest.raises(LoadError, match="break a CHECK constraint or NOT NULL") as caught:
        write(bad.to_reader(), table=REF, uri=filled.uri("gold.stations"), storage_options={}, mode=WriteMode.APPEND)
    assert "-1" not in str(caught.value)

    _change(filled, "ALTER TABLE gold.stations DROP CONSTRAINT room;", approve="sheds have none")
    write(bad.to_reader(), table=REF, uri=filled.uri("gold.stations"), storage_options={}, mode=WriteMode.APPEND)
    assert len(filled.by_delta("gold.stations")) == 3


def test_null_breaks_a_constraint_unless_it_is_allowed(filled: World) -> None:
    filled.write("0002_room.sql", "ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity > 0);")

    assert "rows of the table break the constraint 'room'" in filled.refusal()


def test_a_constraint_that_rows_break_is_refused_without_showing_them(filled: World) -> None:
    filled.write("0002_room.sql", "ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity > 100);")
    version = filled.delta("gold.stations").version()

    said = filled.refusal()

    assert "rows of the table break the constraint 'room'; nothing was changed" in said
    assert "Kade" not in said
    assert filled.delta("gold.stations").version() == version


def test_comments_and_properties_are_a_commit_each(filled: World) -> None:
    commits = _change(
        filled,
        """
        COMMENT ON TABLE gold.stations IS 'Where bikes are';
        COMMENT ON COLUMN gold.stations.name IS 'As on the map';
        ALTER TABLE gold.stations ALTER COLUMN price COMMENT 'EUR';
        ALTER TABLE gold.stations SET TBLPROPERTIES ('delta.checkpointInterval' = '30');
        """,
    )

    table = filled.delta("gold.stations")
    assert commits == 4
    assert table.metadata().description == "Where bikes are"
    assert {each.name: each.metadata.get("comment") for each in table.schema().fields} == {
        "station_id": "key of the operator",
        "name": "As on the map",
        "capacity": None,
        "price": "EUR",
    }
    assert table.metadata().configuration == {"delta.checkpointInterval": "30"}
    both_read(filled, "gold.stations", ROWS)


def test_no_change_adds_features_that_other_readers_refuse(world: World) -> None:
    world.write(
        "0001_all.sql",
        """
        CREATE TABLE gold.a (id BIGINT NOT NULL, n INTEGER, at TIMESTAMP);
        ALTER TABLE gold.a ADD COLUMN b VARCHAR;
        ALTER TABLE gold.a ADD CONSTRAINT c CHECK (n > 0);
        ALTER TABLE gold.a RENAME COLUMN b TO d;
        ALTER TABLE gold.a ALTER COLUMN id DROP NOT NULL;
        COMMENT ON TABLE gold.a IS 'x';
        """,
    )

    world.apply(approve="a test")

    protocol = world.delta("gold.a").protocol()
    assert protocol.reader_features == ["timestampNtz"]
    assert sorted(protocol.writer_features or []) == ["checkConstraints", "timestampNtz"]


def test_a_dropped_table_is_moved_aside_and_can_be_moved_back(filled: World) -> None:
    filled.write("0002_drop.sql", "DROP TABLE gold.stations;")
    assert "loses table mobility.gold.stations and its history" in filled.refusal()

    filled.apply(approve="replaced by crm")

    folder = Path(filled.uri("gold.stations"))
    assert not folder.exists()
    (kept,) = (folder.parent / ".dropped").iterdir()
    assert pa.table(DeltaTable(str(kept)).scan()).num_rows == 2


def test_a_table_can_be_dropped_and_made_anew_in_one_migration(filled: World) -> None:
    filled.write("0002_anew.sql", "DROP TABLE gold.stations;\nCREATE TABLE gold.stations (id INTEGER);")

    filled.apply(approve="new model")

    assert filled.columns("gold.stations") == {"id": "integer"}
    assert filled.plan().migrations == ()


def test_a_step_that_overwrites_keeps_comments_and_not_null_of_columns_that_stay(filled: World) -> None:
    rows = pa.table({"station_id": pa.array([7], pa.int64()), "name": ["New"], "seats": [4]})

    write(rows.to_reader(), table=REF, uri=filled.uri("gold.stations"), storage_options={}, mode=WriteMode.OVERWRITE)

    assert filled.columns("gold.stations") == {"station_id": "long!", "name": "string", "seats": "long"}
    assert filled.delta("gold.stations").schema().fields[0].metadata == {"comment": "key of the operator"}


def test_a_step_that_overwrites_with_nulls_where_none_may_be_is_told_so(filled: World) -> None:
    rows = pa.table({"station_id": pa.array([7, None], pa.int64()), "name": ["New", "Old"]})

    with pytest.raises(LoadError, match="break a CHECK constraint or NOT NULL"):
        write(
            rows.to_reader(), table=REF, uri=filled.uri("gold.stations"), storage_options={}, mode=WriteMode.OVERWRITE
        )

    both_read(filled, "gold.stations", ROWS)


def test_a_merge_step_writes_into_a_table_of_a_migration(world: World) -> None:
    world.makers[REF] = Maker.KEPT
    world.write("0001_stations.sql", STATIONS)
    world.apply()
    schema = pa.schema(
        [("station_id", pa.int64()), ("name", pa.string()), ("capacity", pa.int32()), ("price", pa.decimal128(6, 2))]
    )

    write(
        pa.Table.from_pylist(ROWS, schema=schema).to_reader(),
        table=REF,
        uri=world.uri("gold.stations"),
        storage_options={},
        mode=WriteMode.MERGE,
        key=("station_id",),
    )

    both_read(world, "gold.stations", ROWS)
