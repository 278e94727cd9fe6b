"""Reads and writes the files of snapshots: in a local folder, in the lake's object store, or behind an fsspec URL.

Files of the lake are reached by the client and the options of its tables, so that one credential serves both. It is not
the lake's own module that does it: control and lake know nothing of each other, and what is needed here are five
operations on whole, small files.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from platform_core.errors import PlatformError, StorageError, redacted
from platform_core.faults import PublishPoint, reach
from platform_core.plugins.interfaces import SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import EnvironmentSpec

Points = tuple[PublishPoint, PublishPoint, PublishPoint]
"""Half of a file written, all of it written, and about to take its name."""

CONTENT = (PublishPoint.CONTENT_WRITE, PublishPoint.CONTENT_SYNC, PublishPoint.CONTENT_RENAME)
POINTER = (PublishPoint.POINTER_WRITE, PublishPoint.POINTER_SYNC, PublishPoint.POINTER_RENAME)

_IN_THE_LAKE = "_platform/manifests"
_TEMPORARY = ".part"
_SCHEME = "://"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A file as it was read.

    Args:
        version: what tells it from the next one under its name; None: the storage does not say.
    """

    content: bytes
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file as it was listed; ``modified`` is in UTC."""

    name: str
    modified: dt.datetime


class Folder(ABC):
    """Files below one root; names are relative paths with ``/``.

    Every method raises StorageError where the storage refuses.
    """

    is_local = False

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def shown(self, name: str) -> str:
        """What a person calls a file."""
        return f"{_without_user(self.root)}/{name}"

    def read(self, name: str) -> Held | None:
        """A whole file; None: there is none."""
        with self._errors("read", name):
            return self._read(name)

    def create(self, name: str, content: bytes) -> None:
        """Write a file whose name tells its content; at any moment it is there as a whole, or not at all."""
        with self._errors("write", name):
            self._write(name, content, points=CONTENT)

    def replace(self, name: str, content: bytes, *, before: Held | None) -> bool:
        """Put a file in the place of what was read; at any moment one of the two is there as a whole.

        Args:
            before: as it was read; None: there was none.

        Returns:
            False where the storage can tell that somebody else has replaced it meanwhile; nothing was done then.
        """
        with self._errors("write", name):
            return self._replace(name, content, before)

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""
        with self._errors("remove", name):
            self._remove(name)

    def folders(self) -> list[str]:
        """Names of the folders right below the root."""
        with self._errors("list", ""):
            return sorted(self._folders())

    def files(self, folder: str) -> list[Listed]:
        """The files right in a folder."""
        with self._errors("list", folder):
            return sorted(self._files(folder), key=lambda file: file.name)

    def alone(self) -> AbstractContextManager[None]:
        """Keep other publishers of this machine out for the block, where the storage can."""
        return nullcontext()

    @contextmanager
    def _errors(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except PlatformError:
            raise
        except ImportError as error:
            raise StorageError(
                f"{self.shown(name)}: the package '{error.name or 'for this kind of URL'}' is not installed\n"
                "  install the extra of edp-platform-core for this storage (azure, s3, …)"
            ) from None
        except Exception as error:  # noqa: BLE001 - storage clients share no base class of errors
            said = redacted(error) if isinstance(error, OSError) else type(error).__name__
            raise StorageError(
                f"{self.shown(name)}: cannot {what} it: {said}\n"
                "  look at the storage, and at lake and control.snapshots of the environment's file"
            ) from None

    @abstractmethod
    def _read(self, name: str) -> Held | None: ...

    @abstractmethod
    def _write(self, name: str, content: bytes, *, points: Points) -> None: ...

    def _replace(self, name: str, content: bytes, _before: Held | None) -> bool:
        self._write(name, content, points=POINTER)
        return True

    @abstractmethod
    def _remove(self, name: str) -> None: ...

    @abstractmethod
    def _folders(self) -> list[str]: ...

    @abstractmethod
    def _files(self, folder: str) -> list[Listed]: ...


class LocalFolder(Folder):
    """A folder of this machine, or one that is mounted on it."""

    is_local = True

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.path = root

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._errors("lock", ""):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, name: str) -> Held | None:
        try:
            return Held(content=(self.path / name).read_bytes())
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes, *, points: Points) -> None:
        writing, synced, renaming = points
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            with temporary.open("xb") as file:
                half = len(content) // 2
                file.write(content[:half])
                file.flush()
                reach(writing)
                file.write(content[half:])
                file.flush()
                reach(synced)
                os.fsync(file.fileno())
            reach(renaming)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        for folder in (target.parent, self.path):
            _sync(folder)

    def _remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _folders(self) -> list[str]:
        return [entry.name for entry in self.path.iterdir() if entry.is_dir()] if self.path.is_dir() else []

    def _files(self, folder: str) -> list[Listed]:
        found = []
        for entry in (self.path / folder).iterdir() if (self.path / folder).is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                modified = dt.datetime.fromtimestamp(entry.stat().st_mtime, dt.UTC)
                found.append(Listed(name=entry.name, modified=modified))
        return found


def open_folder(environment: EnvironmentSpec, *, state: Path) -> Folder:
    """Where the snapshots of an environment lie; nothing of it is read yet.

    Args:
        environment: its paths resolved.
        state: folder that a relative one counts from.

    Raises:
        PluginError: the secret store is missing.
        SecretError: a secret of the storage's options is missing.
    """
    kind = plugin("secret store", environment.secrets.type)
    store: SecretStore = kind(kind.Options(**environment.secrets.options))
    chosen = environment.control.snapshots
    root = environment.lake.root.rstrip("/") + f"/{_IN_THE_LAKE}" if chosen is None else chosen.root
    options = environment.lake.storage_options if chosen is None else chosen.storage_options
    below = f"{root.rstrip('/')}/{environment.name}"
    if _SCHEME not in below:
        return LocalFolder(state / below)
    parts = urlsplit(below)
    if parts.scheme in ("file", "local"):
        return LocalFolder(Path(unquote(parts.path)))
    from platform_core.control.snapshot.object_stores import LakeFolder, UrlFolder

    revealed = {name: _revealed(value, store) for name, value in options.items()}
    return LakeFolder(below, revealed) if chosen is None else UrlFolder(below, revealed)


def is_unfinished(name: str) -> bool:
    """Whether a file is what a writer left that was killed."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


def _revealed(value: Any, store: SecretStore) -> Any:
    if isinstance(value, SecretRef):
        return store.get(value.secret).reveal().decode()
    if isinstance(value, Mapping):
        if value.keys() == {"secret"} and isinstance(value["secret"], str):
            return store.get(value["secret"]).reveal().decode()
        return {name: _revealed(each, store) for name, each in value.items()}
    return value


def _without_user(url: str) -> str:
    """A URL without what may stand before its host, save the container of Azure."""
    scheme, separator, rest = url.partition(_SCHEME)
    authority, slash, path = rest.partition("/")
    if separator and ":" in authority.rpartition("@")[0]:
        authority = authority.rpartition("@")[2]
    return f"{scheme}{separator}{authority}{slash}{path}" if separator else url


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
