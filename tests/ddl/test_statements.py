"""What a statement may not say, and the words in which that is told."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType

from platform_core.control.ddl_catalog import Maker
from platform_core.errors import MigrationError
from platform_core.specs.table import TableRef
from tests.ddl.conftest import STATIONS, World

BRONZE = TableRef("mobility", "bronze", "rides")
COLUMNS = "columns: station_id, name, capacity, price"
ALLOWED = "allowed: CREATE TABLE, CREATE VIEW, ALTER TABLE, COMMENT ON, DROP TABLE, DROP VIEW"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Tables of every kind: a migration's, an ingestion's, of steps, and one that Spark maps columns of."""
    world = World(tmp_path_factory.mktemp("world"))
    world.write("0001_stations.sql", STATIONS)
    world.write("0002_more.sql", "CREATE TABLE gold.days (day DATE, rides BIGINT) PARTITIONED BY (day);")
    world.write("0003_more.sql", "ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity > 0);")
    world.write(
        "0004_more.sql", "CREATE TABLE gold.moments (at TIMESTAMP);\nCREATE VIEW gold.v AS SELECT * FROM gold.days;"
    )
    world.apply()
    for name in ("bronze.rides", "silver.kept", "silver.replaced"):
        DeltaTable.create(world.uri(name), Schema([Field("id", PrimitiveType("long"))]))
    world.makers |= {
        BRONZE: Maker.INGESTION,
        TableRef("mobility", "silver", "kept"): Maker.KEPT,
        TableRef("mobility", "silver", "replaced"): Maker.REPLACED,
        TableRef("mobility", "silver", "later"): Maker.REPLACED,
    }
    return world


