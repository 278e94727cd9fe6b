"""Reads the rows of a MySQL result into Arrow column by column, where the driver would make a Python object a value.

The driver connects, authenticates, encrypts and sends the statement; only the rows are taken off its hands, as bytes
of the text protocol: each row a packet (three bytes of length, one of sequence), each value its length and its text.
Finding the packets takes one step of Python a row; all that is within them is found by array arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
"""About how many bytes are gathered before they become Arrow."""

_HEADER = 4
_LONGEST_PACKET = 0xFFFFFF
_NULL, _TWO, _THREE, _EIGHT = 0xFB, 0xFC, 0xFD, 0xFE
_END, _ERROR = 0xFE, 0xFF
_END_BYTES = 9


class BrokenStreamError(Exception):
    """What came is not what the protocol prescribes, or the connection ended before the rows did."""


@dataclass(frozen=True)
class Field:
    """What the server says of a column of a result.

    Args:
        type: number of its type in the protocol.
        charset: number of its collation; 63: bytes.
        length: most bytes of a value's text.
        scale: digits after the point; 31: as many as it takes.
        flags: unsigned, binary, …
    """

    name: str
    type: int
    charset: int
    length: int
    scale: int
    flags: int


class TextRows:
    """The rows of one statement, in blocks."""

    def __init__(self, connection: Any, statement: str) -> None:
        """Run the statement; its rows must be read to their end, or the connection closed.

        Args:
            connection: a connection of pymysql without an unread result.
            statement: a SELECT, values included.
        """
        connection.query(statement, unbuffered=True)
        result = connection._result
        # The driver's own reading of this result ends here; left as it is, it would drain the rows when it is dropped.
        result.unbuffered_active, connection._result = False, None
        self.fields = tuple(
            Field(field.name, field.type_code, field.charsetnr, field.length, field.scale, field.flags)
            for field in result.fields
        )
        self._connection = connection
        self._file = connection._rfile
        self._buffer = bytearray()
        self._sequence = connection._next_seq_id
        self._ended = False

    def read(self, rows: int) -> list[pa.Array] | None:
        """The next rows, at most as many as given, as one array of bytes a column; None: there are no more.

        Raises:
            BrokenStreamError: the rows ended before the server said so.
            pymysql.err.MySQLError: the server ended the statement with an error.
            OSError: the connection broke, or nothing came within its time.
        """
        starts, end = self._packets(rows)
        if not starts:
            return None
        with memoryview(self._buffer) as gathered:
            block = bytes(gathered[:end])
        del self._buffer[:end]
        return _columns(block, np.array(starts, np.int64), end, count=len(self.fields))

    def _packets(self, rows: int) -> tuple[list[int], int]:
        """Where the next rows start within the buffer, each behind its header, and where the last of them ends."""
        starts: list[int] = []
        position, sequence = 0, self._sequence
        buffer, available = self._buffer, len(self._buffer)
        while not self._ended and len(starts) < rows and position < BLOCK_BYTES:
            start = position + _HEADER
            if start >= available:
                available = self._receive()
                continue
            length = buffer[position] | buffer[position + 1] << 8 | buffer[position + 2] << 16
            if start + length > available:
                available = self._receive()
                continue
            first = buffer[start]
            # An error comes with the sequence number 0 when the server is shut down.
            if first == _ERROR:
                self._raise_error(bytes(buffer[start : start + length]))
            if buffer[position + 3] != sequence:
                raise BrokenStreamError
            sequence = (sequence + 1) & 0xFF
            if first == _END and length < _END_BYTES:
                self._ended = True
            elif length == _LONGEST_PACKET:
                position, sequence = self._join(start, sequence)
                available = len(buffer)
                starts.append(start)
            else:
                position = start + length
                starts.append(start)
        self._sequence = sequence
        return starts, position

    def _join(self, start: int, sequence: int) -> tuple[int, int]:
        """Take the headers out of a row that came in several packets; gives its end and the next sequence number."""
        buffer, end, length = self._buffer, start + _LONGEST_PACKET, _LONGEST_PACKET
        while length == _LONGEST_PACKET:
            while len(buffer) < end + _HEADER:
                self._receive()
            length = int.from_bytes(buffer[end : end + 3], "little")
            if buffer[end + 3] != sequence:
                raise BrokenStreamError
            sequence = (sequence + 1) & 0xFF
            while len(buffer) < end + _HEADER + length:
                self._receive()
            del buffer[end : end + _HEADER]
            end += length
        return end, sequence

    def _receive(self) -> int:
        """Wait for more bytes; gives how many the buffer then holds."""
        chunk = self._file.read1(CHUNK_BYTES)
        if not chunk:
            raise BrokenStreamError
        self._buffer += chunk
        return len(self._buffer)

    def _raise_error(self, packet: bytes) -> NoReturn:
        from pymysql.err import raise_mysql_exception

        raise_mysql_exception(packet)
        raise BrokenStreamError


def _columns(block: bytes, starts: Any, end: int, *, count: int) -> list[pa.Array]:
    """The values of every column of the rows that start in ``block`` where ``starts`` says."""
    data, memory, rows = np.frombuffer(block, np.uint8), pa.py_buffer(block), len(starts)
    ends = np.append(starts[1:] - _HEADER, end)
    every_other = np.arange(0, 2 * rows, 2, dtype=np.int32)
    at = starts
    columns = []
    for _ in range(count):
        if (at >= ends).any():
            raise BrokenStreamError
        at, lengths, nulls = _lengths(data, at)
        # Seen as an array of texts, the block holds the values and, between two of them, what is not of this column.
        offsets = np.empty(2 * rows + 1, np.int32)
        offsets[0:-1:2] = at
        at = at + lengths
        offsets[1::2] = at
        offsets[-1] = at[-1]
        if (at > ends).any():
            raise BrokenStreamError
        spans = pa.Array.from_buffers(pa.binary(), 2 * rows, [None, pa.py_buffer(offsets), memory])
        columns.append(spans.take(pa.array(every_other, mask=nulls)))
    if (at != ends).any():
        raise BrokenStreamError
    return columns


def _lengths(data: Any, at: Any) -> tuple[Any, Any, Any]:
    """Where each value starts, how long it is, and which are null (None: not one), from the bytes before the values."""
    first = data[at]
    lengths, at = first.astype(np.int64), at + 1
    nulls = None
    if first.max() >= _NULL:
        nulls = first == _NULL
        lengths[nulls] = 0
        for mark, size in ((_TWO, 2), (_THREE, 3), (_EIGHT, 8)):
            if (long := first == mark).any():
                places = at[long]
                if places.max() + size > len(data):
                    raise BrokenStreamError
                lengths[long] = sum(data[places + byte].astype(np.int64) << 8 * byte for byte in range(size))
                at[long] += size
    return at, lengths, nulls
