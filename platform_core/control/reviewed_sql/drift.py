"""Finds what differs between git and an environment, value by value, and says who made it so."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.collection import collection_paused
from platform_core.control.plan.declared import Declared, written_path
from platform_core.control.plan.difference import Difference, Path, differences, field_differences
from platform_core.control.plan.making import check_environment
from platform_core.control.plan.overlay import same, value_at
from platform_core.control.plan.plan import Action
from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.history import Version, read_versions
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.overrides import Override, read_overrides
from platform_core.control.store.rows import (
    Provenance,
    RowKey,
    read_locations,
    read_provenance,
    read_rows,
    read_state,
)
from platform_core.control.store.store import ControlStore
from platform_core.specs.environment import EnvironmentSpec


class Cause(StrEnum):
    """Why a value is not what git says."""

    OVERRIDE = "override"
    BY_HAND = "by hand"
    OLDER = "older"


@dataclass(frozen=True, kw_only=True)
class DriftedValue:
    """One value, or a whole row, that is not what git says.

    Args:
        path: of the value in the row; empty: the row as a whole.
        field: the same as a person writes it in YAML.
        git: what git says; None: nothing, or no such row.
        live: what holds in the environment; None: nothing, or no such row.
        override: that made it so.
        expired: whether the override has ended, and the next apply takes it back.
        provenance: of the row, as its last apply wrote it; None: there is no row.
    """

    path: Path
    field: str
    git: Any
    live: Any
    cause: Cause
    override: Override | None = None
    expired: bool = False
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True)
class DriftedRow:
    """One row with values that are not what git says.

    Args:
        place: file and line where git declares it; None: git does not.
        git: the row as git has it; None: git has none.
        live: the row as the environment has it; None: it has none.
    """

    key: RowKey
    place: str | None
    git: Content | None
    live: Content | None
    values: tuple[DriftedValue, ...]

    def causes(self) -> Counter[Cause]:
        """How many values there are of each cause."""
        return Counter(value.cause for value in self.values)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the control tables hold, as far as it differs."""

    differences: Sequence[Difference]
    provenance: Mapping[RowKey, Provenance]
    overrides: Mapping[RowKey, Sequence[Override]]
    recorded: Mapping[RowKey, Version | None]
    today: dt.date


def find_drift(declared: Declared, environment: EnvironmentSpec, store: ControlStore) -> list[DriftedRow]:
    """Every row of the declared locations that is not what git says; also of locations that git no longer has.

    Raises:
        PlanError: the tables are another environment's.
        ControlError: the database cannot be reached.
    """
    asked = set(declared.manifests)

    def look(connection: sa.Connection) -> _Seen:
        check_environment(read_state(connection), environment)
        left = {name for name in read_locations(connection) if name not in declared.listed}
        return _look(connection, declared, asked | left, today=store.database.clock(connection).date())

    with collection_paused():
        seen = store.read(look)
        return [_drifted(each, declared, seen) for each in seen.differences]


def _look(connection: sa.Connection, declared: Declared, locations: set[str], *, today: dt.date) -> _Seen:
    rows = read_rows(connection, locations=locations)
    found = differences(rows, declared.rows)
    provenance = read_provenance(connection) if found else {}
    overrides: dict[RowKey, list[Override]] = {}
    for each in read_overrides(connection, locations=locations) if found else ():
        overrides.setdefault(each.key, []).append(each)
    asked = [each.key for each in found if _was_touched(each.key, rows, provenance)]
    recorded = {key: _recorded(connection, key) for key in asked}
    return _Seen(differences=found, provenance=provenance, overrides=overrides, recorded=recorded, today=today)


def _was_touched(key: RowKey, rows: Mapping[RowKey, Row], provenance: Mapping[RowKey, Provenance]) -> bool:
    """Whether a row is not as its last apply wrote it, or is not there."""
    if key not in rows:
        return True
    kind = codec(KINDS[key.kind])
    return key not in provenance or provenance[key].hash != kind.digest(kind.normal(rows[key]))


def _recorded(connection: sa.Connection, key: RowKey) -> Version | None:
    """A row as its last apply left it; None: it was never applied, or has been deleted."""
    found = read_versions(connection, kind=key.kind, address=key.address, location=key.location, limit=1)
    return found[0] if found and found[0].is_live else None


def _drifted(each: Difference, declared: Declared, seen: _Seen) -> DriftedRow:
    live, git = each.before, each.after
    return DriftedRow(
        key=each.key,
        place=declared.place(each.key),
        git=git,
        live=live,
        values=tuple(_values(each, seen)) if live is not None and git is not None else (_whole(each, seen),),
    )


def _whole(each: Difference, seen: _Seen) -> DriftedValue:
    """A row that only one of the two has."""
    override = next((known for known in seen.overrides.get(each.key, ()) if not known.path), None)
    live = each.before
    if override is not None and not same(override.value, live):
        override = None
    if override is not None:
        cause = Cause.OVERRIDE
    elif each.action is Action.CREATE:
        # git has it, the environment does not: somebody took it away, or it was never applied.
        cause = Cause.OLDER if seen.recorded.get(each.key) is None else Cause.BY_HAND
    else:
        cause = Cause.BY_HAND if each.key in seen.recorded else Cause.OLDER
    return DriftedValue(
        path=(),
        field="",
        git=each.after,
        live=live,
        cause=cause,
        override=override,
        expired=override is not None and not override.is_live(seen.today),
        provenance=seen.provenance.get(each.key),
    )


def _values(each: Difference, seen: _Seen) -> Iterator[DriftedValue]:
    live, git = each.before or {}, each.after or {}
    overrides = seen.overrides.get(each.key, ())
    for path, said, holds in field_differences(git, live):
        override = next((known for known in overrides if _explains(known, path, live)), None)
        cause = Cause.OLDER
        if override is not None:
            cause = Cause.OVERRIDE
        elif each.key in seen.recorded:
            recorded = seen.recorded[each.key]
            by_hand = recorded is None or not same(value_at(recorded.content, path), holds)
            cause = Cause.BY_HAND if by_hand else Cause.OLDER
        yield DriftedValue(
            path=path,
            field=".".join(written_path(each.key.kind, path)),
            git=said,
            live=holds,
            cause=cause,
            override=override,
            expired=override is not None and not override.is_live(seen.today),
            provenance=seen.provenance.get(each.key),
        )


def _explains(override: Override, path: Path, live: Content) -> bool:
    """Whether a value is what an override has set: it, or what it lies in, or a part of it."""
    if not override.path:
        return override.value is not None and same(value_at(override.value, path), value_at(live, path))
    shared = min(len(override.path), len(path))
    return override.path[:shared] == path[:shared] and same(value_at(live, override.path), override.value)
