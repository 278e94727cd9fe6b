"""Definitions from a snapshot are those of the control files; every run carries where its metadata comes from."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext
from dagster._core.definitions.reconstruct import (
    initialize_repository_def_from_pointer,
    reconstruct_repository_def_from_pointer,
)
from dagster._core.definitions.repository_definition import RepositoryDefinition

from platform_core.control.database import Database
from platform_core.control.snapshot import loading
from platform_core.definitions import build_definitions
from platform_core.errors import ConfigError, SnapshotError
from tests.conftest import environment
from tests.forked import PROJECT, run_forked
from tests.snapshot.conftest import Publishing

MODULE = """\
from pathlib import Path

import dagster as dg

from platform_core import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Path(__file__).parent / "control")
"""


def build(published: Publishing, location: str = "crm") -> dg.Definitions:
    return build_definitions(published.project.folder / location / "control", settings=published.project.settings())


def keys(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_all_asset_keys()}


def test_they_are_those_of_the_control_files(published: Publishing) -> None:
    of_snapshot = {location: build(published, location) for location in ("crm", "finance")}
    published.project.write_environment("dev")
    for location, found in of_snapshot.items():
        assert keys(found) == keys(build(published, location)) | {f"control/{location}"}
    assert "crm/bronze/orders" in keys(of_snapshot["crm"])


def test_the_control_database_is_not_asked(published: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    published.project.close()
    monkeypatch.setattr(Database, "_opened", refuse)
    assert "crm/bronze/orders" in keys(build(published))


def test_without_a_snapshot_there_are_no_definitions(publishing: Publishing) -> None:
    with pytest.raises(SnapshotError, match="no snapshot of location 'crm' is published for environment 'dev'"):
        build(publishing)


def test_a_location_may_be_published_under_another_name_than_its_packages(published: Publishing) -> None:
    folder = published.project.folder / "finance"
    folder.rename(folder.with_name("money"))
    settings = published.project.settings()
    found = build_definitions(folder.with_name("money") / "control", settings=settings, location="finance")
    assert "finance/gold/margin" in keys(found)


def test_jobs_and_sensors_give_their_runs_the_tags(published: Publishing) -> None:
    published.project.sql("UPDATE control.history SET git_commit = 'c1' WHERE location = 'crm'")
    published.change(3)
    published.publish()
    found = build(published)
    tags = {"edp/serial": "2", "edp/git_commit": "c1"}
    assert dict(found.resolve_job_def("crm").tags) == {"edp/workstream": "crm", **tags}
    sensor = found.get_repository_def().get_sensor_def("crm_automation")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert {name: sensor.run_tags[name] for name in tags} == tags


@pytest.fixture
def load_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's own memory of what it loads, as in a process of this test's."""
    monkeypatch.setattr(DefinitionsLoadContext, "_instance", None)


@pytest.mark.usefixtures("load_context")
def test_a_run_loads_the_snapshot_that_its_code_server_had(
    published: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = published.project.settings()
    file = published.project.write("crm/place.py", MODULE)
    pointer = FileCodePointer(str(file), "defs", str(published.project.folder))
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)

    def serial(repository: RepositoryDefinition) -> str:
        return str(repository.get_job("crm").tags["edp/serial"])

    server = initialize_repository_def_from_pointer(pointer)
    published.change(3)
    published.publish()
    for forget in (loading._first_digest, loading._loaded):
        forget.cache_clear()
    monkeypatch.setattr(DefinitionsLoadContext, "_instance", None)
    run = reconstruct_repository_def_from_pointer(pointer, server.repository_load_data)
    assert (serial(server), serial(run)) == ("1", "1")
    # What it starts itself is told the same.
    step = reconstruct_repository_def_from_pointer(pointer, run.repository_load_data)
    assert serial(step) == "1"
    assert serial(initialize_repository_def_from_pointer(pointer)) == "2"


def prepare_runs(publishing: Publishing) -> None:
    """Make the assets of crm such that they can run."""
    publishing.project.write("crm/definitions.py", MODULE)
    with sqlite3.connect(publishing.state / "crm.db") as source:
        source.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, updated_at TIMESTAMP, phone TEXT)")
        source.execute("INSERT INTO orders VALUES (1, '2026-01-01 00:00:00', '0612345678')")
    source.close()


Run = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def run(publishing: Publishing, tmp_path: Path) -> Run:
    """Runs assets of crm in a process of its own; see runs.py."""
    prepare_runs(publishing)
    settings = publishing.project.settings()

    def call(how: str) -> dict[str, dict[str, str]]:
        (tmp_path / "dagster").mkdir()
        variables = environment(settings.state, **settings.variables(), PYTHONPATH=str(PROJECT))
        done = run_forked(
            [str(tmp_path / "dagster"), how],
            env=variables,
            cwd=settings.project,
            timeout=200,
            module="tests.snapshot.runs",
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
        return found

    return call


def publish_with_commit(publishing: Publishing) -> None:
    publishing.project.sql("UPDATE control.history SET git_commit = 'c1' WHERE location = 'crm'")
    publishing.publish()


@pytest.mark.slow
def test_every_run_is_tagged_with_what_it_ran_on(publishing: Publishing, run: Run) -> None:
    publish_with_commit(publishing)
    tags = {"edp/serial": "1", "edp/git_commit": "c1"}
    assert run("as people do") == dict.fromkeys(("ad hoc", "repeated", "edp run"), tags)


@pytest.mark.slow
def test_a_run_that_is_overtaken_runs_to_its_end_on_what_it_was_launched_from(publishing: Publishing, run: Run) -> None:
    # Its step loads the definitions once more, in a process of its own; what is published by then lacks the table.
    publishing.project.edit("crm/control/ingestion.yaml", "    lookback: 2 hours", "    isolated: true")
    publishing.project.apply()
    publish_with_commit(publishing)
    assert run("overtaken") == {"overtaken": {"edp/serial": "2", "edp/git_commit": "c1"}}
    assert publishing.load().manifest.ingestions == ()


@pytest.mark.slow
def test_with_control_files_it_is_the_commit_of_the_working_copy(publishing: Publishing, run: Run) -> None:
    project = publishing.project
    project.write_environment("dev")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=project.folder,
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(project.folder)},
        )
        return done.stdout.strip()

    git("init")
    git("add", "crm", "finance")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    tags = {"edp/git_commit": f"{commit}-dirty"}
    assert run("as people do") == dict.fromkeys(("ad hoc", "repeated", "edp run"), tags)


def test_c12_one_broken_declaration_takes_no_table_out_of_a_running_deployment(published: Publishing) -> None:
    before = {location: keys(build(published, location)) for location in ("crm", "finance")}
    published.project.edit("crm/control/ingestion.yaml", "mode: incremental", "mode: incremantal")
    assert {location: keys(build(published, location)) for location in ("crm", "finance")} == before
    with pytest.raises(ConfigError, match=r"crm/control/ingestion\.yaml:[0-9]+: .*'incremantal'"):
        published.project.plan()
    assert not published.publish().moved
