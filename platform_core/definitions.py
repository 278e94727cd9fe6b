"""The composition root: control metadata of one location in, Dagster definitions out."""

import atexit
import gc
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dagster as dg

from platform_core.control.authorship import git_commit
from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest_cached
from platform_core.control.snapshot.loading import load_snapshot_cached
from platform_core.control.snapshot.probing import Probe
from platform_core.execution import threaded_executor
from platform_core.execution.pinning import pin_snapshot, pinned_snapshot
from platform_core.factories import translation
from platform_core.factories.alerts import build_alert_sensors
from platform_core.factories.applied_metadata import (
    build_metadata_asset,
    build_metadata_check,
    build_metadata_sensor,
)
from platform_core.factories.dbt import build_dbt_assets
from platform_core.factories.external import build_external_asset
from platform_core.factories.ingestion import build_ingestion_assets
from platform_core.factories.io_manager import refusing_io_manager
from platform_core.factories.jobs import build_automation_sensors, build_job, build_schedule
from platform_core.factories.lease_reaper import build_lease_reaper
from platform_core.factories.processing import build_processing_asset
from platform_core.factories.refresh import build_refresh_asset, describe_dashboard
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.upkeep import build_upkeep_asset
from platform_core.operations.refresh import is_refreshed_here
from platform_core.settings import Settings, read_settings
from platform_core.specs.environment import EnvironmentSpec, ManifestOrigin
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import StepKind


def build_definitions(
    control: Path, *, settings: Settings | None = None, location: str | None = None
) -> dg.Definitions:
    """Everything that a location declares, as Dagster definitions.

    Where the environment says ``control.manifest: snapshot``, it is what was applied and published last, and no control
    file is read; the control database is asked in neither case.

    Args:
        control: the location's folder of control files.
        settings: where this installation keeps its files; default: read from the process's environment.
        location: under which name it is published; default: that of the package.

    Raises:
        ConfigError: control files or the environment's file are wrong; the message holds every fault found,
            with file and line.
        SnapshotError: nothing is published of the location, or it is damaged, or not for this environment or release.
        StorageError: the storage of snapshots refuses.
    """
    settings = settings or read_settings(start=control)
    environment = load_environment(settings)
    with _collector_paused(), warnings.catch_warnings():
        # Code references are "beta" in Dagster; one warning for each of thousands of tables helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        if environment.control.manifest is ManifestOrigin.SNAPSHOT:
            return _of_snapshot(control.absolute().parent, environment, settings=settings, location=location)
        manifest = load_manifest_cached(control, environment=settings.environment, state=settings.state)
        return assemble(manifest, environment, tags=_tags_of_files(control))


def _of_snapshot(
    root: Path, environment: EnvironmentSpec, *, settings: Settings, location: str | None
) -> dg.Definitions:
    name = location or root.name
    snapshot = load_snapshot_cached(root, settings=settings, location=location, digest=pinned_snapshot(name))
    pin_snapshot(name, snapshot.digest)
    of = snapshot.provenance
    tags = translation.metadata_tags(serial=of.serial, git_commit=of.git_commit)
    probe = Probe(snapshot, environment, state=settings.state)
    return dg.Definitions.merge(
        assemble(snapshot.manifest, environment, tags=tags),
        dg.Definitions(
            assets=[build_metadata_asset(snapshot)],
            asset_checks=[build_metadata_check(name, probe)],
            sensors=[build_metadata_sensor(name, probe)],
        ),
    )


@cache
def _tags_of_files(control: Path) -> dict[str, str]:
    return translation.metadata_tags(serial=None, git_commit=git_commit(control))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking a growing pile of objects, none of which is garbage, again and again.

    What is built lives as long as the process, so that later collections need not look at it either.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
        # At the end of the process everything may go, or libraries complain of objects that nobody collected.
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()


def assemble(manifest: Manifest, environment: EnvironmentSpec, *, tags: Mapping[str, str]) -> dg.Definitions:
    """Dagster definitions of a manifest; ``tags`` are those of all runs."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = build_ingestion_assets(manifest)
    assets += [
        build_external_asset(spec, manifest=manifest)
        if spec.kind is StepKind.EXTERNAL
        else build_processing_asset(spec, manifest=manifest)
        for spec in manifest.steps
    ]
    for project in manifest.dbt:
        assets += build_dbt_assets(project, manifest=manifest)
    assets += [
        build_refresh_asset(spec, manifest=manifest)
        if is_refreshed_here(spec.type, environment)
        else describe_dashboard(spec, manifest=manifest)
        for spec in manifest.refreshes
    ]
    assets += [build_upkeep_asset(spec, manifest=manifest) for spec in manifest.upkeep]

    engines = {
        translation.ENGINE: environment.engine.max_concurrent,
        translation.SPARK: environment.spark.max_concurrent if environment.spark else None,
    }
    keys = _executable_keys(assets)
    workstreams = [spec for spec in manifest.location.workstreams if spec.name in keys]
    return dg.Definitions(
        assets=assets,
        jobs=[build_job(spec, keys[spec.name], metadata=tags) for spec in workstreams],
        schedules=[
            schedule for spec in workstreams for schedule in build_schedule(spec, running=environment.schedules)
        ],
        sensors=[
            *(build_automation_sensors(manifest, environment, _automated(assets), metadata=tags) if keys else []),
            *([build_lease_reaper(environment)] if manifest.upkeep else []),
            *build_alert_sensors(manifest, environment),
        ],
        resources={PLATFORM: PlatformResource(), "io_manager": refusing_io_manager},
        executor=threaded_executor.configured(
            {
                "max_concurrent": environment.max_concurrent,
                "tag_concurrency_limits": translation.concurrency_limits(manifest.connections, engines=engines),
                "pool_limits": translation.pool_limits(manifest.connections, engines=engines),
                "run_tags": dict(tags),
            }
        ),
    )


def _executable_keys(assets: list[dg.AssetsDefinition | dg.AssetSpec]) -> dict[str, list[dg.AssetKey]]:
    keys: dict[str, list[dg.AssetKey]] = {}
    for asset in assets:
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
            for key in asset.keys:
                if translation.PAUSED_TAG not in asset.tags_by_key[key]:
                    keys.setdefault(key.path[0], []).append(key)
    return keys


def _automated(assets: list[dg.AssetsDefinition | dg.AssetSpec]) -> dict[dg.AssetKey, int]:
    """What has a condition, with the priority of its step."""
    return {
        key: int(asset.op.tags.get(translation.PRIORITY_TAG, 0)) if asset.is_executable else 0
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition)
        for key in asset.automation_conditions_by_key
    }
