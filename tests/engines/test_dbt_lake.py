"""Lake tables as dbt sources."""

from __future__ import annotations

import base64
import json
import string
import struct
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from dbt.adapters.duckdb.utils import SourceConfig

from platform_core.engines.dbt_lake import Plugin
from platform_core.engines.local import LocalEngine
from platform_core.errors import StorageError
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(name="lake", plugin_config={"root": str(tmp_path / "lake")})


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def put_rows(name: str, *ids: int) -> Path:
        ref = TableRef.parse(name, workstream="")
        uri = tmp_path / "lake" / "/".join(ref)
        rows = pa.table({"id": pa.array(ids, pa.int64())})
        write(rows.to_reader(), table=ref, uri=str(uri), storage_options={}, mode=WriteMode.OVERWRITE)
        return uri

    return put_rows


class Declared:
    """A source as dbt hands it to dbt-duckdb."""

    config = None
    tags: tuple[str, ...] = ()

    def __init__(self, workstream: str, schema: str, table: str) -> None:
        self.source_name, self.schema, self.name, self.identifier = workstream, schema, table, table
        self.database, self.meta = "db", {"plugin": "lake"}


def source(workstream: str, schema: str, table: str) -> SourceConfig:
    return SourceConfig.create_from_source(Declared(workstream, schema, table))


def ids(loaded: Any) -> list[int]:
    connection = duckdb.connect()
    connection.register("loaded", loaded)
    first = connection.execute("select id from loaded order by id").fetchall()
    assert connection.execute("select id from loaded order by id").fetchall() == first, (
        "a source is scanned more than once"
    )
    return [row[0] for row in first]


def delete_first_row(table: Path) -> None:
    """Flag the first row of a table's only file as gone by a deletion vector, as Spark does."""
    log = table / "_delta_log"
    [added] = [
        json.loads(line)["add"]
        for line in (log / "00000000000000000000.json").read_text().splitlines()
        if line.startswith('{"add"')
    ]
    # One roaring bitmap of one array container that holds the row number 0.
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 0)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = content + b"\0" * (-len(content) % 4)
    z85 = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    b85 = string.digits + string.ascii_uppercase + string.ascii_lowercase + "!#$%&()*+-;<=>?@^_`{|}~"
    encoded = base64.b85encode(padded).decode().translate(str.maketrans(b85, z85))
    vector = {"storageType": "i", "pathOrInlineDv": encoded, "sizeInBytes": len(content), "cardinality": 1}
    features = ["deletionVectors"]
    actions = [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {"remove": {"path": added["path"], "dataChange": True, "deletionTimestamp": 0}},
        {"add": added | {"deletionVector": vector, "stats": None}},
    ]
    (log / "00000000000000000001.json").write_text("\n".join(json.dumps(action) for action in actions))


def test_a_source_is_the_lake_table_of_its_name_schema_and_table(plugin: Plugin, put: Any) -> None:
    put("mobility.silver.rides", 1, 2)
    put("crm.silver.rides", 9)
    assert ids(plugin.load(source("mobility", "silver", "rides"))) == [1, 2]


def test_the_newest_version_is_read(plugin: Plugin, put: Any) -> None:
    put("mobility.silver.rides", 1)
    put("mobility.silver.rides", 2, 3)
    assert ids(plugin.load(source("mobility", "silver", "rides"))) == [2, 3]


def test_rows_that_a_deletion_vector_removes_are_not_there(plugin: Plugin, put: Any, engine: LocalEngine) -> None:
    uri = put("mobility.silver.rides", 1, 2, 3)
    delete_first_row(uri)
    assert ids(plugin.load(source("mobility", "silver", "rides"))) == [2, 3]
    ref = TableRef("mobility", "silver", "rides")
    reader = DeltaTableReader.open(str(uri), storage_options={})
    assert reader is not None
    rows = engine.select("select id from mobility.silver.rides order by id", tables={ref: reader}, variables={})
    assert rows.read_all()["id"].to_pylist() == [2, 3]


def test_a_missing_table_is_named_with_where_it_was_looked_for(plugin: Plugin, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"mobility.silver.rides does not exist yet\n  looked at: {tmp_path}"):
        plugin.load(source("mobility", "silver", "rides"))


def test_two_workstreams_cannot_share_a_name_in_one_project(plugin: Plugin, put: Any) -> None:
    put("mobility.silver.rides", 1)
    put("crm.silver.rides", 9)
    plugin.load(source("mobility", "silver", "rides"))
    with pytest.raises(StorageError, match=r"are both db\.silver\.rides in DuckDB"):
        plugin.load(source("crm", "silver", "rides"))


def test_storage_options_may_be_given_as_json(tmp_path: Path) -> None:
    plugin = Plugin(name="lake", plugin_config={"root": "az://lake", "storage_options": '{"account_name": "a"}'})
    assert plugin._lake.storage_options == {"account_name": "a"}


def test_a_later_process_sees_the_sources_of_an_earlier_one_anew(put: Any, tmp_path: Path) -> None:
    put("mobility.silver.rides", 1)
    database = str(tmp_path / "dbt.duckdb")
    for expected in ([1], [1, 2]):
        put("mobility.silver.rides", *expected)
        plugin = Plugin(name="lake", plugin_config={"root": str(tmp_path / "lake")})
        with duckdb.connect(database) as connection:
            plugin.configure_connection(connection)
            cursor = connection.cursor()
            plugin.configure_cursor(cursor)
            if expected == [1]:
                # As dbt-duckdb does for a source of a model that it compiles; in the second process it compiles none.
                cursor.register("db_silver_rides_df", plugin.load(source("mobility", "silver", "rides")))
                cursor.execute("create view rides as select * from db_silver_rides_df")
            assert [row[0] for row in cursor.execute("select id from rides order by id").fetchall()] == expected
            cursor.close()
