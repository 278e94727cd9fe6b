"""Two locations on code servers of their own, a daemon, and runs whose processes a test may kill."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psutil
from dagster._core.scheduler.instigation import InstigatorType
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, WILL_RETRY_TAG

from platform_core.control.loads import LoadRow, Loads, open_loads
from platform_core.factories.lease_reaper import LEASE_REAPER
from platform_core.lake.delta import DeltaTableReader
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.specs.environment import ControlSpec
from tests.scenarios.workspaces import Workspace
from tests.services.server_process import free_port

T = TypeVar("T")

LEASE_SECONDS = 3.0
REAPER_SECONDS = 1.0
FAULT = "fault"
"""File in the state folder: what the processes that start from now on are to meet."""
MET = "met"
"""Begin of the name of a file beside it, which a process leaves once it is at the point: its id follows."""

DEFINITIONS = """\
import datetime as dt
import os
from pathlib import Path

import dagster as dg

from platform_core import build_definitions, faults
from platform_core.factories import lease_reaper

# A test has no half minute to wait.
lease_reaper.INTERVAL = dt.timedelta(seconds={interval})

# Armed by a file, so that what is retried need not meet the same fault.
state = Path(os.environ["EDP_STATE"])
if (state / "{fault}").exists():
    faults.arm((state / "{fault}").read_text())
    armed, act = faults._armed, faults._act

    def met(point):
        if point is armed.point:
            (state / f"{met}{{os.getpid()}}").touch()
        act(point)

    faults._act = met


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Path(__file__).parent / "control")
"""

FILES = {
    "dagster_home/environments/dev.yaml": f"""\
        lake: {{root: lake}}
        secrets: {{type: files, options: {{path: secrets}}}}
        control: {{lease: {LEASE_SECONDS:g} seconds}}
        schedules: true
        """,
    "rides/control/location.yaml": """\
        location: rides
        workstreams:
          - {name: threads, description: In threads., owners: ["team:rides"]}
          - {name: apart, description: In processes of their own., owners: ["team:rides"]}
        """,
    **{
        f"rides/control/connections/{workstream}.yaml": f"""\
        workstream: {workstream}
        connections:
          - {{name: shop, type: sqlite, path: "${{env.state}}/shop.db"}}
        """
        for workstream in ("threads", "apart")
    },
    "rides/control/ingestion/threads.yaml": """\
        workstream: threads
        source: shop
        tables:
          - {object: riders, table: riders, mode: full, key: [id]}
        """,
    "rides/control/ingestion/apart.yaml": """\
        workstream: apart
        source: shop
        tables:
          - {object: riders, table: riders, mode: full, key: [id], isolated: true}
        """,
    "keeper/control/location.yaml": """\
        location: keeper
        workstreams:
          - {name: keeper, description: Upkeep., owners: ["team:keeper"]}
        """,
    "keeper/control/upkeep.yaml": """\
        workstream: keeper
        policies:
          - {name: vacuum, operation: vacuum, description: Vacuum., retention: 7 days}
        """,
}


def until(found: Callable[[], T | None], *, within: float, what: str) -> T:
    """The first answer that is not None or False."""
    deadline = time.monotonic() + within
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s")
        time.sleep(0.1)
    return answer


@dataclass
class Deployed:
    """The processes of an installation.

    Args:
        running: by name: ``rides``, ``keeper`` (code servers) and ``daemon``.
    """

    workspace: Workspace
    ports: dict[str, int]
    loads: Loads
    instance: dg.DagsterInstance
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a code server, or the daemon."""
        if name == "daemon":
            command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", "workspace.yaml"]
        else:
            port = str(self.ports[name])
            command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", port]
            command += ["-m", f"{name}.definitions", "--location-name", name]
        with Path(self.workspace.root, f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=self.workspace.environment(),
                cwd=self.workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_server(self, name: str) -> None:
        """Until a code server takes calls."""

        def listens() -> bool:
            if self.running[name].poll() is not None:
                raise AssertionError(Path(self.workspace.root, f"{name}.log").read_text()[-4_000:])
            with closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

        until(listens, within=90, what=f"code server {name}")

    def kill(self, name: str) -> None:
        """SIGKILL one process; those that it started live on unless they know better."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def meet(self, fault: str | None) -> None:
        """What processes that start from now on meet."""
        file = self.workspace.state / FAULT
        if fault is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(fault)

    def launch(self, workstream: str) -> str:
        """Ask for a run; the daemon starts it. Returns its id."""
        before = {run.run_id for run in self.instance.get_runs()}
        asked = self.workspace.dagster("job", "launch", "-w", "workspace.yaml", "--location", "rides", "-j", workstream)
        assert asked.returncode == 0, asked.stdout + asked.stderr
        new = [run for run in self.instance.get_runs() if run.run_id not in before]
        (run_id,) = [run.run_id for run in new if PARENT_RUN_ID_TAG not in run.tags]
        return run_id

    def loading(self, run_id: str) -> LoadRow:
        """The load that a run has begun, once it has."""

        def begun() -> LoadRow | None:
            return next((row for row in self.loads.recent(limit=20) if row.run_id == run_id), None)

        return until(begun, within=90, what=f"a load of run {run_id}")

    def met(self, pid: int) -> None:
        """Wait until a process is at the point of its fault."""
        until(lambda: Path(self.workspace.state, f"{MET}{pid}").exists(), within=90, what=f"process {pid} at its fault")

    def rest(self) -> None:
        """Wait until no run goes on, and none is to be tried again; each was tried again once at most."""

        def over() -> bool:
            runs = self.instance.get_runs()
            retried = [run.tags[PARENT_RUN_ID_TAG] for run in runs if PARENT_RUN_ID_TAG in run.tags]
            assert len(retried) == len({*retried}), f"tried again twice: {sorted(retried)}"
            return all(
                run.is_finished and (run.tags.get(WILL_RETRY_TAG) != "true" or run.run_id in retried) for run in runs
            )

        until(over, within=150, what="the end of all runs")

    def worker(self, run_id: str) -> psutil.Process:
        """The process that carries out a run."""

        def found() -> psutil.Process | None:
            for record in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
                event = record.dagster_event
                if event and event.step_key is None and (pid := event.engine_event_data.metadata.get("pid")):
                    return psutil.Process(int(str(pid.value)))
            return None

        return until(found, within=90, what=f"the process of run {run_id}")

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def ended(self, run_id: str, *, within: float) -> dg.DagsterRunStatus:
        """How a run ended, once it has."""
        until(lambda: self.status(run_id) in _ENDED, within=within, what=f"the end of run {run_id}")
        return self.status(run_id)

    def succeeds(self, run_id: str) -> None:
        """Wait for the end of a run that nothing disturbs."""
        if (status := self.ended(run_id, within=120)) is not dg.DagsterRunStatus.SUCCESS:
            raise AssertionError(f"{status}\n{self.told(run_id)}")

    def told(self, run_id: str) -> str:
        """All loads, and what the log of a run says of it."""
        said = [
            f"{dt.datetime.fromtimestamp(record.timestamp, dt.UTC):%H:%M:%S.%f} "
            f"{record.dagster_event.event_type_value}: {record.dagster_event.message} "
            f"{record.dagster_event.event_specific_data}"
            for record in self.instance.all_logs(run_id)
            if record.dagster_event
        ]
        return "\n".join([*(str(row) for row in self.loads.recent()), *said])

    def put_off(self, run_id: str) -> int:
        """How often the reaper has found a run abandoned, and left it because its code server does not answer."""
        known = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        reapers = [state for state in known if state.instigator_name == LEASE_REAPER]
        ticks = [
            tick
            for state in reapers
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=50)
        ]
        said = [tick.skip_reason or "" for tick in ticks]
        return sum("when their code server is up" in text and run_id in text for text in said)

    def retry_of(self, run_id: str) -> str | None:
        """The run that Dagster started in the place of one that failed."""
        filters = dg.RunsFilter(tags={PARENT_RUN_ID_TAG: run_id})
        return next((run.run_id for run in self.instance.get_runs(filters)), None)

    def ids(self, workstream: str) -> list[int]:
        """Keys in bronze."""
        uri = self.workspace.state / "lake" / workstream / "bronze" / "riders"
        reader = DeltaTableReader.open(str(uri), storage_options={}) if uri.exists() else None
        return [] if reader is None else sorted(row["id"] for row in reader.read().read_all().to_pylist())

    def batches(self, workstream: str) -> list[int]:
        """The batch id of each commit, oldest first."""
        from deltalake import DeltaTable

        uri = self.workspace.state / "lake" / workstream / "bronze" / "riders"
        if not DeltaTable.is_deltatable(str(uri)):  # a load that was stopped may have left files and no commit
            return []
        commits = sorted(DeltaTable(uri).history(), key=lambda commit: commit["version"])
        return [int(commit["edp.batch"]) for commit in commits if "edp.batch" in commit]

    def fill(self, rows: int) -> None:
        """What the source holds."""
        self.workspace.sql(
            "state/shop.db",
            # A paused reader must not keep the source from changing.
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE IF NOT EXISTS riders (id INTEGER PRIMARY KEY, name TEXT)",
            "DELETE FROM riders",
            *(f"INSERT INTO riders VALUES ({id_}, 'name {id_}')" for id_ in range(rows)),
        )

    def stop(self) -> None:
        """End every process of this installation by its id."""
        mark = str(self.workspace.state)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("EDP_STATE") == mark:
                    process.send_signal(signal.SIGKILL)
        for started in self.running.values():
            started.wait()


@contextmanager
def deployed(root: Path, monkeypatch: Any) -> Iterator[Deployed]:
    """An installation with all its processes up."""
    interval = f"{REAPER_SECONDS:g}"
    definitions = {
        f"{name}/definitions.py": DEFINITIONS.format(interval=interval, fault=FAULT, met=MET)
        for name in ("rides", "keeper")
    } | {f"{name}/__init__.py": "" for name in ("rides", "keeper")}
    workspace = Workspace.create(root, FILES | definitions)
    ports = {name: free_port() for name in ("rides", "keeper")}
    setup = workspace.edp("setup")
    assert setup.returncode == 0, setup.stdout + setup.stderr
    entries = [
        f"  - grpc_server: {{location_name: {name}, host: 127.0.0.1, port: {port}}}" for name, port in ports.items()
    ]
    (root / "workspace.yaml").write_text("\n".join(["load_from:", *entries, ""]))
    for name, value in workspace.environment().items():
        if name.startswith(("EDP_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    control = ControlSpec()
    loads = open_loads(control, state=workspace.state, secrets=EnvironmentSecrets(EnvironmentSecrets.Options()))
    with dg.DagsterInstance.from_config(str(root / "dagster_home")) as instance:
        started = Deployed(workspace, ports, loads, instance)
        started.fill(30)
        try:
            for name in ports:
                started.start(name)
            for name in ports:
                started.wait_for_server(name)
            started.start("daemon")
            yield started
        finally:
            started.stop()
            loads.close()


_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
