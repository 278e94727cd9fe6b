"""What a dbt project consists of, read from its manifest: models, sources, tests, and how they hang together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from platform_core.errors import ConfigError, Issue, Place
from platform_core.operations.dbt_project import manifest_path
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.table import TableRef

STAGING = "staging"
"""Layer of models that are not published: they live in dbt's own database only."""

_BUILT = ("model", "seed", "snapshot")
_STORED = ("table", "incremental", "snapshot", "seed")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, seed or snapshot.

    Args:
        unique_id: dbt's name for it.
        selector: what selects exactly it on dbt's command line.
        ref: ``workstream.layer.name``.
        published: whether it becomes a Delta table of the lake.
        materialized: how dbt keeps it: ``table``, ``view``, …
        relation: schema and name in dbt's database.
        upstream: lake tables and models that it reads, ephemeral models seen through.
        columns: description by column, as declared.
        checksum: changes with its code.
        path: its file, from the project's folder.
    """

    unique_id: str
    selector: str
    ref: TableRef
    published: bool
    materialized: str
    relation: tuple[str, str]
    upstream: tuple[TableRef, ...]
    description: str
    columns: Mapping[str, str]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    checksum: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test of data.

    Args:
        unique_id: dbt's name for it.
        selector: what selects exactly it on dbt's command line.
        name: unique within the project.
        on: the model or source that is found wanting when it fails.
        blocking: whether a failure is an error, not a warning.
        reads: unique ids of the models that it reads.
    """

    # Not a class of tests, whatever its name says to pytest.
    __test__ = False

    unique_id: str
    selector: str
    name: str
    on: TableRef
    blocking: bool
    reads: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class DbtManifest:
    """All nodes of one project, models in the order in which they can be built."""

    models: tuple[Model, ...]
    tests: tuple[Test, ...]
    sources: tuple[TableRef, ...]

    @cached_property
    def model_by_id(self) -> Mapping[str, Model]:
        """Models by unique id."""
        return {model.unique_id: model for model in self.models}

    @cached_property
    def test_by_id(self) -> Mapping[str, Test]:
        """Tests by unique id."""
        return {test.unique_id: test for test in self.tests}


def read_manifest(spec: DbtSpec, *, folder: Path) -> DbtManifest:
    """Read the manifest of the project in a folder; kept in memory until the file changes.

    Raises:
        ConfigError: it was not built yet, or a model cannot be published.
    """
    path = manifest_path(folder)
    if not path.is_file():
        raise _refused(
            spec,
            folder,
            f"dbt project '{spec.name}' has no manifest",
            f"looked at: {path}",
            "edp setup (or make setup) builds it",
        )
    return _read(spec, folder, path.stat().st_mtime_ns)


@cache
def _read(spec: DbtSpec, folder: Path, _changed: int) -> DbtManifest:
    path = manifest_path(folder)
    try:
        raw = json.loads(path.read_bytes())
    except json.JSONDecodeError:
        raise _refused(spec, folder, f"{path} is no JSON", "edp setup (or make setup) builds it anew") from None
    reader = _Reader(raw, spec)
    manifest = DbtManifest(
        models=tuple(reader.model(unique_id) for unique_id in reader.order if reader.is_built(unique_id)),
        tests=tuple(
            reader.test(unique_id)
            for unique_id, node in sorted(raw["nodes"].items())
            if node["resource_type"] == "test" and reader.parents(unique_id)
        ),
        sources=tuple(sorted({reader.source(unique_id) for unique_id in raw["sources"]})),
    )
    for model in manifest.models:
        if model.published and model.materialized not in _STORED:
            raise _refused(
                spec,
                folder,
                f"model '{model.ref.name}' cannot be published: it is materialized as {model.materialized}",
                f"it stands in {model.path}, below models/{spec.publish}",
                "materialize it as table or incremental, or move it to another folder",
            )
    return manifest


