"""Steps of kind sql."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import LoadError, Place, StepError
from platform_core.lake.delta import open_table
from platform_core.operations.platform import Platform
from platform_core.operations.process import StepResult, process
from platform_core.specs.processing import ProcessingSpec

SECRET = "ada@example.org"


@pytest.fixture
def run(platform: Platform, tmp_path: Path) -> Any:
    """Run a step whose SQL is given; the location's package is an empty folder."""
    root = tmp_path / "package"
    (root / "sql").mkdir(parents=True)

    def run_step(text: str, *, on: Platform = platform, **fields: Any) -> StepResult:
        (root / "sql" / "step.sql").write_text(text)
        spec = {"workstream": "mobility", "layer": "silver", "name": "made", "kind": "sql", "sql": "sql/step.sql"}
        return process(ProcessingSpec(**spec | fields), root=root, platform=on, last=None)

    return run_step


def rides(**columns: list[Any]) -> pa.Table:
    return pa.table({"id": [1, 2, 3], "rides": [10, 20, 30]} | columns)


def test_the_result_of_the_query_becomes_the_table(run: Any, put: Any, rows: Any) -> None:
    put("bronze.rides", rides())
    result = run("select id, rides * $factor as more from bronze.rides where id > 1", variables={"factor": 2})
    assert rows("silver.made").to_pydict() == {"id": [2, 3], "more": [40, 60]}
    assert (result.rows, result.version, result.committed) == (2, 0, True)
    assert result.schema.names == ["id", "more"]
    assert result.written_bytes > 0


def test_what_was_read_is_told_by_version_and_batch(run: Any, put: Any) -> None:
    put("bronze.rides", rides(_batch_id=[1, 1, 4]), batch=4)
    put("crm.gold.names", rides())
    result = run("select id from bronze.rides join crm.gold.names using (id)")
    assert result.read_versions == {"mobility.bronze.rides": 0, "crm.gold.names": 0}
    assert result.read_batches == {"mobility.bronze.rides": 4}


def test_columns_are_followed_to_their_origin(run: Any, put: Any) -> None:
    put("bronze.rides", rides())
    result = run("with r as (select * from bronze.rides) select id, rides + 1 as more from r")
    assert result.column_lineage == {
        "id": ((("mobility", "bronze", "rides"), "id"),),
        "more": ((("mobility", "bronze", "rides"), "rides"),),
    }


def test_overwriting_replaces_rows_and_columns(run: Any, put: Any, rows: Any) -> None:
    put("bronze.rides", rides())
    run("select id from bronze.rides")
    result = run("select 7 as other from bronze.rides where id = 1")
    assert rows("silver.made").to_pydict() == {"other": [7]}
    assert result.version == 1


def test_merging_updates_and_inserts_by_key_and_may_be_repeated(run: Any, put: Any, rows: Any) -> None:
    put("bronze.rides", rides())
    merge = {"write": "merge", "key": ("id",)}
    first = run("select id, rides from bronze.rides where id < 3", **merge)
    second = run("select id, rides + 1 as rides from bronze.rides where id > 1", **merge)
    run("select id, rides + 1 as rides from bronze.rides where id > 1", **merge)
    assert rows("silver.made").to_pydict() == {"id": [1, 2, 3], "rides": [10, 21, 31]}
    assert (first.inserted, first.updated) == (2, 0)
    assert (second.inserted, second.updated) == (1, 1)


def test_doubled_merge_keys_stop_the_step_and_write_nothing(run: Any, put: Any, rows: Any) -> None:
    put("bronze.rides", rides())
    run("select id, rides from bronze.rides", write="merge", key=("id",))
    with pytest.raises(LoadError, match="key"):
        run("select cast(1 as bigint) as id, rides from bronze.rides", write="merge", key=("id",))
    assert rows("silver.made").to_pydict() == {"id": [1, 2, 3], "rides": [10, 20, 30]}


def test_an_append_of_the_same_inputs_is_there_once(run: Any, put: Any, rows: Any) -> None:
    put("bronze.rides", rides())
    first = run("select id from bronze.rides where id > 2", write="append")
    again = run("select id from bronze.rides where id > 2", write="append")
    assert (first.committed, again.committed, again.rows, again.version) == (True, False, 0, 0)
    put("bronze.rides", rides())
    run("select id from bronze.rides where id > 2", write="append")
    assert rows("silver.made")["id"].to_pylist() == [3, 3]


def test_an_error_while_rows_flow_leaves_the_table_as_it_was(run: Any, put: Any, rows: Any, platform: Platform) -> None:
    put("bronze.rides", rides(name=["1", "2", SECRET]))
    run("select id from bronze.rides")
    with pytest.raises(StepError) as caught:
        run("select id, cast(name as integer) as n from bronze.rides")
    assert "step mobility.silver.made" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert rows("silver.made").column_names == ["id"]
    table = open_table(platform.lake.root + "/mobility/silver/made", storage_options={})
    assert table is not None
    assert table.version() == 0


def test_a_cancelled_run_writes_nothing(run: Any, put: Any, platform: Platform) -> None:
    put("bronze.rides", rides())
    with pytest.raises(StepError, match="cancelled; nothing was written"):
        run("select id from bronze.rides", on=replace(platform, cancelled=lambda: True))
    assert open_table(platform.lake.root + "/mobility/silver/made", storage_options={}) is None


def test_an_input_that_was_never_built_is_named(run: Any) -> None:
    with pytest.raises(StepError, match=r"table mobility\.bronze\.rides does not exist yet"):
        run("select * from bronze.rides")


def test_an_error_in_the_query_has_its_file_and_line(run: Any) -> None:
    with pytest.raises(StepError, match=r"step\.sql:2: table function 'read_csv'"):
        run("select *\nfrom read_csv('x')")


def test_a_file_outside_the_package_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.sql").write_text("select 1 as one")
    with pytest.raises(StepError, match="lies outside"):
        run("select 1 as one", sql="../elsewhere.sql")


def test_a_missing_file_is_named(run: Any) -> None:
    with pytest.raises(StepError, match=r"nowhere\.sql cannot be read \(FileNotFoundError\)"):
        run("select 1 as one", sql="sql/nowhere.sql")


def test_an_error_names_the_line_that_declares_the_step(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "step.sql").write_text("select nothing from bronze.rides")
    spec = ProcessingSpec(workstream="mobility", layer="silver", name="made", kind="sql", sql="step.sql")
    spec.at(Place(Path("control/processing.yaml"), 3))
    with pytest.raises(StepError, match=r"control/processing\.yaml:3"):
        process(spec, root=tmp_path, platform=platform, last=None)