def _said(world: World, sql: str) -> list[str]:
    file = world.write("0005_try.sql", sql)
    try:
        with pytest.raises(MigrationError) as caught:
            world.plan()
        return str(caught.value).replace(f"{world.root}/", "").splitlines()
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM gold.days", ["a migration of the lake cannot say DELETE FROM", ALLOWED]),
        ("INSERT INTO gold.days VALUES (1)", ["a migration of the lake cannot say INSERT INTO", ALLOWED]),
        ("GRANT SELECT ON gold.days TO bob", ["a migration of the lake cannot say GRANT SELECT", ALLOWED]),
        ("SELECT 1", ["a migration of the lake cannot say SELECT 1", ALLOWED]),
        ("ATTACH 'x.db'", ["a migration of the lake cannot say ATTACH 'X.DB'", ALLOWED]),
        ("CREATE SCHEMA x", ["a migration of the lake cannot say CREATE SCHEMA", ALLOWED]),
        ("CREATE INDEX i ON gold.days (day)", ["a migration of the lake cannot say CREATE INDEX", ALLOWED]),
        ("VACUUM gold.days", ["a migration of the lake cannot say VACUUM GOLD.DAYS", ALLOWED]),
        (
            "CREATE TABLE gold.x AS SELECT 1 AS a",
            ["a migration makes empty tables", "let a step write the rows: its SQL is the SELECT"],
        ),
        (
            "CREATE OR REPLACE TABLE gold.x (a INTEGER)",
            ["CREATE OR REPLACE TABLE would drop the rows", "write DROP TABLE and CREATE TABLE"],
        ),
        (
            "CREATE TABLE IF NOT EXISTS gold.x (a INTEGER)",
            ["IF NOT EXISTS hides what a migration does", "write CREATE TABLE: it is made once, and recorded"],
        ),
        (
            "CREATE TABLE gold.days (a INTEGER)",
            ["table 'mobility.gold.days' exists already", "columns: day, rides", "change it with ALTER TABLE"],
        ),
        (
            "CREATE TABLE crm.gold.x (a INTEGER)",
            [
                "'crm.gold.x' belongs to workstream 'crm'; this migration is of 'mobility'",
                "change it in ddl/crm/ of the location that holds that workstream",
            ],
        ),
        ("CREATE TABLE x (a INTEGER)", ["'x' is no table of the lake", "write layer.name, such as gold.x"]),
        (
            "CREATE TABLE landing.x (a INTEGER)",
            ["'mobility.landing.x': layer 'landing' belongs to the platform", "use silver, gold or one of your own"],
        ),
        (
            "CREATE TABLE bronze.x (a INTEGER)",
            [
                "'mobility.bronze.x': bronze tables are made by ingestion alone",
                "use silver, gold or a layer of your own",
            ],
        ),
        ("CREATE TABLE gold.x (a INTEGER, A VARCHAR)", ["column 'a' stands twice"]),
        (
            'CREATE TABLE gold.x ("a b" INTEGER)',
            [
                "column 'a b' has a name that Delta tables cannot have",
                "no spaces, quotes or any of , ; { } ( ) =, and at most 128 characters",
            ],
        ),
        (
            "CREATE TABLE gold.x (a UUID)",
            ["the lake has no type UUID", "write VARCHAR"],
        ),
        (
            "CREATE TABLE gold.x (a DECIMAL(5))",
            ["type DECIMAL(5) needs its digits", "write DECIMAL(<digits>, <of them behind the point>)"],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER PRIMARY KEY)",
            ["column 'a': the lake keeps no PRIMARY KEY", "a column has a type, NOT NULL and COMMENT"],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER DEFAULT 3)",
            ["column 'a': the lake keeps no DEFAULT 3", "a column has a type, NOT NULL and COMMENT"],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER, CHECK (a > 0))",
            [
                "a table of the lake has no CHECKCOLUMNCONSTRAINT among its columns",
                "a condition is a statement of its own: ALTER TABLE … ADD CONSTRAINT <name> CHECK (…)",
            ],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER) PARTITIONED BY (b)",
            ["PARTITIONED BY: no column 'b'", "columns: a"],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER) PARTITIONED BY (a)",
            ["PARTITIONED BY names every column", "at least one column must be in the files"],
        ),
        (
            "CREATE TABLE gold.x (a INTEGER) TBLPROPERTIES ('delta.checkpointInterval' = 'often')",
            ["property 'delta.checkpointInterval' cannot be 'often'", "an example: '20'"],
        ),
        (
            "ALTER TABLE gold.statons ADD COLUMN a INTEGER",
            [
                "there is no table 'mobility.gold.statons'",
                "known tables: mobility.bronze.rides, mobility.gold.days, mobility.gold.moments, "
                "mobility.gold.stations, mobility.gold.v, mobility.silver.kept, mobility.silver.later, "
                "mobility.silver.replaced",
                "did you mean 'mobility.gold.stations'?",
                "make it in an earlier migration",
            ],
        ),
        (
            "ALTER TABLE gold.v ADD COLUMN a INTEGER",
            ["'mobility.gold.v' is a view, not a table", "use CREATE OR REPLACE VIEW to change it"],
        ),
        (
            "ALTER TABLE silver.later ADD COLUMN a INTEGER",
            [
                "table 'mobility.silver.later' is declared, but was not built yet",
                "run what makes it first, then apply again",
            ],
        ),
        (
            "ALTER TABLE gold.stations ADD COLUMN name VARCHAR",
            ["table 'mobility.gold.stations' has a column 'name' already", COLUMNS],
        ),
        (
            "ALTER TABLE gold.stations ADD COLUMN city VARCHAR NOT NULL",
            [
                "column 'city': rows that are there have no value for it, so it cannot be NOT NULL",
                "add it without NOT NULL, fill it, then ALTER COLUMN … SET NOT NULL",
            ],
        ),
        (
            "ALTER TABLE gold.stations DROP COLUMN nme",
            ["table 'mobility.gold.stations' has no column 'nme'", COLUMNS, "did you mean 'name'?"],
        ),
        (
            "ALTER TABLE gold.stations DROP COLUMN capacity",
            [
                "constraint 'room' names 'capacity', which therefore cannot be dropped: capacity > 0",
                "ALTER TABLE gold.stations DROP CONSTRAINT room before, and add it again behind",
            ],
        ),
        (
            "ALTER TABLE gold.days RENAME COLUMN day TO at",
            [
                "'mobility.gold.days' is partitioned by 'day', which therefore cannot be renamed",
                "make a table with other partitions, and let a step copy the rows",
            ],
        ),
        (
            "ALTER TABLE gold.stations ALTER COLUMN capacity TYPE INTEGER",
            ["column 'capacity' of 'mobility.gold.stations' is int32 already"],
        ),
        (
            "ALTER TABLE gold.stations ADD CONSTRAINT c CHECK (regexp_matches(name, 'x'))",
            [
                "a CHECK constraint cannot hold REGEXPLIKE: not every engine that writes the table knows it",
                "allowed: comparisons, AND, OR, NOT, IN (…), BETWEEN, LIKE, IS NULL, + - *, length(…), "
                "CAST to a plain type",
            ],
        ),
        (
            "ALTER TABLE gold.stations ADD CONSTRAINT c CHECK (places > 0)",
            ["table 'mobility.gold.stations' has no column 'places'", COLUMNS],
        ),
        (
            "ALTER TABLE gold.stations ADD CONSTRAINT room CHECK (capacity > 1)",
            ["'mobility.gold.stations' has a constraint 'room' already", "drop it first"],
        ),
        (
            "ALTER TABLE gold.stations ADD PRIMARY KEY (station_id)",
            ["a constraint has a name and a CHECK", "ADD CONSTRAINT positive CHECK (price > 0)"],
        ),
        (
            "ALTER TABLE gold.stations DROP CONSTRAINT romm",
            ["'mobility.gold.stations' has no constraint 'romm'", "constraints: room"],
        ),
        (
            "ALTER TABLE gold.stations SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
            [
                "property 'delta.columnMapping.mode' cannot be set: delta-rs cannot write such a table; RENAME and "
                "DROP COLUMN work without it",
                "known: delta.logRetentionDuration, delta.deletedFileRetentionDuration, delta.checkpointInterval, "
                "delta.dataSkippingNumIndexedCols, delta.dataSkippingStatsColumns, delta.targetFileSize, "
                "delta.enableExpiredLogCleanup",
            ],
        ),
        (
            "ALTER TABLE gold.moments SET TBLPROPERTIES ('team' = 'mobility')",
            [
                "properties of 'mobility.gold.moments' can no longer be set: it has table features (such as columns "
                "without time zone), and delta-rs would then mark it with features that other readers refuse",
                "give the properties in CREATE TABLE",
            ],
        ),
        (
            "ALTER TABLE bronze.rides ADD COLUMN a INTEGER",
            [
                "'mobility.bronze.rides' is written by ingestion: its columns follow the source, and its loads look at "
                "no constraint",
                "on bronze a migration may say COMMENT ON and SET TBLPROPERTIES",
                "new or wider columns: see 'schema' of the table in control/ingestion; conditions: a check of a step",
            ],
        ),
        (
            "ALTER TABLE silver.replaced ADD COLUMN a INTEGER",
            [
                "'mobility.silver.replaced' is replaced as a whole whenever what makes it runs: its columns are those "
                "of that query",
                "change the query; comments, NOT NULL and constraints of a migration stay as long as the columns do",
            ],
        ),
        (
            "DROP TABLE silver.kept",
            ["'mobility.silver.kept' is written by what makes it, which would make it again", "remove the step first"],
        ),
        (
            "DROP TABLE gold.days CASCADE",
            ["CASCADE hides what else goes", "drop the views that read it first, one by one"],
        ),
        (
            "DROP VIEW gold.days",
            [
                "'mobility.gold.days' is a table, not a view",
                "say TABLE where it says VIEW",
            ],
        ),
        (
            "CREATE VIEW gold.w AS SELECT * FROM read_parquet('/etc/x')",
            [
                "table function 'read_parquet' is not allowed; allowed are generate_series, json_each, json_tree, "
                "range, repeat, unnest",
            ],
        ),
        ("CREATE VIEW gold.w AS SELECT $a AS a", ["a view has no parameters: $a", "put the value in"]),
        (
            "CREATE VIEW gold.v AS SELECT day FROM gold.days",
            ["view 'mobility.gold.v' exists already", "write CREATE OR REPLACE VIEW"],
        ),
        (
            "CREATE TEMP VIEW gold.w AS SELECT 1 AS a",
            ["a view of the lake cannot be TEMPORARY", "write CREATE VIEW … AS SELECT …"],
        ),
        (
            "COMMENT ON COLUMN name IS 'x'",
            ["COMMENT ON COLUMN needs the table", "COMMENT ON COLUMN gold.stations.name IS '…'"],
        ),
        ("ALTER TABLE gold.stations ADD COLUMN", ["cannot be read as SQL"]),
        ("CREATE TABLE gold.x (a INTEGER", ["cannot be read as SQL"]),
    ],
)
def test_what_cannot_be_said_is_told_with_what_to_do(built: World, sql: str, said: list[str]) -> None:
    version = built.delta("gold.stations").version()
    first, *more = _said(built, sql)

    place = "mobility/ddl/mobility/0005_try.sql:"
    assert first.startswith(place)
    told = [first.removeprefix(place).partition(": ")[2], *(line.strip() for line in more)]
    if said == ["cannot be read as SQL"]:
        assert told[0].startswith(("cannot be read as SQL", "this ALTER TABLE is not known"))
    else:
        assert told == said
    assert built.delta("gold.stations").version() == version


