"""Turns one dbt project into the assets of its models and the checks of its tests.

Not by dagster-dbt: importing it costs seconds in each process that loads definitions, reading columns with it changes
the working folder of the whole process while other steps run in its threads, and it logs dbt's messages as they are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from platform_core.errors import Place, StepError
from platform_core.factories import translation
from platform_core.factories.automation import PROCESSING
from platform_core.factories.inputs import built_inputs
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.step_lines import with_step_lines
from platform_core.operations.dbt import DbtResult, ModelResult, NodeResult, build
from platform_core.operations.dbt_manifest import DbtManifest, Model, Test, read_manifest
from platform_core.operations.dbt_project import open_project, project_folder
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import ColumnSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


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

    @dg.multi_asset(
        name=name,
        specs=[_asset(model, spec, manifest=manifest, folder=folder) for model in project.models],
        check_specs=[_check(test) for test in project.tests],
        can_subset=True,
        required_resource_keys={PLATFORM},
        # Tests of sources are checks of assets that other steps build.
        allow_arbitrary_check_specs=True,
    )
    @with_step_lines
    def models(context: dg.AssetExecutionContext) -> Iterator[Event]:
        resource: PlatformResource = getattr(context.resources, PLATFORM)
        platform = resource.open(context)
        wanted = {model.unique_id for model in project.models if _key(model.ref) in context.selected_asset_keys}
        checks = {test.unique_id for test in project.tests if _check_key(test) in context.selected_asset_check_keys}
        result = build(
            open_project(spec, root=manifest.root, state=platform.state, person=platform.environment.person),
            manifest=project,
            models=wanted,
            tests=checks,
            platform=platform,
        )
        yield from _events(result, project, checks=checks)
        if result.failures:
            raise StepError("\n".join([f"dbt project {spec.workstream}.{spec.name}", *result.failures]))

    return [models] if project.models else []


def _key(ref: TableRef) -> dg.AssetKey:
    return translation.asset_key(ref)


def _check_key(test: Test) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(_key(test.on), test.name)


def _asset(model: Model, spec: DbtSpec, *, manifest: Manifest, folder: Path) -> dg.AssetSpec:
    workstream = manifest.workstream(spec.workstream)
    return dg.AssetSpec(
        _key(model.ref),
        deps=[_key(ref) for ref in built_inputs(model.upstream, manifest=manifest)],
        group_name=translation.group_name(model.ref.workstream, model.ref.layer),
        description=model.description or None,
        owners=translation.owners(model.owners or spec.owners, workstream),
        kinds={"dbt", "duckdb", *(("deltalake",) if model.published else ())},
        tags=translation.tags(spec.workstream, {f"dbt/{tag}": "" for tag in model.tags}),
        metadata=translation.declared_columns(
            {name: ColumnSpec(description=description) for name, description in model.columns.items()}
        )
        | translation.code_reference(Place(folder / model.path, 1))
        | {"dagster/table_name": str(model.ref), "dbt/materialized": model.materialized},
        code_version=model.checksum,
        automation_condition=PROCESSING,
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
        severity=dg.AssetCheckSeverity.ERROR if test.blocking else dg.AssetCheckSeverity.WARN,
        description=node.message or None,
        metadata=metadata,
    )
