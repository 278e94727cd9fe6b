"""Turns one refresh spec into the asset of a dashboard."""

from typing import Any

import dagster as dg

from platform_core.errors import InputsError
from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.automation import REFRESH, declared_checks, looked_behind
from platform_core.factories.inputs import built_inputs
from platform_core.factories.readiness import unfit_tables
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import RefreshOutcome, refresh
from platform_core.specs.manifest import Manifest
from platform_core.specs.refresh import RefreshSpec


def build_refresh_asset(spec: RefreshSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The asset of one dashboard."""
    connection = manifest.connection(spec.workstream, spec.connection) if spec.connection else None

    def dashboard(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        _refuse_unfit(context, spec, manifest=manifest, deferring=platform.environment.developer)
        return refresh_metadata(refresh(spec, connection=connection, root=manifest.root, platform=platform))

    return build_asset(describe_dashboard(spec, manifest=manifest), name=translation.op_name(spec.ref), body=dashboard)


def describe_dashboard(spec: RefreshSpec, *, manifest: Manifest) -> dg.AssetSpec:
    """A dashboard with what it shows; alone, it is one that is not refreshed here."""
    return dg.AssetSpec(
        translation.asset_key(spec.ref),
        deps=[translation.asset_key(ref) for ref in built_inputs(spec.inputs, manifest=manifest)],
        group_name=translation.group_name(spec.workstream, "dashboard"),
        description=spec.description or spec.title or None,
        owners=translation.owners(spec.owners, manifest.workstream(spec.workstream)),
        kinds={"dashboard", spec.type},
        tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
        metadata=translation.code_reference(spec.place),
        automation_condition=None if spec.paused else REFRESH,
    )


def refresh_metadata(outcome: RefreshOutcome) -> dg.MaterializeResult[None]:
    """What a refresh did, as metadata of the materialisation."""
    metadata: dict[str, Any] = {
        "edp/as_of": dg.MetadataValue.timestamp(outcome.as_of),
        "edp/versions": dg.MetadataValue.json(dict(outcome.versions)),
        "edp/seconds": outcome.seconds,
        **outcome.figures,
    }
    if outcome.deferred:
        metadata["edp/deferred"] = translation.deferred(outcome.deferred)
    if outcome.url:
        metadata["dashboard"] = dg.MetadataValue.url(outcome.url)
    return dg.MaterializeResult(metadata=metadata)


def _refuse_unfit(context: dg.AssetExecutionContext, spec: RefreshSpec, *, manifest: Manifest, deferring: bool) -> None:
    graph = context.repository_def.asset_graph
    shown = {translation.asset_key(ref) for ref in built_inputs(spec.inputs, manifest=manifest)}
    behind = looked_behind(graph, shown)
    reasons = unfit_tables(
        context.instance,
        [ref for key in sorted(shown | behind) if (ref := translation.table_ref(key))],
        deferring=deferring,
        checks=lambda key: declared_checks(graph, key),
        own_run=context.run.run_id,
    )
    if reasons:
        lines = [f"{ref}: {reason}" for ref, reason in sorted(reasons.items())]
        raise InputsError(
            f"{spec.ref} was not refreshed: what it shows is not up to date\n  "
            + "\n  ".join(lines)
            + "\n  mend and run these first; the dashboard keeps showing its last state"
        )
