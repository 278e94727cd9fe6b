"""What doctor says of the control database; it changes nothing there."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from platform_core.control.database import Database, open_database
from platform_core.control.environment import load_environment
from platform_core.control.migrations import REVISIONS
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.planning import plan_from_git
from platform_core.control.store.tables import applies, locks, state
from platform_core.control.tables import migrations
from platform_core.operations.doctor_findings import Verdict
from platform_core.operations.platform import open_secrets
from tests.doctor.conftest import PASSWORD, Project, chosen, failed, one
from tests.services.postgres import PostgresServer

AREA = "control database"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def any_project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A project whose control database is of either kind, and empty."""
    found = Project(tmp_path)
    (found.settings.state / "lake").mkdir()
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        found.use_server(server, database=server.create_database())
    return found


def database(project: Project, *, migrations: Path | None = None) -> Database:
    environment = load_environment(project.settings)
    found = open_database(environment.control, state=project.settings.state, secrets=open_secrets(environment.secrets))
    return Database(found.url, password=found._password, migrations=migrations)


def change(project: Project, statement: sa.Executable) -> None:
    store = project.store()
    store.change(lambda connection: connection.execute(statement))
    store.close()


def test_a_database_that_is_applied_to_is_told_with_its_serial(any_project: Project) -> None:
    environment, store = load_environment(any_project.settings), any_project.store()
    plan = plan_from_git(any_project.settings, environment, store, author="Ann Example")
    apply_plan(plan, environment, store, author="Ann Example", approval=None)
    store.close()
    findings = any_project.findings()
    assert failed(findings) == []
    assert {each.name: each.verdict for each in chosen(findings, AREA)} == dict.fromkeys(
        ["reached", "schema", "serial", "lock"], Verdict.OK
    )
    assert one(findings, AREA, "serial").told.startswith("1, applied ")
    assert one(findings, AREA, "serial").told.endswith("by Ann Example")


def test_a_file_that_is_not_there_yet_is_a_warning_and_is_not_made(tmp_path: Path) -> None:
    project = Project(tmp_path)
    found = one(project.findings(), AREA, "reached")
    assert found.verdict is Verdict.WARNING
    assert found.advice == "make it: edp setup --env staging"
    assert not (project.settings.state / "control.db").exists()


def test_an_old_schema_is_told_and_stays_as_it_is(any_project: Project, tmp_path: Path) -> None:
    old = tmp_path / "revisions"
    old.mkdir()
    shutil.copy(REVISIONS / "0001_loads.py", old)
    opened = database(any_project, migrations=old)
    opened.prepare()
    for _ in range(2):
        found = one(any_project.findings(), AREA, "schema")
        assert found.verdict is Verdict.WARNING
        assert "0002_applied_metadata" in found.told
    assert (
        opened.transact(lambda connection: connection.execute(sa.select(sa.func.count(migrations.c.version))).scalar())
        == 1
    )
    opened.close()


def test_a_new_schema_fails(any_project: Project) -> None:
    row = {"version": 99, "name": "0099_later", "checksum": "", "applied_at": dt.datetime.now(dt.UTC)}
    change(any_project, migrations.insert().values(row))
    findings = any_project.findings()
    assert failed(findings) == [f"{AREA}: schema"]
    assert "newer than this code" in one(findings, AREA, "schema").told


def test_a_held_lock_is_a_warning_that_tells_its_id(any_project: Project) -> None:
    held = {
        "name": "apply", "id": "5f1c0d7a93b24e88", "purpose": "plan 4d21", "author": "Bea Example",
        "since": dt.datetime(2026, 1, 31, 6, tzinfo=dt.UTC), "host": "runner-7", "boot": "elsewhere", "pid": 812,
        "process_started": "1",
    }  # fmt: skip
    change(any_project, locks.insert().values(held))
    found = one(any_project.findings(), AREA, "lock")
    assert found.verdict is Verdict.WARNING
    assert "since 2026-01-31 06:00:00 UTC" in found.told
    assert found.advice.endswith("edp unlock 5f1c0d7a93b24e88 --env staging")


def test_a_lock_of_a_process_that_has_ended_is_no_trouble(project: Project) -> None:
    from platform_core.control.holders import this_process

    own = this_process()
    held = {
        "name": "apply", "id": "1", "purpose": "plan 4d21", "author": "Bea", "since": dt.datetime.now(dt.UTC),
        "host": own.host, "boot": own.boot, "pid": own.pid, "process_started": "0",
    }  # fmt: skip
    change(project, locks.insert().values(held))
    found = one(project.findings(), AREA, "lock")
    assert found.verdict is Verdict.OK
    assert "the next apply takes it over" in found.told


def test_the_database_of_another_environment_fails(project: Project) -> None:
    change(project, state.update().values(environment="prod"))
    found = one(project.findings(), AREA, "environment")
    assert found.verdict is Verdict.FAILED
    assert "'prod'" in found.told


def test_another_release_is_a_warning(project: Project) -> None:
    row = {
        "serial": 1, "plan": "", "token": "", "origin": "git", "release": "0.0.1", "author": "Ann",
        "applied_at": dt.datetime.now(dt.UTC), "created": 0, "changed": 0, "deleted": 0,
    }  # fmt: skip
    change(project, applies.insert().values(row))
    found = one(project.findings(), AREA, "release")
    assert found.verdict is Verdict.WARNING
    assert "release 0.0.1" in found.told


def test_a_closed_port_fails_and_hides_nothing(project: Project) -> None:
    project.set_secret("platform/control", PASSWORD)
    url = "postgresql+psycopg://edp@127.0.0.1:1/edp"
    project.write_environment(f"control: {{url: '{url}', password: {{secret: platform/control}}}}")
    findings = project.findings()
    assert failed(findings) == [f"{AREA}: reached"]
    found = one(findings, AREA, "reached")
    assert "cannot be reached" in found.told
    assert "PostgreSQL database edp on 127.0.0.1:1" in found.advice
    assert PASSWORD not in repr(findings)


@pytest.mark.services
def test_a_wrong_password_fails_and_is_not_told(project: Project, postgres_server: PostgresServer) -> None:
    project.use_server(postgres_server, database=postgres_server.create_database(), password=PASSWORD)
    findings = project.findings()
    assert failed(findings) == [f"{AREA}: reached"]
    assert "refuses this user, password or database name" in one(findings, AREA, "reached").told
    assert PASSWORD not in repr(findings)


@pytest.mark.services
def test_a_clock_far_from_that_of_the_server_fails(project: Project, postgres_server: PostgresServer) -> None:
    project.use_server(postgres_server, database=postgres_server.create_database())
    project.skew(-40)
    found = one(project.findings(), "clock", AREA)
    assert found.verdict is Verdict.FAILED
    assert "seconds behind it" in found.told


@pytest.mark.services
def test_serving_databases_are_reached(project: Project, postgres_server: PostgresServer) -> None:
    project.set_secret("platform/serving", postgres_server.password)
    here = f"postgresql+psycopg://{postgres_server.user}@{postgres_server.host}:{postgres_server.port}/postgres"
    project.write_environment(
        "databases:",
        f"  good: {{url: '{here}', password: {{secret: platform/serving}}}}",
        "  away: {url: 'postgresql+psycopg://edp@127.0.0.1:1/serving'}",
        "  none: {url: null}",
    )
    verdicts = {each.name: each.verdict for each in project.of("serving database")}
    assert verdicts == {"good": Verdict.OK, "away": Verdict.FAILED, "none": Verdict.OK}
