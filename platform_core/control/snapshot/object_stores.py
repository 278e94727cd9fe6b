"""Files of snapshots in object stores: by the client of the lake's tables, or by fsspec for a URL of their own."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from platform_core.control.snapshot.folders import POINTER, Folder, Held, Listed, Points
from platform_core.faults import PublishPoint, reach

_S3 = frozenset({"s3", "s3a"})
_AZURE = frozenset({"abfs", "abfss", "az", "adl"})
_OBJECT_STORES = _S3 | _AZURE | {"gs", "gcs"}


class LakeFolder(Folder):
    """A folder in the lake's object store, reached as its tables are; this client has no conditional writes."""

    def __init__(self, root: str, options: Mapping[str, str]) -> None:
        super().__init__(root)
        self._options = dict(options)
        self._opened: tuple[Any, Any] | None = None

    def _store(self) -> tuple[Any, Any]:
        """The client, and Arrow's view of it."""
        if self._opened is None:
            import pyarrow.fs
            from deltalake.fs import DeltaStorageHandler

            handler = DeltaStorageHandler(self.root, self._options)
            self._opened = handler, pyarrow.fs.PyFileSystem(handler)
        return self._opened

    def _info(self, name: str) -> Any:
        import pyarrow.fs

        _, files = self._store()
        found = files.get_file_info(name)
        return None if found.type == pyarrow.fs.FileType.NotFound else found

    def _read(self, name: str) -> Held | None:
        if self._info(name) is None:
            return None
        _, files = self._store()
        with files.open_input_file(name) as file:
            return Held(content=file.read())

    def _write(self, name: str, content: bytes, *, points: Points) -> None:
        reach(points[0])
        handler, _ = self._store()
        # Through Arrow the stream would be handed buffers, and it takes nothing but bytes. Nothing is there before
        # it is closed.
        stream = handler._handler.open_output_stream(name, None)
        stream.write(content)
        reach(points[1])
        stream.close()

    def _remove(self, name: str) -> None:
        _, files = self._store()
        if self._info(name) is not None:
            files.delete_file(name)

    def _folders(self) -> list[str]:
        found = {PurePosixPath(each.path).parts[0] for each in self._listed("", recursive=True) if "/" in each.path}
        return list(found)

    def _files(self, folder: str) -> list[Listed]:
        import pyarrow.fs

        return [
            Listed(name=PurePosixPath(each.path).name, modified=each.mtime or dt.datetime.now(dt.UTC))
            for each in self._listed(folder, recursive=False)
            if each.type == pyarrow.fs.FileType.File
        ]

    def _listed(self, folder: str, *, recursive: bool) -> list[Any]:
        import pyarrow.fs

        _, files = self._store()
        found: list[Any] = files.get_file_info(
            pyarrow.fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        )
        return found


class UrlFolder(Folder):
    """A folder behind an fsspec URL."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        super().__init__(root)
        self._options = dict(options)
        self._opened: tuple[Any, str] | None = None

    def _store(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            files, path = fsspec.core.url_to_fs(
                self.root, use_listings_cache=False, skip_instance_cache=True, **self._options
            )
            self._opened = files, str(path).rstrip("/")
        return self._opened

    def _read(self, name: str) -> Held | None:
        files, root = self._store()
        files.invalidate_cache()
        try:
            # First, so that what is read is never older than what the version stands for.
            info = files.info(f"{root}/{name}")
            content = files.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        version = info.get("ETag") or info.get("etag")
        return Held(content=content, version=str(version) if version else None)

    def _write(self, name: str, content: bytes, *, points: Points) -> None:
        reach(points[0])
        files, root = self._store()
        if not _is_object_store(files):
            files.makedirs(f"{root}/{PurePosixPath(name).parent}", exist_ok=True)
        files.pipe_file(f"{root}/{name}", content)

    def _replace(self, name: str, content: bytes, before: Held | None) -> bool:
        files, root = self._store()
        condition = _condition(files, before)
        if condition is None:
            self._write(name, content, points=POINTER)
            return True
        reach(PublishPoint.POINTER_WRITE)
        try:
            files.pipe_file(f"{root}/{name}", content, **condition)
        except FileExistsError:
            return False
        except Exception as error:
            if _is_precondition(error):
                return False
            raise
        return True

    def _remove(self, name: str) -> None:
        files, root = self._store()
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{name}")

    def _folders(self) -> list[str]:
        return [PurePosixPath(each["name"]).name for each in self._listed("") if each["type"] == "directory"]

    def _files(self, folder: str) -> list[Listed]:
        return [
            Listed(name=PurePosixPath(each["name"]).name, modified=_modified(each))
            for each in self._listed(folder)
            if each["type"] == "file"
        ]

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        files, root = self._store()
        files.invalidate_cache()
        try:
            found: list[dict[str, Any]] = files.ls(f"{root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return found


def _condition(files: Any, before: Held | None) -> dict[str, Any] | None:
    """Arguments with which a write fails if the file is not what was read; None: the storage offers no such thing."""
    protocols = _protocols(files)
    if protocols & _S3:
        if before is None:
            return {"mode": "create"}
        return {"IfMatch": before.version} if before.version else None
    if protocols & _AZURE:
        if before is None:
            return {"mode": "create"}
        from azure.core import MatchConditions

        return {"etag": before.version, "match_condition": MatchConditions.IfNotModified} if before.version else None
    return None


def _is_precondition(error: BaseException) -> bool:
    """Whether a storage refused because the file is not what was read."""
    named = type(error).__name__ in ("ResourceModifiedError", "ResourceExistsError")
    code = getattr(error, "response", None)
    said = code.get("Error", {}).get("Code") if isinstance(code, dict) else None
    cause = error.__cause__
    return (
        named
        or said in ("PreconditionFailed", "ConditionalRequestConflict")
        or (cause is not None and _is_precondition(cause))
    )


def _is_object_store(files: Any) -> bool:
    return bool(_protocols(files) & _OBJECT_STORES)


def _protocols(files: Any) -> set[str]:
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def _modified(info: Mapping[str, Any]) -> dt.datetime:
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        if isinstance(value, dt.datetime):
            return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        if isinstance(value, (int, float)):
            return dt.datetime.fromtimestamp(value, dt.UTC)
    # A storage that does not say is never cleaned by age.
    return dt.datetime.now(dt.UTC)
