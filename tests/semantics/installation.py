"""Two locations as they are deployed: a code server each, a daemon, PostgreSQL, and services that take alerts.

Every run is a process of its own. The daemon only looks more often than it does where nobody waits for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._cli.job import execute_launch_command
from dagster._cli.workspace.cli_target import RepositoryOpts
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.scheduler.instigation import InstigatorState, TickStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_shared.cli import WorkspaceOpts

from platform_core.factories import translation
from platform_core.factories.alerts import alert_sensor_name
from platform_core.plugins.testing_alerts import Received
from tests.alerts.services import PASSWORD, TOKEN, TOPIC, USER, MailService, NtfyService, TeamsService, running
from tests.conftest import PROJECT
from tests.scenarios.workspaces import Workspace
from tests.services.postgres import PostgresServer
from tests.services.server_process import free_port

PATIENCE = 400
"""Seconds after which something that is waited for counts as lost; nothing is measured by it."""

DAEMON = """\
from dagster._daemon import sensor
from dagster._daemon.cli import main

sensor.MIN_INTERVAL_LOOP_TIME = 2
main()
"""
DEFINITIONS = """\
import datetime as dt
from pathlib import Path

import dagster as dg

from platform_core import build_definitions
from platform_core.factories import alerts, jobs

# A test has no half minute to wait.
jobs.TICK_SECONDS = 2
alerts.INTERVAL = dt.timedelta(seconds=2)


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Path(__file__).parent / "control")
"""
SERVERS = "servers.yaml"
"""Where the code servers are; workspace.yaml names the packages, whose control files the platform reads."""

LOCATIONS = ("loader", "maker")
URL = "https://dagster.example.com"


@dataclass(frozen=True, kw_only=True)
class Services:
    """What messages are sent to."""

    teams: TeamsService
    ntfy: NtfyService
    mail: MailService

    def received(self) -> dict[str, list[Received]]:
        """What a person has seen, by channel."""
        return {name: [*getattr(self, name).received()] for name in ("teams", "ntfy", "mail")}

    def environment(self) -> str:
        """The file of an environment that reaches people by them."""
        return f"""\
            lake: {{root: lake}}
            secrets: {{type: files, options: {{path: secrets}}}}
            schedules: true
            alerts:
              base_url: {URL}
              channels:
                teams: {{type: teams, options: {{url: {{secret: platform/teams}}}}}}
                ntfy:
                  type: ntfy
                  options: {{url: "{self.ntfy.url}", topic: {TOPIC}, token: {{secret: platform/ntfy}}}}
                mail:
                  type: email
                  options:
                    host: 127.0.0.1
                    port: {self.mail.port}
                    user: {USER}
                    password: {{secret: platform/mail}}
                    from: edp@example.com
                    to: [ops@example.com]
                    ca_file: {self.mail.ca_file}
            """

    def secrets(self) -> dict[str, str]:
        """The secrets that it names."""
        return {"platform/teams": self.teams.hook, "platform/ntfy": TOKEN, "platform/mail": PASSWORD}


@dataclass
class Installation:
    """The processes of an installation, and its event log."""

    workspace: Workspace
    instance: dg.DagsterInstance
    services: Services
    ports: dict[str, int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *command: str) -> None:
        """Start a process that lives until the end."""
        with Path(self.workspace.root, f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=self.workspace.environment(**_variables()),
                    cwd=self.workspace.root,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def start_all(self) -> None:
        """Start the code servers, and the daemon once they listen."""
        for name, port in self.ports.items():
            server = ("-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(port), "--location-name", name)
            self.start(name, *server, "-m", f"{name}.definitions")
        for name, port in self.ports.items():
            self.until(lambda port=port: _listens(port), what=f"code server {name}")  # type: ignore[misc]
        self.start("daemon", "-c", DAEMON, "run", "-w", SERVERS)

    def until(self, true: Callable[[], Any], *, what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            for process in self.processes:
                assert process.poll() is None, f"{what}: {process.args!r} has ended\n{self.logs()}"
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The end of what each process has said."""
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3_000:]}" for file in self.workspace.root.glob("*.log"))

    # What a person does

    def launch(self, job: str) -> dg.DagsterRun:
        """Run the job of a workstream by hand, to its end."""
        run = execute_launch_command(
            instance=self.instance,
            workspace_opts=WorkspaceOpts(workspace=(str(self.workspace.root / SERVERS),)),
            repository_opts=RepositoryOpts(location=job),
            job_name=job,
        )
        return self.ended(run.run_id)

    def run_again(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """Run a failed run again, from failure, to its end."""
        target = WorkspaceFileTarget(paths=[str(self.workspace.root / SERVERS)])
        with WorkspaceProcessContext(self.instance, target) as process_context:
            context = process_context.create_request_context()
            location = context.get_code_location(run.job_name)
            (repository,) = location.get_repositories().values()
            again = self.instance.create_reexecuted_run(
                parent_run=run,
                request_context=context,
                code_location=location,
                remote_job=repository.get_full_job(run.job_name),
                strategy=ReexecutionStrategy.FROM_FAILURE,
                use_parent_run_tags=True,
            )
            self.instance.submit_run(again.run_id, context)
        return self.ended(again.run_id)

    # What became of it

    def ended(self, run_id: str) -> dg.DagsterRun:
        """A run, once it has ended."""

        def found() -> dg.DagsterRun:
            run = self.instance.get_run_by_id(run_id)
            assert run is not None
            return run

        self.until(lambda: found().is_finished, what=f"run {run_id}")
        return found()

    def builds(self, key: dg.AssetKey) -> int:
        """How often an asset was built."""
        return len(self.instance.fetch_materializations(key, limit=1_000).records)

    def requests(self, key: dg.AssetKey) -> int:
        """How often the conditions have asked for an asset."""
        return sum(key in (run.asset_selection or ()) for run in self.instance.get_runs())

    def saw(self, key: dg.AssetKey, source: dg.AssetKey) -> bool:
        """Whether the newest build of an asset had seen the newest build of an input."""
        found = [self.instance.fetch_materializations(each, limit=1).records for each in (key, source)]
        if not all(found):
            return False
        made, newest = found[0][0], found[1][0]
        tags = made.asset_materialization.tags if made.asset_materialization else None
        pointer = (tags or {}).get(f"dagster/input_event_pointer/{source.to_user_string()}")
        return pointer == str(newest.storage_id)

    def settles(self) -> None:
        """Wait until all runs have ended, and the conditions were then looked at twice and asked for nothing."""
        known = -1
        while known != (known := self._runs_when_all_have_ended()):
            self.ticks(translation.sensor_name("maker"), times=2)

    def _runs_when_all_have_ended(self) -> int:
        self.until(lambda: all(run.is_finished for run in self.instance.get_runs()), what="the end of all runs")
        return self.instance.get_runs_count()

    def look_for_alerts(self) -> None:
        """Wait until the sensors for alerts of both locations have looked twice."""
        for name in LOCATIONS:
            self.ticks(alert_sensor_name(name), times=2)

    def ticks(self, sensor: str, *, times: int) -> None:
        """Wait until a sensor has been evaluated so often, from begin to end, from now on."""
        after = time.time()
        states: list[InstigatorState] = []

        def known() -> bool:
            states[:] = [each for each in self.instance.all_instigator_state() if each.instigator_name == sensor]
            return bool(states)

        self.until(known, what=f"sensor {sensor}")
        (state,) = states

        def ended() -> bool:
            ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=after)
            assert not any(tick.status is TickStatus.FAILURE for tick in ticks), [tick.error for tick in ticks]
            return sum(tick.status is not TickStatus.STARTED for tick in ticks) >= times

        self.until(ended, what=f"{times} ticks of {sensor}")

    def stop(self) -> None:
        """End every process of this installation by its id."""
        mark = str(self.workspace.state)
        for other in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if other.pid != os.getpid() and other.environ().get("EDP_STATE") == mark:
                    other.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()


