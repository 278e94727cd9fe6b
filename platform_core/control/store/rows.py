"""Reads the control tables: rows, specs, and the manifest of a location."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from platform_core.control.store.codec import Row, codec, identity_columns
from platform_core.control.store.kinds import KINDS, SpecKind, assembled
from platform_core.control.store.tables import SPEC_TABLES, applies, state
from platform_core.errors import ControlError
from platform_core.specs.base import Spec
from platform_core.specs.manifest import Manifest


class RowKey(NamedTuple):
    """What names one row among those of all control tables."""

    kind: str
    location: str
    address: str

    def __str__(self) -> str:
        return f"{self.kind} {self.address}"


@dataclass(frozen=True, kw_only=True)
class AppliedState:
    """Which apply the control tables stand at.

    Args:
        serial: number of the last apply; 0: nothing was ever applied.
        mark: differs between any two states, also of two databases, or of one that was restored from a backup.
        environment: the one that the first apply was for; None: there was none.
    """

    serial: int
    mark: str
    environment: str | None


def read_state(connection: sa.Connection, *, for_change: bool = False) -> AppliedState:
    """The state of the control tables; ``for_change`` keeps others from changing it until the transaction ends."""
    query = sa.select(state.c.serial, state.c.mark, state.c.environment)
    row = connection.execute(query.with_for_update() if for_change else query).one()
    return AppliedState(serial=row.serial, mark=row.mark, environment=row.environment)


def applied_serial(connection: sa.Connection) -> tuple[int, str | None]:
    """Number and git commit of the last apply, for whoever wants to trace a run to its metadata; 0 and None: none."""
    newest = sa.select(applies.c.serial, applies.c.git_commit).order_by(applies.c.serial.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return (row.serial, row.git_commit) if row else (0, None)


def read_rows(
    connection: sa.Connection, *, locations: Collection[str] | None = None, kinds: Collection[str] = tuple(KINDS)
) -> dict[RowKey, Row]:
    """Rows of the control tables.

    Args:
        locations: whose rows; None: all.
        kinds: of which tables.
    """
    found: dict[RowKey, Row] = {}
    for name in kinds:
        kind = KINDS[name]
        for location, row in _read(connection, kind, locations):
            found[RowKey(name, location, codec(kind).address(row))] = row
    return found


class Provenance(NamedTuple):
    """Where a row's values come from, as its last apply wrote it.

    Args:
        hash: digest that the row had then; empty where a person inserted it.
        applied_at: UTC.
    """

    hash: str
    origin: str
    git_commit: str | None
    author: str
    applied_at: dt.datetime
    serial: int


def read_provenance(connection: sa.Connection) -> dict[RowKey, Provenance]:
    """Where the values of every row come from; a row that was changed by hand has another digest than it says."""
    found: dict[RowKey, Provenance] = {}
    for name in KINDS:
        table = SPEC_TABLES[name]
        told = [table.c[column] for column in Provenance._fields]
        identity = [table.c[column] for column in identity_columns(name)]
        for row in connection.execute(sa.select(*told, *identity)):
            location, *names = row[len(told) :]
            found[RowKey(name, str(location), ".".join(map(str, names)))] = Provenance(*row[: len(told)])
    return found


def read_locations(connection: sa.Connection) -> list[str]:
    """Names of the locations that something was applied of."""
    table = SPEC_TABLES["location"]
    return sorted(connection.execute(sa.select(table.c.location)).scalars())


def read_manifest(
    connection: sa.Connection, location: str, *, root: Path, state: Path, passing_over: bool = False
) -> Manifest:
    """Everything that is applied of a location, its specs in the order of their addresses.

    Args:
        location: its name.
        root: folder of the location's package on this machine.
        state: local folder of this installation.
        passing_over: leave out rows that somebody has spoiled by hand, for a reader who follows references only.

    Raises:
        ControlError: nothing is applied of such a location, or a row is no spec of this version of the code.
    """
    specs: dict[str, list[Spec]] = {name: [] for name in KINDS}
    for name, kind in KINDS.items():
        rows = sorted((row for _, row in _read(connection, kind, [location])), key=codec(kind).address)
        for row in rows:
            try:
                specs[name].append(codec(kind).decode(row, root=root, state=state))
            except ControlError:
                if not passing_over:
                    raise
    if not specs["location"]:
        known = ", ".join(read_locations(connection)) or "none"
        raise ControlError(
            f"control tables: there is no location '{location}'\n  applied locations: {known}\n"
            "  apply its control files first: edp plan, edp apply"
        )
    return assembled(specs, root=root)


def _read(connection: sa.Connection, kind: SpecKind, locations: Collection[str] | None) -> Iterator[tuple[str, Row]]:
    table = SPEC_TABLES[kind.name]
    # The database's own reading of JSON would lose the order of keys, and the text that is compared.
    columns = [
        sa.cast(table.c[column.name], sa.Text) if column.is_json else table.c[column.name]
        for column in codec(kind).columns
    ]
    query = sa.select(table.c.location, *columns)
    if locations is not None:
        query = query.where(table.c.location.in_(sorted(locations)))
    for row in connection.execute(query):
        yield row[0], tuple(row[1:])
