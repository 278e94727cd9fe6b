"""What a notebook's kernel and the step that runs it say to each other: a line of JSON, and streams of Arrow.

Nothing is pickled: whoever can reach the socket can ask, but cannot make the other side run anything.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import pyarrow as pa

from platform_core.errors import StepError, redacted

ADDRESS_VARIABLE = "EDP_NOTEBOOK_STEP"
"""Environment variable of a kernel that the platform started: the socket on which its step listens."""

_LONGEST_LINE = 1 << 24
_THE_END = {"end": True}


class Line:
    """One connection between the two."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._input: BinaryIO = connection.makefile("rb")
        self._output: BinaryIO = connection.makefile("wb")

    def tell(self, message: Mapping[str, Any], content: bytes = b"") -> None:
        """Send one message, and bytes after it."""
        self._output.write(json.dumps(message).encode() + b"\n" + content)
        self._output.flush()

    def hear(self) -> dict[str, Any] | None:
        """The next message; None where the other side has ended."""
        text = self._input.readline(_LONGEST_LINE)
        found: dict[str, Any] | None = json.loads(text) if text.endswith(b"\n") else None
        return found

    def take(self, size: int) -> bytes:
        """Bytes that follow a message; EOFError where fewer come."""
        content = self._input.read(size)
        if len(content) != size:
            raise EOFError("the other side ended")
        return content

    def give_rows(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Send rows, each batch at once, and after them whether they are all; an error of theirs passes."""
        try:
            with pa.ipc.new_stream(self._output, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
                    self._output.flush()
        except Exception as error:
            self.tell({"error": redacted(error)})
            raise
        self.tell(_THE_END)

    def take_rows(self) -> pa.RecordBatchReader:
        """Rows that follow a message, as they come; StepError at their end if they are not all."""
        stream = pa.ipc.open_stream(self._input)
        return pa.RecordBatchReader.from_batches(stream.schema, self._all_of(stream))

    def _all_of(self, stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from stream
            said = self.hear()
        except (OSError, ValueError, pa.ArrowException):
            said = None
        # To Arrow a connection that breaks between two batches looks like a stream that is complete.
        if said != _THE_END:
            why = said.get("error", "") if said else "the other side has ended"
            raise StepError(f"rows broke off before their end\n  {why}")

    def break_off(self) -> None:
        """Make both sides see an end, whatever they are doing."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the connection."""
        for each in (self._output, self._input, self._connection):
            # What is left in a buffer goes to somebody who has ended.
            with suppress(OSError):
                each.close()
