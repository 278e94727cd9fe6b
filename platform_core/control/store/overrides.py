"""Values that an environment holds, for a while, in the place of what git says: who wants them, and until when."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from platform_core.control.store.codec import dumped
from platform_core.control.store.rows import RowKey
from platform_core.control.store.tables import overrides


@dataclass(frozen=True, kw_only=True)
class Override:
    """One value, or one row, that a reviewed SQL change put in the place of git's.

    Args:
        path: of the value in the row: the column, then keys of nested mappings; empty: the row as a whole.
        git_value: what git said when it was made; None: nothing, or no row.
        value: what holds instead; None: nothing, or no row.
        owner: who answers for it.
        expires: last day, UTC, on which it holds.
        file: of the reviewed change, without its ending.
        serial: of the apply that made it.
    """

    key: RowKey
    path: tuple[str, ...]
    git_value: Any
    value: Any
    owner: str
    expires: dt.date
    reason: str
    file: str
    serial: int

    @property
    def field(self) -> str:
        """The path as a person reads it."""
        return ".".join(self.path)

    def is_live(self, today: dt.date) -> bool:
        """Whether it still holds."""
        return today <= self.expires


def read_overrides(connection: sa.Connection, *, locations: Collection[str] | None = None) -> list[Override]:
    """All overrides, also those that have expired; of some locations, or of all."""
    columns = [
        sa.cast(column, sa.Text).label(column.name) if column.name in ("git_value", "value") else column
        for column in overrides.c
    ]
    query = sa.select(*columns).order_by(*overrides.primary_key.columns)
    if locations is not None:
        query = query.where(overrides.c.location.in_(sorted(locations)))
    return [_override(row) for row in connection.execute(query).mappings()]


def replace_overrides(connection: sa.Connection, keys: Iterable[RowKey], found: Iterable[Override]) -> None:
    """Put these in the place of all that there are of some rows."""
    for key in keys:
        connection.execute(overrides.delete().where(*_of_row(key)))
    if rows := [_values(each) for each in found]:
        connection.execute(overrides.insert(), rows)


def end_override(connection: sa.Connection, key: RowKey, path: tuple[str, ...]) -> None:
    """Forget one."""
    connection.execute(overrides.delete().where(*_of_row(key), overrides.c.field == dumped(list(path))))


def _of_row(key: RowKey) -> tuple[sa.ColumnElement[bool], ...]:
    return (overrides.c.kind == key.kind, overrides.c.location == key.location, overrides.c.address == key.address)


def _values(each: Override) -> dict[str, Any]:
    return {
        **each.key._asdict(),
        # Keys of nested mappings may hold dots.
        "field": dumped(list(each.path)),
        "git_value": dumped(each.git_value),
        "value": dumped(each.value),
        "owner": each.owner,
        "expires": each.expires,
        "reason": each.reason,
        "file": each.file,
        "serial": each.serial,
    }


def _override(row: sa.RowMapping) -> Override:
    return Override(
        key=RowKey(row["kind"], row["location"], row["address"]),
        path=tuple(json.loads(row["field"])),
        git_value=json.loads(row["git_value"]),
        value=json.loads(row["value"]),
        owner=row["owner"],
        expires=row["expires"],
        reason=row["reason"],
        file=row["file"],
        serial=row["serial"],
    )
