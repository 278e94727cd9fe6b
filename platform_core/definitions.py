"""The composition root: control metadata of one location in, Dagster definitions out."""

import atexit
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest_cached
from platform_core.execution import threaded_executor
from platform_core.factories import translation
from platform_core.factories.dbt import build_dbt_assets
from platform_core.factories.ingestion import build_ingestion_assets
from platform_core.factories.io_manager import refusing_io_manager
from platform_core.factories.jobs import build_automation_sensor, build_job, build_schedule
from platform_core.factories.lease_reaper import build_lease_reaper
from platform_core.factories.processing import build_processing_asset
from platform_core.factories.refresh import build_refresh_asset
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.upkeep import build_upkeep_asset
from platform_core.settings import Settings, read_settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest


def build_definitions(control: Path, *, settings: Settings | None = None) -> dg.Definitions:
    """Everything that a location declares, as Dagster definitions.

    Args:
        control: the location's folder of control files.
        settings: where this installation keeps its files; default: read from the process's environment.

    Raises:
        ConfigError: control files or the environment's file are wrong; the message holds every fault found,
            with file and line.
    """
    settings = settings or read_settings(start=control)
    environment = load_environment(settings)
    with _collector_paused(), warnings.catch_warnings():
        manifest = load_manifest_cached(control, environment=settings.environment, state=settings.state)
        # Code references are "beta" in Dagster; one warning for each of thousands of tables helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return assemble(manifest, environment)


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


def assemble(manifest: Manifest, environment: EnvironmentSpec) -> dg.Definitions:
    """Dagster definitions of a manifest."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = build_ingestion_assets(manifest)
    assets += [build_processing_asset(spec, manifest=manifest) for spec in manifest.steps]
    for project in manifest.dbt:
        assets += build_dbt_assets(project, manifest=manifest)
    assets += [build_refresh_asset(spec, manifest=manifest) for spec in manifest.refreshes]
    assets += [build_upkeep_asset(spec, manifest=manifest) for spec in manifest.upkeep]

    keys = _executable_keys(assets)
    workstreams = [spec for spec in manifest.location.workstreams if spec.name in keys]
    return dg.Definitions(
        assets=assets,
        jobs=[build_job(spec, keys[spec.name]) for spec in workstreams],
        schedules=[
            schedule for spec in workstreams for schedule in build_schedule(spec, running=environment.schedules)
        ],
        sensors=[
            *([build_automation_sensor(manifest, environment)] if keys else []),
            *([build_lease_reaper(environment)] if manifest.upkeep else []),
        ],
        resources={PLATFORM: PlatformResource(), "io_manager": refusing_io_manager},
        executor=threaded_executor.configured(
            {
                "max_concurrent": environment.max_concurrent,
                "tag_concurrency_limits": translation.concurrency_limits(manifest.connections),
            }
        ),
    )


def _executable_keys(assets: list[dg.AssetsDefinition | dg.AssetSpec]) -> dict[str, list[dg.AssetKey]]:
    keys: dict[str, list[dg.AssetKey]] = {}
    for asset in assets:
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
            for key in asset.keys:
                keys.setdefault(key.path[0], []).append(key)
    return keys
