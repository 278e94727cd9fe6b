"""The tables, views and pages of a person in a personal environment, and the way back to the shared ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from platform_core.errors import PlanError
from platform_core.lake.delta import batch_of, open_table
from platform_core.lake.paths import Lake
from platform_core.lake.removal import is_there, remove
from platform_core.lake.upkeep import made_folders
from platform_core.operations.platform import Platform
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """What lies in a person's lake under one name.

    Args:
        shared: whether everybody's lake has one of the name, which is read again once this is dropped.
    """

    ref: TableRef
    shared: bool


def own_tables(platform: Platform) -> list[OwnTable]:
    """All that a person has made, by name.

    Raises:
        PlanError: the environment is not a personal one.
        StorageError: the lake cannot be read.
    """
    lake = _checked(platform)
    return [OwnTable(ref=ref, shared=_is_shared(ref, lake)) for ref in sorted(set(made_folders(lake)))]


def drop_own(platform: Platform, refs: Sequence[TableRef]) -> None:
    """Remove a person's tables with their landing, quarantine and source state; the shared ones are never touched.

    Raises:
        PlanError: the environment is not a personal one.
        LeaseError: one is being loaded.
        StorageError: the lake refused; doing it again goes on.
    """
    lake = _checked(platform)
    for ref in refs:
        uri, options = lake.table(ref), lake.storage_options
        ticket = platform.loads.begin(
            ref,
            mode="drop",
            above=batch_of(open_table(uri, storage_options=options)),
            run_id=None,
            wait=timedelta(0),
            log=platform.log,
            cancelled=platform.cancelled,
        )
        with ticket:
            for folder in _folders(ref, lake):
                if is_there(folder, storage_options=options):
                    remove(folder, storage_options=options)
            ticket.finish(status="succeeded", figures={})


def _checked(platform: Platform) -> Lake:
    if platform.lake.shared is None:
        raise PlanError(
            f"environment '{platform.environment.name}' is everybody's: nobody has tables of their own in it\n"
            "  name a personal one, which says developer: true: --env <name>"
        )
    return platform.lake


def _folders(ref: TableRef, lake: Lake) -> Iterator[str]:
    yield lake.table(ref)
    if ref.layer == "bronze":
        yield from (lake.landing(ref), lake.quarantine(ref), lake.source_state(ref))


def _is_shared(ref: TableRef, lake: Lake) -> bool:
    uri = lake.shared_table(ref)
    return uri is not None and is_there(uri, storage_options=lake.storage_options)
