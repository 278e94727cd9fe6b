"""``edp apply`` publishes, ``edp publish`` repairs, ``edp plan`` says what is late."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from platform_core.cli import edp
from tests.snapshot.conftest import Publishing

Run = Callable[..., Result]


@pytest.fixture
def run(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("EDP_ENVIRONMENT", "EDP_DAGSTER_STATE"):
        monkeypatch.delenv(name, raising=False)
    settings = publishing.project.settings()
    monkeypatch.setenv("EDP_PROJECT", str(settings.project))
    monkeypatch.setenv("EDP_STATE", str(settings.state))
    monkeypatch.setenv("DAGSTER_HOME", str(settings.home))
    return lambda *arguments: CliRunner().invoke(edp, arguments)


def edit(publishing: Publishing) -> None:
    publishing.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")


def test_an_apply_publishes(run: Run, publishing: Publishing) -> None:
    edit(publishing)
    result = run("apply", "--auto")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == (f"published to dev: serial 2, 2 of 2 locations, in {publishing.folder}")
    assert publishing.lookback() == "3:00:00"


def test_an_apply_tells_programs_what_it_published(run: Run, publishing: Publishing) -> None:
    edit(publishing)
    told = json.loads(run("apply", "--auto", "--json").stdout)
    assert (told["serial"], told["published"]["serial"], told["published"]["moved"]) == (2, 2, ["crm", "finance"])


def test_an_apply_that_cannot_be_published_stands(run: Run, publishing: Publishing) -> None:
    edit(publishing)
    publishing.folder.parent.parent.mkdir(parents=True)
    publishing.folder.parent.write_text("no folder")
    failed = run("apply", "--auto", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["published"] is None
    assert "serial 2 is applied, and stands, but it could not be published" in str(failed.exception)
    publishing.folder.parent.unlink()
    assert "published to dev: serial 2, 2 of 2 locations" in run("publish").output
    assert run("publish").output == f"nothing to publish: serial 2 is published in {publishing.folder}\n"


def test_an_apply_without_changes_repairs_too(run: Run, publishing: Publishing) -> None:
    result = run("apply", "--auto")
    assert "nothing to do: dev stays at serial 1" in result.output
    assert publishing.load().provenance.serial == 1


def test_going_back_publishes(run: Run, publishing: Publishing) -> None:
    edit(publishing)
    run("apply", "--auto")
    file = str(publishing.project.folder / "back.json")
    run("rollback", "1", "--out", file)
    assert run("apply", file).exit_code == 0
    assert (publishing.load().provenance.serial, publishing.lookback()) == (3, "2:00:00")


def test_a_plan_says_what_is_not_published(run: Run, publishing: Publishing) -> None:
    told = run("plan")
    assert told.exit_code == 0
    assert told.stderr == (
        "note: the published snapshot of crm, finance holds nothing, applied is 1: edp publish --env dev\n"
    )
    publishing.publish()
    assert run("plan").stderr == ""
    publishing.change(3)
    assert run("plan", "--json").stderr == (
        "note: the published snapshot of crm, finance stands at serial 1, applied is 2: edp publish --env dev\n"
    )


def test_where_locations_read_files_nothing_is_published_unasked(run: Run, publishing: Publishing) -> None:
    publishing.project.write_environment("dev")
    edit(publishing)
    assert json.loads(run("apply", "--auto", "--json").stdout)["published"] is None
    assert run("plan").stderr == ""
    assert not publishing.folder.exists()
    asked = run("publish")
    assert asked.exit_code == 0
    assert "note: code locations of dev read their control files" in asked.stderr
    assert publishing.pointer()["serial"] == 2


def test_publish_tells_programs(run: Run, publishing: Publishing) -> None:
    told = json.loads(run("publish", "--json").stdout)
    assert told == {
        "serial": 1,
        "locations": ["crm", "finance"],
        "moved": ["crm", "finance"],
        "gone": [],
        "restored": None,
        "root": str(publishing.folder),
        "notes": [],
    }
