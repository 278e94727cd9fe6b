"""Turns the spec of something that another system owns into an asset that is observed and never built."""

import datetime as dt
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.asset import build_asset
from platform_core.factories.automation import Looked
from platform_core.factories.run_policy import running
from platform_core.factories.standing import UNCHANGED_SINCE, newest_observation
from platform_core.operations.external_asset import Seen, look, refuse_stale
from platform_core.operations.platform import Platform
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec

_FIRST_SEEN = "edp/first_seen"


def build_external_asset(spec: ProcessingSpec, *, manifest: Manifest) -> dg.AssetsDefinition:
    """The observable asset of something external.

    Each look is an event of its own. As long as the version stays the same, later ones point to the first that told
    it, so that whoever depends on the asset is not run for a look that found nothing new.
    """
    key = translation.asset_key(spec.ref)
    workstream = manifest.workstream(spec.workstream)
    connection = manifest.connection(spec.workstream, spec.source) if spec.source else None

    def observe(context: dg.AssetExecutionContext, platform: Platform) -> dg.ObserveResult:
        seen = look(spec, connection=connection, platform=platform)
        now = dt.datetime.now(dt.UTC)
        tags, first_seen = _held_against_the_last_look(context.instance, key, seen, now=now)
        refuse_stale(spec, seen, first_seen=first_seen, now=now)
        return _observed(key, seen, tags, first_seen=first_seen, now=now)

    with warnings.catch_warnings():
        # Observable assets that are not made by a decorator are "beta" in Dagster.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return build_asset(
            dg.AssetSpec(
                key,
                group_name=translation.group_name(spec.workstream, spec.layer),
                description=spec.description or _described(spec),
                owners=translation.owners(spec.owners, workstream),
                kinds={"external", connection.type if connection else "deltalake"},
                tags=translation.tags(spec.workstream, spec.tags, paused=spec.paused),
                metadata=translation.code_reference(spec.place),
                automation_condition=None if spec.paused or spec.every is None else Looked(every=spec.every),
            ),
            name=translation.op_name(spec.ref),
            body=observe,
            how=running(spec, workstream=workstream, isolated=spec.isolated, connection=connection),
            observed=True,
        )


def _described(spec: ProcessingSpec) -> str:
    if spec.source is None:
        return "A table of the lake that another system writes; here it is looked at, and never written."
    return f"{spec.source} · {spec.object}; another system owns it, and here it is looked at."


def _held_against_the_last_look(
    instance: dg.DagsterInstance, key: dg.AssetKey, seen: Seen, *, now: dt.datetime
) -> tuple[dict[str, str], dt.datetime]:
    """Tags that point to the look that first told this version, and when that was."""
    last = newest_observation(instance, key)
    if last is None or last.version != seen.version:
        return {}, now
    since = last.metadata.get(_FIRST_SEEN)
    first_seen = dt.datetime.fromtimestamp(since.value, dt.UTC) if isinstance(since, dg.TimestampMetadataValue) else now
    return {UNCHANGED_SINCE: str(last.position)}, first_seen


def _observed(
    key: dg.AssetKey, seen: Seen, tags: Mapping[str, str], *, first_seen: dt.datetime, now: dt.datetime
) -> dg.ObserveResult:
    metadata: dict[str, Any] = {
        **{f"edp/{name}": value for name, value in seen.figures.items()},
        "edp/changed": not tags,
        "edp/seconds": seen.seconds,
        _FIRST_SEEN: dg.MetadataValue.timestamp(first_seen),
    }
    if seen.changed_at is not None:
        # Dagster's own freshness goes by this name.
        metadata["dagster/last_updated_timestamp"] = dg.MetadataValue.timestamp(seen.changed_at)
    age = seen.age(first_seen=first_seen, now=now)
    if age is not None:
        metadata["edp/age_seconds"] = round(age.total_seconds(), 3)
    return dg.ObserveResult(
        asset_key=key, metadata=metadata, data_version=dg.DataVersion(seen.version), tags=dict(tags)
    )
