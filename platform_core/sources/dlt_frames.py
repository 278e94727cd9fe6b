"""What a dlt source's own process tells: frames of a kind and a length, the last of which says that all was told."""

from __future__ import annotations

import struct
from enum import Enum
from typing import BinaryIO

PID = struct.Struct(">q")
"""How a process id is told."""

_HEAD = struct.Struct(">cQ")


class Kind(Enum):
    """What a frame holds."""

    SCHEMA = b"S"  # all columns, as Arrow's IPC format has them
    ROWS = b"R"  # one batch, as an IPC stream
    DONE = b"D"  # what is to be kept until the next load; nothing comes after it
    FAILED = b"F"  # a message; nothing comes after it


class TornError(Exception):
    """The process ended in the middle of what it told."""


def write_frame(out: BinaryIO, kind: Kind, content: bytes) -> None:
    """Write one frame."""
    out.write(_HEAD.pack(kind.value, len(content)))
    out.write(content)
    out.flush()


def read_frame(given: BinaryIO) -> tuple[Kind, bytes]:
    """Read one frame.

    Raises:
        TornError: there is no whole one.
    """
    kind, size = _HEAD.unpack(_exactly(given, _HEAD.size))
    return Kind(kind), _exactly(given, size)


def _exactly(given: BinaryIO, size: int) -> bytes:
    content = given.read(size)
    if len(content) != size:
        raise TornError
    return content
