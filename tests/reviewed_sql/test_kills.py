"""A reviewed change that is killed before any of its statements is whole, or nothing of it is there."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.control_plane.conftest import PROJECT
from tests.forked import start_forked
from tests.reviewed_sql.conftest import Changes

TABLES = ("ingestion", "refresh", "history", "applies", "state", "sql_changes", "overrides")
MOST_STATEMENTS = 400


class Killed:
    """The process of ``worker.py``."""

    def __init__(self, changes: Changes) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
        folder = str(changes.project.folder)
        self.process = start_forked([folder], env=inherited, cwd=PROJECT, module="tests.reviewed_sql.worker")

    def ask(self, nth: int) -> Any:
        self.process.stdin.write(f"{nth}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def state(changes: Changes) -> list[object]:
    return [changes.project.sql(f"SELECT * FROM control.{table} ORDER BY 1, 2, 3") for table in TABLES]


def test_killed_before_any_statement_a_change_is_whole_or_nothing(
    changes: Changes, request: pytest.FixtureRequest
) -> None:
    kills: int = request.config.getoption("--kills", default=12)
    changes.file(
        "UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'; DELETE FROM refresh; "
        "INSERT INTO upkeep (location, workstream, name, operation) VALUES ('crm', 'crm', 'compaction', 'compact')"
    )
    before = state(changes)
    worker = Killed(changes)
    outcomes = []
    try:
        for nth in (*range(1, MOST_STATEMENTS, max(1, MOST_STATEMENTS // kills // 2)), 10 * MOST_STATEMENTS):
            answer = worker.ask(nth)
            if state(changes) == before:
                assert answer == {"killed": -signal.SIGKILL}
                outcomes.append("nothing")
                continue
            # From here on the commit was through, killed afterwards or not.
            assert answer in ({"killed": -signal.SIGKILL}, {"serials": [2]})
            break
    finally:
        worker.end()
    assert len(outcomes) > 2
    assert changes.project.sql("SELECT serial FROM control.state") == [(2,)]
    assert changes.project.sql("SELECT count(*) FROM control.history WHERE serial = 2") == [(3,)]
    assert changes.project.sql("SELECT name, serial FROM control.sql_changes") == [("0001_change", 2)]
    assert sorted(each.key.kind for each in changes.overrides()) == ["ingestion", "refresh", "upkeep"]
    assert changes.project.plan().is_empty
    assert changes.plan() == []
