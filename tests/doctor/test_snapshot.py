"""What doctor says of the snapshot that code locations load."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.planning import plan_from_git
from platform_core.control.snapshot.publish import publish_snapshot
from platform_core.operations.doctor_findings import Verdict
from tests.doctor.conftest import Project, failed, one


@pytest.fixture
def published(project: Project) -> Project:
    """A project whose code locations load snapshots; all is applied and published."""
    project.write_environment("control: {manifest: snapshot}")
    apply(project)
    publish(project)
    return project


def apply(project: Project) -> None:
    environment, store = load_environment(project.settings), project.store()
    plan = plan_from_git(project.settings, environment, store, author="Ann Example")
    apply_plan(plan, environment, store, author="Ann Example", approval=None)
    store.close()


def publish(project: Project) -> None:
    store = project.store()
    publish_snapshot(load_environment(project.settings), store, state=project.settings.state)
    store.close()


def snapshots(project: Project) -> list[Path]:
    return [each for each in (project.settings.state / "lake").rglob("*") if each.is_file() and each.stat().st_size]


def test_an_environment_that_reads_files_needs_no_snapshot(project: Project) -> None:
    found = one(project.findings(), "snapshot", "published")
    assert found.verdict is Verdict.OK
    assert "read their control files" in found.told


def test_a_snapshot_of_all_that_is_applied_is_well(published: Project) -> None:
    findings = published.findings()
    assert failed(findings) == []
    assert one(findings, "snapshot", "shop").told == "serial 1 can be loaded"
    assert one(findings, "snapshot", "published").told == "all of serial 1"


def test_nothing_applied_is_a_warning(project: Project) -> None:
    project.write_environment("control: {manifest: snapshot}")
    found = one(project.findings(), "snapshot", "published")
    assert found.verdict is Verdict.WARNING
    assert "edp apply plan.json" in found.advice


def test_a_snapshot_that_is_behind_fails_with_what_publishes_it(published: Project) -> None:
    ingestion = published.folder / "shop/control/ingestion.yaml"
    ingestion.write_text(ingestion.read_text().replace("key: [item]", "key: [item], description: Prices"))
    apply(published)
    findings = published.findings()
    assert failed(findings) == ["snapshot: published"]
    found = one(findings, "snapshot", "published")
    assert "stands at serial 1, applied is 2" in found.told
    assert found.advice == "publish it: edp publish --env staging"
    publish(published)
    assert failed(published.findings()) == []


def test_a_torn_snapshot_fails(published: Project) -> None:
    for file in snapshots(published):
        if file.stat().st_size > 300:
            file.chmod(0o600)
            file.write_bytes(file.read_bytes()[:200])
    assert one(published.findings(), "snapshot", "shop").verdict is Verdict.FAILED


def test_what_is_published_is_looked_at_where_the_database_is_away(published: Project) -> None:
    published.write_environment("control: {manifest: snapshot, url: 'postgresql+psycopg://edp@127.0.0.1:1/edp'}")
    findings = published.findings()
    assert failed(findings) == ["control database: reached"]
    assert one(findings, "snapshot", "shop").told == "serial 1 can be loaded"
