"""``edp sql`` and ``edp drift`` say what happened by their words and by their exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.control_plane.conftest import AUTHOR
from tests.control_plane.test_commands import Commands
from tests.reviewed_sql.conftest import SOON, Changes

LOOKBACK = "UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'"


@pytest.fixture
def run(changes: Changes, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(changes.project, monkeypatch)


def test_plan_apply_status(run: Commands, changes: Changes) -> None:
    assert run.ok("sql", "plan") == "nothing to do: no reviewed SQL change waits\n"
    changes.file(LOOKBACK)
    planned = run("sql", "plan")
    assert planned.exit_code == 2
    assert planned.output == (
        f"0001_change: the source is down (team:crm, until {SOON})\n\n"
        "~ ingestion  crm.orders                      control_sql/dev/0001_change.sql:4\n"
        "    lookback: 2 hours -> 5 hours\n"
        "    reaches: 1 asset (finance.gold.margin), 1 dashboard (finance.dashboard.board) in finance; "
        "owners: m.owner@example.com, team:finance\n\n"
        "Plan: 0 to create, 1 to update, 0 to delete, 10 unchanged\n\n"
    )
    status = run.ok("sql", "status")
    assert "0001_change  waits" in status
    done = run.ok("sql", "apply", "--author", AUTHOR)
    assert done == "applied 0001_change to dev: 0 created, 1 changed, 0 deleted; serial 2\n"
    assert run.ok("sql", "apply") == "nothing to do: no reviewed SQL change waits\n"
    assert "0001_change  applied  2" in run.ok("sql", "status")
    assert "sql" in run.ok("history")


def test_results_as_json(run: Commands, changes: Changes) -> None:
    changes.file(LOOKBACK)
    [planned] = json.loads(run("sql", "plan", "--json").output)
    assert planned["change"] == {
        "number": 1,
        "name": "0001_change",
        "file": "control_sql/dev/0001_change.sql",
        "owner": "team:crm",
        "expires": f"{SOON}",
        "reason": "the source is down",
    }
    assert planned["plan"]["changes"][0]["fields"][0]["after"] == "5 hours"
    applied = json.loads(run.ok("sql", "apply", "--json"))
    assert (applied["applied"][0]["serial"], applied["published"]) == (2, None)
    status = json.loads(run.ok("sql", "status", "--json"))
    assert (status["applied"][0]["name"], status["waiting"], status["issues"]) == ("0001_change", [], [])


def test_a_plan_for_a_merge_request(run: Commands, changes: Changes) -> None:
    changes.file(LOOKBACK)
    planned = run("sql", "plan", "--markdown")
    assert planned.exit_code == 2
    assert "#### `0001_change`" in planned.output
    assert "| ~ | ingestion | `crm.orders`" in planned.output


def test_faults_end_with_1(run: Commands, changes: Changes) -> None:
    changes.file("DROP TABLE history")
    result = run("sql", "status")
    assert result.exit_code == 1
    assert "control_sql/dev/0001_change.sql:4: DROP has no place in a reviewed change" in result.output
    for command in ("plan", "apply"):
        assert "DROP has no place" in str(run("sql", command).exception)


def test_a_marked_change_needs_a_reason(run: Commands, changes: Changes) -> None:
    changes.file("UPDATE ingestion SET cursor = 'id' WHERE name = 'orders'")
    assert "need a person's reason" in str(run("sql", "apply").exception)
    done = run.ok("sql", "apply", "--approve", "ticket 812")
    assert "to do: crm.orders wants reload: full: edp ingest reload crm.orders --env dev" in done


def test_drift_and_its_exit_codes(run: Commands, changes: Changes) -> None:
    assert run.ok("drift") == "no drift: the environment holds what git says\n"
    changes.apply(LOOKBACK)
    changes.project.sql("UPDATE control.ingestion SET parallel = 9 WHERE name = 'customers'")
    changes.project.edit("finance/control/refresh.yaml", "type: page", "type: page\n    title: Board")
    found = run("drift")
    assert found.exit_code == 2
    lines = found.output.splitlines()
    assert lines[:2] == [
        "~ ingestion  crm.customers                   crm/control/ingestion.yaml:3",
        "    parallel: 1 in git, 9 here",
    ]
    assert lines[2] == "      by hand: past git and every reviewed change"
    assert '    lookback: "2 hours" in git, "5 hours" here' in lines
    assert f"      override by team:crm, until {SOON} (0001_change, serial 2)" in lines
    assert '    title: "Board" in git, "" here' in lines
    assert lines[-1] == "Drift: 3 rows: 1 overridden, 1 changed by hand, 1 older than git"
    told = json.loads(run("drift", "--json").output)
    assert [row["values"][0]["cause"] for row in told] == ["by hand", "override", "older"]
    assert told[1]["values"][0]["override"]["expires"] == f"{SOON}"
    changes.project.edit("finance/control/refresh.yaml", "type: page", "type: nothing")
    assert "unknown dashboard 'nothing'" in str(run("drift").exception)


def test_drift_is_written_back(run: Commands, changes: Changes) -> None:
    assert run.ok("drift", "export") == "nothing to write back\n"
    changes.apply(LOOKBACK)
    done = run.ok("drift", "export", "crm.orders")
    assert done.splitlines()[0] == "wrote crm/control/ingestion.yaml"
    assert "lookback: 5 hours\n" in (changes.project.folder / "crm/control/ingestion.yaml").read_text()
    assert "1 override to end" in run("plan").output
    assert run("plan").exit_code == 2
    run.ok("apply", "--auto")
    assert run("plan").exit_code == 0
    assert json.loads(run.ok("drift", "--json")) == []


def test_an_override_in_a_plan_as_json_and_for_a_merge_request(run: Commands, changes: Changes) -> None:
    changes.apply(LOOKBACK)
    planned = run("plan", "--json")
    assert planned.exit_code == 0
    [override] = json.loads(planned.output)["overrides"]
    assert (override["field"], override["git"], override["value"]) == ("lookback", "2 hours", "5 hours")
    assert "**Overridden**" in run("plan", "--markdown").output


def test_publishing_follows_an_apply(run: Commands, changes: Changes, tmp_path: Path) -> None:
    changes.project.write_environment("dev", manifest="snapshot", snapshots={"root": str(tmp_path / "published")})
    changes.file(LOOKBACK)
    assert "published to dev: serial 2" in run.ok("sql", "apply")
    assert list((tmp_path / "published").rglob("*"))
