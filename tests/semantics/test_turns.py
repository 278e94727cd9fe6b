"""When runs start: by the clock, one after the other or side by side, as Dagster's own scheduler and queue have it.

The clock is the test's; runs are processes, and what they load from is a service that answers when the test lets it.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.scenarios.workspaces import Workspace
from tests.semantics.turns import LAUNCHER, Gate, turns
from tests.services.http_server import http_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Dagster reads it of every schedule that it describes.
    pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning"),
]

NOW = dt.datetime.now(dt.UTC)
MISSED = (NOW - dt.timedelta(hours=11)).replace(minute=0, second=0, microsecond=0)
"""Of a schedule that is due once a day at this hour, the newest time that has passed: long ago by any clock."""

FILES = {
    "dagster_home/environments/dev.yaml": """\
        lake: {root: lake}
        secrets: {type: files, options: {path: secrets}}
        schedules: true
        engine: {type: local, max_concurrent: 1}
        """,
    "in_turn/control/location.yaml": """\
        location: in_turn
        workstreams:
          - {name: low, owners: ["team:a"], priority: -5, schedule: {cron: "0 6 * * *"}}
          - {name: usual, owners: ["team:a"], schedule: {cron: "1 6 * * *"}}
          - {name: high, owners: ["team:a"], priority: 5, schedule: {cron: "2 6 * * *"}}
        """,
    "queueing/control/location.yaml": """\
        location: queueing
        workstreams:
          - {name: queueing, owners: ["team:a"], schedule: {cron: "0 6 * * *", overlap: queue}}
        """,
    "skipping/control/location.yaml": """\
        location: skipping
        workstreams:
          - {name: skipping, owners: ["team:a"], schedule: {cron: "0 6 * * *", overlap: skip}}
        """,
    "after_downtime/control/location.yaml": f"""\
        location: after_downtime
        workstreams:
          - {{name: caught_up, owners: ["team:a"], schedule: {{cron: "0 {MISSED.hour} * * *", catch_up: one}}}}
          - {{name: left_out, owners: ["team:a"], schedule: {{cron: "0 {MISSED.hour} * * *", catch_up: none}}}}
        """,
    "by_the_clock/control/location.yaml": """\
        location: by_the_clock
        workstreams:
          - {name: nightly, owners: ["team:a"], schedule: {cron: "30 2 * * *", timezone: Europe/Amsterdam}}
          - {name: hourly, owners: ["team:a"], schedule: {cron: "30 * * * *", timezone: Europe/Amsterdam}}
        """,
    "limited/control/location.yaml": """\
        location: limited
        workstreams:
          - {name: limited, owners: ["team:a"]}
        """,
    "limited/control/connections.yaml": """\
        workstream: limited
        connections:
          - {name: api, type: rest, base_url: "URL/connection", allow_private: true, retries: 0, max_concurrent: 1}
        """,
    "limited/control/ingestion.yaml": """\
        workstream: limited
        source: api
        tables:
          - {object: first, mode: full, key: [id]}
          - {object: second, mode: full, key: [id]}
        """,
    "limited/control/processing.yaml": """\
        workstream: limited
        steps:
          - {name: third, layer: silver, kind: python, function: "limited.asking:step", variables: {url: "URL/engine"}}
          - {name: fourth, layer: silver, kind: python, function: "limited.asking:step", variables: {url: "URL/engine"}}
        """,
    "limited/asking.py": """\
        import urllib.request

        import pyarrow as pa


        def step(context):
            with urllib.request.urlopen(context.variables["url"]) as answer:
                answer.read()
            return pa.table({"id": [1]})
        """,
}
LOADING = {
    "in_turn": ("low", "usual", "high"),
    "queueing": ("queueing",),
    "skipping": ("skipping",),
    "after_downtime": ("caught_up", "left_out"),
    "by_the_clock": ("nightly", "hourly"),
}
ONE_AT_A_TIME = "one_at_a_time.yaml"


def connection(workstream: str) -> str:
    """With room enough, so that loads do not count against the engine."""
    return f"""\
        workstream: {workstream}
        connections:
          - {{name: api, type: rest, base_url: "URL", allow_private: true, retries: 0, max_concurrent: 9}}
        """


def table(workstream: str) -> str:
    return f"""\
        workstream: {workstream}
        source: api
        tables:
          - {{object: {workstream}, mode: full, key: [id]}}
        """


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with http_server() as server:
        gate = Gate(server)
        for workstreams in LOADING.values():
            for workstream in workstreams:
                gate.on(f"/{workstream}")
        for path in ("/connection/first", "/connection/second", "/engine"):
            gate.on(path)
        yield gate
        gate.open()


@pytest.fixture(scope="module")
def project(gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    files = FILES | {
        f"{location}/control/{kind}/{workstream}.yaml": text(workstream)
        for location, workstreams in LOADING.items()
        for workstream in workstreams
        for kind, text in (("connections", connection), ("ingestion", table))
    }
    files = {name: text.replace("URL", gate.server.url) for name, text in files.items()}
    workspace = Workspace.create(tmp_path_factory.mktemp("turns") / "project", files)
    home = workspace.root / "dagster_home"
    # What the tests play is long ago, and would be forgotten at once.
    kept = re.sub(r"purge_after_days: .*", "purge_after_days: -1", (home / "dagster.yaml").read_text())
    configuration = kept + LAUNCHER
    (home / "dagster.yaml").write_text(configuration)
    (home / ONE_AT_A_TIME).write_text(configuration.replace("max_concurrent_runs: 4", "max_concurrent_runs: 1"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in workspace.environment().items():
            if name.startswith(("EDP_", "DAGSTER_", "PYTHON")):
                patch.setenv(name, value)
        setup = workspace.edp("setup")
        assert setup.returncode == 0, setup.stdout + setup.stderr
        yield workspace.root


@pytest.fixture(autouse=True)
def answers_are_held_back(gate: Gate) -> None:
    gate.shut()


def at(day: int, clock: str) -> dt.datetime:
    return dt.datetime.combine(dt.date(2026, 1, day), dt.time.fromisoformat(clock), dt.UTC)


def test_of_the_runs_that_wait_the_one_of_the_highest_priority_starts_first(project: Path, gate: Gate) -> None:
    gate.open()
    with turns("in_turn", root=project, configuration=ONE_AT_A_TIME) as daemon:
        for clock in ("05:59", "06:00", "06:01", "06:02"):
            daemon.look_at_schedules(at(1, clock))
        assert daemon.jobs(daemon.queued()) == ["low", "usual", "high"]
        (first,) = daemon.let_go()
        assert daemon.let_go() == []
        daemon.ends_well(first)
        (second,) = daemon.let_go()
        assert daemon.jobs([first, second, *daemon.queued()]) == ["high", "usual", "low"]


def test_the_times_that_come_while_a_run_is_active_queue_one_run_which_starts_once_after_it(
    project: Path, gate: Gate
) -> None:
    """FAULTS C16"""
    with turns("queueing", root=project) as daemon:
        daemon.look_at_schedules(at(1, "05:59"))
        daemon.look_at_schedules(at(1, "06:00"))
        (first,) = daemon.let_go()
        gate.wait_for("queueing")
        for day in (2, 3):
            daemon.look_at_schedules(at(day, "06:00"))
            assert daemon.let_go() == []
        (waiting,) = daemon.queued()

        gate.open()
        daemon.ends_well(first)
        assert daemon.let_go() == [waiting]
        daemon.ends_well(waiting)
        daemon.look_at_schedules(at(3, "06:30"))
        assert daemon.let_go() == []
        assert daemon.due("queueing") == [at(1, "06:00"), at(2, "06:00")]


def test_a_time_that_comes_while_a_run_is_active_is_skipped_and_the_one_after_it_is_not(
    project: Path, gate: Gate
) -> None:
    """FAULTS C16"""
    with turns("skipping", root=project) as daemon:
        daemon.look_at_schedules(at(1, "05:59"))
        daemon.look_at_schedules(at(1, "06:00"))
        (first,) = daemon.let_go()
        gate.wait_for("skipping")
        daemon.look_at_schedules(at(2, "06:00"))
        assert daemon.queued() == []

        gate.open()
        daemon.ends_well(first)
        daemon.look_at_schedules(at(2, "06:30"))
        assert daemon.queued() == []
        daemon.look_at_schedules(at(3, "06:00"))
        assert daemon.due("skipping") == [at(1, "06:00"), at(3, "06:00")]


def test_after_downtime_over_several_times_one_run_starts_for_the_last_of_them_or_none(project: Path) -> None:
    with turns("after_downtime", root=project) as daemon:
        daemon.look_at_schedules(NOW - dt.timedelta(days=4))
        for seconds in (0, 1):
            daemon.look_at_schedules(NOW + dt.timedelta(seconds=seconds))
            assert daemon.due("caught_up") == [MISSED]
            assert daemon.due("left_out") == []
        daemon.look_at_schedules(MISSED + dt.timedelta(days=1))
        assert daemon.due("left_out") == [MISSED + dt.timedelta(days=1)]


@pytest.mark.parametrize(
    ("evening", "nightly"),
    [
        pytest.param("2026-03-28T23:10", "2026-03-29T01:00", id="one is missing"),
        pytest.param("2026-10-24T23:10", "2026-10-25T01:30", id="one comes twice"),
    ],
)
def test_when_the_clocks_change_a_time_of_the_night_comes_once_and_one_of_each_hour_as_often_as_hours_pass(
    project: Path, evening: str, nightly: str
) -> None:
    began = dt.datetime.fromisoformat(evening).replace(tzinfo=dt.UTC)
    with turns("by_the_clock", root=project) as daemon:
        for minutes in range(0, 4 * 60, 30):
            daemon.look_at_schedules(began + dt.timedelta(minutes=minutes))
            for run in daemon.queued():
                # So that the next time does not find it.
                daemon.ends_unseen(run)
        assert daemon.due("nightly") == [dt.datetime.fromisoformat(nightly).replace(tzinfo=dt.UTC)]
        assert daemon.due("hourly") == [began + dt.timedelta(hours=hour, minutes=20) for hour in range(4)]


def test_no_more_steps_of_all_runs_use_a_connection_or_the_engine_at_a_time_than_are_declared(
    project: Path, gate: Gate
) -> None:
    with turns("limited", root=project) as daemon:
        keys = [["bronze", "first"], ["bronze", "second"], ["silver", "third"], ["silver", "fourth"]]
        runs = [daemon.request(dg.AssetKey(["limited", *key])) for key in keys]
        # Nothing has told the instance of the limits yet, so that the queue holds nothing back.
        assert sorted(daemon.let_go()) == sorted(runs)
        for pool in ("edp/connection/limited.api", "edp/engine"):
            daemon.wait_for_line(pool)
        for room in ("connection", "engine"):
            gate.wait_for(room)
        gate.open()
        for run in runs:
            daemon.ends_well(run)
        assert gate.most == {"connection": 1, "engine": 1}


def test_a_time_at_which_the_storage_refuses_is_tried_again_so_that_no_day_is_lost(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with turns("queueing", root=project) as daemon:
        daemon.look_at_schedules(at(1, "05:59"))
        for clock in ("06:00", "06:01"):
            with monkeypatch.context() as patch:
                patch.setattr(dg.DagsterInstance, "get_runs", refuse)
                daemon.look_in_vain(at(1, clock))
        for clock in ("06:02", "06:03"):
            daemon.look_at_schedules(at(1, clock))
            assert daemon.due("queueing") == [at(1, "06:00")]
