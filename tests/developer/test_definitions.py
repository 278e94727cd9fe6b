"""In a personal environment nothing starts by itself, and what is everybody's is not refreshed."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from platform_core.definitions import build_definitions
from platform_core.errors import RefreshError
from platform_core.operations.refresh import refresh
from platform_core.settings import Settings
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.refresh import RefreshSpec
from tests.developer.conftest import House

LOCATION = """
location: mobility
workstreams:
  - name: mobility
    owners: [team:mobility]
    schedule: {cron: "0 5 * * *", timezone: UTC}
"""
CONNECTIONS = """
connections:
  - {name: city, type: sqlite, path: /city.db}
  - name: bi
    type: powerbi
    tenant: example.com
    client_id: app
    client_secret: {secret: mobility/bi}
"""
INGESTION = """
source: city
tables:
  - {object: rides, mode: full, key: [ride_id]}
"""
REFRESH = """
dashboards:
  - {name: report, type: powerbi, connection: bi, shows: [bronze.rides], workspace: sales, dataset: margin}
  - name: board
    type: page
    shows: [bronze.rides]
    tables: [{title: Rides, table: bronze.rides}]
"""
UPKEEP = """
workstream: mobility
policies:
  - {name: compaction, operation: compact}
"""
REPORT = dg.AssetKey(["mobility", "dashboard", "report"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    control = tmp_path / "mobility" / "control"
    home = tmp_path / "dagster_home"
    for folder in (control / "ingestion", home / "environments"):
        folder.mkdir(parents=True)
    texts = {"location": LOCATION, "connections": CONNECTIONS, "refresh": REFRESH, "upkeep": UPKEEP}
    for name, text in texts.items():
        (control / f"{name}.yaml").write_text(text)
    (control / "ingestion" / "city.yaml").write_text(INGESTION)
    everybody = "lake: {root: lake}\nsecrets: {type: environment}\n"
    (home / "environments" / "all.yaml").write_text(everybody + "schedules: true\n")
    (home / "environments" / "personal.yaml").write_text(everybody + "developer: true\n")
    return Settings(project=tmp_path, home=home, state=tmp_path / "state", environment="personal", user="anna")


def built(settings: Settings) -> dg.Definitions:
    return build_definitions(settings.project / "mobility" / "control", settings=settings)


def test_schedules_and_sensors_start_stopped(settings: Settings) -> None:
    def standing(definitions: dg.Definitions) -> set[str]:
        repository = definitions.get_repository_def()
        schedules = {each.default_status.value for each in repository.schedule_defs}
        return schedules | {each.default_status.value for each in repository.sensor_defs}

    assert standing(built(settings)) == {"STOPPED"}
    assert standing(built(replace(settings, environment="all"))) == {"RUNNING"}


def test_keys_of_assets_are_those_of_every_other_environment(settings: Settings) -> None:
    personal, everybody = (
        built(each).get_repository_def().asset_graph for each in (settings, replace(settings, environment="all"))
    )
    assert personal.get_all_asset_keys() == everybody.get_all_asset_keys()


def test_a_dashboard_of_everybodys_is_shown_and_cannot_be_refreshed(settings: Settings) -> None:
    definitions = built(settings)
    graph = definitions.get_repository_def().asset_graph
    assert not graph.get(REPORT).is_executable
    assert graph.get(REPORT).parent_keys == {dg.AssetKey(["mobility", "bronze", "rides"])}
    job = definitions.resolve_job_def("mobility")
    assert REPORT not in job.asset_layer.executable_asset_keys
    assert dg.AssetKey(["mobility", "dashboard", "board"]) in job.asset_layer.executable_asset_keys


def test_a_service_is_not_asked_from_a_personal_environment(house: House) -> None:
    spec = RefreshSpec(
        workstream="mobility",
        name="report",
        type="powerbi",
        connection="bi",
        shows=["bronze.rides"],
        options={"workspace": "sales", "dataset": "margin"},
    )
    # Nobody listens there, and the secret is not there either: it must not come to that.
    connection = ConnectionSpec(
        name="bi",
        workstream="mobility",
        type="powerbi",
        options={"tenant": "example.com", "client_id": "app", "client_secret": {"secret": "mobility/bi"}},
    )
    with pytest.raises(RefreshError) as caught:
        refresh(spec, connection=connection, root=house.root, platform=house.platform("anna"))
    assert str(caught.value) == (
        "dashboard mobility.dashboard.report: not refreshed: environment 'personal' is a personal one, and a dashboard "
        "of type powerbi is everybody's\n  try the tables with a dashboard of type page"
    )
