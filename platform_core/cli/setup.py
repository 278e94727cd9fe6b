"""``edp setup``: prepare what several processes then share, once and under one lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import yaml

from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest
from platform_core.control.loads import migrate
from platform_core.control.store.store import open_store
from platform_core.control.workspace import read_workspace
from platform_core.errors import ConfigError, Issue, Place, StorageError
from platform_core.lake.paths import Lake
from platform_core.operations.dbt_project import open_project, parse
from platform_core.operations.platform import open_secrets
from platform_core.secrets.masking_keys import MaskingKeyKeeper
from platform_core.settings import Settings, environment_value, publish, read_settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""What Dagster makes below the folder of its SQLite storage."""

Say = Callable[[str], None]
"""Takes a line that tells what was done."""


@click.command("setup")
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--manifests", is_flag=True, help="Build the dbt manifests anew and nothing else; exit 1 if one fails.")
def command(environment: str | None, manifests: bool) -> None:
    """Prepare this project: run storage, masking keys, dbt manifests.

    Does only what is missing; may be called at any time, by several processes at once. A location that is
    broken is named and left out; `edp check` lists its faults.

    \b
    Examples:
      edp setup
      edp setup --manifests
    """
    settings = read_settings(environment=environment)
    if not manifests:
        set_up(settings, say=click.echo)
    elif not rebuild_manifests(settings, say=click.echo):
        raise SystemExit(1)


def set_up(settings: Settings, *, say: Say) -> None:
    """Prepare run storage, masking keys and dbt manifests.

    Args:
        settings: of this process; published to Dagster and dbt.
        say: told what was done; nothing where nothing was missing.

    Raises:
        ConfigError: the file of the instance, the environment or the workspace is wrong.
        StorageError: the run storage cannot be opened.
        SecretError: a masking key cannot be written.
    """
    publish(settings)
    with _alone(settings):
        _prepare_instance(settings, say)
        environment = load_environment(settings)
        _prepare_secrets(environment, say)
        _prepare_control_database(environment, settings, say)

        def prepare(manifest: Manifest) -> None:
            _prepare_keys(manifest, environment, say)
            _prepare_dbt(manifest, environment, settings, say)

        _each_location(settings, prepare)


def set_up_instance(settings: Settings) -> None:
    """Prepare the run storage alone, for a command that is about to use it; quick where it is there.

    Raises:
        ConfigError: the instance's file is wrong.
        StorageError: the run storage cannot be opened.
    """
    publish(settings)
    with _alone(settings):
        _prepare_instance(settings, lambda _: None)


def rebuild_manifests(settings: Settings, *, say: Say) -> bool:
    """Build every dbt manifest anew, for images and pipelines; returns whether all could be built.

    Raises:
        ConfigError: the file of the environment or the workspace is wrong.
    """
    with _alone(settings):
        environment = load_environment(settings)
        return _each_location(settings, lambda manifest: _prepare_dbt(manifest, environment, settings, say, anew=True))


def _prepare_secrets(environment: EnvironmentSpec, say: Say) -> None:
    """Make what a store of this installation needs itself, such as the file and the key of the vault."""
    store = open_secrets(environment.secrets)
    for line in store.prepare() if isinstance(store, MaskingKeyKeeper) else ():
        say(line)


def _prepare_control_database(environment: EnvironmentSpec, settings: Settings, say: Say) -> None:
    """Create or migrate the control database, so that no load is the first to do it."""
    secrets = open_secrets(environment.secrets)
    applied = migrate(environment.control, state=settings.state, secrets=secrets)
    store = open_store(environment, state=settings.state)
    store.prepare()
    store.close()
    if applied:
        say(f"brought the control database up to date ({len(applied)} migrations)")


def _prepare_instance(settings: Settings, say: Say) -> None:
    """Create or migrate the storage that ``dagster.yaml`` declares."""
    file = settings.home / "dagster.yaml"
    document = read_instance_file(file)
    marker = settings.dagster_state / ".prepared"
    release = version("dagster")
    # A database elsewhere may be another one today; it is looked at each time.
    embedded = is_embedded(document)
    if embedded and _is_prepared(marker, release):
        return
    migrated = marker.is_file()
    existed = any((marker.parent / name).is_file() for name in DATABASES)
    marker.parent.mkdir(parents=True, exist_ok=True)
    from platform_core.execution.instance import prepare_storage

    try:
        prepare_storage(migrate=existed or not embedded)
    except Exception as error:  # noqa: BLE001  # drivers share no root; their texts may hold connection values
        raise StorageError(_unopened(file, error, embedded=embedded, folder=marker.parent)) from None
    if not embedded:
        say(f"run storage is there, at the schema of Dagster {release}")
        return
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(release)
    temporary.replace(marker)
    say(f"{'migrated' if migrated else 'created'} run storage in {marker.parent} (Dagster {release})")


