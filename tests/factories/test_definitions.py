"""What a location declares becomes assets that tell their story in the UI by themselves."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from platform_core.definitions import build_definitions
from platform_core.settings import Settings
from tests.conftest import PROJECT

CRM = PROJECT / "code_locations" / "crm" / "crm" / "control"
RIDERS = dg.AssetKey(["crm", "bronze", "riders"])
ACTIVITY = dg.AssetKey(["crm", "silver", "rider_activity"])
MEMBERS = dg.AssetKey(["crm", "dashboard", "members"])


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    settings = Settings(
        project=PROJECT,
        home=PROJECT / "dagster_home",
        state=tmp_path_factory.mktemp("state"),
        environment="dev",
    )
    return build_definitions(CRM, settings=settings)


@pytest.fixture(scope="module")
def graph(crm: dg.Definitions) -> AssetGraph:
    return crm.get_repository_def().asset_graph


def test_every_asset_has_owner_group_kind_and_workstream(graph: AssetGraph) -> None:
    for key in graph.executable_asset_keys:
        node = graph.get(key)
        assert node.owners == ["team:crm"], key
        assert node.group_name == f"crm/{key.path[1]}"
        assert node.kinds
        assert node.tags["edp/workstream"] == "crm"


def test_an_asset_links_to_the_line_of_yaml_that_declares_it(graph: AssetGraph) -> None:
    references = graph.get(RIDERS).metadata["dagster/code_references"]
    (reference,) = references.code_references
    line = Path(reference.file_path).read_text().splitlines()[reference.line_number - 1]
    assert "riders" in line


def test_a_bronze_table_depends_on_an_external_source_asset(graph: AssetGraph) -> None:
    (source,) = graph.get(RIDERS).parent_keys
    assert source == dg.AssetKey(["crm", "source", "crm__riders"])
    assert graph.get(source).is_external


def test_a_step_depends_on_tables_of_another_location(graph: AssetGraph) -> None:
    assert dg.AssetKey(["mobility", "silver", "rides_weather"]) in graph.get(ACTIVITY).parent_keys


def test_masked_columns_are_marked_before_the_first_load(graph: AssetGraph) -> None:
    columns = {column.name: column for column in graph.get(RIDERS).metadata["dagster/column_schema"].columns}
    assert columns["email"].tags == {"personal": "", "mask": "hash"}


def test_the_job_of_a_workstream_holds_its_whole_graph(crm: dg.Definitions, graph: AssetGraph) -> None:
    job = crm.resolve_job_def("crm")
    assert set(job.asset_layer.executable_asset_keys) == set(graph.executable_asset_keys)


def test_schedules_and_sensors_stand_still_unless_the_environment_says_otherwise(crm: dg.Definitions) -> None:
    assert crm.resolve_schedule_def("crm_schedule").default_status is dg.DefaultScheduleStatus.STOPPED
    assert crm.resolve_sensor_def("crm_automation").default_status is dg.DefaultSensorStatus.STOPPED


def test_steps_and_dashboards_carry_automation_conditions_and_tables_do_not(graph: AssetGraph) -> None:
    assert graph.get(ACTIVITY).automation_condition is not None
    assert graph.get(MEMBERS).automation_condition is not None
    assert graph.get(RIDERS).automation_condition is None
