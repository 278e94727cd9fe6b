"""Starts the services of docker/compose.yaml as plain processes: the same commands, order, checks and variables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.services.postgres import PostgresServer
from tests.services.server_process import free_port
from tests.topology.compose import Image, Service, read_image, read_services

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
START_SECONDS = 150
GRACE_SECONDS = 30


@dataclass
class Deployment:
    """The processes of one deployment.

    Args:
        folder: holds ``app`` (what the image would), ``state`` (its volume) and the processes' output.
        services: in starting order, PostgreSQL left out.
        image: the Dockerfile.
        webserver: address of the UI.
    """

    folder: Path
    services: dict[str, Service]
    image: Image
    webserver: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    healthy: set[str] = field(default_factory=set)

    @property
    def state(self) -> Path:
        """What the volume of the same name holds."""
        return self.folder / "state"

    def environment(self, service: Service) -> dict[str, str]:
        """The variables of one service's process: the image's and what compose adds."""
        inside = {
            name: self._outside(value) for name, value in self.image.environment.items() if name not in ("PATH", "HOME")
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**inside, "PATH": path, "HOME": str(self.folder), **service.environment}

    def start_all(self) -> None:
        """Start every service as soon as what it needs is as it needs it, and wait until all are healthy."""
        for service in self.services.values():
            for other, condition in service.needs.items():
                if condition == "service_healthy" and other in self.services:
                    self.wait_until_healthy(self.services[other])
            self.start(service)
        for name in self.running:
            self.wait_until_healthy(self.services[name])

    def start(self, service: Service) -> None:
        """Start a service; one that others need completed is waited for."""
        if "service_completed_successfully" in self._wanted_of(service):
            process = self._launch(service)
            if code := process.wait(timeout=START_SECONDS):
                raise AssertionError(f"{service.name} ended with {code}:\n{self.output(service.name)}")
            return
        self.running[service.name] = self._launch(service)

    def wait_until_healthy(self, service: Service) -> None:
        """Repeat the service's own health check until it passes."""
        if service.name in self.healthy:
            return
        deadline = time.monotonic() + START_SECONDS
        while True:
            if (code := self.running[service.name].poll()) is not None:
                raise AssertionError(f"{service.name} ended with {code}:\n{self.output(service.name)}")
            check = subprocess.run(
                service.health,
                env=self.environment(service),
                cwd=self.folder / "app",
                capture_output=True,
                text=True,
                timeout=60,
            )
            if check.returncode == 0:
                self.healthy.add(service.name)
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{service.name} did not become healthy:\n{check.stdout}{check.stderr}\n{self.output(service.name)}"
                )
            # A check is a whole Python: tried at once again, it would take the time that the start needs.
            time.sleep(2)

    def stop(self) -> list[str]:
        """End every process by its id, the last started first; names of those that had to be killed."""
        killed = []
        for name, process in reversed(self.running.items()):
            family = _family(process)
            process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(family, timeout=GRACE_SECONDS)
            # What is left when the first process of a container has ended, the container's end takes along.
            for survivor in left:
                survivor.kill()
            psutil.wait_procs(left, timeout=GRACE_SECONDS)
            if any(survivor.pid == process.pid for survivor in left):
                killed.append(name)
            process.wait(timeout=GRACE_SECONDS)
        return killed

    def left_over(self) -> list[list[str]]:
        """Command lines of processes that still work for this deployment."""
        mark = str(self.state)
        return [process.cmdline() for process in psutil.process_iter() if _variable(process, "EDP_STATE") == mark]

    def output(self, name: str) -> str:
        """The last lines that a service wrote."""
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-60:])

    def _wanted_of(self, service: Service) -> set[str]:
        return {other.needs[service.name] for other in self.services.values() if service.name in other.needs}

    def _launch(self, service: Service) -> subprocess.Popen[bytes]:
        with (self.folder / f"{service.name}.log").open("wb") as log:
            return subprocess.Popen(
                service.command,
                env=self.environment(service),
                cwd=self.folder / "app",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _outside(self, value: str) -> str:
        for inside in ("/app", "/state"):
            if value == inside or value.startswith(f"{inside}/"):
                return f"{self.folder}{value}"
        return value


def prepare(folder: Path, postgres: PostgresServer, database: str) -> Deployment:
    """Lay out what the image and its volume hold, and choose ports."""
    ports = {name: str(free_port()) for name in ("MOBILITY", "CRM", "DATA_PLATFORM", "WEBSERVER")}
    variables = {
        "EDP_BIND": "127.0.0.1",
        **{f"EDP_{name}_HOST": "127.0.0.1" for name in ports},
        **{f"EDP_{name}_PORT": port for name, port in ports.items()},
        "EDP_POSTGRES_HOST": postgres.host,
        "EDP_POSTGRES_PORT": str(postgres.port),
        "EDP_POSTGRES_DATABASE": database,
        "EDP_POSTGRES_USER": postgres.user,
        "EDP_POSTGRES_PASSWORD": postgres.password,
    }
    services = read_services(DOCKER / "compose.yaml", variables)
    # The session's own server takes the place of the container.
    del services["postgres"]
    image = read_image(DOCKER / "Dockerfile")
    _lay_out(folder / "app", image)
    (folder / "state").mkdir()
    return Deployment(folder, services, image, f"http://127.0.0.1:{ports['WEBSERVER']}")


def _lay_out(app: Path, image: Image) -> None:
    """What the Dockerfile copies, as links; a file that lands in a copied folder takes its place there."""
    for source, target in image.copies:
        place = app / target
        if place.parent.is_symlink():
            folder = place.parent.resolve()
            place.parent.unlink()
            place.parent.mkdir()
            for entry in folder.iterdir():
                (place.parent / entry.name).symlink_to(entry)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(PROJECT / source)


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None
