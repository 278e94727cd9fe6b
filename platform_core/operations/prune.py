"""Removes tables of the lake whose spec is gone: what history knows as deleted, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.declared import STATE
from platform_core.control.store.codec import codec, dumped
from platform_core.control.store.history import Version, last_deleted, write_versions
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.errors import PlanError
from platform_core.lake.delta import batch_of, open_table
from platform_core.lake.paths import Lake
from platform_core.lake.removal import is_there, remove
from platform_core.operations.platform import Platform
from platform_core.specs.base import Spec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.expectation import quality_state, quarantined
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.processing import EXTERNAL_LAYER, ProcessingSpec
from platform_core.specs.table import TableRef

_KINDS = ("ingestion", "processing", "dbt")


@dataclass(frozen=True, kw_only=True)
class Remnant:
    """A table of the lake whose spec is gone.

    Args:
        folders: URIs of what lies in the lake: the table, its landing, its quarantine, its history.
        kept: why it stays all the same; None: it can be removed.
    """

    ref: TableRef
    version: Version
    folders: tuple[str, ...]
    kept: str | None = None

    @property
    def deleted_at(self) -> dt.datetime:
        """When its spec was deleted, UTC."""
        return self.version.applied_at


def find_remnants(store: ControlStore, lake: Lake) -> list[Remnant]:
    """Tables of the lake whose spec was deleted from the control tables and has not come back.

    Tables that were never in the control tables are not looked at.

    Raises:
        StorageError: the lake cannot be read.
        ControlError: the database cannot be reached.
    """

    def look(connection: sa.Connection) -> tuple[list[Version], list[Spec]]:
        gone = last_deleted(connection, kinds=("ingestion", "processing"))
        live = [_spec(key.kind, row) for key, row in read_rows(connection, kinds=_KINDS).items()]
        return list(gone.values()), live

    gone, live = store.read(look)
    made = {ref for spec in live for ref in _refs(spec)}
    projects = {(spec.workstream, spec.layer): spec.name for spec in live if isinstance(spec, DbtSpec)}
    found = []
    for version in gone:
        spec = _spec(version.key.kind, version.row())
        if not isinstance(spec, (IngestionSpec, ProcessingSpec)) or spec.ref in made:
            continue
        if spec.ref.layer == EXTERNAL_LAYER:
            # Another system made it, and goes on with it.
            continue
        folders = [uri for ref, uris in _places(spec, lake) if ref not in made for uri in uris]
        there = tuple(uri for uri in folders if is_there(uri, storage_options=lake.storage_options))
        if there:
            project = projects.get((spec.workstream, spec.ref.layer))
            kept = f"dbt project {project} publishes into its layer and may make it" if project else None
            found.append(Remnant(ref=spec.ref, version=version, folders=there, kept=kept))
    return sorted(found, key=lambda each: each.ref)


def prune(store: ControlStore, platform: Platform, remnants: Sequence[Remnant], *, author: str, reason: str) -> None:
    """Remove remnants for good, each with an entry in history.

    Args:
        remnants: of :func:`find_remnants`; those that are kept are left out.

    Raises:
        PlanError: no reason was given, or the spec of one has come back meanwhile.
        LeaseError: a load of one is still at work.
        StorageError: the lake refused; doing it again goes on.
    """
    if not reason.strip():
        raise PlanError('data is removed for a reason that goes into history: --approve "<reason>"')
    for remnant in remnants:
        if remnant.kept is None:
            _check_still_gone(store, platform.lake, remnant)
            _remove(platform, remnant)
            store.change(partial(_note, store=store, remnant=remnant, author=author, reason=reason))


def _check_still_gone(store: ControlStore, lake: Lake, remnant: Remnant) -> None:
    if not any(each.ref == remnant.ref and each.kept is None for each in find_remnants(store, lake)):
        raise PlanError(f"{remnant.ref}: its spec has come back meanwhile; nothing of it was removed")


def _remove(platform: Platform, remnant: Remnant) -> None:
    uri, options = platform.lake.table(remnant.ref), platform.lake.storage_options
    ticket = platform.loads.begin(
        remnant.ref,
        mode="prune",
        above=batch_of(open_table(uri, storage_options=options)),
        run_id=None,
        wait=timedelta(0),
        log=platform.log,
        cancelled=platform.cancelled,
    )
    with ticket:
        for folder in remnant.folders:
            remove(folder, storage_options=options)
        ticket.finish(status="succeeded", figures={})


def _note(connection: sa.Connection, *, store: ControlStore, remnant: Remnant, author: str, reason: str) -> None:
    version = remnant.version
    row = version.row()
    rows = codec(KINDS[version.key.kind])
    entry: dict[str, Any] = {
        "serial": read_state(connection).serial,
        "kind": version.key.kind,
        "location": version.key.location,
        "workstream": rows.workstream(row),
        "address": version.key.address,
        "change": "pruned",
        "content": dumped(version.content),
        "hash": version.hash,
        "origin": version.origin,
        "git_commit": version.git_commit,
        "author": author,
        "applied_at": store.database.clock(connection),
        "approval": reason,
    }
    write_versions(connection, [entry])


def _spec(kind: str, row: Sequence[Any]) -> Spec:
    # No path of a spec is used here.
    return codec(KINDS[kind]).decode(row, root=STATE, state=STATE)


def _refs(spec: Spec) -> Iterator[TableRef]:
    if isinstance(spec, (IngestionSpec, ProcessingSpec)):
        yield spec.ref
    if isinstance(spec, IngestionSpec) and spec.snapshot_history:
        yield spec.history_ref


def _places(spec: IngestionSpec | ProcessingSpec, lake: Lake) -> Iterator[tuple[TableRef, tuple[str, ...]]]:
    """Tables that a spec made, and where each lies."""
    if isinstance(spec, IngestionSpec):
        ref = spec.ref
        of_loads = (lake.landing(ref), lake.quarantine(ref), lake.source_state(ref))
        yield ref, (lake.table(ref), *of_loads, *_quality(ref, lake))
        if spec.snapshot_history:
            yield spec.history_ref, (lake.table(spec.history_ref),)
    else:
        yield spec.ref, (lake.table(spec.ref), *_quality(spec.ref, lake))


def _quality(ref: TableRef, lake: Lake) -> tuple[str, str]:
    """Where rows lie that failed what was expected of a table, and the numbers of rows that were accepted."""
    return lake.table(quarantined(ref)), lake.table(quality_state(ref))
