"""The bytes of one file on their way to a parser: hashed, decompressed, stopped where they grow out of proportion."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, cast

import pyarrow as pa

from platform_core.errors import SourceError

_FREE_BYTES = 256 << 20
_CHUNK = 1 << 20


class Limits:
    """How large one file may become when it is decompressed.

    Args:
        largest_bytes: most bytes that come out.
        ratio: most times that what went in may grow; not judged for the first 256 MB.
    """

    def __init__(self, *, largest_bytes: int, ratio: int) -> None:
        self.largest_bytes = largest_bytes
        self.ratio = ratio

    def check(self, expanded: int, packed: int, *, where: str) -> None:
        """Raise SourceError where so many bytes are too many for what they were packed into."""
        if expanded > self.largest_bytes:
            raise SourceError(
                f"{where}: holds more than {self.largest_bytes >> 30:,} GB when decompressed\n"
                "  set 'largest_file_gb' in the table's options if it may"
            )
        if expanded > _FREE_BYTES and expanded > self.ratio * max(packed, 1):
            raise SourceError(
                f"{where}: grows to more than {self.ratio:,} times its size when decompressed\n"
                "  files made to fill memory do so; set 'largest_ratio' in the table's options if this one may"
            )


class HashedBytes(io.RawIOBase):
    """Reads a file from beginning to end, and knows what it has read. Closing leaves the file to whoever opened it."""

    def __init__(self, file: BinaryIO, *, hashed: bool) -> None:
        """Begin to read.

        Args:
            hashed: whether :meth:`finish` is to give the hash; bytes are counted in any case.
        """
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256() if hashed else None
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; as many as asked for, or the rest."""
        data = self._file.read(size if size is not None else -1) or b""
        if self._digest is not None:
            self._digest.update(data)
        self.count += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer with what comes next."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        """Read what is left, and give the SHA-256 of all in hex; nothing where it was not wanted."""
        while self.read(_CHUNK):
            continue
        return self._digest.hexdigest() if self._digest is not None else ""


class Decompressed:
    """The bytes that a compressed file holds.

    Raises SourceError while it is read where they are more than the limits allow.
    """

    def __init__(self, packed: HashedBytes, *, codec: str, limits: Limits, where: str) -> None:
        self._packed = packed
        self._limits = limits
        self._where = where
        self._count = 0
        self._file: Any
        if codec == "xz":
            import lzma

            self._file = lzma.LZMAFile(cast(BinaryIO, packed))  # noqa: SIM115 - closed by close()
        else:
            self._file = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), codec)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for only at the end."""
        data: bytes = self._file.read(size)
        self._count += len(data)
        self._limits.check(self._count, self._packed.count, where=self._where)
        return data

    def close(self) -> None:
        """Release the decompressor."""
        self._file.close()
