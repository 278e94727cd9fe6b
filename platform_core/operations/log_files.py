"""Log files as JSON lines, one file a process, bounded in size, for Loki, Elastic and the like."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from platform_core.errors import redacted
from platform_core.specs.environment import LogsSpec

FOLDER = "logs"
"""Below the state folder."""

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_WITHHELD = "a line of {}:{}; its text stands in Dagster's log of the run: it may hold row values"
_LONGEST = 8_000
_PHASES = {
    "extract": "extract",
    "masking": "mask",
    "transfer": "land",
    "landing": "land",
    "ingest": "load",
    "replay": "load",
    "commit": "commit",
    "bronze": "commit",
    "process": "process",
    "dbt": "dbt",
    "refresh": "refresh",
    "upkeep": "upkeep",
    "asking": "lease",
    "heartbeat": "lease",
}
"""Phase by the module that wrote a line, where the line does not say its own."""


class LogFile:
    """One process's file; when it is full, it becomes ``….1`` and a new one begins."""

    def __init__(self, folder: Path, spec: LogsSpec) -> None:
        """Begin a file, and remove those of ended processes whose time is over."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._spec = spec
        self._lock = threading.Lock()
        self._lost = 0
        _remove_old(folder, keep=spec.keep, but=self.path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line. A disk that takes none costs lines, never a load; the next line says how many."""
        with self._lock:
            more = {"lines_lost": self._lost} if self._lost else {}
            text = json.dumps({**line, **more}, ensure_ascii=False, default=str) + "\n"
            try:
                self._append(text.encode("utf-8", errors="replace"))
            except OSError:
                self._lost += 1
            else:
                self._lost = 0

    def _append(self, text: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            full = os.fstat(descriptor).st_size + len(text) > self._spec.max_size
            if not full or os.fstat(descriptor).st_size == 0:
                os.write(descriptor, text)
                return
        finally:
            os.close(descriptor)
        self._rotate()
        self._append(text)

    def _rotate(self) -> None:
        for number in range(self._spec.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)


class StepLines(logging.Handler):
    """Writes the lines of one step, each with what it is about."""

    def __init__(self, file: LogFile, about: Mapping[str, Any], *, level: str) -> None:
        """Keep where the lines go.

        Args:
            about: what stands in each line: run, step, table, …
            level: name of the least level that is written.
        """
        super().__init__(logging.getLevelNamesMapping()[level.upper()])
        self._file = file
        self._about = dict(about)
        self._batch: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; errors by their class, and lines of teams' own code without their text."""
        batch = getattr(record, "batch", None)
        # A step works on one batch at a time: what it says after that is about the same one.
        self._batch = batch if isinstance(batch, int) else self._batch
        phase = getattr(record, "phase", None) or _PHASES.get(record.module)
        error = record.exc_info[1] if record.exc_info else None
        self.say(
            record.levelname.lower(),
            _text(record),
            at=record.created,
            phase=phase if isinstance(phase, str) else None,
            error=redacted(error) if error is not None else None,
        )

    def say(self, level: str, message: str, *, at: float | None = None, **more: Any) -> None:
        """Write one line; values of None are left out."""
        moment = dt.datetime.fromtimestamp(time.time() if at is None else at, dt.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "message": message[:_LONGEST],
            **self._about,
            "batch": self._batch,
            **more,
        }
        self._file.write({name: value for name, value in line.items() if value is not None})


def log_file(state: Path, spec: LogsSpec) -> LogFile:
    """The file of this process, also after a fork.

    Raises:
        OSError: its folder cannot be made.
    """
    return _opened(state / FOLDER, spec, os.getpid())


@cache
def _opened(folder: Path, spec: LogsSpec, _process: int) -> LogFile:
    return LogFile(folder, spec)


def _text(record: logging.LogRecord) -> str:
    if not record.pathname.startswith(_PACKAGE):
        return _WITHHELD.format(record.module, record.lineno)
    # Dagster's own handler writes the run and the step into the message.
    meta = getattr(record, "dagster_meta", None)
    original = meta.get("orig_message") if isinstance(meta, Mapping) else None
    return original if isinstance(original, str) else record.getMessage()


def _remove_old(folder: Path, *, keep: dt.timedelta, but: Path) -> None:
    before = time.time() - keep.total_seconds()
    for file in folder.glob("*.jsonl*"):
        try:
            if file != but and file.stat().st_mtime < before:
                file.unlink()
        except FileNotFoundError:
            # Another process removes old files at the same time.
            continue
