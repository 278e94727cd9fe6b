"""Publishes what is applied, so that code locations need no database: the content first, then the pointer to it.

Whoever publishes reads the tables himself and looks at them again when he is done. So the last of several publishers
leaves what was applied last, in whatever order they come.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.collection import collection_paused
from platform_core.control.plan.declared import STATE
from platform_core.control.plan.release import platform_release
from platform_core.control.snapshot.content import decode, digest_of, encode
from platform_core.control.snapshot.folders import Folder, Held, is_unfinished, open_folder
from platform_core.control.snapshot.pointer import (
    Former,
    NewerPointerError,
    Pointer,
    content_file,
    pointer_file,
    read_pointer,
)
from platform_core.control.store.codec import Row
from platform_core.control.store.rows import AppliedState, RowKey, read_locations, read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.control.store.tables import applies, history
from platform_core.errors import PlanError, SnapshotError, StorageError
from platform_core.faults import PublishPoint, reach
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

RETENTION = dt.timedelta(days=7)
"""How long a snapshot stays after another took its place, for code servers that still run on it."""

_FORMER_AT_LEAST = 10
_FORMER_AT_MOST = 200
_YOUNG = dt.timedelta(days=1)
"""Files younger than this may be about to be pointed at."""

_ROUNDS = 20
_ANYWHERE = Path("/${location.root}")


@dataclass(frozen=True, kw_only=True)
class Published:
    """What came of publishing.

    Args:
        serial: of the apply that is published.
        mark: of that state of the control tables.
        locations: names of all that are applied.
        moved: those whose pointer was moved; empty where everything was published before.
        gone: those whose pointer now says that they are no longer applied.
        restored: the higher serial that a pointer stood at: the control database was restored from a backup.
        root: where the snapshots lie.
        notes: what did not go well, and matters little.
    """

    serial: int
    mark: str
    locations: tuple[str, ...]
    moved: tuple[str, ...]
    gone: tuple[str, ...]
    restored: int | None
    root: str
    notes: tuple[str, ...] = ()


def publish_snapshot(environment: EnvironmentSpec, store: ControlStore, *, state: Path) -> Published:
    """Publish what the control tables hold, one snapshot a location; quick where it is published already.

    Killed at any moment, each location has its old snapshot or its new one, and either is whole.

    Args:
        environment: of the control tables.
        state: local folder of this installation.

    Raises:
        PlanError: nothing was ever applied, or the tables are another environment's.
        SnapshotError: what the tables hold cannot be loaded, or a newer version of the platform has published.
        StorageError: the storage refused.
        ControlError: the database cannot be reached.
    """
    folder = open_folder(environment, state=state)
    reach(PublishPoint.BEGUN)
    moved: dict[str, None] = {}
    gone: dict[str, None] = {}
    restored: int | None = None
    for _ in range(_ROUNDS):
        with collection_paused():
            applied = _read(environment, store)
            publisher = _Publisher(environment, store, folder, applied)
            try:
                publisher.publish()
            except _MovedError:
                continue
            finally:
                moved |= dict.fromkeys(publisher.moved)
                gone |= dict.fromkeys(publisher.gone)
                restored = publisher.restored or restored
        if store.read(read_state).mark == applied.state.mark:
            return Published(
                serial=applied.state.serial,
                mark=applied.state.mark,
                locations=tuple(applied.locations),
                moved=tuple(moved),
                gone=tuple(gone),
                restored=restored,
                root=folder.shown("").rstrip("/"),
                notes=tuple(publisher.clean_up()),
            )
    raise SnapshotError(
        f"environment {environment.name}: the control tables moved {_ROUNDS} times while they were being published\n"
        f"  once the others have ended: edp publish --env {environment.name}"
    )


class _MovedError(Exception):
    """Somebody applied meanwhile: what was read is no longer what is to be published."""


@dataclass(frozen=True, kw_only=True)
class _Applied:
    """The control tables at one moment."""

    state: AppliedState
    locations: Sequence[str]
    rows: Mapping[str, Mapping[RowKey, Row]]
    commits: Mapping[str, str]


def _read(environment: EnvironmentSpec, store: ControlStore) -> _Applied:
    def look(connection: sa.Connection) -> _Applied:
        found = read_state(connection)
        locations = read_locations(connection)
        rows: dict[str, dict[RowKey, Row]] = {name: {} for name in locations}
        for key, row in read_rows(connection, locations=locations).items():
            rows[key.location][key] = row
        return _Applied(state=found, locations=locations, rows=rows, commits=_commits(connection))

    applied = store.read(look)
    if applied.state.environment is None:
        raise PlanError(
            f"environment {environment.name}: nothing was ever applied, so there is nothing to publish\n"
            f"  looked at: {store}\n"
            f"  apply first: edp plan --env {environment.name} --out plan.json, edp apply plan.json"
        )
    if applied.state.environment != environment.name:
        raise PlanError(
            f"the control tables hold environment '{applied.state.environment}', this is '{environment.name}'\n"
            "  one database serves one environment: look at control.url of the environment's file"
        )
    return applied


def _commits(connection: sa.Connection) -> dict[str, str]:
    """The commit of git that each location last changed by; changes by SQL have none, and leave it as it is."""
    commit = sa.func.coalesce(history.c.git_commit, applies.c.git_commit)
    with_commit = history.outerjoin(applies, applies.c.serial == history.c.serial)
    newest = (
        sa.select(sa.func.max(history.c.id))
        .select_from(with_commit)
        .where(commit.is_not(None))
        .group_by(history.c.location)
    )
    query = sa.select(history.c.location, commit).select_from(with_commit).where(history.c.id.in_(newest))
    return {row[0]: row[1] for row in connection.execute(query)}


@dataclass
class _Publisher:
    """One attempt to publish one state."""

    environment: EnvironmentSpec
    store: ControlStore
    folder: Folder
    applied: _Applied
    moved: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    restored: int | None = None
    pointers: dict[str, Pointer] = field(default_factory=dict)

    def publish(self) -> None:
        contents = {location: self._content(location) for location in self.applied.locations}
        digests = {location: digest_of(content) for location, content in contents.items()}
        for location, content in contents.items():
            self._keep(location, digests[location], content)
        with self.folder.alone():
            for location, digest in digests.items():
                if self._point(location, digest):
                    self.moved.append(location)
            for location in self.folder.folders():
                if location not in digests and self._point(location, None):
                    self.gone.append(location)
        reach(PublishPoint.POINTED)

    def clean_up(self) -> list[str]:
        """Remove what nobody reads any more; returns what went wrong."""
        notes = []
        for location, pointer in self.pointers.items():
            reach(PublishPoint.CLEANUP)
            needed = {pointer_file(location)}
            needed |= {content_file(location, each.content) for each in pointer.former}
            needed |= {pointer.file()} if pointer.content else set()
            try:
                for file in self.folder.files(location):
                    name = f"{location}/{file.name}"
                    old = dt.datetime.now(dt.UTC) - file.modified > _YOUNG
                    if name not in needed and old and (name.endswith(".json") or is_unfinished(file.name)):
                        self.folder.remove(name)
            except StorageError as error:
                notes.append(f"old snapshots of {location} were not removed: {error}")
        return notes

    def _content(self, location: str) -> bytes:
        """The file of a location, of which it is certain that it can be loaded."""
        content = encode(
            self.applied.rows[location],
            environment=self.environment.name,
            location=location,
            serial=self.applied.state.serial,
            mark=self.applied.state.mark,
            git_commit=self.applied.commits.get(location),
        )
        where = f"control tables, location {location}"
        try:
            manifest = decode(content, root=_ANYWHERE, state=STATE, where=where).manifest
            _check_references(manifest, where=where)
        except SnapshotError as error:
            raise SnapshotError(
                f"{error}\n  nothing was published: what was published last stays; correct the rows by a plan from git"
            ) from None
        return content

    def _keep(self, location: str, digest: str, content: bytes) -> None:
        """Make sure that the file is there, and whole."""
        name = content_file(location, digest)
        if self._is_whole(name, digest):
            return
        self.folder.create(name, content)
        if not self._is_whole(name, digest):
            raise StorageError(
                f"{self.folder.shown(name)}: the storage gives back something else than was written\n"
                "  nothing points at it; look at the storage"
            )

    def _is_whole(self, name: str, digest: str) -> bool:
        held = self.folder.read(name)
        return held is not None and digest_of(held.content) == digest

    def _point(self, location: str, digest: str | None) -> bool:
        """Let the pointer name a file; returns whether it had to be moved.

        Raises:
            _MovedError: the tables have moved.
        """
        name = pointer_file(location)
        for _ in range(_ROUNDS):
            held = self.folder.read(name)
            current = self._current(held, location)
            if digest is None and (held is None or (current is not None and current.content is None)):
                return False
            if current is not None and current.content == digest:
                self.pointers[location] = current
                return False
            self._refuse_to_go_back(current)
            pointer = self._pointer(location, digest, current)
            if self.folder.replace(name, pointer.as_json(), before=held):
                self.pointers[location] = pointer
                return True
        raise StorageError(
            f"{self.folder.shown(name)}: others replaced it {_ROUNDS} times meanwhile\n"
            f"  once they have ended: edp publish --env {self.environment.name}"
        )

    def _current(self, held: Held | None, location: str) -> Pointer | None:
        """The pointer as it was read; None also where it is damaged: it is replaced then."""
        if held is None:
            return None
        where = self.folder.shown(pointer_file(location))
        try:
            return read_pointer(held.content, environment=self.environment.name, location=location, where=where)
        except NewerPointerError:
            raise
        except SnapshotError:
            return None

    def _refuse_to_go_back(self, current: Pointer | None) -> None:
        """A pointer with the serial of a later state is passed only if the database itself went back."""
        mine = self.applied.state
        if current is None or current.mark == mine.mark or current.serial < mine.serial:
            return
        if self.store.read(read_state).mark != mine.mark:
            raise _MovedError
        if current.serial > mine.serial:
            self.restored = max(current.serial, self.restored or 0)

    def _pointer(self, location: str, digest: str | None, current: Pointer | None) -> Pointer:
        now = dt.datetime.now(dt.UTC)
        if current is None:
            # Whatever a damaged pointer may have named has just ceased to be the current one.
            former = [Former(content=each, serial=0, until=now) for each in self._left_over(location)]
        else:
            former = list(current.former)
            if current.content is not None:
                former.insert(0, Former(content=current.content, serial=current.serial, until=now))
        kept = [
            each
            for place, each in enumerate(former[:_FORMER_AT_MOST])
            if each.content != digest and (place < _FORMER_AT_LEAST or now - each.until < RETENTION)
        ]
        return Pointer(
            environment=self.environment.name,
            location=location,
            serial=self.applied.state.serial,
            mark=self.applied.state.mark,
            git_commit=self.applied.commits.get(location),
            content=digest,
            release=platform_release(),
            published_at=now,
            former=tuple(kept),
        )

    def _left_over(self, location: str) -> list[str]:
        digests = [Path(file.name).stem for file in self.folder.files(location) if file.name.endswith(".json")]
        return [digest for digest in digests if len(digest) == 64 and digest.isalnum()]


def _check_references(manifest: Manifest, *, where: str) -> None:
    """Refuse what definitions could not be built of; control files are checked for more than this, rows are not."""
    workstreams = {spec.name for spec in manifest.location.workstreams}
    connections = {(spec.workstream, spec.name) for spec in manifest.connections}
    needed = [
        (spec.workstream, spec.source, f"ingestion {spec.workstream}.{spec.table}") for spec in manifest.ingestions
    ]
    needed += [
        (spec.workstream, spec.connection, f"refresh {spec.workstream}.{spec.name}")
        for spec in manifest.refreshes
        if spec.connection
    ]
    needed += [(spec.workstream, spec.source, f"processing {spec.ref}") for spec in manifest.steps if spec.source]
    for workstream, name, who in needed:
        if (workstream, name) not in connections:
            raise SnapshotError(f"{where}: {who} needs connection {workstream}.{name}, which is not there")
    of_workstreams: tuple[Any, ...] = (
        *manifest.ingestions,
        *manifest.steps,
        *manifest.dbt,
        *manifest.refreshes,
        *manifest.upkeep,
        *manifest.alerts,
    )
    for spec in of_workstreams:
        if spec.workstream not in workstreams:
            raise SnapshotError(f"{where}: something is declared of workstream {spec.workstream}, which is not there")
