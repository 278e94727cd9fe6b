"""Checks what an ingested table declares against what its source can do, and its names against each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from platform_core.control.documents import PathPart
from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.errors import PluginError
from platform_core.plugins.interfaces import Mask, ReadRequest, Source
from platform_core.plugins.registry import plugin, plugin_names
from platform_core.specs.base import is_name
from platform_core.specs.column_names import normalised
from platform_core.specs.ingestion import IngestionSpec, LoadMode


def check_ingestions(reading: Reading, report: Report) -> None:
    """Check every ingested table of a location."""
    types = {(entry.spec.workstream, entry.spec.name): entry.spec.type for entry in reading.connections}
    for entry in reading.ingestions:
        _check_names(entry, report)
        _check_reading_side_by_side(entry, report)
        if (history := entry.spec.history_ref.name) and entry.spec.snapshot_history and not is_name(history):
            message = f"the table of its versions would be named '{history}', which is too long"
            entry.complain(report, ("snapshot_history",), message, "give 'table' a name of at most 55 characters")
        source = _source(types.get((entry.spec.workstream, entry.spec.source)))
        if source is not None:
            _check_cursor(entry, source, report)
            _check_detect_changes(entry, source, report)
            _check_text(entry, source, report)


def _source(type_: str | None) -> type[Source] | None:
    """The plug-in of a connection's type; None where there is none, which is said elsewhere."""
    if type_ is None or type_ not in plugin_names("source"):
        return None
    try:
        found: type[Source] = plugin("source", type_)
    except PluginError:
        return None
    return found


def _check_cursor(entry: Entry[IngestionSpec], source: type[Source], report: Report) -> None:
    spec = entry.spec
    if spec.mode is LoadMode.INCREMENTAL and spec.cursor is None and not source.keeps_state:
        # Said of the entry: there is no line of 'cursor'.
        entry.complain(report, (), "mode incremental needs 'cursor': a column that grows with every change")


def _check_detect_changes(entry: Entry[IngestionSpec], source: type[Source], report: Report) -> None:
    if entry.spec.detect_changes is not None and not source.tells_changes:
        message = "'detect_changes' is for sources that know which rows changed; this one does not"
        entry.complain(
            report, ("detect_changes",), message, "remove it, or see docs/reference/sources.md for those that do"
        )


def _check_text(entry: Entry[IngestionSpec], source: type[Source], report: Report) -> None:
    spec = entry.spec
    asked = {
        "query": ReadRequest(object=spec.object, query=spec.query),
        "filter": ReadRequest(object=spec.object, filter=spec.filter),
    }
    for key, request in asked.items():
        if request.query is None and request.filter is None:
            continue
        if source.dialect is None:
            message = f"'{key}' is for sources that are asked in SQL; this one is not"
            entry.complain(report, (key,), message, "remove it")
            continue
        try:
            source.check_text(request)
        except ValueError as error:
            message, *hints = str(error).splitlines()
            entry.complain(report, (key,), f"'{key}': {message}", *(hint.strip() for hint in hints))


def _check_reading_side_by_side(entry: Entry[IngestionSpec], report: Report) -> None:
    spec = entry.spec
    if spec.parallel > 1 and spec.split_by is None and len(spec.key) != 1:
        hint = "name a column whose ranges share the rows; only a key of one column needs no naming"
        entry.complain(report, ("parallel",), "'parallel' needs 'split_by'", hint)


def _check_names(entry: Entry[IngestionSpec], report: Report) -> None:
    spec = entry.spec
    for key, names in (("key", spec.key), ("select", spec.select), ("columns", spec.columns)):
        _check_apart(entry, key, names, report)
    _check_masked_keys(entry, report)
    ordering = {"cursor": spec.cursor, "sequence_by": spec.sequence_by, "deleted_flag": spec.deleted_flag}
    masked = {_lake_name(name) for name in spec.masks}
    for key, name in ordering.items():
        # Under one and the same name the spec itself has said so.
        if name is not None and name not in spec.masks and _lake_name(name) in masked:
            message = f"column '{excerpt(name)}' orders or flags rows and so cannot be masked"
            entry.complain(report, (key,), message)
    if not spec.select:
        return
    selected = {_lake_name(name) for name in spec.select}
    needed: list[tuple[tuple[PathPart, ...], str | None]] = [
        *((("key", at), name) for at, name in enumerate(spec.key)),
        *(((key,), name) for key, name in ordering.items()),
        *((("columns", name), name) for name in spec.columns),
    ]
    for path, name in needed:
        if name is not None and _lake_name(name) not in selected:
            message = f"column '{excerpt(name)}' is not among those that 'select' reads"
            entry.complain(report, path, message, "add it to 'select'")


def _check_masked_keys(entry: Entry[IngestionSpec], report: Report) -> None:
    """A key that is masked must still tell rows apart."""
    keys = {_lake_name(name) for name in entry.spec.key}
    for column, rule in entry.spec.masks.items():
        if _lake_name(column) not in keys or rule.mask not in plugin_names("mask"):
            continue
        try:
            mask: type[Mask] = plugin("mask", rule.mask)
        except PluginError:
            # Said where the mask's options are checked.
            continue
        if not mask.keeps_apart:
            message = f"column '{excerpt(column)}' is a key, and mask '{rule.mask}' makes different values the same"
            entry.complain(report, ("columns", column), message, "mask it with 'hash', which keeps rows apart")


def _check_apart(entry: Entry[Any], key: str, names: Iterable[str], report: Report) -> None:
    """Two declared columns must not be one in the lake."""
    first: dict[str, str] = {}
    for at, name in enumerate(names):
        path = (key, name if key == "columns" else at)
        kept = _lake_name(name)
        if kept is None:
            entry.complain(report, path, f"column '{excerpt(name)}' has neither letter nor digit")
        elif (other := first.setdefault(kept, name)) != name:
            message = f"columns '{excerpt(other)}' and '{excerpt(name)}' would both be '{excerpt(kept)}' in the lake"
            entry.complain(report, path, message, "declare each column once, by the source's name or the lake's")


def _lake_name(name: str) -> str | None:
    try:
        return normalised(name)
    except ValueError:
        return None
