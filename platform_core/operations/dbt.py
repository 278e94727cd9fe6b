"""Run a dbt project over the lake's tables, and publish the models that readers see as Delta tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from platform_core.control.loads import Ticket
from platform_core.errors import StepError
from platform_core.operations.column_lineage import column_lineage
from platform_core.operations.dbt_lease import leased_build
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.operations.dbt_project import DbtProject, prepare_target
from platform_core.operations.dbt_results import DbtResult, ModelResult, failures, is_good, node_result
from platform_core.operations.dbt_run import run_build
from platform_core.operations.dbt_warehouse import Built, Publisher, Relation, warehouse_of
from platform_core.operations.platform import Platform
from platform_core.specs.table import TableRef

_PART = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|([^.]+)')


def build(
    project: DbtProject,
    *,
    manifest: DbtManifest,
    models: Collection[str],
    tests: Collection[str],
    platform: Platform,
    run_id: str | None = None,
    full_refresh: bool = False,
) -> DbtResult:
    """Build models, run their tests, and publish each model that passed all tests that are more than a warning.

    A model that failed, or one of whose tests failed or did not run, keeps the version that was published before. One
    build of a project runs at a time: another waits for its end.

    Args:
        project: the project.
        manifest: what it consists of.
        models: unique ids of the models to build.
        tests: unique ids of tests to run beside those of the models.
        platform: the environment.
        run_id: the Dagster run, for the load log.
        full_refresh: make incremental models and seeds anew; snapshots keep their history, as dbt has it.

    Raises:
        StepError: dbt did not run to its end, or the run was cancelled; nothing was published.
        LeaseError: a later build was under way; what it published stays.
        ControlError: the control database cannot be reached; nothing was built.
        StorageError: the lake refused to be written.
    """
    chosen = {*tests, *(test.unique_id for test in manifest.tests if _concerns(test.reads, models))}
    wanted = [model for model in manifest.models if model.unique_id in models]
    with (
        _logged(leased_build(project, models=wanted, platform=platform, run_id=run_id)) as attempt,
        project.locked(cancelled=platform.cancelled, log=platform.log.info) as lock,
    ):
        prepare_target(project)
        warehouse = warehouse_of(project, platform)
        tested = {test.on for test in manifest.tests if test.unique_id in chosen}
        more = warehouse.prepare(manifest, wanted=models, tested=tested, full_refresh=full_refresh)
        built_too = {*models, *more.built}
        results = run_build(
            project,
            [*(("--full-refresh",) if full_refresh else ()), *_selection(manifest, models=built_too, tests=chosen)],
            lock=lock,
            platform=platform,
            deferred=more.as_variable(),
            variables=warehouse.variables(),
        )
        nodes = {unique_id: node_result(result) for unique_id, result in results.items()}
        good = [model for model in wanted if is_good(model, manifest, nodes)]
        built: dict[str, ModelResult] = {}
        deferred: tuple[TableRef, ...] = ()
        if good:
            with warehouse.built() as found:
                collector = _Collector(manifest, results, found, attempt.ticket, platform)
                built = {model.unique_id: collector.collect(model) for model in good}
                deferred = found.deferred()
        good_too = {each for each in more.built if each in nodes and nodes[each].good}
        attempt.result = DbtResult(
            models=built,
            tests={unique_id: nodes[unique_id] for unique_id in sorted(chosen) if unique_id in nodes},
            failures=tuple(failures(manifest, nodes, wanted=built_too, built={*built, *good_too})),
            deferred=deferred,
        )
    return attempt.result


class _Attempt:
    """A build under way, and what came of it."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.result = DbtResult(models={}, tests={})


@contextmanager
def _logged(lease: AbstractContextManager[Ticket]) -> Iterator[_Attempt]:
    """Write into the load log how a build ended; one of which a part failed has failed, though it has a result."""
    attempt: _Attempt | None = None
    try:
        with lease as ticket:
            attempt = _Attempt(ticket)
            yield attempt
            result = attempt.result
            if result.failures:
                raise _PartlyFailedError("\n".join(result.failures))
            published = [model for model in result.models.values() if model.version is not None]
            ticket.finish(
                status="succeeded",
                figures={
                    "models": len(result.models),
                    "tests": len(result.tests),
                    "published": len(published),
                    "bytes_written": sum(model.written_bytes for model in published),
                    "committed": bool(published),
                },
            )
    except _PartlyFailedError:
        return


class _PartlyFailedError(StepError):
    """Not all models of a build are good."""


class _Collector:
    """Looks at good models in dbt's database, and publishes those that readers see."""

    def __init__(
        self,
        manifest: DbtManifest,
        results: Mapping[str, Mapping[str, Any]],
        built: Built,
        ticket: Ticket,
        platform: Platform,
    ) -> None:
        self._manifest = manifest
        self._results = results
        self._built = built
        self._columns = built.columns()
        self._ticket = ticket
        self._publisher = Publisher(platform, ticket.batch_id)

    def collect(self, model: Model) -> ModelResult:
        result = self._results[model.unique_id]
        relation = _relation(result, model)
        found = ModelResult(
            seconds=float(result["execution_time"]),
            columns=self._columns.get(relation, {}),
            column_lineage=_lineage(result, self._columns, self._manifest, dialect=self._built.dialect),
        )
        if not model.published:
            return found
        # Right before the commit: whoever has lost the lease has no right to it any more.
        self._ticket.confirm()
        written = self._publisher.publish(model, relation, self._built)
        return replace(found, rows=written.rows, version=written.version, written_bytes=written.bytes)


def _concerns(read: Sequence[str], models: Collection[str]) -> bool:
    return any(unique_id in models for unique_id in read)


def _selection(manifest: DbtManifest, *, models: Collection[str], tests: Collection[str]) -> list[str]:
    """Arguments that select exactly these nodes; none where that is all there is."""
    if not manifest.others and len(models) == len(manifest.models) and len(tests) == len(manifest.tests):
        return []
    selectors = [
        *(model.selector for model in manifest.any_by_id.values() if model.unique_id in models),
        *(test.selector for test in manifest.tests if test.unique_id in tests),
    ]
    return ["--indirect-selection", "empty", "--select", *selectors]


def _relation(result: Mapping[str, Any], model: Model) -> Relation:
    """Where a model is in dbt's database; another target than that of the manifest may have other schemas."""
    parts = _parts(result)
    return (parts[-2], parts[-1]) if len(parts) > 1 else model.relation


def _parts(result: Mapping[str, Any]) -> list[str]:
    return [quoted or ticked or plain for quoted, ticked, plain in _PART.findall(result.get("relation_name") or "")]


def _lineage(
    result: Mapping[str, Any],
    columns: Mapping[Relation, Mapping[str, str]],
    manifest: DbtManifest,
    *,
    dialect: str,
) -> dict[str, tuple[tuple[TableRef, str], ...]]:
    code = result.get("compiled_code")
    parts = _parts(result)
    if not code or not parts:
        return {}
    # Spark has none: its relations are schema and name.
    database = parts[0] if len(parts) > 2 else ""
    refs = {(database, *model.relation): model.ref for model in manifest.any_by_id.values()} | {
        (database, source.layer, source.name): source for source in manifest.sources
    }
    schemas = {(database, *name): tuple(types) for name, types in columns.items()}
    return {
        column: tuple((refs[table], origin) for table, origin in origins if table in refs)
        for column, origins in column_lineage(str(code), schemas=schemas, dialect=dialect).items()
    }
