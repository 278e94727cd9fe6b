"""The commands say what happened by their words and by their exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from platform_core.cli import edp
from tests.control_plane.conftest import AUTHOR, Project


class Commands:
    """``edp`` in a project of the test's."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        for name in ("EDP_ENVIRONMENT", "EDP_DAGSTER_STATE"):
            monkeypatch.delenv(name, raising=False)
        settings = project.settings()
        monkeypatch.setenv("EDP_PROJECT", str(settings.project))
        monkeypatch.setenv("EDP_STATE", str(settings.state))
        monkeypatch.setenv("DAGSTER_HOME", str(settings.home))

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(edp, arguments)

    def ok(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output


@pytest.fixture
def run(project: Project, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(project, monkeypatch)


@pytest.fixture
def run_applied(applied: Project, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(applied, monkeypatch)


def test_plan_apply_plan(run: Commands) -> None:
    file = str(run.project.folder / "plan.json")
    planned = run("plan", "--out", file)
    assert planned.exit_code == 2
    assert "Plan: 11 to create, 0 to update, 0 to delete, 0 unchanged" in planned.output
    assert "applied to dev: 11 created, 0 changed, 0 deleted; serial 1" in run.ok("apply", file, "--author", AUTHOR)
    assert run.ok("plan") == "Plan: nothing to do, 11 unchanged\n"


def test_a_plan_as_json_is_the_plans_file(run: Commands) -> None:
    file = run.project.folder / "plan.json"
    printed = run("plan", "--json", "--out", str(file), "--author", AUTHOR)
    assert printed.exit_code == 2
    assert printed.output == file.read_text()
    assert json.loads(printed.output)["author"] == AUTHOR


def test_a_plan_as_markdown_begins_with_its_environment(run: Commands) -> None:
    assert run("plan", "--markdown").output.startswith("### Plan for `dev`")


def test_a_laptop_plans_and_applies_in_one_go(run: Commands) -> None:
    output = run.ok("apply", "--auto", "--location", "crm")
    assert "Plan: 7 to create" in output
    assert "serial 1" in output
    assert json.loads(run.ok("apply", "--auto", "--json"))["created"] == 4


def test_an_apply_needs_a_plan(run: Commands) -> None:
    for arguments in ((), ("plan.json", "--auto")):
        assert "name the file of a plan, or say --auto" in run("apply", *arguments).output


def test_an_apply_tells_what_should_be_loaded_again(run_applied: Commands) -> None:
    run_applied.project.edit("crm/control/ingestion.yaml", "key: [id]\n    cursor", "key: [id, line]\n    cursor")
    output = run_applied.ok("apply", "--auto", "--approve", "Lines have numbers now")
    assert "to do: crm.orders wants reload: full: edp ingest reload crm.orders --env dev" in output


def test_history_lists_applies_and_versions(run_applied: Commands) -> None:
    applies = json.loads(run_applied.ok("history", "--json"))
    assert [(each["serial"], each["author"]) for each in applies] == [(1, AUTHOR)]
    [version] = json.loads(run_applied.ok("history", "ingestion", "crm.orders", "--json"))
    assert (version["change"], version["content"]["lookback"]) == ("created", "2 hours")
    assert re.search(r"^SERIAL +AT +CREATED", run_applied.ok("history"))
    assert "no ingestion crm.nothing was ever applied" in run_applied.ok("history", "ingestion", "crm.nothing")
    assert "unknown kind 'tables'; known: location," in run_applied("history", "tables", "crm.orders").output


def test_show_prints_a_spec_as_it_is_and_as_it_was(run_applied: Commands) -> None:
    shown = run_applied.ok("show", "ingestion", "crm.orders")
    assert shown.startswith("# ingestion crm.orders of location crm, serial 1")
    assert "lookback: 2 hours\n" in shown
    assert run_applied.ok("show", "ingestion", "crm.orders", "--as-of", "2999-01-31") == shown
    early = run_applied("show", "ingestion", "crm.orders", "--as-of", "2020-01-31")
    assert str(early.exception).splitlines() == [
        "there is no ingestion crm.orders at 2020-01-31 23:59:59 UTC",
        "  see its versions: edp history ingestion crm.orders --env dev",
    ]
    assert "'yesterday' is no moment" in run_applied("show", "ingestion", "crm.orders", "--as-of", "yesterday").output


def test_rollback_plans_the_way_back(run_applied: Commands) -> None:
    run_applied.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    run_applied.ok("apply", "--auto")
    file = str(run_applied.project.folder / "back.json")
    planned = run_applied("rollback", "1", "--out", file)
    assert planned.exit_code == 2
    assert "lookback: 3 hours -> 2 hours" in planned.output
    assert "serial 3" in run_applied.ok("apply", file)
    assert run_applied("rollback", "1").exit_code == 0


def test_unlock_takes_a_lock_away(run_applied: Commands) -> None:
    id_ = run_applied.project.worker().ask("hold")
    refused = run_applied("apply", "--auto")
    assert f"edp unlock {id_}" in str(refused.exception)
    assert "took the lock away from Worker <worker@example.com>, process" in run_applied.ok("unlock", id_)


def test_prune_lists_and_removes(run_applied: Commands) -> None:
    project = run_applied.project
    (project.folder / "finance/control/refresh.yaml").unlink()
    (project.folder / "finance/control/processing.yaml").unlink()
    run_applied.ok("apply", "--auto")
    assert "nothing to prune" in run_applied.ok("prune")
    table = Path(project.environment().lake.root) / "finance/gold/margin"
    table.mkdir(parents=True)
    assert "finance.gold.margin: its spec was deleted" in run_applied.ok("prune")
    assert "a reason that goes into history" in str(run_applied("prune", "--yes").exception)
    assert "is not to be pruned" in run_applied("prune", "crm.bronze.orders", "--yes", "--approve", "x").output
    assert table.is_dir()
    assert "finance.gold.margin: removed" in run_applied.ok("prune", "--yes", "--approve", "Not needed")
    assert not table.exists()
