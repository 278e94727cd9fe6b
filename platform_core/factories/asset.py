"""Makes one executable Dagster asset out of a description and a body.

``@dg.asset`` reads the signature of every function it is given; with thousands of tables that is half of the
time a code location takes to load. All our bodies have one signature, so that this is done once here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.definition.asset_spec import AssetExecutionType

from platform_core.errors import PlatformError, unexpected
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.run_policy import Running, bounded
from platform_core.factories.step_lines import with_step_lines
from platform_core.operations.platform import Platform

Body = Callable[[dg.AssetExecutionContext, Platform], dg.MaterializeResult[None] | dg.ObserveResult]
"""Builds the asset (or looks at it) and returns what it did; the platform is opened for the step."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Checks that the step of an asset makes right after it has built it, or alone where only they are asked for.

    Args:
        specs: at least one.
        look: evaluates those of the given names.
    """

    specs: tuple[dg.AssetCheckSpec, ...]
    look: Callable[[Platform, Collection[str]], list[dg.AssetCheckResult]]


Event = dg.MaterializeResult[None] | dg.ObserveResult | dg.AssetCheckResult


def build_asset(
    spec: dg.AssetSpec,
    *,
    name: str,
    body: Body,
    how: Running | None = None,
    checks: Checks | None = None,
    observed: bool = False,
) -> dg.AssetsDefinition:
    """One asset, built by one step.

    Args:
        spec: key, dependencies and description of the asset.
        name: of the step.
        body: what the step does.
        how: the step is run; None: as any step is.
        checks: of the asset; None: it has none.
        observed: whether the body looks at what another system builds.
    """

    def compute(context: dg.AssetExecutionContext, _inputs: Mapping[str, Any]) -> Iterator[Event]:
        resource: PlatformResource = getattr(context.resources, PLATFORM)
        with bounded(context, run):
            try:
                platform = resource.open(context)
                if checks is None or spec.key in context.selected_asset_keys:
                    # Told before anything is checked: the table is there, whatever is the matter with it.
                    yield body(context, platform)
                if checks is not None and (asked := {key.name for key in context.selected_asset_check_keys}):
                    yield from checks.look(platform, asked)
            except _SHOWN_AS_THEY_ARE:
                raise
            except Exception as error:  # noqa: BLE001 - Dagster stores the text of what it is given, row values included
                raise unexpected(error) from None

    run = how or Running()
    # Dagster warns of whoever names it.
    more: dict[str, Any] = {"execution_type": AssetExecutionType.OBSERVATION} if observed else {}
    inputs = {f"input_{number}": dep.asset_key for number, dep in enumerate(spec.deps)}
    checked = {} if checks is None else {each.get_python_identifier(): each for each in checks.specs}
    outs = _NOTHING_OUT if checks is None else dict.fromkeys((*_NOTHING_OUT, *checked), _NOTHING_OR_NONE)
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={"result": spec.key},
        node_def=dg.OpDefinition(
            compute_fn=with_step_lines(compute),
            name=name,
            ins=dict.fromkeys(inputs, _NOTHING_IN),
            outs=outs,
            required_resource_keys={PLATFORM},
            tags=run.tags,
            pool=run.pool,
            retry_policy=run.retries,
        ),
        specs=[spec],
        check_specs_by_output_name=checked,
        # So that a check can be run alone.
        can_subset=checks is not None,
        **more,
    )


_SHOWN_AS_THEY_ARE = (PlatformError, dg.DagsterError, dg.Failure, dg.RetryRequested)
_NOTHING_IN = dg.In(dg.Nothing)
_NOTHING_OUT = {"result": dg.Out(dg.Nothing)}
_NOTHING_OR_NONE = dg.Out(dg.Nothing, is_required=False)
