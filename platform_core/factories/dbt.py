"""Turns one dbt project into the assets of its models and the checks of its tests.

Not by dagster-dbt: importing it costs seconds in each process that loads definitions, reading columns with it changes
the working folder of the whole process while other steps run in its threads, and it logs dbt's messages as they are.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from platform_core.errors import InputsError, Place, PlatformError, StepError, unexpected
from platform_core.factories import translation
from platform_core.factories.automation import PROCESSING
from platform_core.factories.inputs import built_inputs
from platform_core.factories.readiness import unfit_tables
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.run_policy import bounded, running
from platform_core.factories.step_lines import with_step_lines
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import DbtManifest, Model, Test, read_manifest
from platform_core.operations.dbt_project import open_project, project_folder
from platform_core.operations.dbt_results import DbtResult, ModelResult, NodeResult
from platform_core.operations.platform import Platform
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import ColumnSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef

Event = dg.MaterializeResult[None] | dg.AssetCheckResult

_SHOWN_AS_THEY_ARE = (PlatformError, dg.DagsterError, dg.Failure, dg.RetryRequested)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_TAG = 63


def build_dbt_assets(spec: DbtSpec, *, manifest: Manifest) -> list[dg.AssetsDefinition]:
    """One step that builds, tests and publishes a project; any part of it can be selected.

    Args:
        spec: the project.
        manifest: of the location that declares it.

    Raises:
        ConfigError: the project is missing, or its manifest was not built yet.
    """
    folder = project_folder(spec, root=manifest.root)
    project = read_manifest(spec, folder=folder)
    name = translation.op_name(TableRef(spec.workstream, "dbt", spec.name))
    how = running(spec, workstream=manifest.workstream(spec.workstream))

    @dg.multi_asset(
        name=name,
        specs=[_asset(model, spec, project, manifest=manifest, folder=folder) for model in project.models],
        check_specs=[_check(test) for test in project.tests],
        can_subset=True,
        required_resource_keys={PLATFORM},
        op_tags=how.tags,
        pool=how.pool,
        retry_policy=how.retries,
        # Tests of sources are checks of assets that other steps build.
        allow_arbitrary_check_specs=True,
    )
    @with_step_lines
    def models(context: dg.AssetExecutionContext) -> Iterator[Event]:
        resource: PlatformResource = getattr(context.resources, PLATFORM)
        with bounded(context, how):
            try:
                yield from _build(context, spec, project, manifest=manifest, platform=resource.open(context))
            except _SHOWN_AS_THEY_ARE:
                raise
            except Exception as error:  # noqa: BLE001 - Dagster stores the text of what it is given, row values included
                raise unexpected(error) from None

    return [models] if project.models else []


def _build(
    context: dg.AssetExecutionContext,
    spec: DbtSpec,
    project: DbtManifest,
    *,
    manifest: Manifest,
    platform: Platform,
) -> Iterator[Event]:
    wanted = {model.unique_id for model in project.models if _key(model.ref) in context.selected_asset_keys}
    checks = {test.unique_id for test in project.tests if _check_key(test) in context.selected_asset_check_keys}
    _refuse_failed(context, spec, project.reads(wanted), manifest=manifest)
    environment = platform.environment
    opened = open_project(
        spec, root=manifest.root, state=platform.state, person=environment.person, choice=environment.dbt
    )
    result = build(
        opened,
        manifest=project,
        models=wanted,
        tests=checks,
        platform=platform,
        run_id=context.run.run_id,
        full_refresh=platform.run.full_refresh,
    )
    yield from _events(result, project, checks=checks)
    if result.failures:
        raise StepError("\n".join([f"dbt project {spec.workstream}.{spec.name}", *result.failures]))


def _refuse_failed(
    context: dg.AssetExecutionContext, spec: DbtSpec, reads: tuple[TableRef, ...], *, manifest: Manifest
) -> None:
    """The rule of steps: nothing is built on what has failed. A table that is being loaded is read as it was before."""
    reasons = unfit_tables(
        context.instance,
        built_inputs(reads, manifest=manifest),
        own_run=context.run.run_id,
        failed_only=True,
    )
    if reasons:
        lines = [f"{ref}: {reason}" for ref, reason in sorted(reasons.items())]
        raise InputsError(
            f"dbt project {spec.workstream}.{spec.name} was not built: what it reads is not fit to be read\n  "
            + "\n  ".join(lines)
            + "\n  mend and run these first, or select models that do not read them; what is published stays as it is"
        )


def _key(ref: TableRef) -> dg.AssetKey:
    return translation.asset_key(ref)


def _check_key(test: Test) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(_key(test.on), test.name)


def _asset(model: Model, spec: DbtSpec, project: DbtManifest, *, manifest: Manifest, folder: Path) -> dg.AssetSpec:
    workstream = manifest.workstream(spec.workstream)
    return dg.AssetSpec(
        _key(model.ref),
        deps=[_key(ref) for ref in built_inputs(model.upstream, manifest=manifest)],
        group_name=translation.group_name(model.ref.workstream, model.ref.layer),
        description=model.description or None,
        owners=translation.owners(model.owners or spec.owners, workstream),
        kinds={"dbt", project.adapter, *(("deltalake",) if model.published else ())},
        tags=translation.tags(
            spec.workstream,
            {f"dbt/{_UNSAFE.sub('_', tag)[:_LONGEST_TAG]}": "" for tag in model.tags},
            paused=spec.paused,
        ),
        metadata=translation.declared_columns(
            {name: ColumnSpec(description=description) for name, description in model.columns.items()}
        )
        | translation.code_reference(Place(folder / model.path, 1))
        | {"dagster/table_name": str(model.ref), "dbt/materialized": model.materialized},
        code_version=model.checksum,
        automation_condition=None if spec.paused else PROCESSING,
        skippable=True,
    )


def _check(test: Test) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        test.name, asset=_key(test.on), description=test.description or None, blocking=test.blocking
    )


def _events(result: DbtResult, project: DbtManifest, *, checks: set[str]) -> Iterator[Event]:
    """What is good first: a failed blocking check ends the step."""
    for unique_id, built in result.models.items():
        yield _materialization(project.model_by_id[unique_id], built, deferred=result.deferred)
    ran = [(project.test_by_id[unique_id], node) for unique_id, node in result.tests.items() if unique_id in checks]
    for test, node in sorted(ran, key=lambda pair: not pair[1].good):
        if node.status != "skipped":
            yield _check_result(test, node)


def _materialization(model: Model, built: ModelResult, *, deferred: tuple[TableRef, ...]) -> dg.MaterializeResult[None]:
    metadata: dict[str, Any] = {
        "edp/seconds": built.seconds,
        "dagster/table_name": str(model.ref),
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(name, type_.lower(), description=model.columns.get(name) or None)
                for name, type_ in built.columns.items()
            ]
        ),
        "dagster/column_lineage": translation.column_lineage(
            {
                column: [(_key(ref), origin) for ref, origin in origins]
                for column, origins in built.column_lineage.items()
            }
        ),
    }
    if built.version is not None:
        metadata |= {"edp/rows": built.rows, "edp/version": built.version, "dagster/row_count": built.rows}
    if read := [ref for ref in model.upstream if ref in deferred]:
        metadata["edp/deferred"] = translation.deferred(read)
    return dg.MaterializeResult(asset_key=_key(model.ref), metadata=metadata)


def _check_result(test: Test, node: NodeResult) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"dbt/status": node.status, "edp/seconds": node.seconds}
    if node.failures is not None:
        metadata["dbt/failed_rows"] = node.failures
    return dg.AssetCheckResult(
        asset_key=_key(test.on),
        check_name=test.name,
        passed=node.status == "pass",
        # A test may warn of few failures and fail for many: error_if, warn_if.
        severity=dg.AssetCheckSeverity.WARN
        if node.status == "warn" or not test.blocking
        else dg.AssetCheckSeverity.ERROR,
        description=node.message or None,
        metadata=metadata,
    )