def test_a_quote_that_is_not_closed_is_told(built: World) -> None:
    said = _said(built, "CREATE TABLE gold.x (a VARCHAR COMMENT 'b)")

    assert said == ["mobility/ddl/mobility/0005_try.sql: cannot be read as SQL: a quote or comment is not closed"]


def test_the_line_is_that_of_the_statement(built: World) -> None:
    first = _said(
        built, "-- one\nCOMMENT ON TABLE gold.days IS 'a;b';\n\n/* two\n lines */\nDROP TABLE gold.nothing;\n"
    )[0]

    assert first == "mobility/ddl/mobility/0005_try.sql:6: there is no table 'mobility.gold.nothing'"


def test_the_line_within_a_view_is_that_of_its_query(built: World) -> None:
    first = _said(built, "CREATE VIEW gold.w AS\nSELECT day\nFROM stations;")[0]

    assert first == (
        "mobility/ddl/mobility/0005_try.sql:3: 'stations' is no table: write layer.name or workstream.layer.name"
    )


def test_nothing_of_a_plan_is_applied_where_its_last_statement_is_refused(built: World) -> None:
    version = built.delta("gold.days").version()

    _said(built, "COMMENT ON TABLE gold.days IS 'x';\nDROP TABLE gold.nothing;")

    assert built.delta("gold.days").version() == version


