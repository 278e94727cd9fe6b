"""Text files as a stream of UTF-8, checked for what parsers let pass: cut-off files and open quotes."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Protocol

from platform_core.errors import SourceError
from platform_core.sources.quotes import Quotes
from platform_core.sources.storage import storage_errors

_CHUNK = 1 << 20
_HEADER = 1 << 18


class Readable(Protocol):
    """Bytes that come one after another."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""

    def close(self) -> None:
        """Release the file."""


class TextStream(io.RawIOBase):
    """UTF-8 bytes of a file in any encoding; its last line always ends.

    Raises SourceError while it is read: with the line where the encoding is broken or a quote stands where none may,
    or at the end where quotes do not pair up (a file that was cut off within a quoted value parses without an error).
    """

    def __init__(
        self, file: Readable, *, encoding: str, quotes: Quotes | None, where: str, compressed: bool = False
    ) -> None:
        """Wrap an opened file, which is closed with the stream.

        Args:
            file: opened for reading, decompressed.
            encoding: name of a Python codec.
            quotes: checks the quotes of the text; None: it has none that mean anything.
            where: source, object and file, for messages.
            compressed: whether the file lies compressed, for messages.
        """
        super().__init__()
        self._file = file
        self._compressed = compressed
        self._encoding = encoding
        self._quotes = quotes
        self._where = where
        plain = codecs.lookup(encoding).name == "utf-8"
        self._decode: Callable[[bytes, bool], str] | None = (
            None if plain else codecs.getincrementaldecoder(encoding)().decode
        )
        self._lines = 0
        self._ready = memoryview(b"")
        self._last = b"\n"
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what comes next; 0 at the end."""
        filled = 0
        # Parsers take one read for one block, and a row must fit into a block: so none is returned half full.
        while filled < len(buffer) and (self._ready or not self._ended):
            if not self._ready:
                self._ready = memoryview(self._next())
            size = min(len(buffer) - filled, len(self._ready))
            buffer[filled : filled + size] = self._ready[:size]
            self._ready = self._ready[size:]
            filled += size
        return filled

    def peek(self) -> bytes:
        """The first bytes, which are read again afterwards; only before anything is read."""
        while len(self._ready) < _HEADER and not self._ended:
            self._ready = memoryview(bytes(self._ready) + self._next())
        return bytes(self._ready)

    def close(self) -> None:
        """Close the file as well."""
        if not self.closed:
            self._file.close()
        super().close()

    def _next(self) -> bytes:
        cut = ", it is damaged or was cut off" if self._compressed else ""
        with storage_errors(f"{self._where}: cannot be read on after line {self._lines:,}{cut}"):
            raw = self._file.read(_CHUNK)
        text = self._as_utf8(raw)
        self._lines += text.count(b"\n")
        if self._quotes is not None:
            self._quotes.follow(text)
        if text:
            self._last = text[-1:]
        if not raw:
            self._ended = True
            if self._quotes is not None:
                self._quotes.end()
            # A header without a line end would be taken for an empty file.
            return text if self._last == b"\n" else text + b"\n"
        return text

    def _as_utf8(self, raw: bytes) -> bytes:
        if self._decode is None:
            return raw
        try:
            return self._decode(raw, not raw).encode()
        except UnicodeError as error:
            line = self._lines + 1
            if isinstance(error, UnicodeDecodeError):
                line += error.object[: error.start].decode(self._encoding, errors="ignore").count("\n")
            raise SourceError(
                f"{self._where}, line {line:,}: is not {self._encoding}\n  set 'encoding' in the table's options"
            ) from None
