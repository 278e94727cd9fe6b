"""Looks into dbt projects: their models and what these read, as far as dbt has written it down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_core.control.dbt_targets import target_fault
from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.table import TableRef

_MAX_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class DbtModels:
    """The models of one project.

    Args:
        known: false where dbt has not written its manifest yet; then any name may be a model.
        assets: those that are assets under names of their own.
        published: tables that readers see.
        inputs: what each model reads, models and lake tables alike; models are named like tables.
    """

    entry: Entry[DbtSpec]
    known: bool
    assets: frozenset[TableRef] = frozenset()
    published: frozenset[TableRef] = frozenset()
    inputs: Mapping[TableRef, tuple[TableRef, ...]] = field(default_factory=dict)


def read_dbt_projects(reading: Reading, report: Report) -> list[DbtModels]:
    """The models of every dbt project of a location; what is wrong with a project's folder goes to the report."""
    found = [_read(entry, reading.root, report) for entry in reading.dbt]
    first: dict[TableRef, DbtModels] = {}
    for project in found:
        for ref in sorted(project.assets):
            other = first.setdefault(ref, project)
            if other is not project:
                message = f"dbt model '{ref.name}' is in project '{other.entry.spec.name}' of the workstream, too"
                hint = f"rename one, or give this project another layer for such models: staging: {ref.layer}_2"
                project.entry.complain(report, ("project",), message, hint)
    return found


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
    _check_target(entry, folder, report)
    file = manifest_path(folder)
    chosen = selection_path(entry.spec, folder)
    if not file.is_file() or (chosen is not None and not chosen.is_file()):
        return DbtModels(entry, known=False)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError
        selected = None if chosen is None else frozenset(json.loads(chosen.read_bytes()))
        return _models(entry, json.loads(file.read_bytes()), selected)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        report.add(file, 0, "cannot be read as dbt's manifest", "build it again: dbt parse")
        return DbtModels(entry, known=False)


def _models(entry: Entry[DbtSpec], manifest: dict[str, Any], selected: frozenset[str] | None) -> DbtModels:
    spec = entry.spec
    tables: dict[str, TableRef] = {}
    assets, published = set(), set()
    for key, node in manifest["nodes"].items():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            tables[key] = TableRef(spec.workstream, spec.layer, node["name"])
            if selected is not None and key not in selected:
                continue
            if is_published(node, spec):
                published.add(tables[key])
            elif node.get("config", {}).get("materialized") != "ephemeral":
                assets.add(tables[key]._replace(layer=spec.staging))
    sources = {}
    for key, node in manifest["sources"].items():
        sources[key] = TableRef(node["source_name"], node["schema"], node["name"])

    def read(key: str, seen: frozenset[str]) -> dict[TableRef, None]:
        found: dict[TableRef, None] = {}
        for each in manifest["nodes"][key].get("depends_on", {}).get("nodes", ()):
            if each in sources:
                found[sources[each]] = None
            elif each in tables and (
                selected is None or each in selected or is_published(manifest["nodes"][each], spec)
            ):
                found[tables[each]] = None
            elif each in tables and each not in seen:
                # Built along with what reads it, and so no asset of its own.
                found |= read(each, seen | {each})
        return found

    inputs = {
        ref: tuple(read(key, frozenset({key}))) for key, ref in tables.items() if selected is None or key in selected
    }
    return DbtModels(entry, known=True, assets=frozenset(assets), published=frozenset(published), inputs=inputs)


def manifest_path(folder: Path) -> Path:
    """The manifest of the project in a folder: what ``edp setup`` builds, and what definitions are made from."""
    return folder / "target" / "manifest.json"


def selection_path(spec: DbtSpec, folder: Path) -> Path | None:
    """What dbt has selected for an entry, a list of unique ids; None where the entry is the whole project."""
    if not spec.select and not spec.exclude:
        return None
    digest = hashlib.sha256(json.dumps([spec.select, spec.exclude]).encode()).hexdigest()
    return folder / "target" / f"selected-{digest[:16]}.json"


def is_published(node: Mapping[str, Any], spec: DbtSpec) -> bool:
    """Whether a model, seed or snapshot, as dbt's manifest has it, becomes a table of the lake."""
    if node["resource_type"] not in ("model", "seed", "snapshot"):
        return False
    return f"{'/'.join(node['fqn'][1:-1])}/".startswith(f"{spec.publish}/")


def profile_outputs(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The targets of a project's profile, as ``profiles.yml`` has them; the default first.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the files are not those of a dbt project.
    """
    import yaml

    try:
        profile = yaml.safe_load((folder / "dbt_project.yml").read_bytes())["profile"]
        declared = yaml.safe_load((folder / "profiles.yml").read_bytes())[profile]
    except yaml.YAMLError:
        raise ValueError("no YAML") from None
    outputs = {str(name): {**output, "type": str(output["type"])} for name, output in declared["outputs"].items()}
    default = str(declared.get("target", "default"))
    first = {default: outputs[default]} if default in outputs else {}
    return {**first, **outputs}


def check_dbt_targets(reading: Reading, environment: EnvironmentSpec, report: Report) -> None:
    """An environment must have what the targets that it uses build in, and each project those targets."""
    for entry in reading.dbt:
        try:
            outputs = profile_outputs((reading.root / entry.spec.project).resolve())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Said where the project is read.
            continue
        wanted = entry.spec.target or environment.dbt.target or next(iter(outputs), "")
        path = ("target",) if entry.spec.target else ("project",)
        if wanted in outputs:
            fault = target_fault(outputs[wanted], environment)
            if fault is not None:
                entry.complain(report, path, *fault)
        elif entry.spec.target is None:
            hints = report.choice("targets", wanted, outputs)
            message = f"its profile has no target '{excerpt(wanted)}', which environment '{environment.name}' names"
            entry.complain(report, path, message, *hints)


def _check_target(entry: Entry[DbtSpec], folder: Path, report: Report) -> None:
    """A target that a person named must be in profiles.yml; what else is wrong there dbt says."""
    if entry.spec.target is None:
        return
    try:
        outputs = profile_outputs(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        file = report.shown(folder / "profiles.yml")
        entry.complain(report, ("target",), f"no targets can be read from {file}", "see dbt's own: dbt debug")
        return
    if entry.spec.target not in outputs:
        hints = report.choice("targets", entry.spec.target, outputs)
        entry.complain(report, ("target",), f"unknown target '{excerpt(entry.spec.target)}'", *hints)