@pytest.mark.parametrize(
    "sql",
    [
        "COMMENT ON TABLE bronze.rides IS 'as the operator sends them'",
        "COMMENT ON COLUMN bronze.rides.id IS 'key'",
        "ALTER TABLE bronze.rides SET TBLPROPERTIES ('team' = 'mobility')",
        "ALTER TABLE silver.kept ADD COLUMN a INTEGER",
        "ALTER TABLE silver.kept ADD CONSTRAINT c CHECK (id > 0)",
        "ALTER TABLE silver.replaced ADD CONSTRAINT c CHECK (id > 0)",
        "ALTER TABLE silver.replaced ALTER COLUMN id SET NOT NULL",
        "CREATE TABLE silver.later (id BIGINT NOT NULL)",
    ],
)
def test_what_may_be_said_of_tables_that_others_write(built: World, sql: str) -> None:
    file = built.write("0005_try.sql", sql)
    try:
        assert len(built.plan().migrations) == 1
    finally:
        file.unlink()


def test_a_table_with_column_mapping_is_left_to_the_engine_that_writes_it(world: World) -> None:
    import json
    from pathlib import Path

    world.write("0001_stations.sql", "CREATE TABLE gold.mapped (a INTEGER);")
    world.apply()
    log = Path(world.uri("gold.mapped")) / "_delta_log" / f"{0:020d}.json"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "metaData" in entry:
            entry["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    log.write_text("\n".join(map(json.dumps, entries)) + "\n")
    world.write("0002_add.sql", "ALTER TABLE gold.mapped ADD COLUMN b INTEGER;")

    assert world.refusal() == (
        "mobility/ddl/mobility/0002_add.sql:1: the columns of 'mobility.gold.mapped' cannot be changed: it has "
        "columnMapping, which delta-rs cannot write\n"
        "  change it with the engine that writes it (Spark), or rewrite it once without that feature"
    )
