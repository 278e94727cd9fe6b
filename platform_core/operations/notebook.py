"""What a notebook works with: the inputs of its step, whether a run executes it or a person develops it."""

from __future__ import annotations

import base64
import datetime as dt
import logging
import socket
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from platform_core.errors import StepError
from platform_core.operations.arrow_rows import stream_of
from platform_core.operations.named_inputs import NamedInputs
from platform_core.operations.notebook_wire import ADDRESS_VARIABLE, Line
from platform_core.settings import environment_value
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from platform_core.operations.notebook_trial import TriedStep


def notebook_step(name: str, *, read_batches: Mapping[str, int] | None = None) -> NotebookStep | TriedStep:
    """The step that a notebook is: the same call in a run, and while a person works on it.

    In a run it gives what the run has opened. Elsewhere it opens the step's inputs as of now, in the environment that
    EDP_ENVIRONMENT names, and writes nothing.

    Args:
        name: of the step, in full: ``workstream.layer.name``.
        read_batches: for trying only: batch by input up to which ``changed_rows`` takes rows for known; default: none.

    Raises:
        StepError: there is no such step, or a table that it reads does not exist yet.
        ConfigError: control files or the environment's file are wrong.
    """
    address = environment_value(ADDRESS_VARIABLE)
    if address:
        return NotebookStep(address, name=name)
    # A kernel that is run by the platform needs none of this.
    from platform_core.operations.notebook_trial import tried_step

    return tried_step(name, read_batches=read_batches or {})


class Window(NamedTuple):
    """A range of time: from ``start`` up to ``end``, UTC."""

    start: dt.datetime
    end: dt.datetime


class NotebookStep:
    """The step of a notebook that a run executes; it has what a Python step's context has, and :meth:`result`."""

    def __init__(self, address: str, *, name: str) -> None:
        """Ask the run what there is.

        Args:
            address: of the socket on which the run listens.
            name: of the step.

        Raises:
            StepError: the run is one of another step.
        """
        self._address = address
        about, line = self._asked({"ask": "begin"})
        line.close()
        if about["step"] != name:
            raise StepError(f"this notebook is run as step {about['step']}, and asks for {name}\n  correct the call")
        self.variables: Mapping[str, Any] = about["variables"]
        """Values declared under ``variables`` of the step."""
        last = about["last_success"]
        self.last_success: dt.datetime | None = dt.datetime.fromisoformat(last) if last else None
        """When the last successful run of this step began, UTC; None where there was none."""
        self.full_refresh: bool = about["full_refresh"]
        """Whether the run makes the table anew."""
        self.inputs = NotebookInputs({each["name"]: NotebookInput(each, self) for each in about["inputs"]})
        """Tables that the step reads, by the names in ``depends_on`` or in full."""
        self.log = logging.getLogger("platform_core.notebook")
        """A log that stands in the executed copy."""
        self.log.setLevel(logging.INFO)
        if not self.log.handlers:
            self.log.addHandler(logging.StreamHandler(sys.stdout))

    @cached_property
    def connection(self) -> DuckDBPyConnection:
        """A DuckDB connection of this notebook's own."""
        import duckdb

        return duckdb.connect()

    @cached_property
    def window(self) -> Window | None:
        """The range of time that a backfill is for; None: the run is none. As of a Python step's context."""
        bounds = self._told({"ask": "window"})["window"]
        return None if bounds is None else Window(*(dt.datetime.fromisoformat(bound) for bound in bounds))

    def changed_rows(self, name: str) -> pa.RecordBatchReader:
        """Rows of an input that were written after the last successful run of this step had read it.

        Raises:
            StepError: the table is no input of this step, or its changes cannot be told.
        """
        return self.rows({"ask": "changed", "name": name})

    def add_figure(self, name: str, value: float | str) -> None:
        """Add a number or short text to the metadata of this run.

        Raises:
            StepError: the value is neither a number nor a short text.
        """
        item = getattr(value, "item", None)
        self._told({"ask": "figure", "name": name, "value": item() if callable(item) else value})

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file beside the step's table; returns its URI.

        Raises:
            StepError: the name would lead elsewhere.
        """
        answer = self._told({"ask": "file", "name": name, "size": len(content)}, content)
        return str(answer["uri"])

    def result(self, rows: object) -> None:
        """Hand over the rows of the step's table; they are written once the whole notebook has succeeded.

        Args:
            rows: whatever a Python step may return.

        Raises:
            StepError: they are no rows, or some were handed over before.
        """
        schema, batches = stream_of(rows)
        _, line = self._asked({"ask": "result"})
        try:
            line.give_rows(schema, batches)
            if line.hear() is None:
                raise StepError("the run of this notebook has ended")
        finally:
            line.close()

    def rows(self, question: Mapping[str, Any]) -> pa.RecordBatchReader:
        """Rows that the run sends, as they come; each stream has a connection of its own."""
        _, line = self._asked(question)
        reader = line.take_rows()
        return pa.RecordBatchReader.from_batches(reader.schema, _to_the_end(reader, line))

    def _told(self, question: Mapping[str, Any], content: bytes = b"") -> dict[str, Any]:
        answer, line = self._asked(question, content)
        line.close()
        return answer

    def _asked(self, question: Mapping[str, Any], content: bytes = b"") -> tuple[dict[str, Any], Line]:
        connection = socket.socket(socket.AF_UNIX)
        line = None
        try:
            connection.connect(self._address)
            line = Line(connection)
            line.tell(question, content)
            answer = line.hear()
        except OSError:
            answer = None
        if answer is not None and line is not None and "error" not in answer:
            return answer, line
        (line or connection).close()
        raise StepError("the run of this notebook has ended" if answer is None else answer["error"])


def _to_the_end(reader: pa.RecordBatchReader, line: Line) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    finally:
        line.close()


class NotebookInput:
    """One table that a notebook reads, as of the version that was current when its step began."""

    def __init__(self, about: Mapping[str, Any], step: NotebookStep) -> None:
        self.ref = TableRef(*about["ref"])
        self.version: int = about["version"]
        self.batch: int | None = about["batch"]
        self.deferred: bool = about["deferred"]
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(about["schema"])))
        self._step = step

    def arrow(self) -> pa.Table:
        """All rows, in memory."""
        return self.reader().read_all()

    def reader(self) -> pa.RecordBatchReader:
        """All rows, streamed; each call begins anew."""
        return self._step.rows({"ask": "read", "name": str(self.ref)})

    def newer_than(self, batch: int) -> pa.RecordBatchReader:
        """Rows that were written by batches after ``batch``."""
        return self._step.rows({"ask": "newer", "name": str(self.ref), "batch": batch})

    def relation(self) -> DuckDBPyRelation:
        """The table as a DuckDB relation over its rows in memory; relations of one notebook can be joined."""
        return self._step.connection.from_arrow(self.arrow())


class NotebookInputs(NamedInputs[NotebookInput]):
    """The inputs of a notebook."""
