"""Finds what would show more of personal data than before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from platform_core.control.plan.plan import Mark, MarkKind
from platform_core.control.store.codec import Content
from platform_core.errors import PluginError
from platform_core.plugins.interfaces import Disclosure
from platform_core.plugins.registry import plugin
from platform_core.specs.column_names import normalised

_NO_MASK: Mapping[str, Any] = {}


def privacy_marks(before: Content, after: Content) -> Iterator[Mark]:
    """Masks that are removed or weakened, and columns that are no longer classified.

    Args:
        before: a row of a kind whose rows have ``columns``.
        after: the row that takes its place.
    """
    old, new = _columns(before), _columns(after)
    read = {_name(column) for column in after.get("select") or ()}
    for name, column in old.items():
        if read and name not in read:
            # It no longer comes into the lake.
            continue
        now = new.get(name, {})
        if found := _weakened(_masking(column), _masking(now)):
            yield Mark(kind=MarkKind.PRIVACY, message=f"column '{name}': {found}", consequence=_CONSEQUENCE)
        if column.get("personal") and not now.get("personal"):
            yield Mark(kind=MarkKind.PRIVACY, message=f"column '{name}': is no longer classified personal")


_CONSEQUENCE = "rows that are loaded from then on show more than before"


def _weakened(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """What a rule gives away more than the one before it, in words; None: no more."""
    if not before or before == after:
        return None
    old, new = before["mask"], after.get("mask")
    if new is None:
        return f"mask {old} is removed"
    try:
        was, becomes = plugin("mask", old), plugin("mask", new)
        if becomes.discloses > was.discloses:
            return f"mask {new} gives away more than {old} ({_shown(becomes)} instead of {_shown(was)})"
        if old != new:
            unclear = becomes.discloses == was.discloses is Disclosure.PART
            return f"masks {old} and {new} both show a part; which is more cannot be told" if unclear else None
        options = was.Options(**(after.get("options") or {}))
        more = was.discloses_more(options, than=was.Options(**(before.get("options") or {})))
    except (PluginError, ValueError):
        # A mask, or options of it, that this installation does not have.
        return f"mask {old} becomes {new}; which gives away more cannot be told"
    return f"options of mask {new} give away more than before" if more else None


def _shown(mask: type[Any]) -> str:
    return {
        Disclosure.NOTHING: "nothing",
        Disclosure.EQUALITY: "which values are equal",
        Disclosure.PART: "a part of the value",
        Disclosure.ALL: "the value",
    }[mask.discloses]


def _columns(content: Content) -> dict[str, dict[str, Any]]:
    """Columns by name; what a person wrote into the tables in another shape never masked anything."""
    columns = content.get("columns")
    if not isinstance(columns, dict):
        return {}
    return {_name(name): column for name, column in columns.items() if isinstance(column, dict)}


def _masking(column: Mapping[str, Any]) -> Mapping[str, Any]:
    found = column.get("masking")
    return found if isinstance(found, dict) and isinstance(found.get("mask"), str) else _NO_MASK


def _name(column: str) -> str:
    """The column's name in the lake, so that it makes no difference which of its names a person writes."""
    try:
        return normalised(column)
    except ValueError:
        return column
