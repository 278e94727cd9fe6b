"""Makes one executable Dagster asset out of a description and a body.

``@dg.asset`` reads the signature of every function it is given; with thousands of tables that is half of the
time a code location takes to load. All our bodies have one signature, so that this is done once here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from platform_core.errors import PlatformError, unexpected
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.operations.platform import Platform

Body = Callable[[dg.AssetExecutionContext, Platform], dg.MaterializeResult[None]]
"""Builds the asset and returns what it did; the platform is opened for the step."""


def build_asset(
    spec: dg.AssetSpec, *, name: str, body: Body, op_tags: Mapping[str, str] | None = None
) -> dg.AssetsDefinition:
    """One asset, built by one step.

    Args:
        spec: key, dependencies and description of the asset.
        name: of the step.
        body: what the step does.
        op_tags: tags of the step, read by the executor.
    """

    def compute(context: dg.AssetExecutionContext, _inputs: Mapping[str, Any]) -> Iterator[dg.MaterializeResult[None]]:
        resource: PlatformResource = getattr(context.resources, PLATFORM)
        try:
            made = body(context, resource.open(context))
        except _SHOWN_AS_THEY_ARE:
            raise
        except Exception as error:  # noqa: BLE001 - Dagster stores the text of what it is given, row values included
            raise unexpected(error) from None
        yield made

    inputs = {f"input_{number}": dep.asset_key for number, dep in enumerate(spec.deps)}
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={"result": spec.key},
        node_def=dg.OpDefinition(
            compute_fn=compute,
            name=name,
            ins=dict.fromkeys(inputs, _NOTHING_IN),
            outs=_NOTHING_OUT,
            required_resource_keys={PLATFORM},
            tags=op_tags,
        ),
        specs=[spec],
    )


_SHOWN_AS_THEY_ARE = (PlatformError, dg.DagsterError, dg.Failure, dg.RetryRequested)
_NOTHING_IN = dg.In(dg.Nothing)
_NOTHING_OUT = {"result": dg.Out(dg.Nothing)}
