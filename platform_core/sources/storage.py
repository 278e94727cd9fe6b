"""Finds and opens the files below one root, in a local folder or behind any fsspec URL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.sources.file_patterns import Entry, check_pattern, matching
from platform_core.sources.local_folder import LocalFolder
from platform_core.sources.remote_folder import RemoteFolder, etag, modified, shown

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
# Clocks of many storages count seconds: of two versions within one, the second may look like the first.
_SURE_AFTER = dt.timedelta(seconds=3)


@dataclass(frozen=True)
class StoredFile:
    """One file as it was when it was listed.

    Args:
        name: its path relative to the root.
        size: bytes.
        stamp: what tells one version of it from the next, as far as the storage says.
        modified: when it was last written, in UTC; None: the storage does not say.
        sure: whether the stamp would differ if the file had been written again since.
    """

    name: str
    size: int | None
    stamp: str
    modified: dt.datetime | None = field(default=None, compare=False)
    sure: bool = field(default=True, compare=False)

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
        self.shown = shown(root)
        local = "://" not in root and "::" not in root
        if root.startswith(("file://", "local://")):
            root, local = root.partition("://")[2], True
        self._local = LocalFolder(root) if local else None
        with storage_errors(f"files: cannot open root {self.shown}"):
            self._folder = self._local or RemoteFolder(root, options, secret=secret)
            if self._local is not None and not self._local.exists():
                raise SourceError(f"files: root {self.shown} is not a folder\n  correct the connection's 'root'")

    def close(self) -> None:
        """End the connection, where there is one."""
        if isinstance(self._folder, RemoteFolder):
            self._folder.close()

    @property
    def settles(self) -> dt.timedelta:
        """How long a file must stay as it is to be taken for complete, unless a team says otherwise."""
        if isinstance(self._folder, RemoteFolder):
            return dt.timedelta(0) if self._folder.atomic else dt.timedelta(seconds=5)
        return dt.timedelta(seconds=1)

    @property
    def same_clock(self) -> bool:
        """Whether times of files are those of this machine's clock."""
        return self._local is not None

    def list(self, pattern: str, *, partial: tuple[str, ...] = (), where: str) -> list[StoredFile]:
        """The files that match a glob, by name; none at all if none match.

        Args:
            partial: endings that no glob finds; a path without wildcards does.

        Raises:
            SourceError: the pattern or a link leads out of the root, or a folder cannot be listed.
        """
        check_pattern(pattern, where=where)
        with storage_errors(f"{where}: cannot list {self.shown}", prefix=where):
            found = matching(pattern, entries=self._folder.entries, entry=self._folder.entry)
        found = [item for item in found if item.name == pattern or not item.name.lower().endswith(partial or ("\0",))]
        for item in found:
            if item.kind in ("link", "other"):
                what = "a link, which this storage does not resolve" if item.kind == "link" else "no regular file"
                raise SourceError(f"{where}: '{item.name}' is {what}\n  only regular files are read")
        return [self._stored(item) for item in found if item.kind == "file"]

    def nothing_found(self, *, where: str) -> SourceError:
        """The error for a pattern that matches no file."""
        with storage_errors(f"{where}: cannot list {self.shown}", prefix=where):
            names = sorted(item.name for item in self._folder.entries(""))
            exists = bool(names) or self._folder.exists()
        more = f", and {len(names) - 20:,} more" if len(names) > 20 else ""
        holds = f"the root holds: {', '.join(names[:20]) or 'nothing'}{more}" if exists else "there is no such root"
        return SourceError(
            f"{where}: no file in {self.shown} matches\n  {holds}\n"
            "  a source without files is not taken for an empty table; correct 'object' or the connection's 'root'"
        )

    def open(self, file: StoredFile, *, where: str) -> BinaryIO:
        """Open a file for reading; it is closed by the caller.

        Raises:
            SourceError: it cannot be opened, or is no longer the one that was listed.
        """
        with storage_errors(f"{where}: cannot open '{file.name}'", prefix=where):
            if self._local is None:
                return self._folder.open(file.name)  # type: ignore[return-value]
            opened, info = self._local.open(file.name)
            if self._stored(Entry(file.name, "file", info=info)) != file:
                opened.close()
                raise _changed(file, where)
            return opened

    def check_unchanged(self, file: StoredFile, *, where: str) -> None:
        """Raise SourceError if the file is no longer the one that was listed."""
        if self.look_again(file, where=where) != file:
            raise _changed(file, where)

    def look_again(self, file: StoredFile, *, where: str) -> StoredFile | None:
        """The file as it is now; None: it is gone."""
        with storage_errors(f"{where}: cannot look at '{file.name}' again", prefix=where):
            found = self._folder.entry(file.name)
        return None if found is None or found.kind != "file" else self._stored(found)

    def _stored(self, item: Entry) -> StoredFile:
        info = item.info
        written, tag = modified(info), etag(info)
        stamp = info.get("stamp") or tag or (written.isoformat() if written else "")
        age = dt.datetime.now(dt.UTC) - written if written else dt.timedelta(0)
        sure = tag is not None or "stamp" in info or age > _SURE_AFTER
        return StoredFile(item.name, info.get("size"), str(stamp), written, sure)


def _changed(file: StoredFile, where: str) -> SourceError:
    return SourceError(f"{where}: file '{file.name}' changed while it was read\n  load again once it is complete")


@contextmanager
def storage_errors(what: str, *, prefix: str = "") -> Iterator[None]:
    """Errors of storage clients by class only: their texts may hold signed URLs and keys.

    Args:
        what: what was tried, for messages.
        prefix: source and object, put before errors of our own that lack them.
    """
    try:
        yield
    except SourceError as error:
        if prefix and not str(error).startswith(("files", prefix)):
            raise SourceError(f"{prefix}: {error}") from None
        raise
    except ImportError as error:
        raise SourceError(f"{what}: the package '{error.name or 'for this kind of URL'}' is not installed") from None
    except OSError as error:
        raise SourceError(f"{what}: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - storage clients share no base class of errors
        raise SourceError(f"{what}: {type(error).__name__}") from None
