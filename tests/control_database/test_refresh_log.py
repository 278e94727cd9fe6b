"""The log of refreshes and what plug-ins remember, in both kinds of control database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from platform_core.control.loads import Loads
from platform_core.control.refresh_log import RefreshLog, RefreshRow
from platform_core.plugins.interfaces import ShownTable
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef
from tests.control_database.conftest import Place

BOARD = TableRef("mobility", "dashboard", "ridership")
OTHER = TableRef("crm", "dashboard", "members")
AT = dt.datetime(2026, 11, 21, 6, 0, tzinfo=dt.UTC)
ROW = RefreshRow(
    dashboard=BOARD,
    status="succeeded",
    run_id="run-1",
    as_of=AT,
    started_at=AT + dt.timedelta(minutes=1),
    ended_at=AT + dt.timedelta(minutes=2),
    cut={"mobility.gold.daily": ShownTable(version=12, batch=7, made_at=AT), "w.gold.v": ShownTable(version=1)},
    moved=("mobility.gold.daily",),
    figures={"requests": 1, "state": "Completed"},
    url="https://dashboards.example/1",
)


def test_what_was_shown_is_read_back_as_it_was(place: Place) -> None:
    log = place.loads().refresh_log()
    log.record(ROW)
    assert log.recent(BOARD) == [ROW]


def test_a_failed_attempt_does_not_change_what_is_shown(place: Place) -> None:
    log = place.loads().refresh_log()
    log.record(ROW)
    failed = replace(ROW, status="failed", run_id="run-2", error="the service is away", url=None)
    log.record(failed)
    assert log.shown() == {BOARD: ROW}
    assert log.newest() == {BOARD: failed}


def test_the_newest_row_is_the_one_that_was_written_last(place: Place) -> None:
    log = place.loads().refresh_log()
    log.record(ROW)
    log.record(replace(ROW, run_id="run-2"))
    log.record(replace(ROW, dashboard=OTHER))
    assert {board: row.run_id for board, row in log.shown().items()} == {BOARD: "run-2", OTHER: "run-1"}
    assert [row.dashboard for row in log.recent(limit=2)] == [OTHER, BOARD]


def test_a_plug_in_remembers_what_it_said_last(place: Place) -> None:
    log = place.loads().refresh_log()
    assert log.remembered(BOARD) == {}
    log.remember(BOARD, {"ids": ["a"]})
    log.remember(BOARD, {"ids": ["a", "b"], "parts": [["Rides", ""]]})
    assert log.remembered(BOARD) == {"ids": ["a", "b"], "parts": [["Rides", ""]]}
    assert log.remembered(OTHER) == {}


def test_what_a_person_refreshed_is_nobody_elses(place: Place) -> None:
    loads: Loads = place.loads()
    everybody = loads.refresh_log()
    anna = RefreshLog(place.database(), person=Person("anna"))
    anna.record(ROW)
    anna.remember(BOARD, {"ids": ["hers"]})
    assert anna.shown() == {BOARD: ROW}
    assert everybody.shown() == {}
    assert everybody.remembered(BOARD) == {}
