"""Turns one processing spec into the asset of its table."""

import dagster as dg

from platform_core.errors import InputsError
from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.automation import PROCESSING
from platform_core.factories.inputs import built_inputs
from platform_core.factories.quality import build_checks, checked_against
from platform_core.factories.readiness import unfit_tables
from platform_core.factories.run_policy import running
from platform_core.factories.success import last_success, success_metadata
from platform_core.operations.platform import Platform
from platform_core.operations.process import StepResult, process
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec, StepKind


def build_processing_asset(spec: ProcessingSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The asset of one step; its body is one call."""
    key = translation.asset_key(spec.ref)
    inputs = tuple(dict.fromkeys((*spec.inputs, *checked_against(spec))))

    def step(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        _refuse_failed(context, spec, manifest=manifest)
        last = last_success(context.instance, key)
        return step_metadata(process(spec, root=manifest.root, platform=platform, last=last), spec)

    return build_asset(
        dg.AssetSpec(
            key,
            deps=[translation.asset_key(ref) for ref in built_inputs(inputs, manifest=manifest)],
            group_name=translation.group_name(spec.workstream, spec.layer),
            description=spec.description or None,
            owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
            kinds={spec.kind, "deltalake"},
            tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
            metadata=translation.declared_columns(spec.columns) | translation.code_reference(spec.place),
            automation_condition=None if spec.paused else PROCESSING,
        ),
        name=translation.op_name(spec.ref),
        body=step,
        how=running(
            spec,
            workstream=manifest.workstream(spec.workstream),
            isolated=spec.isolated,
            engine=translation.SPARK if spec.kind is StepKind.SPARK else translation.ENGINE,
        ),
        checks=build_checks(spec),
    )


def _refuse_failed(context: dg.AssetExecutionContext, spec: ProcessingSpec, *, manifest: Manifest) -> None:
    """A table that is missing, the step itself finds; one that is being loaded is read as it was before."""
    reasons = unfit_tables(
        context.instance,
        built_inputs(spec.inputs, manifest=manifest),
        own_run=context.run.run_id,
        failed_only=True,
    )
    if reasons:
        lines = [f"{ref}: {reason}" for ref, reason in sorted(reasons.items())]
        raise InputsError(
            f"{spec.ref} was not run: what it reads is not fit to be read\n  "
            + "\n  ".join(lines)
            + "\n  mend and run these first; the table stays as it is"
        )


def step_metadata(result: StepResult, spec: ProcessingSpec) -> dg.MaterializeResult[None]:
    """What a step did, as metadata of the materialisation."""
    metadata = (
        dict(result.figures)
        | success_metadata(result)
        | {
            "edp/seconds": result.seconds,
            "edp/rows": result.rows,
            "edp/committed": result.committed,
            "edp/written_bytes": result.written_bytes,
            "edp/read_versions": dg.MetadataValue.json(dict(result.read_versions)),
            "dagster/table_name": str(spec.ref),
        }
    )
    if result.deferred:
        metadata["edp/deferred"] = translation.deferred(result.deferred)
    if result.partitions is not None:
        metadata["edp/partitions"] = result.partitions
    if result.notebook is not None:
        # The UI opens it.
        metadata["edp/notebook"] = dg.MetadataValue.notebook(str(result.notebook))
    if result.version is not None:
        metadata["edp/version"] = result.version
    if result.column_lineage:
        metadata["dagster/column_lineage"] = translation.column_lineage(
            {
                column: [(dg.AssetKey(list(table)), name) for table, name in made_from]
                for column, made_from in result.column_lineage.items()
            }
        )
    if result.schema is not None:
        metadata["dagster/column_schema"] = translation.built_columns(result.schema, spec.columns)
    return dg.MaterializeResult(metadata=metadata)
