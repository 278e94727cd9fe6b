"""Keeps tables small and quick: merges small files, and removes what no reader needs any more."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from platform_core.errors import StorageError, redacted
from platform_core.lake.delta import file_sizes, open_table
from platform_core.lake.landing import MANIFEST, remove_batch
from platform_core.lake.paths import Lake
from platform_core.lake.storage import filesystem, local_path
from platform_core.specs.base import is_name
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from pyarrow.fs import FileInfo

LOG_FOLDER = "_delta_log"
LANDING, QUARANTINE, STATE = "landing", "quarantine", "source_state"
"""Layers that hold files of loads rather than tables."""

_LOG_RETENTION = "delta.logRetentionDuration"
_DEFAULT_LOG_RETENTION = "interval 720 hours"
_SMALL = 0.5
"""A file smaller than this share of the wanted size is small."""


@dataclass(frozen=True, kw_only=True)
class Freed:
    """Files that were removed, and their size in bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(files=self.files + other.files, bytes=self.bytes + other.bytes)


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did to one table; the replaced files stay until they are vacuumed."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    version: int
    committed: bool


class Busy(Exception):  # noqa: N818 - not an error: the table's turn comes next time
    """Another writer committed while a table was kept; nothing was changed."""


def tables(lake: Lake) -> Iterator[TableRef]:
    """Every Delta table of the lake, in order of its name.

    Raises:
        StorageError: the store cannot be listed.
    """
    for workstream in _workstreams(lake):
        for layer in _folders(f"{lake.root}/{workstream}", lake.storage_options):
            if layer in (LANDING, QUARANTINE, STATE):
                continue
            for name in _folders(f"{lake.root}/{workstream}/{layer}", lake.storage_options):
                ref = TableRef(workstream, layer, name)
                if LOG_FOLDER in _folders(lake.table(ref), lake.storage_options):
                    yield ref


def landed_tables(lake: Lake) -> Iterator[TableRef]:
    """Every bronze table that landed batches lie of, whether the table was ever made or not."""
    for workstream in _workstreams(lake):
        for name in _folders(f"{lake.root}/{workstream}/{LANDING}", lake.storage_options):
            yield TableRef(workstream, "bronze", name)


def made_folders(lake: Lake) -> Iterator[TableRef]:
    """Everything that has a name in the lake, and every bronze table that landed batches lie of.

    Raises:
        StorageError: the store cannot be listed.
    """
    for workstream in _workstreams(lake):
        for layer in filter(is_name, _folders(f"{lake.root}/{workstream}", lake.storage_options)):
            for name in filter(is_name, _folders(f"{lake.root}/{workstream}/{layer}", lake.storage_options)):
                yield TableRef(workstream, "bronze" if layer in (LANDING, QUARANTINE, STATE) else layer, name)


def _workstreams(lake: Lake) -> Iterator[str]:
    """Folders of workstreams; what is kept beside them, such as tables of people, has a name that none can have."""
    return filter(is_name, _folders(lake.root, lake.storage_options))


def needs_compaction(table: DeltaTable | None, *, target_bytes: int, small_files: int) -> bool:
    """Whether a table has more small files than its policy lets pass; one small file cannot be merged with others."""
    if table is None:
        return False
    small = sum(size < _SMALL * target_bytes for size in file_sizes(table).values())
    return small > max(small_files, 1)


def compact(
    uri: str,
    *,
    storage_options: Mapping[str, str],
    target_bytes: int,
    small_files: int,
    z_order: tuple[str, ...] = (),
) -> Compacted | None:
    """Merge a table's small files, if there are enough of them; None where there is no table.

    Args:
        target_bytes: size that files get.
        small_files: so many files smaller than half of that are left alone.
        z_order: columns that rows are clustered by; the whole table is then written anew.

    Raises:
        Busy: another writer committed meanwhile.
        StorageError: the store refused.
    """
    table = open_table(uri, storage_options=storage_options)
    if table is None:
        return None
    before = file_sizes(table)
    if not needs_compaction(table, target_bytes=target_bytes, small_files=small_files):
        sizes = sum(before.values())
        return Compacted(
            files_before=len(before),
            files_after=len(before),
            bytes_before=sizes,
            bytes_after=sizes,
            version=table.version(),
            committed=False,
        )
    properties = _properties("z-order" if z_order else "compact")
    with _answered(uri, "compacted"):
        if z_order:
            table.optimize.z_order(z_order, target_size=target_bytes, commit_properties=properties)
        else:
            table.optimize.compact(target_size=target_bytes, commit_properties=properties)
    after = file_sizes(table)
    return Compacted(
        files_before=len(before),
        files_after=len(after),
        bytes_before=sum(before.values()),
        bytes_after=sum(after.values()),
        version=table.version(),
        committed=True,
    )


def vacuum(uri: str, *, storage_options: Mapping[str, str], retention: dt.timedelta, untracked: bool) -> Freed:
    """Remove files that left a table longer ago than the retention; nothing where there is no table.

    Args:
        retention: rounded up to whole hours.
        untracked: also files that no version ever held, as killed writers leave them, if they are as old.

    Raises:
        Busy: another writer committed meanwhile.
        StorageError: the store refused.
    """
    table = open_table(uri, storage_options=storage_options)
    if table is None:
        return Freed()
    hours = math.ceil(retention / dt.timedelta(hours=1))
    with _answered(uri, "vacuumed"):
        found = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=untracked)
        if not found:
            return Freed()
        sizes = _sizes(uri, found, storage_options)
        if not sizes:
            return Freed()
        table.vacuum(
            hours,
            dry_run=False,
            enforce_retention_duration=False,
            full=untracked,
            commit_properties=_properties("vacuum"),
        )
    return Freed(files=len(sizes), bytes=sum(sizes.values()))


