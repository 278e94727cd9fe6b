"""Proves that a lake takes files, gives them back and removes them, and that of two commits none is lost."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from platform_core.errors import PlatformError, StorageError, redacted
from platform_core.lake.paths import Lake
from platform_core.lake.removal import remove
from platform_core.lake.storage import filesystem, local_path

FOLDER = ("_platform", "doctor")
"""Folder of the lake below which a probe works; it is gone when the probe has ended."""

_LIMITS = {"timeout": "10s", "max_retries": "2", "retry_timeout": "10s"}
"""So that an object store that is away is told within seconds; what the environment says goes before."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a probe found.

    Args:
        seconds: it took altogether.
        stored_at: when the store says that a file was written, UTC; None where it does not tell.
        between: before and after that write, by the clock of this machine, UTC.
    """

    seconds: float
    stored_at: dt.datetime | None
    between: tuple[dt.datetime, dt.datetime]


def probe(lake: Lake, *, now: Callable[[], dt.datetime]) -> Probe:
    """Write, read and delete a file, and commit twice to a small table, below a folder of the platform's own.

    Args:
        lake: the root must be there, if it is a folder.
        now: the clock of this machine, UTC.

    Raises:
        StorageError: with the step that failed.
    """
    began = time.monotonic()
    name = f"probe-{uuid.uuid4().hex[:12]}"
    uri = "/".join((lake.root.rstrip("/"), *FOLDER, name))
    options = dict(lake.storage_options) if local_path(uri) is not None else _LIMITS | dict(lake.storage_options)
    try:
        stored_at, between = _write_and_read(f"{uri}/file", options, now=now)
        _commit_twice(f"{uri}/table", options)
    except BaseException:
        # What went wrong says more than that its traces could not be removed either.
        with suppress(PlatformError):
            _tidy(uri, options)
        raise
    _tidy(uri, options)
    return Probe(seconds=time.monotonic() - began, stored_at=stored_at, between=between)


def _write_and_read(
    uri: str, options: Mapping[str, str], *, now: Callable[[], dt.datetime]
) -> tuple[dt.datetime | None, tuple[dt.datetime, dt.datetime]]:
    content = uuid.uuid4().bytes
    store = filesystem(uri, options)
    with _step(uri, "a file cannot be written"):
        if (folder := local_path(uri)) is not None:
            folder.mkdir(parents=True)
        before = now()
        with store.open_output_stream("written") as stream:
            stream.write(content)
        after = now()
    with _step(uri, "a file that was written cannot be found"):
        stored_at = store.get_file_info("written").mtime
    if folder is not None:
        # On a disk a table's commit and the end of a landed batch are renames.
        with _step(uri, "a file cannot be renamed"):
            (folder / "written").rename(folder / "renamed")
    with _step(uri, "a file that was written cannot be read"):
        with store.open_input_stream("written" if folder is None else "renamed") as stream:
            found = stream.read()
        if found != content:
            raise StorageError(f"{uri}: a file came back with other content than was written")
    return stored_at, (before, after)


def _commit_twice(uri: str, options: Mapping[str, str]) -> None:
    """Two writers that know the same version commit; a store that cannot put only what is not there loses one."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.schema import Schema

    schema = Schema.from_arrow(pa.schema([("probe", pa.int32())]))
    with _step(uri, "a table cannot be committed to"):
        DeltaTable.create(uri, schema, mode="error", storage_options=dict(options))
        writers = [DeltaTable(uri, storage_options=dict(options)) for _ in range(2)]
        for writer in writers:
            writer.create_write_transaction([], mode="append", schema=schema)
        version = DeltaTable(uri, storage_options=dict(options)).version()
    if version != len(writers):
        raise StorageError(
            f"{uri}: of two commits one was lost: the store lets a file be written over another unnoticed\n"
            "  tables would lose loads: use a store with conditional writes, or switch them on (aws_conditional_put)"
        )


def _tidy(uri: str, options: Mapping[str, str]) -> None:
    for part in ("file", "table"):
        if local_path(f"{uri}/{part}") is None or Path(f"{uri}/{part}").is_dir():
            remove(f"{uri}/{part}", storage_options=options)
    if (folder := local_path(uri)) is not None:
        for each in (folder, *folder.parents[: len(FOLDER)]):
            # Another probe, or tables of the workstream, may be there.
            with suppress(OSError):
                each.rmdir()


@contextmanager
def _step(uri: str, what: str) -> Iterator[None]:
    failure = ""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - stores and their clients raise what they like
        failure = redacted(error)
    if failure:
        raise StorageError(f"{uri}: {what}\n  {failure}")
