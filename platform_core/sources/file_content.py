"""One file while it is read: opened once, hashed on the way where that is wanted, and compared with what was listed."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.decompression import Decompressed, HashedBytes, Limits
from platform_core.sources.file_options import FileOptions
from platform_core.sources.quotes import Quotes
from platform_core.sources.storage import Storage, StoredFile, storage_errors
from platform_core.sources.text_stream import Readable, TextStream

_CHUNK = 1 << 20
_HELD_BYTES = 64 << 20


class FileContent:
    """The content of one file, read once from its beginning or, of Parquet, here and there."""

    def __init__(self, storage: Storage, file: StoredFile, *, options: FileOptions, hashed: bool, where: str) -> None:
        """Take note of the file; it is opened when it is read.

        Args:
            hashed: whether :meth:`digest` will be asked for.
            where: source and object, for messages.
        """
        self.file = file
        self.where = f"{where}: file '{file.name}'"
        self.limits = Limits(largest_bytes=options.largest_file_gb << 30, ratio=options.largest_ratio)
        self._storage = storage
        self._options = options
        self._object = where
        self._wanted = hashed
        self._hashed: HashedBytes | None = None
        self._opened: list[BinaryIO] = []

    def text(self, *, quoted: bool = False) -> TextStream:
        """The text, in UTF-8.

        Args:
            quoted: whether quotes are checked as those of a CSV.
        """
        options = self._options
        quotes = None
        if quoted and options.quote:
            strict = options.stray_quotes == "refuse"
            quotes = Quotes(quote=options.quote, delimiter=options.delimiter, strict=strict, where=self.where)
        return TextStream(
            self._bytes(),
            encoding=options.encoding,
            quotes=quotes,
            where=self.where,
            compressed=self.file.compression is not None,
        )

    def whole(self, *, largest_mb: int, option: str) -> bytes:
        """All bytes; raise SourceError where they are more than may be held in memory."""
        opened, pieces, size = self._bytes(), [], 0
        with storage_errors(f"{self.where}: cannot be read"):
            while piece := opened.read(_CHUNK):
                size += len(piece)
                if size > largest_mb << 20:
                    raise SourceError(
                        f"{self.where}: is larger than {largest_mb:,} MB, and it is held in memory\n"
                        f"  set '{option}' in the table's options if it may be"
                    )
                pieces.append(piece)
        return b"".join(pieces)

    def random(self) -> pa.NativeFile:
        """The file for reads here and there. A small one that lies elsewhere is fetched once, into memory."""
        if self.file.compression:
            raise SourceError(f"{self.where}: Parquet holds its own compression; unpack the file, or name its format")
        if not self._storage.same_clock and (self.file.size or _HELD_BYTES) < _HELD_BYTES:
            with storage_errors(f"{self.where}: cannot be read"):
                return pa.BufferReader(self._hashing().read())
        opened = self._storage.open(self.file, where=self._object)
        self._opened.append(opened)
        return pa.PythonFile(opened, mode="r")

    def digest(self) -> str:
        """SHA-256 of the bytes that lie in the storage, in hex: of those that were read, or else read for it.

        Raises:
            SourceError: the file is no longer the one that was listed.
        """
        hashed = self._hashed or self._hashing()
        with storage_errors(f"{self.where}: cannot be read"):
            digest = hashed.finish()
        self._check_length(hashed)
        return digest

    def check_unchanged(self) -> None:
        """Raise SourceError if the file is not, or no longer, what was listed."""
        if self._hashed is not None:
            with storage_errors(f"{self.where}: cannot be read"):
                self._hashed.finish()
            self._check_length(self._hashed)
        self._storage.check_unchanged(self.file, where=self._object)

    def close(self) -> None:
        """Close what was opened."""
        for opened in self._opened:
            opened.close()

    def _check_length(self, hashed: HashedBytes) -> None:
        if self.file.size is not None and hashed.count != self.file.size:
            raise SourceError(
                f"{self._object}: file '{self.file.name}' changed while it was read\n  load again once it is complete"
            )

    def _hashing(self) -> HashedBytes:
        opened = self._storage.open(self.file, where=self._object)
        self._opened.append(opened)
        self._hashed = HashedBytes(opened, hashed=self._wanted)
        return self._hashed

    def _bytes(self) -> Readable:
        packed = self._hashing()
        if self.file.compression is None:
            return packed
        with storage_errors(f"{self.where}: cannot be unpacked"):
            return Decompressed(packed, codec=self.file.compression, limits=self.limits, where=self.where)