@contextmanager
def installed(root: Path, files: dict[str, str], *, postgres: PostgresServer) -> Iterator[Installation]:
    """An installation with all its processes up.

    Args:
        files: of its two locations.
    """
    with contextlib.ExitStack() as stack:
        certificates = root / "certificates"
        certificates.mkdir()
        services = Services(
            teams=stack.enter_context(running(TeamsService())),
            ntfy=stack.enter_context(running(NtfyService())),
            mail=stack.enter_context(running(MailService(certificates))),
        )
        made = {f"{name}/{file}": text for name in LOCATIONS for file, text in _MODULE.items()}
        workspace = Workspace.create(
            root / "project", {"dagster_home/environments/dev.yaml": services.environment(), **made, **files}
        )
        for name, value in services.secrets().items():
            file = workspace.state / "secrets" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(value)
        deployed = (PROJECT / "docker" / "dagster.yaml").read_text()
        (workspace.root / "dagster_home" / "dagster.yaml").write_text(
            deployed.replace("dequeue_interval_seconds: 2", "dequeue_interval_seconds: 1")
        )
        ports = {name: free_port() for name in LOCATIONS}
        entries = [
            f"  - grpc_server: {{location_name: {name}, host: 127.0.0.1, port: {at}}}" for name, at in ports.items()
        ]
        (workspace.root / SERVERS).write_text("\n".join(["load_from:", *entries, ""]))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        _point_at(workspace, postgres, patch)
        setup = workspace.edp("setup", **_variables())
        assert setup.returncode == 0, setup.stdout + setup.stderr
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(workspace.root / "dagster_home")))
        installation = Installation(workspace, instance, services, ports)
        try:
            installation.start_all()
            yield installation
        finally:
            installation.stop()
            shutil.rmtree(workspace.state / "lake", ignore_errors=True)


_MODULE = {"definitions.py": DEFINITIONS, "__init__.py": ""}


def _point_at(workspace: Workspace, postgres: PostgresServer, patch: pytest.MonkeyPatch) -> None:
    variables = {
        "HOST": postgres.host,
        "PORT": str(postgres.port),
        "DATABASE": postgres.create_database(),
        "USER": postgres.user,
        "PASSWORD": postgres.password,
    }
    for name, value in variables.items():
        patch.setenv(f"EDP_POSTGRES_{name}", value)
    for name, value in workspace.environment().items():
        if name.startswith(("EDP_", "DAGSTER_")):
            patch.setenv(name, value)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("EDP_POSTGRES_")}


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
