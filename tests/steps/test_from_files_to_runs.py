"""From control files to a run: an external asset behind a real HTTP server, and a step that waits for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.definitions import build_definitions
from platform_core.execution.outcomes import AssetOutcome, Status, follow
from platform_core.factories.run_facts import finished_run
from platform_core.settings import Settings
from platform_core.specs.table import TableRef
from tests.services.http_server import HttpServer, Reply, http_server

TARIFFS = TableRef("mobility", "external", "tariffs")
PRICES = TableRef("mobility", "silver", "prices")
LOCATION = "location: mobility\nworkstreams: [{name: mobility, owners: [team:mobility]}]\n"
CONNECTION = "connections: [{{name: prices, type: rest, base_url: '{url}', allow_private: true, retries: 0}}]\n"
STEPS = """
steps:
  - {name: tariffs, layer: external, kind: external, source: prices, object: tariffs, every: 10 minutes}
  - {name: prices, layer: silver, kind: python, function: "served_prices:step", depends_on: [external.tariffs]}
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as made:
        made.on("/tariffs", Reply(200, b"[1]", {"ETag": '"v1"'}))
        yield made


@pytest.fixture
def definitions(server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    control, home = tmp_path / "mobility_team" / "control", tmp_path / "dagster_home"
    (home / "environments").mkdir(parents=True)
    control.mkdir(parents=True)
    (home / "environments" / "dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    (control / "location.yaml").write_text(LOCATION)
    (control / "connections.yaml").write_text(CONNECTION.format(url=server.url))
    (control / "processing.yaml").write_text(STEPS)
    (tmp_path / "served_prices.py").write_text("def step(context): ...\n")
    module = ModuleType("served_prices")
    module.step = lambda context: pa.table({"id": [1]})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "served_prices", module)
    settings = Settings(project=tmp_path, home=home, state=tmp_path / "state", environment="dev")
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    return build_definitions(control, settings=settings)


def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("mobility").execute_in_process(instance=instance, raise_on_error=False)


def test_the_workstreams_run_looks_first_and_then_builds(definitions: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(definitions, instance)
        assert result.success
        (look,) = instance.fetch_observations(dg.AssetKey(list(TARIFFS)), limit=5).records
        (made,) = instance.fetch_materializations(dg.AssetKey(list(PRICES)), limit=5).records
        assert look.asset_observation is not None
        assert (look.asset_observation.data_version, look.storage_id < made.storage_id) == ('"v1"', True)
        # Whoever tells of runs counts a look as what it is: done.
        (record,) = instance.get_run_records()
        told = finished_run(instance, record, location="mobility")
        assert (set(told.built), told.skipped) == ({TARIFFS, PRICES}, ())


def test_a_look_that_fails_names_the_asset_and_skips_what_waits_for_it(
    definitions: dg.Definitions, server: HttpServer
) -> None:
    server.on("/tariffs", Reply(503))
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run(definitions, instance).success
        (record,) = instance.get_run_records()
        told = finished_run(instance, record, location="mobility")
        (failed,) = told.failed
        assert (failed.makes, told.skipped, failed.mended) == ((TARIFFS,), (PRICES,), False)
        assert "external mobility.external.tariffs (" in failed.error
        assert "status 503" in failed.error

        server.on("/tariffs", Reply(200, b"", {"ETag": '"v2"'}))
        assert run(definitions, instance).success
        assert finished_run(instance, record, location="mobility").failed[0].mended


def test_the_progress_of_a_look_is_shown(definitions: dg.Definitions) -> None:
    outcome = AssetOutcome(dg.AssetKey(list(TARIFFS)))
    with dg.DagsterInstance.ephemeral() as instance:
        for event in run(definitions, instance).all_events:
            if event.step_key == "mobility__external__tariffs":
                list(follow(event, [outcome]))
    assert (outcome.status, outcome.metadata["edp/status"]) == (Status.OK, 200)


def test_the_location_asks_for_looks_by_itself(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    sensor = definitions.resolve_sensor_def("mobility_automation")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert dg.AssetKey(list(TARIFFS)) in sensor.asset_selection.resolve(graph)
