"""Checks what is declared of assets that other systems own, and who can read them."""

from __future__ import annotations

from typing import Any

from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import Source
from platform_core.plugins.registry import plugin, plugin_names
from platform_core.specs.processing import ProcessingSpec, StepKind
from platform_core.specs.table import TableRef


def check_external_assets(reading: Reading, report: Report) -> None:
    """Check that each external asset is behind a connection that can tell how it stands."""
    types = {(entry.spec.workstream, entry.spec.name): entry.spec.type for entry in reading.connections}
    for entry in reading.steps:
        spec = entry.spec
        if spec.kind is not StepKind.EXTERNAL or spec.source is None:
            continue
        type_ = types.get((spec.workstream, spec.source))
        if type_ is not None:
            _check_source(entry, type_, report)
        elif "connections" not in reading.unread:
            names = [each.spec.name for each in reading.connections if each.spec.workstream == spec.workstream]
            hints = report.choice(f"connections of workstream '{spec.workstream}'", spec.source, names)
            entry.complain(report, ("source",), f"unknown connection '{excerpt(spec.source)}'", *hints)


def is_only_looked_at(ref: TableRef, maker: Entry[Any] | None) -> bool:
    """Whether something can be depended on and not read: another system owns it, and it is no table of the lake.

    Args:
        ref: what is referred to.
        maker: what declares it; None: that is not known.
    """
    spec = maker.spec if maker is not None else None
    return isinstance(spec, ProcessingSpec) and spec.ref == ref and spec.source is not None


def _check_source(entry: Entry[ProcessingSpec], type_: str, report: Report) -> None:
    spec = entry.spec
    if type_ not in plugin_names("source"):
        # An unknown type is told at the connection; one of a dashboard service has nothing to be looked at.
        if type_ in plugin_names("dashboard"):
            message = f"connection '{spec.source}' is a dashboard service (type {type_}), not a source"
            entry.complain(report, ("source",), message)
        return
    source = _loaded(type_)
    if source is None:
        return
    if not source.compares:
        able = [name for name in plugin_names("source") if (each := _loaded(name)) is not None and each.compares]
        message = f"connection '{spec.source}' is of type {type_}, which cannot tell whether something has changed"
        entry.complain(report, ("source",), message, f"types that can: {', '.join(able)}")
    elif spec.compare not in source.compares:
        known = ", ".join(sorted(source.compares))
        message = f"'compare: {spec.compare}' is nothing that a connection of type {type_} can do"
        entry.complain(report, ("compare",), message, f"it can compare by: {known}")
    else:
        _check_object(entry, source, report)


def _check_object(entry: Entry[ProcessingSpec], source: type[Source], report: Report) -> None:
    declared = str(entry.spec.object)
    try:
        source.check_object(declared)
    except SourceError as error:
        message, *hints = str(error).splitlines()
        _, _, said = message.partition(f"'{declared}': ")
        entry.complain(
            report, ("object",), f"'{excerpt(declared)}': {excerpt(said or message)}", *(hint.strip() for hint in hints)
        )


def _loaded(type_: str) -> type[Source] | None:
    try:
        found: type[Source] = plugin("source", type_)
    except PluginError:
        # Said where the connection's options are checked.
        return None
    return found
