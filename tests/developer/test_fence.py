"""Whatever a person does writes below the person's folder, and leaves every byte of the shared tables as it was."""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable, Iterator

import pytest

from platform_core.lake.paths import Lake
from platform_core.lake.upkeep import landed_tables, tables
from platform_core.operations.reload import Reload
from platform_core.operations.replay import replay
from platform_core.operations.upkeep import keep_up
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef
from platform_core.specs.upkeep import Operation, UpkeepSpec
from tests.conftest import PROJECT
from tests.developer.conftest import RIDES, House

REF = TableRef("mobility", "bronze", "rides")
LATER = dt.timedelta(days=365)

READERS = {
    "lake/paths.py",
    "lake/views.py",
    "operations/ddl_lake.py",
    "operations/dbt_deferral.py",
    "operations/own_tables.py",
}
"""Modules that may ask where a shared table lies: to open it for readers, or to see whether it is there."""

ROOTS = {"lake/paths.py", "operations/dbt_project.py", "operations/external_asset.py"}
"""Modules that may use the root of the shared tables: to tell a dbt process, and to look at what others write there;
the rest ask if there is one.
"""


def test_loads_of_every_kind_write_to_the_persons_folder_alone(house: House, unchanged: Callable[[], None]) -> None:
    anna = house.platform("anna")
    house.load(anna, snapshot_history=True)
    house.ride((4, "west", 1))
    loaded = house.load(anna, snapshot_history=True)
    house.load(anna, reload=Reload(), snapshot_history=True)
    replay(RIDES.model_copy(update={"snapshot_history": True}), loaded.batch_id, platform=anna)
    unchanged()
    for layer in ("bronze", "landing"):
        assert (house.lake / "_people/anna/mobility" / layer / "rides").is_dir()
    assert (house.lake / "_people/anna/mobility/bronze/rides_history").is_dir()


@pytest.mark.parametrize("operation", list(Operation))
def test_upkeep_sees_and_touches_the_persons_tables_alone(
    house: House, unchanged: Callable[[], None], operation: Operation
) -> None:
    anna = house.platform("anna")
    for number in range(4, 9):
        house.ride((number, "west", 1))
        house.load(anna)
    result = keep_up(policy(operation), platform=anna, now=lambda: dt.datetime.now(dt.UTC) + LATER)
    assert result.looked_at == 1
    unchanged()


def policy(operation: Operation) -> UpkeepSpec:
    """A policy over every table that leaves nothing alone that is old or small."""
    more = {"small_files": 1} if operation is Operation.COMPACT else {}
    return UpkeepSpec(workstream="mobility", name="all", operation=operation, tables=["*.*.*"], **more)


def test_upkeep_of_everybodys_tables_leaves_those_of_people_alone(house: House) -> None:
    anna = house.platform("anna")
    house.load(anna)
    house.step(anna, "gold.mine", "SELECT * FROM silver.short_rides")
    # Names that would stand where a layer does, if a person's folder were taken for a workstream.
    for name in ("landing", "bronze"):
        house.load(house.platform(name))
    before = house.fingerprint("_people")
    shared = house.platform()
    assert [str(ref) for ref in tables(shared.lake)] == ["mobility.bronze.rides", "mobility.silver.short_rides"]
    assert [str(ref) for ref in landed_tables(shared.lake)] == ["mobility.bronze.rides"]
    for operation in Operation:
        keep_up(policy(operation), platform=shared, now=lambda: dt.datetime.now(dt.UTC) + LATER)
    assert house.fingerprint("_people") == before


def test_a_lake_has_no_root_but_a_persons_folder_of_the_shared_one() -> None:
    assert Lake.of("lake/", Person("anna"), storage_options={}).root == "lake/_people/anna"
    with pytest.raises(ValueError, match="no person's folder"):
        Lake("lake", {}, "lake")
    with pytest.raises(ValueError, match="no person's folder"):
        Lake("other/_people/anna", {}, "lake")


def test_all_paths_of_writers_are_below_the_persons_folder() -> None:
    lake = Lake.of("lake", Person("anna"), storage_options={})
    places = [lake.table, lake.landing, lake.quarantine, lake.source_state, lake.dashboard]
    assert all(place(REF).startswith("lake/_people/anna/mobility/") for place in places)
    assert lake.shared_table(REF) == "lake/mobility/bronze/rides"


def test_only_readers_ask_where_a_shared_table_lies() -> None:
    assert {module for module, name in _attributes() if name == "shared_table"} == READERS
    assert {module for module, name in _attributes() if name == "lake.shared"} == ROOTS


def test_nobody_makes_a_lake_that_does_not_know_whose_it_is() -> None:
    # The dbt process is told both roots.
    assert {module for module, name in _attributes() if name == "Lake()"} == {"engines/dbt_lake.py", "lake/paths.py"}
    given = {module for module, name in _attributes() if name == "lake.root of the environment"}
    assert given <= {
        "cli/dbt.py",  # parsing opens no table
        "cli/setup.py",
        "control/dbt_targets.py",  # says only whether Databricks could reach it
        "control/snapshot/folders.py",  # files beside the tables, which no personal environment publishes
        "operations/doctor_secrets.py",
        "operations/doctor_storage.py",
        "operations/platform.py",
    }


def _attributes() -> Iterator[tuple[str, str]]:
    """Module, and what it does with a lake: asks `shared_table`, `shared` or the environment's root, or makes one."""
    core = PROJECT / "platform_core"
    for file in sorted(core.rglob("*.py")):
        module = str(file.relative_to(core))
        text = file.read_text()
        if not any(word in text for word in ("shared", "Lake(", "environment.lake")):
            continue
        tree = ast.parse(text)
        asked = {id(node.left) for node in ast.walk(tree) if isinstance(node, ast.Compare) and _of_none(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                of = ast.unparse(node.value)
                if node.attr == "shared_table":
                    yield module, "shared_table"
                is_lake = of.endswith("lake") or module == "lake/paths.py"
                if node.attr == "shared" and is_lake and id(node) not in asked and of != "targets.lake":
                    yield module, "lake.shared"
                if node.attr == "root" and of.endswith("environment.lake"):
                    yield module, "lake.root of the environment"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Lake":
                yield module, "Lake()"


def _of_none(node: ast.Compare) -> bool:
    return isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None
