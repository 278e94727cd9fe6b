"""Lets the kernel of a notebook have what its step has: inputs, variables, and places to leave results.

The kernel is a process of its own. It asks for each table when it wants it, so it needs neither the lake nor a secret,
and no row is written to a disk on its way.
"""

from __future__ import annotations

import base64
import queue
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from platform_core.errors import PlatformError, StepError, redacted
from platform_core.operations.notebook_wire import Line
from platform_core.operations.step_context import StepContext

_LOOK_SECONDS = 0.2
_JOIN_SECONDS = 10.0
_LARGEST_FILE = 1 << 30


@dataclass
class Given:
    """The rows that a notebook hands over.

    Args:
        reader: the rows as they come.
        drained: to be set once all of them were taken.
    """

    reader: pa.RecordBatchReader
    drained: threading.Event = field(default_factory=threading.Event)


class StepServer:
    """Answers the kernel of one notebook, several questions at a time."""

    def __init__(self, context: StepContext, *, name: str) -> None:
        """Nothing listens yet.

        Args:
            context: of the step.
            name: of the step, as the notebook calls it.
        """
        self._context = context
        self._name = name
        self._given: queue.SimpleQueue[Given] = queue.SimpleQueue()
        self._has_result = False
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def __enter__(self) -> StepServer:
        # Nobody but this account may enter the folder. It is made where paths are short: a socket's is at most 100
        # characters long.
        self._folder = Path(tempfile.mkdtemp(prefix="edp-"))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.address)
        self._socket.listen()
        self._socket.settimeout(_LOOK_SECONDS)
        self._begin(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.break_off()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Path of the socket."""
        return str(self._folder / "step")

    def result(self, *, ended: Callable[[], bool]) -> Given | None:
        """The rows that the notebook hands over; None where it ends without handing over any.

        Args:
            ended: whether the notebook has.
        """
        over = False
        while True:
            try:
                return self._given.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                # What it handed over right before its end is found in one more look.
                if over:
                    return None
                over = ended()

    def _begin(self, act: Callable[[], None]) -> None:
        thread = threading.Thread(target=act, name=f"notebook-{self._name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.setblocking(True)
            line = Line(connection)
            with self._lock:
                self._lines.add(line)
            if self._closing.is_set():
                line.break_off()
            self._begin(lambda line=line: self._serve(line))  # type: ignore[misc]

    def _serve(self, line: Line) -> None:
        try:
            while (message := line.hear()) is not None:
                self._answer(line, message)
        except (OSError, EOFError, ValueError, pa.ArrowException):
            # The kernel has ended, or says what nobody understands: what became of the notebook, its process tells.
            line.break_off()
        finally:
            with self._lock:
                self._lines.discard(line)
            line.close()

    def _answer(self, line: Line, message: dict[str, Any]) -> None:
        try:
            self._do(line, message)
        except (OSError, EOFError):
            raise
        except PlatformError as error:
            line.tell({"error": str(error)})
        except Exception as error:  # noqa: BLE001 - an engine may raise anything, and its text may hold row values
            line.tell({"error": redacted(error)})

    def _do(self, line: Line, message: dict[str, Any]) -> None:
        context = self._context
        match message["ask"]:
            case "begin":
                line.tell(self._introduced())
            case "window":
                # Asked for only where the notebook asks: a backfill then takes its rows for those of the range.
                window = context.window
                line.tell({"window": [window.start.isoformat(), window.end.isoformat()] if window else None})
            case "read":
                self._give(line, context.inputs[message["name"]].reader)
            case "newer":
                self._give(line, lambda: context.inputs[message["name"]].newer_than(int(message["batch"])))
            case "changed":
                self._give(line, lambda: context.changed_rows(message["name"]))
            case "figure":
                context.add_figure(str(message["name"]), message["value"])
                line.tell({"ok": True})
            case "file":
                if not 0 <= int(message["size"]) <= _LARGEST_FILE:
                    raise StepError(f"a file of a step has at most {_LARGEST_FILE:,} bytes")
                content = line.take(int(message["size"]))
                line.tell({"uri": context.write_file(str(message["name"]), content)})
            case "result":
                self._take(line)

    def _give(self, line: Line, opened: Callable[[], pa.RecordBatchReader]) -> None:
        reader = opened()
        line.tell({"ok": True})
        try:
            line.give_rows(reader.schema, _stopping(reader, self._closing))
        except Exception as error:  # noqa: BLE001 - the notebook has been told
            raise EOFError(redacted(error)) from None

    def _take(self, line: Line) -> None:
        with self._lock:
            second, self._has_result = self._has_result, True
        if second:
            raise StepError("a notebook hands over its rows once: put them together, and call result() at the end")
        line.tell({"ok": True})
        given = Given(line.take_rows())
        self._given.put(given)
        while not given.drained.wait(_LOOK_SECONDS):
            if self._closing.is_set():
                return
        line.tell({"ok": True})

    def _introduced(self) -> dict[str, Any]:
        context = self._context
        return {
            "step": self._name,
            "variables": dict(context.variables),
            "full_refresh": context.full_refresh,
            "last_success": context.last_success.isoformat() if context.last_success else None,
            "inputs": [
                {
                    "name": name,
                    "ref": list(table.ref),
                    "version": table.version,
                    "batch": table.batch,
                    "deferred": table.deferred,
                    "schema": base64.b64encode(table.schema.serialize()).decode(),
                }
                for name, table in context.inputs.items()
            ],
        }


def _stopping(reader: pa.RecordBatchReader, closing: threading.Event) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        if closing.is_set():
            raise EOFError("the run has ended")
        yield batch
