"""A SELECT over lake tables, on the local engine."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.engines.local import BATCH_ROWS, LocalEngine, LocalOptions
from platform_core.errors import StepError
from platform_core.lake.delta import DeltaTableReader
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

RIDES = TableRef("mobility", "silver", "rides")
SECRET = "ada@example.org"


def rides(*days: int) -> pa.Table:
    return pa.table({"day": pa.array(days, pa.int64()), "rides": pa.array([day * 10 for day in days], pa.int64())})


def test_columns_may_be_written_with_any_part_of_the_table_name(engine: LocalEngine, put: Any) -> None:
    sql = (
        "select rides.day, silver.rides.rides, mobility.silver.rides.day as again "
        "from mobility.silver.rides where day > $since order by 1"
    )
    result = engine.select(sql, tables={RIDES: put("rides", rides(1, 2, 3))}, variables={"since": 1, "unused": 0})
    assert result.read_all().to_pydict() == {"day": [2, 3], "rides": [20, 30], "again": [2, 3]}


def test_two_tables_of_one_name_are_told_apart_by_their_layer(engine: LocalEngine, put: Any) -> None:
    bronze = TableRef("mobility", "bronze", "rides")
    tables = {RIDES: put("silver", rides(1, 2)), bronze: put("bronze", rides(2, 3))}
    sql = (
        "select silver.rides.day from mobility.silver.rides "
        "join mobility.bronze.rides on silver.rides.day = bronze.rides.day"
    )
    assert engine.select(sql, tables=tables, variables={}).read_all().to_pydict() == {"day": [2]}


def test_the_version_that_was_opened_is_read_even_after_a_newer_commit(engine: LocalEngine, put: Any) -> None:
    opened = put("rides", rides(1, 2))
    put("rides", rides(7), WriteMode.APPEND)
    result = engine.select("select day from mobility.silver.rides", tables={RIDES: opened}, variables={})
    assert sorted(result.read_all()["day"].to_pylist()) == [1, 2]


def test_files_older_than_a_column_give_null_for_it(engine: LocalEngine, put: Any, tmp_path: Path) -> None:
    put("rides", rides(1))
    wider = rides(2).append_column("season", pa.array(["spring"]))
    deltalake.write_deltalake(str(tmp_path / "lake" / "rides"), wider, mode="append", schema_mode="merge")
    reader = DeltaTableReader.open(str(tmp_path / "lake" / "rides"), storage_options={})
    result = engine.select(
        "select day, season from mobility.silver.rides order by 1", tables={RIDES: reader}, variables={}
    )
    assert result.read_all().to_pydict() == {"day": [1, 2], "season": [None, "spring"]}


def test_an_empty_table_has_its_columns(engine: LocalEngine, put: Any) -> None:
    reader = put("rides", rides())
    result = engine.select("select * from mobility.silver.rides", tables={RIDES: reader}, variables={})
    assert result.schema.names == ["day", "rides"]
    assert result.read_all().num_rows == 0


def test_a_reader_that_streams_may_be_named_twice(engine: LocalEngine, in_memory: Any) -> None:
    sql = "select count(*) as pairs from mobility.silver.rides as a cross join mobility.silver.rides as b"
    result = engine.select(sql, tables={RIDES: in_memory(rides(1, 2, 3))}, variables={})
    assert result.read_all().to_pydict() == {"pairs": [9]}


def test_a_large_result_arrives_in_batches(engine: LocalEngine) -> None:
    result = engine.select("select range as i from range(1000000)", tables={}, variables={})
    sizes = [batch.num_rows for batch in result]
    assert sum(sizes) == 1_000_000
    assert max(sizes) <= 2 * BATCH_ROWS


def test_what_memory_does_not_hold_is_spilled(tmp_path: Path) -> None:
    small = LocalEngine(LocalOptions(memory_limit="60MB", threads=1, spill=str(tmp_path / "spill")))
    sql = "select range as i, md5(range::varchar) as h from range(2000000) order by h"
    assert sum(batch.num_rows for batch in small.select(sql, tables={}, variables={})) == 2_000_000


def test_an_unknown_table_is_refused_with_the_known_ones(engine: LocalEngine, put: Any) -> None:
    with pytest.raises(StepError, match=re.escape("did you mean 'mobility.silver.rides'?")):
        engine.select("select * from mobility.silver.ride", tables={RIDES: put("rides", rides(1))}, variables={})


def test_an_unknown_variable_is_refused_with_the_known_ones(engine: LocalEngine) -> None:
    with pytest.raises(StepError, match=re.escape("did you mean '$days'?")):
        engine.select("select $day", tables={}, variables={"days": 3})


def test_a_table_without_its_workstream_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(StepError, match="must be written"):
        engine.select("select * from silver.rides", tables={}, variables={})


@pytest.mark.parametrize("workstream", ["main", "memory", "system", "temp"])
def test_a_workstream_with_a_name_that_duckdb_keeps_is_refused(engine: LocalEngine, put: Any, workstream: str) -> None:
    ref = TableRef(workstream, "silver", "rides")
    with pytest.raises(StepError, match="DuckDB keeps that name"):
        engine.select(f"select * from {ref}", tables={ref: put("rides", rides(1))}, variables={})


def test_a_wrong_column_is_named_with_the_ones_there_are(engine: LocalEngine, put: Any) -> None:
    with pytest.raises(StepError, match=r'"daz".*\n.*"day"'):
        engine.select("select daz from mobility.silver.rides", tables={RIDES: put("rides", rides(1))}, variables={})


@pytest.mark.parametrize(
    "expression",
    ["cast(name as integer)", "strptime(name, '%Y')", "error('no ' || name)", "cast(name as date)"],
)
def test_an_error_while_rows_flow_tells_no_value(engine: LocalEngine, in_memory: Any, expression: str) -> None:
    people = in_memory(pa.table({"name": ["1", SECRET]}))
    with pytest.raises(StepError) as caught:
        engine.select(
            f"select\n  {expression} as x\nfrom mobility.silver.rides", tables={RIDES: people}, variables={}
        ).read_all()
    assert "while the query ran" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_error_after_many_batches_tells_no_value(engine: LocalEngine) -> None:
    value = f"case when range = 900000 then '{SECRET[:3]}' || range else '1' end"
    sql = f"select cast({value} as integer) as x from range(1000000)"
    with pytest.raises(StepError) as caught:
        engine.select(sql, tables={}, variables={}).read_all()
    assert "Conversion Error while the query ran" in str(caught.value)
    assert "900000'" not in str(caught.value).replace(sql, "")


def test_a_query_ends_when_the_run_is_cancelled(engine: LocalEngine) -> None:
    began = time.monotonic()
    sql = "select count(*) from range(100000000) a, range(100000) b where hash(a.range) = hash(b.range + 1)"
    with pytest.raises(StepError, match="the run was cancelled"):
        engine.select(sql, tables={}, variables={}, cancelled=lambda: time.monotonic() - began > 0.5).read_all()
    assert time.monotonic() - began < 20


def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    return path


def test_a_connection_reaches_the_files_of_its_tables_and_nothing_else(
    engine: LocalEngine, put: Any, tmp_path: Path
) -> None:
    import duckdb

    elsewhere = outside(tmp_path)
    connection = engine.connect({RIDES: put("rides", rides(1, 2))})
    assert connection.sql("select count(*) from mobility.silver.rides").fetchall() == [(2,)]
    for sql in (
        f"select * from read_parquet('{elsewhere}')",
        f"select * from '{elsewhere}'",
        "select * from read_text('/etc/hostname')",
        f"select * from glob('{tmp_path}/*')",
        f"copy (select 1) to '{tmp_path / 'out.csv'}'",
        f"attach '{tmp_path / 'other.db'}' as other",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set threads = 1",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql).fetchall()
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "other.db").exists()
    connection.close()


def test_a_connection_sees_no_python_variable(engine: LocalEngine) -> None:
    import duckdb

    secret_frame = pa.table({"x": [1]})
    with pytest.raises(duckdb.CatalogException):
        engine.connect({}).sql("select * from secret_frame")
    assert secret_frame.num_rows == 1
