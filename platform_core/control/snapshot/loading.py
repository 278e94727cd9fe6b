"""Loads the published metadata of a location: once a process, from the storage or from a copy on this machine.

The control database is never asked: where it is away, what was published last serves.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from platform_core.control.environment import load_environment
from platform_core.control.snapshot.content import Snapshot, decode, digest_of
from platform_core.control.snapshot.folders import Folder, LocalFolder, open_folder
from platform_core.control.snapshot.pointer import POINTER, content_file, pointer_file, read_pointer
from platform_core.errors import SnapshotError, StorageError
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec

T = TypeVar("T")

WAITS = (0.2, 0.8, 2.0)
"""Seconds before each new try of a storage that refused."""

_PATIENT_ITSELF = 5.0
_COPIES = "snapshots"
_UNUSED = dt.timedelta(days=30)


def load_snapshot(
    root: Path, *, environment: EnvironmentSpec, state: Path, location: str | None = None, digest: str | None = None
) -> Snapshot:
    """What is published of a location.

    Args:
        root: folder of the location's package, for ``${location.root}``.
        environment: its paths resolved.
        state: local folder of this installation, for ``${env.state}`` and for copies.
        location: its name; default: that of the folder.
        digest: of the snapshot that is wanted; None: the one that the pointer names.

    Raises:
        SnapshotError: there is none, it is damaged, or it is not for this place.
        StorageError: the storage refuses, over several tries.
        SecretError: a secret of the storage's options is missing.
    """
    name = location or root.name
    folder = open_folder(environment, state=state)
    wanted = digest or current_digest(folder, environment=environment.name, location=name)
    return _decoded(folder, root, environment=environment.name, location=name, state=state, digest=wanted)


def load_snapshot_cached(root: Path, *, settings: Settings, location: str | None, digest: str | None) -> Snapshot:
    """As :func:`load_snapshot`, but read once a process, also where the pointer moves; a failure is not remembered."""
    name = location or root.name
    return _loaded(root, settings, name, digest or _first_digest(settings, name))


@cache
def _first_digest(settings: Settings, location: str) -> str:
    environment = load_environment(settings)
    folder = open_folder(environment, state=settings.state)
    return current_digest(folder, environment=environment.name, location=location)


@cache
def _loaded(root: Path, settings: Settings, location: str, digest: str) -> Snapshot:
    environment = load_environment(settings)
    return load_snapshot(root, environment=environment, state=settings.state, location=location, digest=digest)


def current_digest(folder: Folder, *, environment: str, location: str) -> str:
    """Digest of the snapshot that the pointer of a location names.

    Raises:
        SnapshotError: there is none, or the pointer is damaged.
        StorageError: the storage refuses, over several tries.
    """
    name = pointer_file(location)
    held = _patiently(lambda: folder.read(name))
    if held is None:
        published = ", ".join(_patiently(folder.folders)) or "none"
        raise SnapshotError(
            f"no snapshot of location '{location}' is published for environment '{environment}'\n"
            f"  looked at: {folder.shown(name)}\n  published locations: {published}\n"
            f"  apply its control files: edp plan --env {environment} --out plan.json, edp apply plan.json; "
            f"if they are applied: edp publish --env {environment}"
        )
    pointer = read_pointer(held.content, environment=environment, location=location, where=folder.shown(name))
    if pointer.content is None:
        raise SnapshotError(
            f"location '{location}' is no longer applied in environment '{environment}', since serial "
            f"{pointer.serial}\n  looked at: {folder.shown(name)}\n"
            "  take it out of the deployment, or apply its control files again: edp plan, edp apply"
        )
    return pointer.content


def _decoded(folder: Folder, root: Path, *, environment: str, location: str, state: Path, digest: str) -> Snapshot:
    name = content_file(location, digest)
    content = _content(folder, name, digest, state=state, environment=environment)
    found = decode(content, root=root, state=state, where=folder.shown(name))
    for what, has, wanted in (
        ("environment", found.provenance.environment, environment),
        ("location", found.provenance.location, location),
    ):
        if has != wanted:
            raise SnapshotError(
                f"{folder.shown(name)}: the snapshot is of {what} '{has}', this is '{wanted}'\n"
                f"  publish it again: edp publish --env {environment}"
            )
    return found


def _content(folder: Folder, name: str, digest: str, *, state: Path, environment: str) -> bytes:
    copies = None if folder.is_local else LocalFolder(state / _COPIES / environment)
    if copies is not None and (copy := _copied(copies, name, digest)) is not None:
        return copy
    for attempt in range(2):
        held = _patiently(lambda: folder.read(name))
        if held is None:
            raise SnapshotError(
                f"{folder.shown(name)}: the snapshot is gone\n"
                f"  a code server that still runs on it must be reloaded; "
                f"if it is the current one: edp publish --env {environment}"
            )
        if digest_of(held.content) == digest:
            if copies is not None:
                _copy(copies, name, held.content)
            return held.content
        if not attempt:
            time.sleep(WAITS[0])
    raise SnapshotError(
        f"{folder.shown(name)}: the snapshot is torn, or somebody changed it: its content is not what its name says\n"
        f"  publish it again: edp publish --env {environment}"
    )


def _copied(copies: LocalFolder, name: str, digest: str) -> bytes | None:
    """The copy on this machine; None where there is none, or it is damaged."""
    with contextlib.suppress(StorageError):
        held = copies.read(name)
        if held is not None and digest_of(held.content) == digest:
            with contextlib.suppress(OSError):
                # It is in use: see _copy.
                os.utime(copies.path / name)
            return held.content
    return None


def _copy(copies: LocalFolder, name: str, content: bytes) -> None:
    """Keep a copy for the next process, and remove those that none has asked for in a month."""
    location = name.rpartition("/")[0]
    # A folder that cannot be written costs time at the next start, and nothing else.
    with contextlib.suppress(StorageError):
        copies.create(name, content)
        for file in copies.files(location):
            if file.name != POINTER and dt.datetime.now(dt.UTC) - file.modified > _UNUSED:
                copies.remove(f"{location}/{file.name}")


def _patiently(work: Callable[[], T]) -> T:
    for wait in WAITS:
        started = time.monotonic()
        try:
            return work()
        except StorageError:
            if time.monotonic() - started > _PATIENT_ITSELF:
                # Clients of object stores try again by themselves, for a minute and longer.
                raise
        time.sleep(wait)
    return work()