def is_embedded(document: Mapping[str, Any]) -> bool:
    """Whether a ``dagster.yaml`` keeps runs in SQLite files of the state folder: by Dagster's storage, or by ours."""
    storage = document.get("storage", {})
    return "sqlite" in storage or storage.get("custom", {}).get("class") == "EmbeddedStorage"


def _is_prepared(marker: Path, release: str) -> bool:
    return (
        marker.is_file()
        and marker.read_text() == release
        and all((marker.parent / name).is_file() for name in DATABASES)
    )


def read_instance_file(file: Path) -> dict[str, Any]:
    """The parsed ``dagster.yaml``; ConfigError where it is missing, broken or names an unset variable."""
    if not file.is_file():
        hint = "DAGSTER_HOME must name the folder of dagster.yaml"
        raise ConfigError([Issue(Place(file), "there is no such file", (hint,))])
    try:
        document = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, mark.line + 1 if mark else 0)
        raise ConfigError([Issue(place, "is not YAML", (getattr(error, "problem", None) or "",))]) from None
    if not isinstance(document, dict):
        raise ConfigError([Issue(Place(file), "must hold a mapping", ("see dagster_home/dagster.yaml",))])
    missing = sorted({name for name in _variables(document) if environment_value(name) is None})
    if missing:
        hint = "set it, then try again"
        raise ConfigError([Issue(Place(file), f"environment variable {name} is not set", (hint,)) for name in missing])
    return document


def _variables(node: object) -> Iterator[str]:
    """Names in ``{env: NAME}``, anywhere below a node."""
    if isinstance(node, dict):
        if list(node) == ["env"] and isinstance(node["env"], str):
            yield node["env"]
        for value in node.values():
            yield from _variables(value)
    elif isinstance(node, list):
        for value in node:
            yield from _variables(value)


def _unopened(file: Path, error: BaseException, *, embedded: bool, folder: Path) -> str:
    names: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        names.append(type(cause).__name__)
        cause = cause.__cause__
    hint = (
        f"if {folder} was damaged, move it away: run history is lost, data and keys are not"
        if embedded
        else "check host, port, database, user and password in the environment variables that the file names"
    )
    return f"{file}: the run storage cannot be opened: {' from '.join(names)}\n  {hint}"


def _each_location(settings: Settings, work: Callable[[Manifest], None]) -> bool:
    """Do something for each location; a broken one is named, and keeps no other from it. Returns if all went well."""
    good = True
    for location in read_workspace(settings):
        if location.control is None:
            continue
        try:
            work(load_manifest(location.control, environment=settings.environment, state=settings.state))
        except ConfigError as error:
            click.echo(f"location '{location.name}' is left out:\n{error}", err=True)
            good = False
    return good


def _prepare_keys(manifest: Manifest, environment: EnvironmentSpec, say: Say) -> None:
    """Make the masking keys that are missing, in a store of this installation; others are filled by their owners."""
    store = open_secrets(environment.secrets)
    if not isinstance(store, MaskingKeyKeeper):
        return
    for workstream in manifest.location.workstreams:
        if store.create_masking_key(workstream.name):
            say(f"made the masking key of {workstream.name} in {store.place()}")


def _prepare_dbt(
    manifest: Manifest, environment: EnvironmentSpec, settings: Settings, say: Say, *, anew: bool = False
) -> None:
    """Build the manifests that are missing or older than their project; ``anew``: all of them."""
    # Parsing opens no table, so no secret of the store is needed.
    lake = Lake.of(environment.lake.root, environment.person, storage_options={})
    for spec in manifest.dbt:
        project = open_project(
            spec, root=manifest.root, state=settings.state, person=environment.person, choice=environment.dbt
        )
        if anew and project.manifest.is_file():
            # Older than everything; it stays in place for those who read it meanwhile.
            os.utime(project.manifest, (0, 0))
        if parse(project, lake=lake):
            say(f"built the manifest of dbt project {project.name}")


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the lock of this state folder; a second process waits."""
    # The folder holds masking keys and data: nobody else on the machine needs to look into it.
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (settings.state / "setup.lock").open("w")
    except OSError as error:
        raise StorageError(
            f"the state folder {settings.state} cannot be used: {error.strerror}\n"
            "  set EDP_STATE to a folder that this user can write"
        ) from None
    with lock as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
