"""Says what becomes of the data in the lake when a table's key, mode, cursor or masks change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from platform_core.control.plan.plan import Mark, MarkKind
from platform_core.control.store.codec import Content, dumped
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.processing import WriteMode

_FULL = "full"


def ingestion_marks(before: Content, after: Content) -> Iterator[Mark]:
    """What a change of an ingested table does to the rows that bronze holds."""
    if before["mode"] not in [*LoadMode]:
        # Written by hand, and never loaded.
        return
    old, new = LoadMode(before["mode"]), LoadMode(after["mode"])
    if LoadMode.APPEND in (old, new) and old is not new:
        yield _mark(
            f"mode {old} becomes {new}",
            f"the rows of mode {old} in bronze cannot be told from those of mode {new}: remove the bronze table, its "
            "landing and its source state, and load it anew",
        )
        return
    if new is LoadMode.FULL:
        if old is not new or before["key"] != after["key"]:
            yield _mark(
                f"{_key_or_mode(before, after)}",
                "the next load reads the whole object and compares every row; rows that it does not find again are "
                "flagged deleted",
                approval=before["key"] != after["key"],
            )
        return
    if before["key"] != after["key"]:
        yield _mark(
            _key_or_mode(before, after),
            "rows in bronze keep their old key until they are read again, and may stand there twice until then",
            reload=_FULL,
        )
    if old is not new:
        yield _mark(
            f"mode {old} becomes {new}",
            "the next load reads from the newest cursor value in bronze on; rows that changed without moving the "
            "cursor are not seen, and deletes only by deleted_flag or detect_deletes",
            reload=_FULL,
        )
    elif before["cursor"] != after["cursor"]:
        yield _mark(
            f"cursor {before['cursor']} becomes {after['cursor']}",
            "the next load reads from the newest value of the new cursor in bronze on; what changed before is not seen",
            reload=_FULL if new is LoadMode.INCREMENTAL else None,
        )
    if _masks(before) != _masks(after):
        yield _mark(
            "masks change",
            "rows in bronze keep their old masks until they are read again, so that equal values no longer match",
            reload=_FULL if new is LoadMode.INCREMENTAL else None,
        )


def processing_marks(before: Content, after: Content) -> Iterator[Mark]:
    """What a change of a step does to the rows that its table holds."""
    if after["write"] == WriteMode.MERGE and (before["key"] != after["key"] or before["write"] != after["write"]):
        yield _mark(
            f"rows are merged by {_listed(after['key'])} from now on",
            "rows that the table holds already stay as they are; to begin anew run the step once with write: overwrite",
        )


def _key_or_mode(before: Content, after: Content) -> str:
    if before["key"] != after["key"]:
        return f"key {_listed(before['key'])} becomes {_listed(after['key'])}"
    return f"mode {before['mode']} becomes {after['mode']}"


def _masks(content: Content) -> dict[str, Any]:
    columns = content.get("columns")
    if not isinstance(columns, dict):
        return {}
    shaped = {name: column for name, column in columns.items() if isinstance(column, dict)}
    return {name: column["masking"] for name, column in shaped.items() if column.get("masking")}


def _listed(names: Any) -> str:
    """Columns of a key; a row that a person wrote may hold anything in their place."""
    if not isinstance(names, list):
        return dumped(names)
    return ", ".join(map(str, names)) or "(none)"


def _mark(message: str, consequence: str, *, reload: str | None = None, approval: bool = True) -> Mark:
    return Mark(kind=MarkKind.RELOAD, message=message, consequence=consequence, reload=reload, approval=approval)
