"""What a run of a dbt project did, and which of its models are good."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from platform_core.engines.messages import clean_text
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.specs.table import TableRef

_GOOD = ("success", "pass", "warn", "no-op")


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What became of one model or test.

    Args:
        status: dbt's word: success, pass, warn, fail, error, skipped.
        seconds: how long it took.
        message: why it failed, free of row values; empty where it did not.
        failures: rows that a test found wanting; None for a model.
    """

    status: str
    seconds: float
    message: str = ""
    failures: int | None = None

    @property
    def good(self) -> bool:
        """Whether what follows may build on it."""
        return self.status in _GOOD


_NOT_REACHED = NodeResult(status="not reached", seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model that was built, and published if it is one that readers see.

    Args:
        seconds: that dbt took.
        columns: type by column, as dbt's database has them.
        column_lineage: columns that each column is made from: lake tables and models of the project.
        rows: rows published; None where it is not published.
        version: Delta version published; None where it is not published.
        written_bytes: size of the files that were written.
    """

    seconds: float
    columns: Mapping[str, str] = field(default_factory=dict)
    column_lineage: Mapping[str, tuple[tuple[TableRef, str], ...]] = field(default_factory=dict)
    rows: int | None = None
    version: int | None = None
    written_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class DbtResult:
    """What a run of a project did.

    Args:
        models: what is good, by unique id, in build order: built, tested and, where it is to be, published.
        tests: result by unique id of each test that ran.
        failures: why it was not all good, one line each; empty where it was.
        deferred: shared tables that stood in for the person's own, also below views that earlier runs have left.
    """

    models: Mapping[str, ModelResult]
    tests: Mapping[str, NodeResult]
    failures: tuple[str, ...] = ()
    deferred: tuple[TableRef, ...] = ()


def node_result(result: Mapping[str, Any]) -> NodeResult:
    """One entry of dbt's ``run_results.json``."""
    good = result["status"] in _GOOD
    return NodeResult(
        status=result["status"],
        seconds=float(result["execution_time"]),
        message="" if good else clean_text(result.get("message") or ""),
        failures=result.get("failures"),
    )


def is_good(model: Model, manifest: DbtManifest, nodes: Mapping[str, NodeResult]) -> bool:
    """Whether the model was built and passed every test of it that is more than a warning."""
    tests = [test.unique_id for test in manifest.tests if test.blocking and model.unique_id in test.reads]
    return all(unique_id in nodes and nodes[unique_id].good for unique_id in (model.unique_id, *tests))


def failures(
    manifest: DbtManifest, nodes: Mapping[str, NodeResult], *, wanted: Collection[str], built: Collection[str]
) -> Iterator[str]:
    """Why a run was not all good, one line each.

    Args:
        nodes: what became of each node, by unique id.
        wanted: models that were to be built.
        built: those that are good.
    """
    for model in (*manifest.models, *manifest.others):
        if model.unique_id not in wanted or model.unique_id in built:
            continue
        node = nodes.get(model.unique_id, _NOT_REACHED)
        status = "not all of its tests passed" if node.good else node.status
        kept = "; what was published before stays" if model.published else ""
        yield f"{model.ref}: {status}{kept}" + _indented(node.message)
    for test in manifest.tests:
        node = nodes.get(test.unique_id, _NOT_REACHED)
        if node.status in ("fail", "error"):
            kind = "unit test" if test.unit else "test"
            yield f"{kind} {test.name} on {test.on}: {node.status}" + _indented(node.message)
    if unknown := sorted(set(nodes) - {*manifest.any_by_id, *manifest.test_by_id}):
        advice = "edp setup (or make setup) builds the manifest anew; then reload the definitions"
        yield f"{', '.join(unknown)}: not known when definitions were loaded" + _indented(advice)


def _indented(message: str) -> str:
    return f"\n  {message}" if message else ""
