"""Looks whether the control database is there, and stands where the loaded snapshot does; not while anything loads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from platform_core.control.snapshot.content import Snapshot
from platform_core.control.snapshot.folders import open_folder
from platform_core.control.snapshot.pointer import Pointer, pointer_file, read_pointer
from platform_core.errors import PlatformError, SnapshotError
from platform_core.plugins.interfaces import SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.environment import EnvironmentSpec

if TYPE_CHECKING:
    from platform_core.control.database import Database
    from platform_core.control.store.rows import AppliedState

T = TypeVar("T")

DATABASE_SECONDS = 3.0
"""How long the control database has to answer."""

STORAGE_SECONDS = 10.0
"""How long the storage of snapshots has to answer."""


class Standing(StrEnum):
    """How what is loaded stands to what is applied."""

    CURRENT = "current"
    DATABASE_AWAY = "database away"
    NOT_PUBLISHED = "not published"
    NOT_RELOADED = "not reloaded"
    STORAGE_AWAY = "storage away"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a look found.

    Args:
        message: what it is, and what to do about it, in one or two sentences.
        loaded: serial of the snapshot that this process runs on.
        published: of the pointer; None: it cannot be read.
        applied: of the control tables; None: they cannot be asked.
    """

    standing: Standing
    message: str
    loaded: int
    published: int | None = None
    applied: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether nobody has to do anything."""
        return self.standing is Standing.CURRENT


class Probe:
    """Asks the control database and the storage, each with an end to its patience.

    Args:
        snapshot: what this process runs on.
        environment: its paths resolved.
        state: local folder of this installation.
    """

    def __init__(self, snapshot: Snapshot, environment: EnvironmentSpec, *, state: Path) -> None:
        self._snapshot = snapshot
        self._environment = environment
        self._state = state
        self._database: Database | None = None
        self._asking_database = _Bounded["AppliedState"]("control database")
        self._asking_storage = _Bounded[Pointer]("storage")

    def look(self) -> Finding:
        """Look once; takes as long as both have to answer, at most."""
        loaded = self._snapshot.provenance
        publish = f"edp publish --env {loaded.environment}"
        try:
            pointer: Pointer | None = self._asking_storage.ask(self._read_pointer, seconds=STORAGE_SECONDS)
            trouble = ""
        except (PlatformError, TimeoutError) as error:
            pointer, trouble = None, _first_line(error)
        published = None if pointer is None else pointer.serial
        try:
            applied = self._asking_database.ask(self._read_state, seconds=DATABASE_SECONDS)
        except (PlatformError, TimeoutError) as error:
            return Finding(
                standing=Standing.DATABASE_AWAY,
                message=f"The control database does not answer: {_first_line(error)}. This location runs on the last "
                f"snapshot, serial {loaded.serial}. Nothing is lost, but loads cannot take leases and nothing can be "
                f"applied: edp doctor --env {loaded.environment}",
                loaded=loaded.serial,
                published=published,
            )
        return self._compared(pointer, applied, trouble=trouble, publish=publish)

    def _compared(self, pointer: Pointer | None, applied: AppliedState, *, trouble: str, publish: str) -> Finding:
        loaded = self._snapshot.provenance.serial
        if pointer is None:
            standing = Standing.STORAGE_AWAY
            message = f"What is published cannot be read: {trouble}. This location runs on serial {loaded}."
        elif pointer.mark != applied.mark:
            standing = Standing.NOT_PUBLISHED
            message = (
                f"Applied is serial {applied.serial}, published is {pointer.serial}: what was applied last does not "
                f"run yet. Publish it: {publish}"
            )
        elif pointer.content != self._snapshot.digest:
            standing = Standing.NOT_RELOADED
            message = (
                f"Published is serial {pointer.serial}, this code server runs on {loaded}: reload the code "
                "location, in the UI under Deployment or by starting its container anew"
            )
        else:
            standing = Standing.CURRENT
            message = f"Serial {loaded}, as applied."
        return Finding(
            standing=standing,
            message=message,
            loaded=loaded,
            published=None if pointer is None else pointer.serial,
            applied=applied.serial,
        )

    def _read_pointer(self) -> Pointer:
        folder = open_folder(self._environment, state=self._state)
        location = self._snapshot.provenance.location
        name = pointer_file(location)
        held = folder.read(name)
        if held is None:
            raise SnapshotError(f"{folder.shown(name)}: there is no such file")
        return read_pointer(
            held.content, environment=self._environment.name, location=location, where=folder.shown(name)
        )

    def _read_state(self) -> AppliedState:
        # A process that only loads definitions and runs steps never comes here.
        from platform_core.control.database import open_database
        from platform_core.control.store.rows import read_state

        if self._database is None:
            kind = plugin("secret store", self._environment.secrets.type)
            secrets: SecretStore = kind(kind.Options(**self._environment.secrets.options))
            self._database = open_database(self._environment.control, state=self._state, secrets=secrets)
        return self._database.look(read_state, patience=0)


class _Bounded(Generic[T]):
    """One question at a time, with an end to the patience; what hangs is left to its thread."""

    def __init__(self, whom: str) -> None:
        self._whom = whom
        self._thread: threading.Thread | None = None

    def ask(self, work: Callable[[], T], *, seconds: float) -> T:
        """Do the work in a thread.

        Raises:
            TimeoutError: it takes longer, or the one before still hangs.
            BaseException: whatever the work raised.
        """
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError(f"the {self._whom} has not answered for a while")
        answers: SimpleQueue[T | BaseException] = SimpleQueue()

        def answer() -> None:
            try:
                answers.put(work())
            except BaseException as error:  # noqa: BLE001 - raised again by whoever asked
                answers.put(error)

        self._thread = threading.Thread(target=answer, name=f"asking the {self._whom}", daemon=True)
        self._thread.start()
        try:
            found = answers.get(timeout=seconds)
        except Empty:
            raise TimeoutError(f"the {self._whom} has not answered within {seconds:g} seconds") from None
        if isinstance(found, BaseException):
            raise found
        return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
