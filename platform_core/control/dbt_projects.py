"""Looks into dbt projects: their models and what these read, as far as dbt has written it down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.table import TableRef

_MAX_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class DbtModels:
    """The models of one project.

    Args:
        known: false where dbt has not written its manifest yet; then any name may be a model.
        published: tables that readers see.
        inputs: what each model reads, models and lake tables alike; models are named like tables.
    """

    entry: Entry[DbtSpec]
    known: bool
    published: frozenset[TableRef] = frozenset()
    inputs: Mapping[TableRef, tuple[TableRef, ...]] = field(default_factory=dict)


def read_dbt_projects(reading: Reading, report: Report) -> list[DbtModels]:
    """The models of every dbt project of a location; what is wrong with a project's folder goes to the report."""
    return [_read(entry, reading.root, report) for entry in reading.dbt]


def _read(entry: Entry[DbtSpec], root: Path, report: Report) -> DbtModels:
    declared = entry.spec.project
    try:
        folder = (root / declared).resolve()
        found = (folder / "dbt_project.yml").is_file()
    except (OSError, ValueError):
        entry.complain(report, ("project",), f"'{excerpt(declared)}' is no path of a folder")
        return DbtModels(entry, known=False)
    if not found:
        message = f"there is no dbt project in '{excerpt(declared)}'"
        entry.complain(report, ("project",), message, f"looked for {report.shown(folder / 'dbt_project.yml')}")
        return DbtModels(entry, known=False)
    file = folder / "target" / "manifest.json"
    if not file.is_file():
        return DbtModels(entry, known=False)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError
        return _models(entry, json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        report.add(file, 0, "cannot be read as dbt's manifest", "build it again: dbt parse")
        return DbtModels(entry, known=False)


def _models(entry: Entry[DbtSpec], manifest: dict[str, Any]) -> DbtModels:
    spec = entry.spec
    tables: dict[str, TableRef] = {}
    published = set()
    for key, node in manifest["nodes"].items():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            tables[key] = TableRef(spec.workstream, spec.layer, node["name"])
            if node["resource_type"] == "model" and spec.publish in node["fqn"][1:-1]:
                published.add(tables[key])
    for key, node in manifest["sources"].items():
        tables[key] = TableRef(node["source_name"], node["schema"], node["name"])
    inputs = {
        tables[key]: tuple(tables[each] for each in node.get("depends_on", {}).get("nodes", ()) if each in tables)
        for key, node in manifest["nodes"].items()
        if key in tables
    }
    return DbtModels(entry, known=True, published=frozenset(published), inputs=inputs)
