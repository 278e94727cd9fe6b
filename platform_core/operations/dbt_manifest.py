"""What a part of a dbt project consists of, read from its manifest: models, sources, tests, how they hang together."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from platform_core.control.dbt_projects import is_published, manifest_path, selection_path
from platform_core.errors import ConfigError, Issue, Place
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.table import TableRef

_BUILT = ("model", "seed", "snapshot")
_STORED = ("table", "incremental", "snapshot", "seed")
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
"""What the name of a check must not hold."""


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
        upstream: lake tables and models that it reads; what is no asset is seen through: ephemeral models, and those
            that were not selected and are not published.
        parents: unique ids of the models that it reads, ephemeral ones seen through.
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
    parents: tuple[str, ...]
    description: str
    columns: Mapping[str, str]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    checksum: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test of data, or a unit test of a model.

    Args:
        unique_id: dbt's name for it.
        selector: what selects exactly it on dbt's command line.
        name: unique among the tests of what it stands on.
        on: the model or source that is found wanting when it fails.
        blocking: whether a failure is an error, not a warning.
        reads: unique ids of the models that it reads.
        unit: whether it tests the model's query on rows of its own, before the model is built.
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
    unit: bool = False


@dataclass(frozen=True)
class DbtManifest:
    """What was selected of one project, models in the order in which they can be built.

    Args:
        models: that were selected.
        tests: of these, and of the sources that they read.
        sources: all that the project declares.
        others: models that were not selected; the selected ones may read them.
        adapter: of the target that the manifest was built with.
    """

    models: tuple[Model, ...]
    tests: tuple[Test, ...]
    sources: tuple[TableRef, ...]
    others: tuple[Model, ...] = ()
    adapter: str = "duckdb"

    @cached_property
    def model_by_id(self) -> Mapping[str, Model]:
        """Models by unique id."""
        return {model.unique_id: model for model in self.models}

    @cached_property
    def any_by_id(self) -> Mapping[str, Model]:
        """Models by unique id, those that were not selected among them."""
        return {model.unique_id: model for model in (*self.models, *self.others)}

    def reads(self, wanted: Collection[str]) -> tuple[TableRef, ...]:
        """The tables that a build of some models looks at, and does not build; views are seen through.

        Args:
            wanted: unique ids.
        """
        found: dict[TableRef, None] = {}
        seen: set[str] = set()
        waiting = [self.any_by_id[unique_id] for unique_id in wanted]
        own = {model.ref for model in waiting}
        while waiting:
            model = waiting.pop()
            found |= dict.fromkeys(ref for ref in model.upstream if ref not in own)
            for parent in model.parents:
                above = self.any_by_id[parent]
                if parent not in seen and parent not in wanted and above.materialized == "view":
                    seen.add(parent)
                    waiting.append(above)
        return tuple(sorted(found))

    @cached_property
    def test_by_id(self) -> Mapping[str, Test]:
        """Tests by unique id."""
        return {test.unique_id: test for test in self.tests}


def read_manifest(spec: DbtSpec, *, folder: Path) -> DbtManifest:
    """Read the manifest of the project in a folder, and what is selected of it; kept in memory until a file changes.

    Raises:
        ConfigError: it was not built yet, or a model cannot be published.
    """
    files = (manifest_path(folder), selection_path(spec, folder))
    for path in files:
        if path is not None and not path.is_file():
            raise _refused(
                spec,
                folder,
                f"dbt project '{spec.name}' has no manifest",
                f"looked at: {path}",
                "edp setup (or make setup) builds it",
            )
    return _read(spec, folder, tuple(0 if path is None else path.stat().st_mtime_ns for path in files))


@cache
def _read(spec: DbtSpec, folder: Path, _changed: tuple[int, ...]) -> DbtManifest:
    raw = _json(manifest_path(folder), spec, folder)
    chosen = selection_path(spec, folder)
    reader = _Reader(raw, spec, selected=None if chosen is None else frozenset(_json(chosen, spec, folder)))
    models = [reader.model(unique_id) for unique_id in reader.order if reader.is_built(unique_id)]
    manifest = DbtManifest(
        models=tuple(model for model in models if reader.is_selected(model.unique_id)),
        tests=reader.tests(),
        sources=tuple(sorted({reader.source(unique_id) for unique_id in raw["sources"]})),
        others=tuple(model for model in models if not reader.is_selected(model.unique_id)),
        adapter=raw["metadata"].get("adapter_type") or "duckdb",
    )
    for model in manifest.models:
        if model.published and model.materialized not in _STORED:
            raise _refused(
                spec,
                folder,
                f"model '{model.ref.name}' cannot be published: it is materialized as {model.materialized}",
                f"it stands in {model.path}, below a folder {spec.publish}",
                "materialize it as table or incremental, or move it to another folder",
            )
    return manifest


def _json(path: Path, spec: DbtSpec, folder: Path) -> Any:  # whatever dbt has written
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError:
        raise _refused(spec, folder, f"{path} is no JSON", "edp setup (or make setup) builds it anew") from None


class _Reader:
    """Finds its way about a manifest as dbt writes it."""

    def __init__(self, raw: Mapping[str, Any], spec: DbtSpec, *, selected: frozenset[str] | None) -> None:
        self._nodes: Mapping[str, Any] = raw["nodes"]
        self._sources: Mapping[str, Any] = raw["sources"]
        self._unit_tests: Mapping[str, Any] = raw.get("unit_tests", {})
        self._selected = selected
        self._project: str = raw["metadata"]["project_name"]
        self._owners = {group["name"]: group.get("owner", {}).get("email") for group in raw.get("groups", {}).values()}
        self._spec = spec
        self.order = self._in_build_order()

    def is_built(self, unique_id: str) -> bool:
        node = self._nodes[unique_id]
        return node["resource_type"] in _BUILT and node["config"].get("materialized") != "ephemeral"

    def is_selected(self, unique_id: str) -> bool:
        return self._selected is None or unique_id in self._selected

    def parents(self, unique_id: str) -> tuple[str, ...]:
        """Models and sources that a node names; of other kinds (macros, metrics) none."""
        named = {**self._nodes, **self._unit_tests}[unique_id].get("depends_on", {}).get("nodes", ())
        return tuple(name for name in named if name in self._nodes or name in self._sources)

    def source(self, unique_id: str) -> TableRef:
        source = self._sources[unique_id]
        return TableRef(source["source_name"], source["schema"], source["identifier"])

    def ref(self, unique_id: str) -> TableRef:
        if unique_id in self._sources:
            return self.source(unique_id)
        node = self._nodes[unique_id]
        version = f"_v{node['version']}" if node.get("version") is not None else ""
        layer = self._spec.layer if self._is_published(node) else self._spec.staging
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
            parents=tuple(dict.fromkeys(self._models_above(unique_id))),
            description=node.get("description") or "",
            columns={name: column.get("description") or "" for name, column in node.get("columns", {}).items()},
            owners=(owner,) if isinstance(owner, str) else tuple(owner or ()),
            tags=tuple(node.get("tags", ())),
            checksum=node["checksum"]["checksum"],
            path=node["original_file_path"],
        )

    def tests(self) -> tuple[Test, ...]:
        """Tests of what was selected, and of the sources that it reads; of one name on one table, the second has a
        longer one."""
        taken: set[tuple[TableRef, str]] = set()
        found = []
        for unique_id, node in sorted({**self._nodes, **self._unit_tests}.items()):
            if node["resource_type"] not in ("test", "unit_test") or (on := self._stands_on(unique_id)) is None:
                continue
            test = self._test(unique_id, node, self.ref(on), of_source=on in self._sources)
            if (test.on, test.name) in taken:
                test = replace(test, name=f"{test.name}_{unique_id.rpartition('.')[2]}")
            taken.add((test.on, test.name))
            found.append(test)
        return tuple(found)

    def _stands_on(self, unique_id: str) -> str | None:
        """What is found wanting when a test fails; None where that is nothing of what was selected."""
        parents = [name for name in self.parents(unique_id) if name in self._read]
        place = {name: position for position, name in enumerate(self.order)}
        # A test written by hand over several models speaks of the one that is built last of them.
        last = max(parents, key=lambda name: (place.get(name, -1), name), default=None)
        attached = self._nodes.get(unique_id, {}).get("attached_node")
        return attached if attached in self._read else None if attached else last

    @cached_property
    def _read(self) -> frozenset[str]:
        """What was selected, and the sources that it reads; of a whole project all sources."""
        chosen = [name for name in self.order if self.is_selected(name)]
        sources = self._sources if self._selected is None else {each for name in chosen for each in self.parents(name)}
        return frozenset((*chosen, *(name for name in sources if name in self._sources)))

    def _test(self, unique_id: str, node: Mapping[str, Any], on: TableRef, *, of_source: bool) -> Test:
        # Several projects may look at one table of the lake, each for itself.
        prefix = f"{self._spec.workstream}_{self._spec.name}__" if of_source else ""
        return Test(
            unique_id=unique_id,
            selector="fqn:" + ".".join(node["fqn"]),
            name=prefix + _UNSAFE.sub("_", node["name"]),
            on=on,
            blocking=str(node["config"].get("severity") or "error").lower() == "error",
            reads=tuple(name for name in self.parents(unique_id) if name in self._nodes),
            description=node.get("description") or "",
            unit=node["resource_type"] == "unit_test",
        )

    def _is_published(self, node: Mapping[str, Any]) -> bool:
        return bool(node["package_name"] == self._project) and is_published(node, self._spec)

    def _upstream(self, unique_id: str) -> list[TableRef]:
        found = []
        for parent in self.parents(unique_id):
            if parent in self._sources or self._is_asset(parent):
                found.append(self.ref(parent))
            elif self._nodes[parent]["resource_type"] in _BUILT:
                found += self._upstream(parent)
        return found

    def _is_asset(self, unique_id: str) -> bool:
        """Whether some entry of the project makes an asset of it."""
        return self.is_built(unique_id) and (self.is_selected(unique_id) or self._is_published(self._nodes[unique_id]))

    def _models_above(self, unique_id: str) -> list[str]:
        found = []
        for parent in self.parents(unique_id):
            if parent in self._nodes and self.is_built(parent):
                found.append(parent)
            elif parent in self._nodes and self._nodes[parent]["resource_type"] in _BUILT:
                found += self._models_above(parent)
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
