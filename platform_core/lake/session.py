"""The process's DuckDB instances, shared by all threads through cursors.

Opening a DuckDB instance takes about 12 ms and its own memory limit; a cursor of an open one takes well under one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_LOCK = threading.Lock()
_OPEN: dict[tuple[object, ...], Session] = {}


@dataclass(frozen=True)
class Session:
    """One in-memory DuckDB instance.

    Its clock is UTC, it installs no extension and sees no Python variable.
    """

    _instance: Any = field(repr=False)
    _mounted: set[str] = field(default_factory=set, repr=False)
    _large: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A connection for one thread, with temporary tables of its own; closed at the end of the block."""
        connection = self._instance.cursor()
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def alone(self, large: bool) -> Iterator[None]:
        """Let large work wait for other large work: each takes all threads, and together they would lack memory."""
        if not large:
            yield
            return
        with self._large:
            yield

    def mount(self, filesystem: AbstractFileSystem) -> None:
        """Let SQL read and write URLs of an fsspec file system; doing it again changes nothing."""
        with _LOCK:
            if filesystem.protocol not in self._mounted:
                self._instance.register_filesystem(filesystem)
                self._mounted.add(filesystem.protocol)

    def close(self) -> None:
        """Close the instance; cursors that are still open end with an error."""
        self._instance.close()


def open_session(
    *, memory_limit: str, spill: Path, threads: int, spill_limit: str | None = None, sealed: bool = False
) -> Session:
    """Open an instance of one's own; most callers want :func:`shared_session`.

    Args:
        memory_limit: DuckDB's buffer limit, such as ``2GB``.
        spill: folder for what does not fit; made with mode 0700 when it is missing.
        threads: worker threads of the instance, for all cursors together.
        spill_limit: most bytes on disk, such as ``20GB``; None: DuckDB's own (90 % of the free space).
        sealed: neither files nor network can be reached by SQL, and no setting changed.
    """
    import duckdb

    spill.mkdir(mode=0o700, parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(spill),
        "threads": threads,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    if spill_limit:
        config["max_temp_directory_size"] = spill_limit
    instance = duckdb.connect(config=config)
    instance.execute("SET GLOBAL TimeZone = 'UTC'")
    if sealed:
        instance.execute("SET enable_external_access = false")
        instance.execute("SET lock_configuration = true")
    return Session(instance)


def shared_session(
    *, memory_limit: str, spill: Path, threads: int, spill_limit: str | None = None, sealed: bool = False
) -> Session:
    """The process's instance with these settings, opened when it is first asked for.

    A forked child gets one of its own: DuckDB's threads do not survive a fork.
    """
    key = (os.getpid(), memory_limit, spill, threads, spill_limit, sealed)
    with _LOCK:
        session = _OPEN.get(key)
        if session is None:
            session = open_session(
                memory_limit=memory_limit, spill=spill, threads=threads, spill_limit=spill_limit, sealed=sealed
            )
            _OPEN[key] = session
        return session
