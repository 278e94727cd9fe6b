"""Compares rows as they are with rows as they should be, without touching either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from platform_core.control.plan.plan import Action
from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey

Path = tuple[str, ...]
"""Where in a row a value stands: the column, then keys of nested mappings."""

_ORDER = {name: place for place, name in enumerate(KINDS)}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row that is not as it should be."""

    key: RowKey
    action: Action
    before: Content | None
    after: Content | None


def differences(current: Mapping[RowKey, Row], desired: Mapping[RowKey, Row]) -> list[Difference]:
    """Every row that must be created, updated or deleted, by kind and address."""
    found = [*_created_or_updated(current, desired)]
    for key in current.keys() - desired.keys():
        found.append(Difference(key=key, action=Action.DELETE, before=content_of(key, current[key]), after=None))
    return sorted(found, key=lambda each: (_ORDER[each.key.kind], each.key.location, each.key.address))


def field_differences(before: Content, after: Content) -> Iterator[tuple[Path, Any, Any]]:
    """The values that differ, as deep as both sides are mappings; None stands for what is not there."""
    yield from _nested((), before, after)


def _created_or_updated(current: Mapping[RowKey, Row], desired: Mapping[RowKey, Row]) -> Iterator[Difference]:
    for key, row in desired.items():
        found = current.get(key)
        if found == row:
            continue
        after = content_of(key, row)
        if found is None:
            yield Difference(key=key, action=Action.CREATE, before=None, after=after)
        elif codec(KINDS[key.kind]).normal(found) != row:
            # A person who writes JSON by hand writes it with other spaces.
            yield Difference(key=key, action=Action.UPDATE, before=content_of(key, found), after=after)


def content_of(key: RowKey, row: Row) -> Content:
    """A row as plain values, written in one way whoever wrote it."""
    rows = codec(KINDS[key.kind])
    return rows.content(rows.normal(row))


def _nested(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[Path, Any, Any]]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _reordered((*path, name), old, new) if old == new else _nested((*path, name), old, new)
        elif old != new or type(old) is not type(new):
            yield (*path, name), old, new


def _reordered(path: Path, old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[Path, Any, Any]]:
    """Two mappings that differ at most in the order of their keys, which is kept."""
    if list(old) != list(new):
        yield path, old, new
