"""Dagster's SQLite storage, which keeps its connections to the event log open.

Dagster's own makes an engine, opens the file, waits for the disk and closes the file again for each event: of a run of
empty assets that is four fifths of the time (`python -m benchmarks.executor`). Files and tables are the same, so that
both may work on one folder, one after the other or side by side.
"""

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import QueuePool

MOST_OPEN = 8
"""Files that stay open: each run has one, and all share the index."""


class _Shard:
    """One file of the event log, with its one connection.

    Args:
        path: of the file.
        file: device and number of what was opened there.
    """

    def __init__(self, engine: sa.Engine, path: str) -> None:
        self.engine = engine
        self.path = path
        self.file = _file(path)


class EventStorage(SqliteEventLogStorage):
    """The event log in SQLite files, one a run, and an index over all runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._process = os.getpid()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        if self._process != os.getpid():
            self._begin_in_this_process()
        with self._db_lock:
            opened = self._opened(shard)
            with opened.engine.connect() as connection:
                driver = cast("sqlite3.Connection", connection.connection.driver_connection)
                before = driver.total_changes
                with connection.begin():
                    yield connection
                written = driver.total_changes > before
            if written and shard != INDEX_SHARD_NAME:
                # Who follows a run watches its file, and a commit writes beside it as long as somebody has it open.
                os.utime(opened.path)

    def wipe(self) -> None:
        self._close()
        super().wipe()

    def dispose(self) -> None:
        super().dispose()
        self._close()

    def _begin_in_this_process(self) -> None:
        """Connections of the process that this one was forked from are not ours to use, nor to close."""
        for shard in self._shards.values():
            shard.engine.dispose(close=False)
        self._shards.clear()
        self._db_lock = threading.Lock()
        self._process = os.getpid()

    def _close(self) -> None:
        with self._db_lock:
            while self._shards:
                self._shards.popitem()[1].engine.dispose()

    def _opened(self, name: str) -> _Shard:
        found = self._shards.get(name)
        if found is not None and found.file == _file(found.path):
            self._shards.move_to_end(name)
            return found
        if found is not None:
            # Removed, or put back from a copy, by somebody else.
            self._shards.pop(name).engine.dispose()
            self._initialized_dbs.discard(name)
        engine = sa.create_engine(
            self.conn_string_for_shard(name),
            poolclass=QueuePool,
            pool_size=1,
            # A reader that looks at the tables from within a transaction asks for a second one.
            max_overflow=1,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _set_up)
        if name not in self._initialized_dbs:
            self._initdb(engine, for_index_shard=name == INDEX_SHARD_NAME)
            self._initialized_dbs.add(name)
        self._shards[name] = opened = _Shard(engine, self.path_for_shard(name))
        while len(self._shards) > MOST_OPEN:
            self._shards.popitem(last=False)[1].engine.dispose()
        return opened


class EmbeddedStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite; `storage: {custom: …}` of `dagster.yaml` names it."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = EventStorage(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: SqliteStorageConfig
    ) -> "EmbeddedStorage":
        return cls.from_local(inst_data=inst_data, **config_value)


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for each event, and a Path takes longer than the answer
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _set_up(connection: Any, _record: object) -> None:
    # In a write-ahead log nothing is lost with a process; a power cut may lose the last events, and with them every
    # process that would have gone on from there.
    connection.execute("PRAGMA synchronous = NORMAL").close()
