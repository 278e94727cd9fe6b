"""Remembers which files were loaded, and what they held, so that each content is loaded once."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.storage import StoredFile

_VERSION = 1
_LARGEST_BYTES = 1 << 30


@dataclass(frozen=True)
class LedgerEntry:
    """One file as it was when it was loaded.

    Args:
        size: bytes, as they lie in the storage.
        stamp: as of :class:`StoredFile`; empty where it could not be relied on.
        digest: SHA-256 of the bytes, in hex.
        loaded_at: when this content was first read, in UTC to the second.
    """

    size: int | None
    stamp: str
    digest: str
    loaded_at: str


class Ledger:
    """What a table's earlier loads have read, and what this one adds to it.

    It travels as the state of the source: it counts only once the load that it belongs to is committed.
    """

    def __init__(self, state: bytes | None, *, where: str) -> None:
        """Read the ledger of the last load; None: there was none.

        Raises:
            SourceError: the state is not one that this version of the platform can read.
        """
        self._state = state
        self._entries: dict[str, LedgerEntry] = {}
        self._schema: pa.Schema | None = None
        if state is not None:
            self._entries, self._schema = _parsed(state, where)
        self._digests: Counter[str] = Counter()
        self._sizes: Counter[int | None] = Counter()
        for entry in self._entries.values():
            self._count(entry, 1)
        self._changed = state is None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def schema(self) -> pa.Schema | None:
        """The columns of the files that were read last; None: none were."""
        return self._schema

    def entry(self, file: StoredFile) -> LedgerEntry | None:
        """What is known of a file by its name."""
        return self._entries.get(file.name)

    def is_unchanged(self, file: StoredFile) -> bool:
        """Whether a file need not even be opened: name, size and time (or tag) are those of the last load."""
        entry = self._entries.get(file.name)
        return entry is not None and bool(entry.stamp) and (entry.size, entry.stamp) == (file.size, file.stamp)

    def may_be_known(self, file: StoredFile) -> bool:
        """Whether a file of this size was loaded, so that only the content tells whether this one was."""
        return file.size is None or self._sizes[file.size] > 0 or self._sizes[None] > 0

    def is_known(self, digest: str) -> bool:
        """Whether this content was loaded, under whatever name."""
        return self._digests[digest] > 0

    def add(self, file: StoredFile, digest: str) -> None:
        """A file was read, or found to hold what was read before."""
        before = self._entries.get(file.name)
        same = before is not None and before.digest == digest
        loaded_at = before.loaded_at if before is not None and same else _now()
        entry = LedgerEntry(file.size, file.stamp if file.sure else "", digest, loaded_at)
        if entry == before:
            return
        if before is not None:
            self._count(before, -1)
        self._count(entry, 1)
        self._entries[file.name] = entry
        self._changed = True

    def describe(self, schema: pa.Schema) -> None:
        """Remember the columns, for a load that finds no new file."""
        if self._schema is None or not self._schema.equals(schema):
            self._schema = schema
            self._changed = True

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all other files."""
        kept = set(names)
        for name in [name for name in self._entries if name not in kept]:
            self._count(self._entries.pop(name), -1)
            self._changed = True

    def state(self) -> bytes:
        """The ledger as it is to be kept; the very bytes of before where nothing was added."""
        if not self._changed and self._state is not None:
            return self._state
        schema = self._schema
        document = {
            "version": _VERSION,
            "columns": base64.b64encode(schema.serialize().to_pybytes()).decode() if schema is not None else None,
            "files": {
                name: [entry.size, entry.stamp, base64.b64encode(bytes.fromhex(entry.digest)).decode(), entry.loaded_at]
                for name, entry in sorted(self._entries.items())
            },
        }
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        packed: bytes = len(text).to_bytes(8, "little") + pa.Codec("zstd").compress(text, asbytes=True)
        return packed

    def _count(self, entry: LedgerEntry, by: int) -> None:
        self._digests[entry.digest] += by
        self._sizes[entry.size] += by


def _parsed(state: bytes, where: str) -> tuple[dict[str, LedgerEntry], pa.Schema | None]:
    try:
        size = int.from_bytes(state[:8], "little")
        if size > _LARGEST_BYTES:
            raise ValueError("too large")
        document = json.loads(pa.Codec("zstd").decompress(state[8:], decompressed_size=size, asbytes=True))
        if document["version"] != _VERSION:
            raise ValueError("another version")
        entries = {name: _entry(values) for name, values in document["files"].items()}
        columns = document["columns"]
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(columns))) if columns else None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        raise SourceError(
            f"{where}: the ledger of loaded files is damaged, or of another version of the platform\n"
            "  reload the table; the ledger is then made anew"
        ) from None
    return entries, schema


def _entry(values: list[object]) -> LedgerEntry:
    size, stamp, digest, loaded_at = values
    return LedgerEntry(
        size if isinstance(size, int) else None, str(stamp), base64.b64decode(str(digest)).hex(), str(loaded_at)
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
