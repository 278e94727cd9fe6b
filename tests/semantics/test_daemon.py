"""The same rule with real processes: a daemon, a code server for each of two locations, runs, and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from tests.conftest import PROJECT
from tests.scenarios.workspaces import Workspace
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

EVERY_SECONDS = 2
PATIENCE = 150
QUIET = 12
"""Seconds without a new run after which nothing more is asked for: several ticks."""

DEFINITIONS = f"""\
from pathlib import Path

import dagster as dg

from platform_core import build_definitions
from platform_core.factories import jobs

# A test has no half minute to wait.
jobs.TICK_SECONDS = {EVERY_SECONDS}


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Path(__file__).parent / "control")
"""
SLOW_STEP = """\
import time
from pathlib import Path


def step(context):
    rows = context.inputs["loader.bronze.a"].arrow().select(["id"])
    hold = Path(context.variables["hold"])
    # The inputs were opened before: what is loaded now, this run does not see.
    hold.with_suffix(".reading").touch()
    while hold.exists():
        time.sleep(0.1)
    return rows
"""
FILES = {
    "dagster_home/environments/dev.yaml": """\
        lake: {root: lake}
        secrets: {type: files, options: {path: secrets}}
        schedules: true
        """,
    "loader/control/location.yaml": """\
        location: loader
        workstreams:
          - {name: loader, description: Loads., owners: ["team:loader"]}
        """,
    "loader/control/connections/shop.yaml": """\
        workstream: loader
        connections:
          - {name: shop, type: sqlite, path: "${env.state}/shop.db"}
        """,
    "loader/control/ingestion/shop.yaml": """\
        workstream: loader
        source: shop
        tables:
          - {object: a, table: a, mode: full, key: [id]}
          - object: b
            table: b
            mode: full
            key: [id]
            expectations:
              - {not_null: name}
        """,
    "maker/control/location.yaml": """\
        location: maker
        workstreams:
          - {name: maker, description: Makes., owners: ["team:maker"]}
        """,
    "maker/control/processing/steps.yaml": """\
        workstream: maker
        steps:
          - name: both
            layer: silver
            kind: sql
            sql: sql/both.sql
            depends_on: [loader.bronze.a, loader.bronze.b]
          - name: slow
            layer: silver
            kind: python
            function: maker.slow:step
            depends_on: [loader.bronze.a]
            variables: {hold: HOLD}
        """,
    "maker/control/refresh/board.yaml": """\
        workstream: maker
        dashboards:
          - name: board
            type: page
            shows: [silver.both, silver.slow]
            tables: [{title: Both, table: silver.both}]
        """,
    "maker/sql/both.sql": "SELECT a.id, b.name FROM loader.bronze.a JOIN loader.bronze.b USING (id)\n",
}
A, B = dg.AssetKey(["loader", "bronze", "a"]), dg.AssetKey(["loader", "bronze", "b"])
BOTH, SLOW = dg.AssetKey(["maker", "silver", "both"]), dg.AssetKey(["maker", "silver", "slow"])
BOARD = dg.AssetKey(["maker", "dashboard", "board"])


class Daemon:
    """Both locations under a daemon, whose event log a test reads."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root = root
        self.instance = instance
        self.workspace = Workspace(root)
        self.hold = root / "state" / "hold"

    def fill(self, *, name: str = "'x'") -> None:
        """New rows in both sources; ``name`` is that of the rows of b."""
        self.workspace.sql(
            "state/shop.db",
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE IF NOT EXISTS a (id INTEGER PRIMARY KEY, name TEXT)",
            "CREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO a (name) VALUES ('x')",
            f"INSERT INTO b (name) VALUES ({name})",
        )

    def load(self) -> dg.DagsterRunStatus:
        """Run the job of location `loader`, to its end."""
        arguments = ("job", "launch", "-w", "workspace.yaml", "--location", "loader", "-j", "loader")
        before = {run.run_id for run in self.runs("loader")}
        asked = self.workspace.dagster(*arguments, **_variables())
        assert asked.returncode == 0, asked.stdout + asked.stderr
        (run,) = [run for run in self.runs("loader") if run.run_id not in before]
        deadline = time.monotonic() + PATIENCE
        while not (found := self.instance.get_run_by_id(run.run_id)).is_finished:  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "the load did not end"
            time.sleep(0.3)
        return found.status  # type: ignore[union-attr]

    def runs(self, job: str | None = None) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(job_name=job) if job else None))

    def builds(self, key: dg.AssetKey) -> int:
        """How often an asset was built."""
        return len(self.instance.fetch_materializations(key, limit=1_000).records)

    def until(self, key: dg.AssetKey, builds: int) -> None:
        """Wait until the daemon has had an asset built so often."""
        deadline = time.monotonic() + PATIENCE
        while self.builds(key) < builds:
            assert time.monotonic() < deadline, (
                f"{key.to_user_string()} was built {self.builds(key)} times, not {builds}"
            )
            time.sleep(0.3)

    def settles(self) -> None:
        """Wait until all runs have ended and no new one comes."""
        deadline = time.monotonic() + PATIENCE
        quiet_since, known = time.monotonic(), -1
        while time.monotonic() - quiet_since < QUIET:
            runs = self.runs()
            if len(runs) != known or not all(run.is_finished for run in runs):
                quiet_since, known = time.monotonic(), len(runs)
            assert time.monotonic() < deadline, "runs are asked for, again and again"
            time.sleep(0.5)

    def saw(self, key: dg.AssetKey, source: dg.AssetKey) -> bool:
        """Whether the newest build of an asset had seen the newest build of an input."""
        (made,) = self.instance.fetch_materializations(key, limit=1).records
        (newest,) = self.instance.fetch_materializations(source, limit=1).records
        tags = made.asset_materialization.tags if made.asset_materialization else None
        pointer = (tags or {}).get(f"dagster/input_event_pointer/{source.to_user_string()}")
        return pointer == str(newest.storage_id)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("EDP_POSTGRES_")}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("semantics")
    files = {name: text.replace("HOLD", str(root / "state" / "hold")) for name, text in FILES.items()}
    for name in ("loader", "maker"):
        files |= {f"{name}/definitions.py": DEFINITIONS, f"{name}/__init__.py": ""}
    files["maker/slow.py"] = SLOW_STEP
    workspace = Workspace.create(root, files)
    shutil.copy(PROJECT / "docker" / "dagster.yaml", root / "dagster_home" / "dagster.yaml")
    with pytest.MonkeyPatch.context() as patch:
        variables = {
            "HOST": postgres_server.host,
            "PORT": str(postgres_server.port),
            "DATABASE": postgres_server.create_database(),
            "USER": postgres_server.user,
            "PASSWORD": postgres_server.password,
        }
        for name, value in variables.items():
            patch.setenv(f"EDP_POSTGRES_{name}", value)
        for name, value in workspace.environment().items():
            if name.startswith(("EDP_", "DAGSTER_")):
                patch.setenv(name, value)
        patch.setenv("EDP_STATE", str(workspace.state))
        setup = workspace.edp("setup", **_variables())
        assert setup.returncode == 0, setup.stdout + setup.stderr
        with dg.DagsterInstance.from_config(str(root / "dagster_home")) as instance:
            started = Daemon(root, instance)
            started.fill()
            with (root / "daemon.log").open("wb") as log:
                process = subprocess.Popen(
                    [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", "workspace.yaml"],
                    env=workspace.environment(**_variables()),
                    cwd=root,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            try:
                yield started
            finally:
                _stop(process, mark=str(workspace.state))


def _stop(process: subprocess.Popen[bytes], *, mark: str) -> None:
    """End every process of this installation by its id."""
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if other.pid != os.getpid() and other.environ().get("EDP_STATE") == mark:
                other.send_signal(signal.SIGKILL)
    process.wait()


def test_a_load_that_ends_while_a_step_works_is_not_lost_and_nothing_is_asked_for_ever(daemon: Daemon) -> None:
    daemon.hold.touch()
    assert daemon.load() is dg.DagsterRunStatus.SUCCESS
    deadline = time.monotonic() + PATIENCE
    while not daemon.hold.with_suffix(".reading").exists():
        assert time.monotonic() < deadline, (daemon.root / "daemon.log").read_text()[-4_000:]
        time.sleep(0.3)
    daemon.fill()
    assert daemon.load() is dg.DagsterRunStatus.SUCCESS
    daemon.hold.unlink()
    daemon.until(SLOW, 2)
    daemon.settles()
    assert all(daemon.saw(key, source) for key, source in ((SLOW, A), (BOTH, A), (BOTH, B)))
    assert (daemon.builds(SLOW), daemon.builds(BOTH)) == (2, 2)
    assert daemon.saw(BOARD, SLOW)


def test_a_blocking_check_of_another_location_holds_a_step_back_until_it_passes(daemon: Daemon) -> None:
    both, slow = daemon.builds(BOTH), daemon.builds(SLOW)
    daemon.fill(name="NULL")
    assert daemon.load() is dg.DagsterRunStatus.FAILURE
    daemon.until(SLOW, slow + 1)
    daemon.settles()
    assert daemon.builds(BOTH) == both
    daemon.workspace.sql("state/shop.db", "UPDATE b SET name = 'mended' WHERE name IS NULL")
    assert daemon.load() is dg.DagsterRunStatus.SUCCESS
    daemon.until(BOTH, both + 1)
    daemon.settles()
    assert daemon.builds(BOTH) == both + 1
