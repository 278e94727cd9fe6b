"""Checks what is declared for plug-ins against the plug-ins' own models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from platform_core.control.documents import PathPart
from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.control.secret_names import secret_names
from platform_core.control.shapes import Kind
from platform_core.control.wording import Complaint, judge
from platform_core.errors import PluginError
from platform_core.plugins.registry import plugin, plugin_names, suggestions
from platform_core.specs.base import Plain
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.refresh import RefreshSpec


def check_plugin_options(reading: Reading, report: Report) -> None:
    """Check connections, masks, objects and dashboards of a location."""
    checker = _Checker(report, {entry.spec.name for entry in reading.workstreams})
    for kind, entry in reading.damaged:
        checker.damaged(kind, entry)
    connections = {(entry.spec.workstream, entry.spec.name): entry.spec for entry in reading.connections}
    for entry in reading.connections:
        checker.connection(entry)
    for ingestion in reading.ingestions:
        for column, rule in ingestion.spec.masks.items():
            checker.check(ingestion, "mask", rule.mask, "Options", rule.options, ("columns", column), name_at="mask")
        connection = connections.get((ingestion.spec.workstream, ingestion.spec.source))
        if connection is not None and connection.type in plugin_names("source"):
            options = ingestion.spec.options
            checker.check(ingestion, "source", connection.type, "ObjectOptions", options, ("options",), name_at=None)
    for dashboard in reading.refreshes:
        spec = dashboard.spec
        checker.check(dashboard, "dashboard", spec.type, "Options", spec.options, (), name_at="type")


def check_options(model: type[BaseModel], options: Plain, report: Report) -> tuple[list[Complaint], list[str]]:
    """What a plug-in's model finds wrong with its options, and the names of the secrets that they refer to."""
    made, faults = judge(model, options, report=report)
    return faults, list(secret_names(made))


class _Checker:
    """Remembers what it has checked: thousands of columns share a handful of declarations."""

    def __init__(self, report: Report, workstreams: set[str]) -> None:
        self.report = report
        self._workstreams = workstreams
        self._outcomes: dict[tuple[type[BaseModel], str], tuple[list[Complaint], list[str]]] = {}
        self._classes: dict[tuple[str, str], type[Any] | None] = {}

    def connection(self, entry: Entry[ConnectionSpec]) -> None:
        """A connection's type is a source, or a dashboard that is reached by a connection."""
        spec = entry.spec
        if spec.type not in plugin_names("source") and spec.type in plugin_names("dashboard"):
            found = self._class(entry, "dashboard", spec.type, "type")
            if found is not None and found.ConnectionOptions is None:
                entry.complain(self.report, ("type",), f"a dashboard of type '{spec.type}' needs no connection")
            elif found is not None:
                self._apply(entry, found.ConnectionOptions, spec.options, ())
            return
        self.check(entry, "source", spec.type, "Options", spec.options, (), name_at="type")

    def damaged(self, kind: Kind, entry: Entry[Any]) -> None:
        """Check what can be checked of an entry whose own fields are wrong: nothing in it has its type for sure."""
        written = vars(entry.spec)
        type_, columns = written.get("type"), written.get("columns")
        if kind.model is ConnectionSpec and isinstance(type_, str):
            self.connection(entry)
        elif kind.model is RefreshSpec and isinstance(type_, str):
            self.check(entry, "dashboard", type_, "Options", written["options"], (), name_at="type")
        elif kind.model is IngestionSpec and isinstance(columns, dict):
            for name, column in columns.items():
                masking = column.get("masking") if isinstance(column, dict) else None
                if isinstance(masking, dict) and isinstance(masking.get("mask"), str):
                    options = masking.get("options", {})
                    self.check(entry, "mask", masking["mask"], "Options", options, ("columns", name), name_at="mask")

    def check(
        self,
        entry: Entry[Any],
        kind: str,
        name: str,
        attribute: str,
        options: Plain,
        path: Sequence[PathPart],
        *,
        name_at: str | None,
    ) -> None:
        """Check options against one model of a plug-in.

        Args:
            entry: what declares them.
            kind: of the plug-in.
            name: of the plug-in.
            attribute: the plug-in's model: ``Options`` or ``ObjectOptions``.
            options: as declared.
            path: where they stand in the entry.
            name_at: key below the path that names the plug-in; None where it is named elsewhere.
        """
        found = self._class(entry, kind, name, *path, *([name_at] if name_at else []))
        if found is not None:
            self._apply(entry, getattr(found, attribute), options, path)

    def _apply(self, entry: Entry[Any], model: type[BaseModel], options: Plain, path: Sequence[PathPart]) -> None:
        key = (model, json.dumps(options, sort_keys=True))
        if key not in self._outcomes:
            self._outcomes[key] = check_options(model, options, self.report)
        faults, secrets = self._outcomes[key]
        for fault in faults:
            entry.complain(self.report, (*path, *fault.path), fault.message, *fault.hints)
        own = entry.spec.workstream
        for secret in secrets:
            if own in self._workstreams and not secret.startswith(f"{own}/"):
                hint = f"a workstream uses its own secrets: {own}/<name>"
                entry.complain(self.report, path, f"secret '{excerpt(secret)}' is not one of workstream '{own}'", hint)

    def _class(self, entry: Entry[Any], kind: str, name: str, *path: PathPart) -> type[Any] | None:
        if name not in plugin_names(kind):
            short = excerpt(name)
            entry.complain(self.report, path, f"unknown {kind} '{short}'", *suggestions(kind, short))
            return None
        if (kind, name) not in self._classes:
            self._classes[kind, name] = None
            try:
                self._classes[kind, name] = plugin(kind, name)
            except PluginError as error:
                # Said once, where it is first used.
                message, *hints = str(error).splitlines()
                entry.complain(self.report, path, message, *(hint.strip() for hint in hints))
        return self._classes[kind, name]
