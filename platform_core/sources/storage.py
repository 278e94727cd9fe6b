"""Finds and opens the files below one root, in a local folder or behind any fsspec URL."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.specs.base import SecretRef

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# These keep a copy on the local disk, which rows may not reach before they are masked.
_CACHES = ("simplecache", "filecache", "blockcache", "cached")
_STAMPS = ("mtime", "LastModified", "last_modified", "ETag", "etag", "updated", "generation")


@dataclass(frozen=True)
class StoredFile:
    """One file as it was when it was listed.

    Args:
        path: how the file system names it.
        name: its path relative to the root.
        size: bytes.
        stamp: what else tells one version of it from the next, as far as the storage says.
    """

    path: str
    name: str
    size: int | None
    stamp: tuple[str, ...]

    @property
    def compression(self) -> str | None:
        """Codec by the file's extension; None: not compressed."""
        return _COMPRESSIONS.get(PurePosixPath(self.name).suffix.lower())

    @property
    def extension(self) -> str:
        """Extension in lower case, without that of a compression."""
        path = PurePosixPath(self.name)
        return (PurePosixPath(path.stem) if self.compression else path).suffix.lower()


class Storage:
    """The files below one root; nothing outside it can be named."""

    def __init__(self, root: str, options: Mapping[str, Any], *, secret: Callable[[str], Secret]) -> None:
        """Reach the storage.

        Args:
            root: folder or URL.
            options: of the fsspec file system; ``{secret: name}`` stands for the value of a secret.
            secret: gives the value of a named secret.

        Raises:
            SourceError: the storage cannot be reached.
        """
        import fsspec

        self.shown = shown(root)
        if "::" in root or root.partition("://")[0] in _CACHES:
            raise SourceError(
                f"files: root {self.shown} goes through a cache or a chain of file systems\n"
                "  rows may reach a disk only after they are masked: name the storage itself"
            )
        with storage_errors(f"files: cannot open root {self.shown}"):
            self._files, path = fsspec.core.url_to_fs(root, use_listings_cache=False, **_revealed(options, secret))
        self._root = path.rstrip("/")
        protocols = self._files.protocol
        self._local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        if self._local and not Path(self._root or "/").is_dir():
            raise SourceError(f"files: root {self.shown} is not a folder\n  correct the connection's 'root'")

    def list(self, pattern: str, *, where: str) -> list[StoredFile]:
        """The files that match a glob, by name; one at least.

        Raises:
            SourceError: there are none, or the pattern or a link leads out of the root.
        """
        _check_pattern(pattern, where)
        with storage_errors(f"{where}: cannot list {self.shown}"):
            found = self._files.glob(f"{glob.escape(self._root)}/{pattern}", detail=True)
        if self._local:
            found = {path: info for path, info in found.items() if Path(path).is_file()}
            self._refuse_links(found, where)
        else:
            found = {path: info for path, info in found.items() if info.get("type") == "file"}
        if not found:
            raise SourceError(
                f"{where}: no file in {self.shown} matches\n{self._present(where)}\n"
                "  a source without files is not taken for an empty table; correct 'object' or the connection's 'root'"
            )
        return sorted((self._stored(path, info) for path, info in found.items()), key=lambda file: file.name)

    def open(self, file: StoredFile, *, where: str) -> pa.NativeFile:
        """Open a file for reading, decompressed; it is closed by the caller."""
        with storage_errors(f"{where}: cannot open '{file.name}'"):
            opened = pa.OSFile(file.path) if self._local else pa.PythonFile(self._files.open(file.path, "rb"), mode="r")
            return pa.CompressedInputStream(opened, file.compression) if file.compression else opened

    def check_unchanged(self, file: StoredFile, *, where: str) -> None:
        """Raise SourceError if the file is no longer the one that was listed."""
        with storage_errors(f"{where}: cannot look at '{file.name}' again"):
            now = self._stored(file.path, self._files.info(file.path))
        if now != file:
            raise SourceError(
                f"{where}: file '{file.name}' changed while it was read\n  load again once it is complete"
            )

    def _stored(self, path: str, info: Mapping[str, Any]) -> StoredFile:
        stamp = tuple(f"{key}={info[key]}" for key in _STAMPS if info.get(key) is not None)
        return StoredFile(path, path[len(self._root) :].lstrip("/"), info.get("size"), stamp)

    def _refuse_links(self, found: Mapping[str, Any], where: str) -> None:
        root = Path(self._root or "/").resolve()
        for path in found:
            if not Path(path).resolve().is_relative_to(root):
                raise SourceError(
                    f"{where}: file '{path[len(self._root) :].lstrip('/')}' is a link that leads out of {self.shown}\n"
                    "  only files below the root are read"
                )

    def _present(self, where: str) -> str:
        with storage_errors(f"{where}: cannot list {self.shown}"):
            entries = self._files.ls(self._root or "/", detail=False) if self._files.exists(self._root) else []
        names = sorted(PurePosixPath(str(entry)).name for entry in entries)
        more = f", and {len(names) - 20:,} more" if len(names) > 20 else ""
        return f"  the root holds: {', '.join(names[:20]) or 'nothing'}{more}"


def shown(root: str) -> str:
    """A root for messages: a URL without user, password and query."""
    if "://" not in root:
        return root
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Errors of storage clients by class only: their texts may hold signed URLs and keys."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(f"{what}: the package '{error.name or 'for this kind of URL'}' is not installed") from None
    except OSError as error:
        raise SourceError(f"{what}: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - storage clients share no base class of errors
        raise SourceError(f"{what}: {type(error).__name__}") from None


def _revealed(options: Mapping[str, Any], secret: Callable[[str], Secret]) -> dict[str, Any]:
    def reveal(value: object) -> object:
        if isinstance(value, Mapping):
            if value.keys() == {"secret"}:
                return secret(SecretRef.model_validate(value).secret).reveal().decode()
            return {key: reveal(part) for key, part in value.items()}
        return value

    return {key: reveal(value) for key, value in options.items()}


def _check_pattern(pattern: str, where: str) -> None:
    parts = PurePosixPath(pattern).parts
    if pattern.startswith(("/", "~")) or ".." in parts or "\\" in pattern or "://" in pattern or "\0" in pattern:
        raise SourceError(
            f"{where}: the object must be a path or glob below the connection's root, such as weather/*.csv\n"
            "  absolute paths, '..', '~', backslashes and URLs are refused"
        )
