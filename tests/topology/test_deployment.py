"""The services of docker/compose.yaml as plain processes, with PostgreSQL: started, used once, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from platform_core.cli.demo import lay_out_sources
from tests.services.postgres import PostgresServer
from tests.topology.deployment import Deployment, prepare

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

TABLE = ["mobility", "bronze", "seasons"]

_LOCATIONS = """
query {
  workspaceOrError {
    ... on Workspace {
      locationEntries { name loadStatus locationOrLoadError { __typename ... on PythonError { message } } }
    }
  }
}
"""

_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""

_STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { id status assets { key { path } } } } }"


def _ask(deployment: Deployment, query: str, **variables: Any) -> Any:
    body = {"query": query, "variables": variables}
    answer = httpx.post(f"{deployment.webserver}/graphql", json=body, timeout=30).raise_for_status().json()
    assert "errors" not in answer, answer
    return answer["data"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Deployment]:
    """Every service, up and healthy."""
    folder = tmp_path_factory.mktemp("deployment")
    prepared = prepare(folder, postgres_server, postgres_server.create_database())
    try:
        prepared.start_all()
        yield prepared
    finally:
        prepared.stop()


@pytest.fixture(scope="module")
def run(deployment: Deployment) -> dict[str, Any]:
    """A run of one table, launched as the UI does it, when it was over."""
    lay_out_sources(deployment.state / "sources", day=1)
    selector = {
        "repositoryLocationName": "mobility",
        "repositoryName": "__repository__",
        "jobName": "mobility",
        "assetSelection": [{"path": TABLE}],
    }
    launched = _ask(deployment, _LAUNCH, params={"selector": selector, "mode": "default"})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    finished: dict[str, Any] = _wait_for(deployment, launched["run"]["runId"])
    return finished


def test_every_location_is_loaded_from_its_code_server(deployment: Deployment) -> None:
    entries = _ask(deployment, _LOCATIONS)["workspaceOrError"]["locationEntries"]

    assert {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in entries} == {
        "mobility": "RepositoryLocation",
        "crm": "RepositoryLocation",
        "data_platform": "RepositoryLocation",
    }


def test_a_run_launched_in_the_ui_goes_through_queue_and_code_server_and_succeeds(
    deployment: Deployment, run: dict[str, Any]
) -> None:
    assert run["status"] == "SUCCESS", deployment.output("mobility")
    assert [asset["key"]["path"] for asset in run["assets"]] == [TABLE]
    assert list((deployment.state / "lake" / Path(*TABLE) / "_delta_log").glob("*.json"))


def test_runs_are_stored_in_postgresql_and_nowhere_else(
    deployment: Deployment, run: dict[str, Any], postgres_server: PostgresServer
) -> None:
    database = deployment.services["init"].environment["EDP_POSTGRES_DATABASE"]

    with postgres_server.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id, status FROM runs")
        stored = cursor.fetchall()

    assert stored == [(run["id"], "SUCCESS")], deployment.output("daemon")
    assert not list((deployment.state / "dagster").rglob("*.db"))


def test_no_process_shows_the_password_on_its_command_line(
    deployment: Deployment, postgres_server: PostgresServer
) -> None:
    commands = deployment.left_over()

    assert len(commands) >= len(deployment.running)
    assert not [command for command in commands if any(postgres_server.password in part for part in command)]


def test_a_second_init_changes_nothing(deployment: Deployment) -> None:
    deployment.start(deployment.services["init"])

    assert "run storage is there" in deployment.output("init")


def test_every_process_ends_when_asked_and_none_is_left(deployment: Deployment) -> None:
    killed = deployment.stop()
    deployment.running.clear()

    assert killed == []
    assert deployment.left_over() == []


def _wait_for(deployment: Deployment, run_id: str) -> Any:
    deadline = time.monotonic() + 120
    while True:
        run = _ask(deployment, _STATUS, id=run_id)["runOrError"]
        if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") or time.monotonic() > deadline:
            return run
        time.sleep(0.5)