class _Reader:
    """Finds its way about a manifest as dbt writes it."""

    def __init__(self, raw: Mapping[str, Any], spec: DbtSpec) -> None:
        self._nodes: Mapping[str, Any] = raw["nodes"]
        self._sources: Mapping[str, Any] = raw["sources"]
        self._project: str = raw["metadata"]["project_name"]
        self._owners = {group["name"]: group.get("owner", {}).get("email") for group in raw.get("groups", {}).values()}
        self._spec = spec
        self.order = self._in_build_order()

    def is_built(self, unique_id: str) -> bool:
        node = self._nodes[unique_id]
        return node["resource_type"] in _BUILT and node["config"].get("materialized") != "ephemeral"

    def parents(self, unique_id: str) -> tuple[str, ...]:
        """Models and sources that a node names; of other kinds (macros, metrics) none."""
        named = self._nodes[unique_id].get("depends_on", {}).get("nodes", ())
        return tuple(name for name in named if name in self._nodes or name in self._sources)

    def source(self, unique_id: str) -> TableRef:
        source = self._sources[unique_id]
        return TableRef(source["source_name"], source["schema"], source["identifier"])

    def ref(self, unique_id: str) -> TableRef:
        if unique_id in self._sources:
            return self.source(unique_id)
        node = self._nodes[unique_id]
        version = f"_v{node['version']}" if node.get("version") is not None else ""
        layer = self._spec.layer if self._is_published(node) else STAGING
        return TableRef(self._spec.workstream, layer, node["name"] + version)

    def model(self, unique_id: str) -> Model:
        node = self._nodes[unique_id]
        owner = self._owners.get(node.get("group"))
        return Model(
            unique_id=unique_id,
            selector="fqn:" + ".".join(node["fqn"]),
            ref=self.ref(unique_id),
            published=self._is_published(node),
            materialized=node["config"].get("materialized") or node["resource_type"],
            relation=(node["schema"], node["alias"]),
            upstream=tuple(dict.fromkeys(self._upstream(unique_id))),
            description=node.get("description") or "",
            columns={name: column.get("description") or "" for name, column in node.get("columns", {}).items()},
            owners=(owner,) if isinstance(owner, str) else tuple(owner or ()),
            tags=tuple(node.get("tags", ())),
            checksum=node["checksum"]["checksum"],
            path=node["original_file_path"],
        )

    def test(self, unique_id: str) -> Test:
        node = self._nodes[unique_id]
        parents = self.parents(unique_id)
        place = {name: position for position, name in enumerate(self.order)}
        # A test written by hand over several models speaks of the one that is built last of them.
        on = node.get("attached_node") or max(parents, key=lambda name: (place.get(name, -1), name))
        return Test(
            unique_id=unique_id,
            selector="fqn:" + ".".join(node["fqn"]),
            name=node["name"],
            on=self.ref(on),
            blocking=str(node["config"].get("severity", "error")).lower() == "error",
            reads=tuple(name for name in parents if name in self._nodes),
            description=node.get("description") or "",
        )

    def _is_published(self, node: Mapping[str, Any]) -> bool:
        if node["resource_type"] != "model" or node["package_name"] != self._project:
            return False
        return str(node["path"]).startswith(f"{self._spec.publish}/")

    def _upstream(self, unique_id: str) -> list[TableRef]:
        found = []
        for parent in self.parents(unique_id):
            if parent in self._sources or self.is_built(parent):
                found.append(self.ref(parent))
            elif self._nodes[parent]["resource_type"] in _BUILT:
                found += self._upstream(parent)
        return found

    def _in_build_order(self) -> tuple[str, ...]:
        from graphlib import TopologicalSorter

        graph = {
            unique_id: [parent for parent in self.parents(unique_id) if parent in self._nodes]
            for unique_id, node in sorted(self._nodes.items())
            if node["resource_type"] in _BUILT
        }
        return tuple(TopologicalSorter(graph).static_order())


def _refused(spec: DbtSpec, folder: Path, message: str, *hints: str) -> ConfigError:
    return ConfigError([Issue(spec.place or Place(folder), message, hints)])
