"""An apply that is killed before any of its statements leaves the tables as they were, or as they should be."""

from __future__ import annotations

import signal

import pytest

from tests.control_plane.conftest import Project

_MOST_STATEMENTS = 48


def snapshot(project: Project) -> list[object]:
    return [
        project.sql(f"SELECT * FROM control.{table} ORDER BY 1, 2, 3")
        for table in ("location", "ingestion", "connection", "refresh", "processing", "history", "applies", "state")
    ]


def test_killed_before_any_statement_an_apply_is_whole_or_nothing(
    applied: Project, request: pytest.FixtureRequest
) -> None:
    kills: int = request.config.getoption("--kills")
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    applied.edit("crm/control/connections.yaml", "name: lists", "name: folders")
    applied.write("finance/control/upkeep.yaml", "policies:\n  - {name: compaction, operation: compact}\n")
    plan = applied.plan()
    applied.write("plan.json", plan.as_json())
    before = snapshot(applied)
    worker = applied.worker()
    outcomes = []
    for nth in range(1, _MOST_STATEMENTS, max(1, _MOST_STATEMENTS // kills)):
        answer = worker.ask(f"apply {nth}")
        if snapshot(applied) == before:
            assert answer == {"killed": -signal.SIGKILL}
            outcomes.append("nothing")
            continue
        # From here on the commit was through, killed afterwards or not.
        assert answer in ({"killed": -signal.SIGKILL}, {"serial": 2})
        assert applied.plan().changes == ()
        assert applied.sql("SELECT serial FROM control.state") == [(2,)]
        assert applied.sql("SELECT count(*) FROM control.history WHERE serial = 2") == [(len(plan.changes),)]
        outcomes.append("whole")
        break
    assert outcomes[0] == "nothing"
    assert outcomes[-1] == "whole"
    # The lock of a process that was killed stands in nobody's way.
    applied.edit("crm/control/ingestion.yaml", "lookback: 3 hours", "lookback: 4 hours")
    assert applied.apply().serial == 3
