"""What of a dbt project differs from what is deployed, and a build of just that which touches nothing deployed.

The manifest that was deployed last is kept per environment, beside the published snapshots. Whoever builds what differs
reads everything else from the deployed tables, as a person in a personal environment does.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platform_core.control.snapshot.folders import Folder, open_folder
from platform_core.errors import ConfigError, Issue, Place, StorageError
from platform_core.lake.paths import Lake
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import DbtManifest, read_manifest
from platform_core.operations.dbt_project import DbtProject, selected, state_folder
from platform_core.operations.dbt_results import DbtResult
from platform_core.operations.own_tables import drop_own, own_tables
from platform_core.operations.platform import Platform
from platform_core.specs.environment import EnvironmentSpec

_FOLDER = "_dbt"
"""Beside the folders of locations, whose names begin with a letter."""

_KINDS = ("model", "seed", "snapshot", "test", "unit_test")
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs from the deployed manifest.

    Args:
        models: unique ids of models to build, in build order: those that differ, those that are made from them, and
            those whose tests differ.
        deployed: whether there is a deployed manifest; else everything differs.
    """

    models: tuple[str, ...]
    deployed: bool


def deployed_folder(environment: EnvironmentSpec, *, state: Path) -> Folder:
    """Where the deployed manifests of an environment are kept.

    Raises:
        StorageError: the storage of snapshots cannot be used.
    """
    return open_folder(environment, state=state)


def keep_deployed(project: DbtProject, folder: Folder) -> bool:
    """Keep the manifest of a project as the deployed one; returns whether another was kept before.

    Raises:
        ConfigError: the manifest is missing, or older than the project's files.
        StorageError: the storage refused.
    """
    if project.manifest_is_stale():
        raise ConfigError(
            [
                Issue(
                    project.spec.place or Place(project.folder),
                    f"the manifest of dbt project '{project.spec.name}' is missing, or older than its files",
                    ("edp setup builds it",),
                )
            ]
        )
    content, name = project.manifest.read_bytes(), _file(project)
    for _ in range(_ATTEMPTS):
        held = folder.read(name)
        if held is not None and held.content == content:
            return False
        if folder.replace(name, content, before=held):
            return True
    raise StorageError(f"{folder.shown(name)}: others replaced it {_ATTEMPTS} times meanwhile\n  try again")


def difference(project: DbtProject, folder: Folder, *, lake: Lake) -> Difference:
    """Ask dbt what differs from the deployed manifest (``state:modified+``).

    Raises:
        ConfigError: the project cannot be read, or has no manifest.
        StorageError: the storage of snapshots refused.
    """
    manifest = read_manifest(project.spec, folder=project.folder)
    held = folder.read(_file(project))
    if held is None:
        return Difference(models=tuple(manifest.model_by_id), deployed=False)
    with tempfile.TemporaryDirectory(prefix="dbt-state-") as scratch:
        before, target = Path(scratch) / "before", Path(scratch) / "target"
        before.mkdir()
        (before / "manifest.json").write_bytes(held.content)
        asked = ("--select", "state:modified+", "--state", str(before))
        found = selected(project, *asked, lake=lake, target=target, kinds=_KINDS)
    return Difference(models=_to_build(manifest, found), deployed=True)


def build_difference(project: DbtProject, found: Difference, *, platform: Platform) -> DbtResult:
    """Build what differs, with its tests, as tables of the platform's person.

    Args:
        platform: of a personal environment: what differs is built there, everything else is read from everybody's.

    Raises:
        PlatformError: as :func:`platform_core.operations.dbt.build`.
    """
    manifest = read_manifest(project.spec, folder=project.folder)
    return build(project, manifest=manifest, models=found.models, tests=(), platform=platform)


def forget(platform: Platform) -> None:
    """Remove what a person has built: tables, and dbt's databases on this machine.

    Raises:
        PlanError: the environment is not a personal one.
        StorageError: the lake refused.
    """
    found = [table.ref for table in own_tables(platform)]
    drop_own(platform, found)
    shutil.rmtree(state_folder(platform.state, platform.environment.person), ignore_errors=True)
    platform.log.info("removed %d tables of %s", len(found), platform.environment.person)


def personal(environment: EnvironmentSpec, name: str) -> EnvironmentSpec:
    """An environment as the personal one of somebody: writes nothing of everybody's, and reads it all."""
    from platform_core.specs.person import person_of

    return environment.model_copy(update={"developer": True, "schedules": False}).used_by(person_of(name, stated=True))


def _to_build(manifest: DbtManifest, found: frozenset[str]) -> tuple[str, ...]:
    tested = {name for test in manifest.tests if test.unique_id in found for name in test.reads}
    return tuple(model.unique_id for model in manifest.models if model.unique_id in found | tested)


def _file(project: DbtProject) -> str:
    return f"{_FOLDER}/{project.spec.workstream}.{project.spec.name}.json"
