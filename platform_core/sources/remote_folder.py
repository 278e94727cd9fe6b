"""A folder or bucket behind a URL, reached through fsspec with the options that a team declared."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.sources.file_patterns import Entry, Kind
from platform_core.specs.base import SecretRef

_EXTRAS = {
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("sftp", "ssh"), "sftp"),
}
_OBJECT_STORES = frozenset({"abfs", "abfss", "az", "adl", "s3", "s3a", "gs", "gcs", "memory"})
_SFTP = ("sftp", "ssh")
# These keep a copy on the local disk, which rows may not reach before they are masked.
_CACHES = ("simplecache", "filecache", "blockcache", "cached")
_BLOCK_BYTES = 8 << 20
_GOODBYE_SECONDS = 5
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


class RemoteFolder:
    """Lists and opens what lies below a URL."""

    def __init__(self, root: str, options: Mapping[str, Any], *, secret: Callable[[str], Secret]) -> None:
        """Reach the storage.

        Raises:
            SourceError: the URL goes through a cache, or the package for it is not installed.
        """
        self.shown = shown(root)
        self.protocol = root.partition("://")[0]
        if "::" in root or self.protocol in _CACHES:
            raise SourceError(
                f"files: root {self.shown} goes through a cache or a chain of file systems\n"
                "  rows may reach a disk only after they are masked: name the storage itself"
            )
        revealed = _revealed(options, secret)
        if self.protocol in _SFTP:
            self._files, path = _sftp(root, revealed)
        else:
            import fsspec

            try:
                self._files, path = fsspec.core.url_to_fs(
                    root, use_listings_cache=False, skip_instance_cache=True, **revealed
                )
            except ImportError as error:
                raise missing_package(self.shown, self.protocol, error) from None
        self._root = str(path).rstrip("/")

    @property
    def atomic(self) -> bool:
        """Whether a file appears only when it is complete."""
        return self.protocol in _OBJECT_STORES

    def exists(self) -> bool:
        """Whether there is anything at the root."""
        return bool(self._files.exists(self._root or "/"))

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder; nothing where there is none."""
        try:
            found = self._files.ls(self._path(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = ((str(info["name"]).rstrip("/").rpartition("/")[2], info) for info in found)
        own = folder.rpartition("/")[2] or self._root.rpartition("/")[2]
        return [
            _entry(f"{folder}/{name}" if folder else name, info)
            for name, info in names
            if name not in ("", ".", "..") and not (name == own and _same(info["name"], self._path(folder)))
        ]

    def entry(self, name: str) -> Entry | None:
        """What lies at a path; None: nothing, or no longer."""
        if self.protocol in _SFTP:
            # Asked for one path, the server answers for what a link leads to; in its folder a link shows as one.
            return next((item for item in self.entries(name.rpartition("/")[0]) if item.name == name), None)
        try:
            return _entry(name, self._files.info(self._path(name)))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        sizes = {} if self.protocol in _SFTP else {"block_size": _BLOCK_BYTES}
        opened: BinaryIO = self._files.open(self._path(name), "rb", **sizes)
        return opened

    def close(self) -> None:
        """End the connection; object stores have none that outlasts a request."""
        if self.protocol not in _SFTP:
            return
        from fsspec.asyn import sync

        async def end() -> None:
            self._files.client.close()
            await self._files.client.wait_closed()

        # A server that does not answer any more needs no goodbye.
        with contextlib.suppress(TimeoutError):
            sync(self._files.loop, end, timeout=_GOODBYE_SECONDS)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root or "/"


def modified(info: Mapping[str, Any]) -> dt.datetime | None:
    """When a file was last written, in UTC, as far as the storage says."""
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, dt.datetime):
            return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
        if isinstance(value, (int, float)):
            return dt.datetime.fromtimestamp(value, dt.UTC)
    return None


def etag(info: Mapping[str, Any]) -> str | None:
    """What an object store gives every content of a file anew; None: it gives nothing of the kind."""
    value = info.get("ETag") or info.get("etag")
    return str(value).strip('"') if value else None


def shown(root: str) -> str:
    """A root for messages: a URL without user, password and query."""
    if "://" not in root:
        return root
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def missing_package(of: str, protocol: str, error: ImportError) -> SourceError:
    """The error for a storage whose package is not installed."""
    what = f"files: root {of} needs the package '{error.name or 'that knows such URLs'}', which is not installed"
    extra = _EXTRAS.get(protocol)
    return SourceError(f"{what}\n  pip install 'edp-platform-core[{extra}]'" if extra else what)


def _entry(name: str, info: Mapping[str, Any]) -> Entry:
    kinds: dict[str, Kind] = {"file": "file", "directory": "folder", "link": "link"}
    return Entry(name, kinds.get(str(info.get("type")), "other"), info=info)


def _same(path: object, other: str) -> bool:
    return str(path).strip("/") == other.strip("/")


def _revealed(options: Mapping[str, Any], secret: Callable[[str], Secret]) -> dict[str, Any]:
    def reveal(value: object) -> object:
        if isinstance(value, Mapping):
            if value.keys() == {"secret"}:
                return secret(SecretRef.model_validate(value).secret).reveal().decode()
            return {key: reveal(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [reveal(part) for part in value]
        return value

    return {key: reveal(value) for key, value in options.items()}


def _sftp(root: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The file system of an SFTP server whose host key is known, and the path on it.

    Keys are given as text, because a secret has no file: ``client_keys`` private keys in PEM, ``known_hosts`` lines as
    of OpenSSH. A text of one line is the name of a file, as asyncssh takes it.
    """
    try:
        import asyncssh
        import sshfs
    except ImportError as error:
        raise missing_package(shown(root), "sftp", error) from None
    hosts = options.setdefault("known_hosts", ())
    if hosts is None:
        raise SourceError(
            f"files: root {shown(root)}: 'known_hosts: null' would send the password to whoever answers\n"
            "  give the server's line of `ssh-keyscan`, or leave it out: ~/.ssh/known_hosts is then looked at"
        )
    try:
        if isinstance(hosts, str) and len(hosts.split()) > 1:
            options["known_hosts"] = asyncssh.import_known_hosts(hosts)
        if keys := options.get("client_keys"):
            given = [keys] if isinstance(keys, str) else keys
            options["client_keys"] = [
                asyncssh.import_private_key(key) if key.lstrip().startswith("-----BEGIN") else key for key in given
            ]
    except ValueError as error:
        raise SourceError(
            f"files: root {shown(root)}: 'known_hosts' or 'client_keys' cannot be read ({type(error).__name__})"
        ) from None
    parts = urlsplit(root)
    named = {"host": parts.hostname, "port": parts.port, "username": parts.username, "password": parts.password}
    options = {**{key: value for key, value in named.items() if value is not None}, **options}
    return sshfs.SSHFileSystem(skip_instance_cache=True, **options), parts.path or "/"
