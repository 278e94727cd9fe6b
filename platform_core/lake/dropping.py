"""Tables that a migration dropped: on a disk they are moved aside at once, in an object store their files go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from platform_core.errors import StorageError, redacted
from platform_core.lake.storage import filesystem, local_path, persist

DROPPED = ".dropped"
"""Folder beside a layer's tables that keeps what was dropped from it; nothing reads it."""

_LOG = "_delta_log"
_CHECKPOINT = "_last_checkpoint"


def put_away(uri: str, *, storage_options: Mapping[str, str], name: str) -> str:
    """Make a table vanish, so that it is there whole or not at all where that can be had.

    On a disk its folder is renamed to ``.dropped/<table>-<name>``, from where it can be moved back. An object store
    knows no rename of a folder: there the log's files go first, oldest first and so that no older version of the table
    can be read in between, then the data; what the store itself keeps (soft delete, versions) is all that remains.

    Args:
        name: tells this drop from every other of the table.

    Returns:
        Where it lies now; empty: nowhere.

    Raises:
        StorageError: the store refused; doing it again goes on.
    """
    if (folder := local_path(uri)) is not None:
        target = _free(folder.parent / DROPPED / f"{folder.name}-{name}")
        try:
            target.parent.mkdir(exist_ok=True)
            folder.rename(target)
            persist(folder.parent, target.parent)
        except OSError as error:
            raise StorageError(f"{uri}: the table cannot be moved aside\n  {redacted(error)}") from None
        return os.fspath(target)
    try:
        _delete(uri, storage_options)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"{uri}: the table could not be removed whole\n  {redacted(error)}\n  apply the migration again: it goes on"
        ) from None
    return ""


def _free(wanted: Path) -> Path:
    """The path, or the same with a number where it is taken: a statement may be made again after a restore."""
    found, number = wanted, 1
    while found.exists():
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return found


def is_away(uri: str, *, storage_options: Mapping[str, str]) -> bool:
    """Whether nothing of a table's files is left in an object store; on a disk a table goes at once.

    Raises:
        StorageError: the store cannot be read.
    """
    if local_path(uri) is not None:
        return True
    try:
        return not _files(uri, storage_options)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{uri}: the folder cannot be listed\n  {redacted(error)}") from None


def _files(uri: str, storage_options: Mapping[str, str]) -> list[str]:
    import pyarrow.fs

    selector = pyarrow.fs.FileSelector("", recursive=True, allow_not_found=True)
    found = filesystem(uri, storage_options).get_file_info(selector)
    return [info.path for info in found if info.is_file]


def _delete(uri: str, storage_options: Mapping[str, str]) -> None:
    store = filesystem(uri, storage_options)
    files = _files(uri, storage_options)
    log = sorted(path for path in files if path.startswith(f"{_LOG}/"))
    # Newest first would take the table back in time, file by file; without its beginning it cannot be read at all.
    log.sort(key=lambda path: not path.endswith(_CHECKPOINT))
    for path in (*log, *(path for path in files if path not in set(log))):
        store.delete_file(path)
