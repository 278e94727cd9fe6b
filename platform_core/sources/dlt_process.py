"""Starts, hears and ends the processes in which dlt resources run."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.settings import child_environment
from platform_core.sources.dlt_frames import PID, Kind, TornError, read_frame

_INHERITED = (
    *("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
)
"""Variables that a source may need to reach its service; secrets come from the secret store alone."""

_QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "RUNTIME__DLTHUB_TELEMETRY": "false", "DO_NOT_TRACK": "1"}
_PATIENCE_SECONDS = 10


class _Nursery:
    """The one process of ours that has dlt imported and makes copies of itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, given: int, out: int) -> int:
        """A copy that hears by one pipe and tells by the other; returns a descriptor of its process.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock:
            for attempt in (1, 2):
                if self._control is None or self._owner != os.getpid():
                    self._begin()
                try:
                    return self._copy(given, out)
                except OSError:
                    # It has ended, killed perhaps; a second one that does, too, is told.
                    self._end()
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End it; copies that run go on."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, by its full path
                [sys.executable, "-P", "-m", "platform_core.sources.dlt_worker", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                cwd="/",
                env=child_environment({**_QUIET, "PYTHONPATH": os.pathsep.join(_paths())}, keep=_INHERITED),
            )
        if self._owner == 0:
            atexit.register(self.close)
        self._control, self._owner = ours, os.getpid()

    def _copy(self, given: int, out: int) -> int:
        control = self._control
        if control is None:
            raise ConnectionError
        socket.send_fds(control, [b"!"], [given, out])
        told = control.recv(PID.size)
        if len(told) != PID.size:
            raise ConnectionError
        return os.pidfd_open(PID.unpack(told)[0])

    def _end(self) -> None:
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            control.close()
        if process is not None and self._owner == os.getpid():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_SECONDS)


_nursery = _Nursery()


def _paths() -> list[str]:
    """Where modules are found, whatever the current folder."""
    return [str(Path(path).absolute()) for path in sys.path]


class DltProcess:
    """One resource, running."""

    def __init__(self, asked: Mapping[str, Any], *, where: str) -> None:
        """Start it.

        Args:
            asked: what the worker is told; it holds secrets, so it goes by a pipe.
            where: source and object, for messages.

        Raises:
            SourceError: no process can be started.
        """
        self._where = where
        self._state: bytes | None = None
        self._closed = False
        its_input, input_ = os.pipe()
        output, its_output = os.pipe()
        self._input, self._output = os.fdopen(input_, "wb"), os.fdopen(output, "rb")
        try:
            self._process = _nursery.start(its_input, its_output)
        except OSError as error:
            self._input.close()
            self._output.close()
            raise SourceError(
                f"{where}: no process can be started for it: {error.strerror or type(error).__name__}"
            ) from None
        finally:
            os.close(its_input)
            os.close(its_output)
        with suppress(BrokenPipeError):
            # Left open: its end tells the process that nobody wants the rows any more. Where the process has ended
            # already, that is heard when its columns are asked for.
            self._input.write(json.dumps({**asked, "paths": _paths()}).encode() + b"\n")
            self._input.flush()

    def schema(self) -> pa.Schema:
        """All columns of the resource; asked first, and once.

        Raises:
            SourceError: it failed.
        """
        kind, content = self._frame()
        if kind is not Kind.SCHEMA:
            raise self._torn()
        return pa.ipc.read_schema(pa.py_buffer(content))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows to their end.

        Raises:
            SourceError: it failed, or ended before it had told all.
        """
        while True:
            kind, content = self._frame()
            if kind is Kind.DONE:
                self._state = content
                return
            with pa.ipc.open_stream(content) as reader:
                yield from reader

    def state(self) -> bytes:
        """What dlt keeps until the next load; known once all rows are read."""
        if self._state is None:
            raise self._torn()
        return self._state

    def stop(self) -> None:
        """Make a call that waits in another thread return."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """End the process."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        os.close(self._process)
        with suppress(BrokenPipeError):
            self._input.close()
        self._output.close()

    def _frame(self) -> tuple[Kind, bytes]:
        try:
            kind, content = read_frame(self._output)
        except TornError:
            raise self._torn() from None
        if kind is Kind.FAILED:
            raise SourceError(content.decode("utf-8", "replace"))
        return kind, content

    def _torn(self) -> SourceError:
        return SourceError(
            f"{self._where}: its process ended before all rows were read\n"
            "  the source ended it, or the machine ran out of memory"
        )