def truncate_log(uri: str, *, storage_options: Mapping[str, str], retention: dt.timedelta) -> Freed:
    """Write a checkpoint and remove the log of versions older than the retention, which then cannot be read any more.

    Raises:
        Busy: another writer committed meanwhile.
        StorageError: the store refused.
    """
    table = open_table(uri, storage_options=storage_options)
    if table is None:
        return Freed()
    wanted = f"interval {math.ceil(retention / dt.timedelta(hours=1))} hours"
    with _answered(uri, "shortened"):
        # A commit disturbs whoever writes just now: none is made where the table has that retention anyway.
        if table.metadata().configuration.get(_LOG_RETENTION, _DEFAULT_LOG_RETENTION) != wanted:
            table.alter.set_table_properties({_LOG_RETENTION: wanted}, commit_properties=_properties("log retention"))
        log = f"{uri}/{LOG_FOLDER}"
        before = {info.path: info.size or 0 for info in _files(log, storage_options)}
        if table.version() > _checkpointed(before):
            table.create_checkpoint()
        table.cleanup_metadata()
        after = {info.path for info in _files(log, storage_options)}
    gone = [path for path in before if path not in after]
    return Freed(files=len(gone), bytes=sum(before[path] for path in gone))


def sweep_landing(
    uri: str,
    *,
    storage_options: Mapping[str, str],
    retention: dt.timedelta,
    now: dt.datetime,
    keep: int | None,
    kept: Callable[[int], bool],
) -> Freed:
    """Remove landed batches, and what unfinished ones left, that are older than the retention.

    Args:
        uri: landing folder of one table.
        keep: so many of the newest whole batches stay whatever their age, to be replayed; None: all of them.
        kept: whether a batch id must stay, for example because it waits for approval.

    Raises:
        StorageError: the store refused.
    """
    batches: list[tuple[int, str, list[FileInfo]]] = []
    for name in _folders(uri, storage_options):
        if name.isdigit():
            batches.append((int(name), f"{uri}/{name}", list(_files(f"{uri}/{name}", storage_options))))
    whole = sorted(batch for batch, _, files in batches if any(info.base_name == MANIFEST for info in files))
    newest = set(whole if keep is None else whole[max(len(whole) - keep, 0) :])
    freed = Freed()
    for batch, folder, files in batches:
        if batch in newest or kept(batch) or not _older(folder, files, than=now - retention):
            continue
        remove_batch(folder, storage_options=storage_options)
        freed += Freed(files=len(files), bytes=sum(info.size or 0 for info in files))
    return freed


def _older(folder: str, files: list[FileInfo], *, than: dt.datetime) -> bool:
    times = [info.mtime for info in files if info.mtime is not None]
    if not times and (path := local_path(folder)) is not None and path.exists():
        times = [dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)]
    return bool(times) and max(times) < than


def _checkpointed(log: Mapping[str, int]) -> int:
    """The newest version that has a checkpoint; -1 where none has."""
    versions = [path.partition(".")[0] for path in log if ".checkpoint." in path]
    return max((int(version) for version in versions if version.isdigit()), default=-1)


def _sizes(uri: str, paths: list[str], storage_options: Mapping[str, str]) -> dict[str, int]:
    """Size by path of those files that are still there: the log lists files that an earlier vacuum removed."""
    import pyarrow.fs

    infos = filesystem(uri, storage_options).get_file_info([unquote(path) for path in paths])
    files = zip(paths, infos, strict=True)
    return {path: info.size or 0 for path, info in files if info.type == pyarrow.fs.FileType.File}


def _files(uri: str, storage_options: Mapping[str, str]) -> Iterator[FileInfo]:
    import pyarrow.fs

    for info in _listed(uri, storage_options):
        if info.type == pyarrow.fs.FileType.File:
            yield info


def _folders(uri: str, storage_options: Mapping[str, str]) -> list[str]:
    import pyarrow.fs

    return sorted(
        info.base_name for info in _listed(uri, storage_options) if info.type == pyarrow.fs.FileType.Directory
    )


def _listed(uri: str, storage_options: Mapping[str, str]) -> list[FileInfo]:
    import pyarrow.fs

    try:
        selector = pyarrow.fs.FileSelector("", allow_not_found=True, recursive=False)
        return list(filesystem(uri, storage_options).get_file_info(selector))
    except OSError as error:
        raise StorageError(f"{uri}: cannot be listed\n  {redacted(error)}") from None


def _properties(operation: str) -> CommitProperties:
    from deltalake import CommitProperties

    return CommitProperties(custom_metadata={"edp.upkeep": operation}, max_commit_retries=0)


class _answered:  # noqa: N801 - reads as a statement
    """Turns delta-rs's errors into ours."""

    def __init__(self, uri: str, done: str) -> None:
        self._uri = uri
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from deltalake.exceptions import CommitFailedError, DeltaError

        if isinstance(error, CommitFailedError):
            raise Busy(self._uri) from None
        if isinstance(error, DeltaError | OSError):
            raise StorageError(f"{self._uri}: the table cannot be {self._done}\n  {redacted(error)}") from None
