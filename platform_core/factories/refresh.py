"""Turns one refresh spec into the asset of a dashboard."""

from typing import Any, NoReturn

import dagster as dg

from platform_core.errors import InputsError
from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.automation import REFRESH, REFRESH_LATEST, declared_checks, is_paused, looked_behind
from platform_core.factories.cuts import mixed
from platform_core.factories.inputs import built_inputs
from platform_core.factories.readiness import unfit_tables
from platform_core.factories.run_policy import running
from platform_core.factories.standing import Standing
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import RefreshOutcome, refresh
from platform_core.plugins.interfaces import ShownTable
from platform_core.specs.manifest import Manifest
from platform_core.specs.refresh import Cut, RefreshSpec


def build_refresh_asset(spec: RefreshSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The asset of one dashboard."""
    connection = manifest.connection(spec.workstream, spec.connection) if spec.connection else None

    def dashboard(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
        deferring = platform.environment.developer
        outcome = refresh(
            spec,
            connection=connection,
            root=manifest.root,
            platform=platform,
            judge=lambda: _judge(context, spec, manifest=manifest, deferring=deferring),
            run_id=context.run.run_id,
        )
        return refresh_metadata(outcome)

    return build_asset(
        describe_dashboard(spec, manifest=manifest),
        name=translation.op_name(spec.ref),
        body=dashboard,
        how=running(spec, workstream=manifest.workstream(spec.workstream), connection=connection),
    )


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
        automation_condition=None if spec.paused else REFRESH_LATEST if spec.cut is Cut.LATEST else REFRESH,
    )


def refresh_metadata(outcome: RefreshOutcome) -> dg.MaterializeResult[None]:
    """What a refresh did, as metadata of the materialisation."""
    metadata: dict[str, Any] = {
        "edp/as_of": dg.MetadataValue.timestamp(outcome.as_of),
        "edp/versions": dg.MetadataValue.json(outcome.versions),
        "edp/cut": dg.MetadataValue.json({name: _cut_entry(shown) for name, shown in outcome.cut.items()}),
        "edp/seconds": outcome.seconds,
        **outcome.figures,
    }
    if outcome.moved:
        metadata["edp/moved"] = dg.MetadataValue.json(list(outcome.moved))
    if outcome.deferred:
        metadata["edp/deferred"] = translation.deferred(outcome.deferred)
    if outcome.url:
        metadata["dashboard"] = dg.MetadataValue.url(outcome.url)
    return dg.MaterializeResult(metadata=metadata)


def _cut_entry(shown: ShownTable) -> dict[str, int | str | None]:
    made_at = shown.made_at.isoformat() if shown.made_at else None
    return {"version": shown.version, "batch": shown.batch, "made_at": made_at}


def _judge(
    context: dg.AssetExecutionContext, spec: RefreshSpec, *, manifest: Manifest, deferring: bool
) -> tuple[int, ...]:
    """Positions of what is shown, where it may be shown now; raises InputsError where it may not."""
    graph, standing = context.repository_def.asset_graph, Standing(context.instance)
    own, run = translation.asset_key(spec.ref), context.run.run_id
    shown = {translation.asset_key(ref) for ref in built_inputs(spec.inputs, manifest=manifest)}
    standing.read([own, *shown])
    if (other := standing.building_before(own, run)) is not None:
        raise InputsError(
            f"{spec.ref} was not refreshed: run {other[:8]}, which began earlier, refreshes it"
            "\n  look at that run; the dashboard is due again if a table is newer by then"
        )
    reasons = unfit_tables(
        context.instance,
        [ref for key in sorted(shown | looked_behind(graph, shown)) if (ref := translation.table_ref(key))],
        deferring=deferring,
        checks=lambda key: declared_checks(graph, key),
        own_run=run,
    )
    if reasons:
        _refuse(spec, [f"{ref}: {reason}" for ref, reason in sorted(reasons.items())])
    if spec.cut is Cut.CONSISTENT:
        found = mixed(shown, standing=standing, still=lambda key: is_paused(graph, key))
        if found is not None:
            older = ", ".join(_named(key) for key in found.older)
            _refuse(
                spec,
                [
                    f"{_named(found.newest)} is made from a newer {_named(found.source)} than {older}",
                    "a dashboard that shows them all the same: 'cut: latest'",
                ],
            )
    built = (standing.built(key) for key in sorted(shown))
    return tuple(each.position if each else 0 for each in built)


def _refuse(spec: RefreshSpec, lines: list[str]) -> NoReturn:
    raise InputsError(
        f"{spec.ref} was not refreshed: what it shows is not up to date\n  "
        + "\n  ".join(lines)
        + "\n  mend and run these first; the dashboard keeps showing its last state"
    )


def _named(key: dg.AssetKey) -> str:
    return ".".join(key.path)
