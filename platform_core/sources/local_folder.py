"""A local folder out of which no path, link or race leads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from platform_core.errors import SourceError
from platform_core.sources.file_patterns import Entry, Kind


class LocalFolder:
    """Lists and opens what lies below a folder.

    Links may lead anywhere below the root. A path is resolved first, and then walked from the root folder's own
    descriptor with ``O_NOFOLLOW``: a link put in place between the two is refused, not followed.
    """

    def __init__(self, root: str) -> None:
        self.shown = root
        self._root = Path(root or "/").resolve()

    def exists(self) -> bool:
        """Whether the root is a folder."""
        return self._root.is_dir()

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder; nothing where there is none."""
        try:
            descriptor = self._descriptor(folder, os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(descriptor) as found:
                names = [item.name for item in found]
        finally:
            os.close(descriptor)
        listed = (self.entry(f"{folder}/{name}" if folder else name) for name in names)
        return [item for item in listed if item is not None]

    def entry(self, name: str) -> Entry | None:
        """What lies at a path; None: nothing, or no longer."""
        path = self._root / name
        try:
            own = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        linked = stat.S_ISLNK(own.st_mode)
        if linked:
            self._inside(name)
            own = path.stat()
        return Entry(_printable(name), _kind(own.st_mode), linked, _info(own))

    def open(self, name: str) -> tuple[BinaryIO, Mapping[str, Any]]:
        """Open a regular file; what is said of it is of the very file that was opened."""
        descriptor = self._descriptor(name, os.O_NONBLOCK)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise SourceError(f"'{name}' is no regular file\n  devices, pipes and sockets are not read")
        return os.fdopen(descriptor, "rb", buffering=0), _info(found)

    def _inside(self, name: str) -> Path:
        """The path with all links resolved, relative to the root."""
        try:
            resolved = (self._root / name).resolve(strict=True)
        except RuntimeError:
            raise SourceError(f"'{name}' is a link that leads to itself") from None
        if not resolved.is_relative_to(self._root):
            raise SourceError(
                f"'{name}' is a link that leads out of {self.shown}\n  only files below the root are read"
            )
        return resolved.relative_to(self._root)

    def _descriptor(self, name: str, flags: int) -> int:
        inside = self._inside(name) if name else Path()
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for number, part in enumerate(inside.parts, 1):
            wanted = flags if number == len(inside.parts) else os.O_DIRECTORY
            try:
                below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | wanted, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def _info(found: os.stat_result) -> dict[str, Any]:
    # The time of the last change of the entry cannot be set by hand, as that of the content can.
    return {"size": found.st_size, "mtime": found.st_mtime, "stamp": f"{found.st_mtime_ns}/{found.st_ctime_ns}"}


def _printable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(f"the name of file {name!a} is not UTF-8\n  rename it") from None
    return name
