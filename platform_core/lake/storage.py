"""Files of the lake, local or in an object store, reached with the storage options of the tables."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from platform_core.lake.session import Session

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem, FileSystemHandler

_SCHEME = "://"
_PATTERN = re.compile(r"([*?\[])")


def local_path(uri: str) -> Path | None:
    """The folder or file that a URI names on this machine; None where it names something elsewhere."""
    if _SCHEME not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def filesystem(uri: str, storage_options: Mapping[str, str]) -> FileSystem:
    """A pyarrow file system whose root is the folder ``uri``.

    An object store is reached by the same client and options as its Delta tables.
    """
    import pyarrow.fs

    if (path := local_path(uri)) is not None:
        return pyarrow.fs.SubTreeFileSystem(str(path), pyarrow.fs.LocalFileSystem())
    return pyarrow.fs.PyFileSystem(_object_store(uri, storage_options))


def _object_store(uri: str, storage_options: Mapping[str, str]) -> FileSystemHandler:
    import pyarrow as pa
    from deltalake.fs import DeltaStorageHandler

    class ObjectStore(DeltaStorageHandler):
        """delta-rs's own client; its streams take nothing but bytes, where Arrow hands over buffers."""

        def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
            return pa.PythonFile(_BytesOnly(self._handler.open_output_stream(path, metadata)), mode="w")

    return ObjectStore(uri, dict(storage_options))


class _BytesOnly:
    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._stream.write(content)
        return len(content)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._stream.close()


def engine_root(session: Session, uri: str, storage_options: Mapping[str, str]) -> str:
    """How DuckDB addresses the folder ``uri``: a local path, or a URL mounted on the session.

    Append ``/<file>`` to it.
    """
    if (path := local_path(uri)) is not None:
        return str(path.absolute())
    protocol = "edp" + hashlib.sha256(repr((uri, sorted(storage_options.items()))).encode()).hexdigest()[:16]
    session.mount(_mounted(protocol, uri, storage_options))
    return protocol + _SCHEME


def engine_path(path: str) -> str:
    """A path as DuckDB reads it: what would be a pattern stands for itself."""
    return _PATTERN.sub(r"[\1]", path)


def _mounted(protocol: str, uri: str, storage_options: Mapping[str, str]) -> AbstractFileSystem:
    from fsspec.implementations.arrow import ArrowFSWrapper

    class Mounted(ArrowFSWrapper):  # type: ignore[misc]
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(path).removeprefix(f"{cls.protocol}{_SCHEME}").strip("/")

    Mounted.protocol = protocol
    return Mounted(filesystem(uri, storage_options))


def persist(*paths: Path) -> None:
    """Force files or folders to disk before something refers to them."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
