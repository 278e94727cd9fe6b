"""Both kinds of control database, processes that contend for leases, and a connection that can be cut."""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.database import Database, open_database
from platform_core.control.loads import Loads, Patience, Ticket
from platform_core.secrets.files import FileOptions, FileSecrets
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import ControlSpec
from platform_core.specs.table import TableRef
from tests.forked import start_forked
from tests.services.postgres import PostgresServer

ORDERS = TableRef("crm", "bronze", "orders")
LOG = logging.getLogger("tests.control_database")
PROJECT = Path(__file__).parents[2]

Begin = Callable[..., Ticket]


@dataclass
class Place:
    """One control database, empty at first."""

    control: ControlSpec
    state: Path
    opened: list[Loads] = field(default_factory=list)

    @property
    def secrets(self) -> FileSecrets:
        return FileSecrets(FileOptions(path=str(self.state / "secrets")))

    @property
    def file(self) -> Path:
        """The file of SQLite."""
        return self.state / "control.db"

    def database(self, *, migrations: Path | None = None) -> Database:
        found = open_database(self.control, state=self.state, secrets=self.secrets)
        return Database(found.url, password=found._password, migrations=migrations) if migrations else found

    def loads(self, *, lease: float = 60, **patience: float) -> Loads:
        """Opened for a lease of some seconds."""
        found = Loads(self.database(), lease=timedelta(seconds=lease), patience=Patience(**patience))
        self.opened.append(found)
        return found

    def with_lease(self, seconds: int) -> Place:
        control = self.control.model_copy(update={"lease": timedelta(seconds=seconds)})
        return Place(control, self.state, self.opened)

    def contender(self) -> ContenderProcess:
        return ContenderProcess(self)


class ContenderProcess:
    """A process that loads tables as it is told."""

    def __init__(self, place: Place) -> None:
        control = place.control.model_dump(mode="json") | {"lease": f"{place.control.lease.seconds} seconds"}
        arguments = [json.dumps(control), str(place.state), str(place.state / "secrets")]
        self._process = start_forked(arguments, env=os.environ, cwd=PROJECT, module="tests.control_database.contender")
        assert self._line() == "ready"

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, command: str, **arguments: Any) -> None:
        """Give a command and do not wait."""
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._line())
        return found

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.tell(command, **arguments)
        return self.answer()

    def begin(self, table: TableRef = ORDERS, *, above: int = 0, wait: float = 0) -> dict[str, Any]:
        return self.ask("begin", table=str(table), above=above, wait=wait)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait(timeout=20)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.close()

    def _line(self) -> str:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            assert waiting.select(timeout=60), "the contender did not answer"
        return self._process.stdout.readline().strip()


@contextmanager
def contending(place: Place, count: int = 1) -> Iterator[list[ContenderProcess]]:
    """Some contenders, ended with the block."""
    started: list[ContenderProcess] = []
    try:
        for _ in range(count):
            started.append(place.contender())
        yield started
    finally:
        for each in started:
            each.close()


class Line:
    """A TCP connection to a server that can be cut and mended."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.mend()

    def mend(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        listener, self._listener = self._listener, None
        for each in [listener, *self._open]:
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
                there = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [here, there]
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def sqlite_place(folder: Path) -> Place:
    return Place(ControlSpec(), folder)


def postgres_place(folder: Path, server: PostgresServer, *, port: int | None = None) -> Place:
    """A fresh database; the password is a file of the secret store."""
    file = folder / "secrets" / "platform" / "control"
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text(server.password)
    url = f"postgresql+psycopg://{server.user}@{server.host}:{port or server.port}/{server.create_database()}"
    return Place(ControlSpec(url=url, password=SecretRef(secret="platform/control")), folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty control database, of each kind."""
    if request.param == "sqlite":
        found = sqlite_place(tmp_path)
    else:
        found = postgres_place(tmp_path, request.getfixturevalue("postgres_server"))
    yield found
    for each in found.opened:
        each.close()


@pytest.fixture
def begin() -> Begin:
    """Begins a load of one table, without waiting unless told to."""

    def call(loads: Loads, table: TableRef = ORDERS, **more: Any) -> Ticket:
        wait = timedelta(seconds=more.pop("wait", 0))
        given = {"mode": "full", "above": 0, "run_id": None, "log": LOG, "cancelled": lambda: False}
        return loads.begin(table, wait=wait, **(given | more))

    return call


def fresh_table() -> TableRef:
    return TableRef("crm", "bronze", f"t{secrets.token_hex(4)}")
