"""``edp dbt``: what of dbt projects differs from what is deployed, and a build of just that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.operations.dbt_project import DbtProject
    from platform_core.operations.dbt_results import DbtResult
    from platform_core.operations.dbt_state import Difference
    from platform_core.settings import Settings
    from platform_core.specs.environment import EnvironmentSpec

environment_option = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("dbt")
def command() -> None:
    """Compare dbt projects with what is deployed, and build what differs.

    \b
    Examples:
      edp dbt modified --env prod
      edp dbt build --modified --env staging --as ci_812
      edp dbt deployed --env prod
    """


@command.command("modified")
@environment_option
@json_option
def modified(environment: str | None, as_json: bool) -> None:
    """List the models that differ from what is deployed, and those made from them; builds nothing."""
    from platform_core.operations.dbt_state import deployed_folder, difference
    from platform_core.operations.platform import open_lake, open_secrets

    settings = read_settings(environment=environment)
    spec = _environment(settings)
    folder = deployed_folder(spec, state=settings.state)
    lake = open_lake(spec, secrets=open_secrets(spec.secrets))
    found = {project.name: difference(project, folder, lake=lake) for project in _parsed(settings, spec)}
    if as_json:
        click.echo(json.dumps({name: _as_json(each) for name, each in found.items()}, indent=2))
        return
    for name, each in found.items():
        click.echo("\n".join([_said(name, each), *(f"  {model}" for model in each.models)]))


@command.command("build")
@click.option(
    "--modified",
    is_flag=True,
    required=True,
    expose_value=False,
    help="What differs from the deployed, with its tests.",
)
@click.option("--as", "person", required=True, metavar="NAME", help="Whose tables are built, such as ci_812.")
@click.option("--keep", is_flag=True, help="Leave the built tables; otherwise they are removed at the end.")
@environment_option
@json_option
def build_(person: str, keep: bool, environment: str | None, as_json: bool) -> None:
    """Build what differs from what is deployed, beside it: nothing that is deployed is touched.

    For merge requests. Models that do not differ are read from the deployed tables. What is built are tables of NAME,
    as in a personal environment. Exit code 1 if a model or a test failed.

    \b
    Examples:
      edp dbt build --modified --env staging --as "ci_$CI_MERGE_REQUEST_IID"
    """
    from platform_core.operations.dbt_state import (
        build_difference,
        deployed_folder,
        difference,
        forget,
        personal,
    )
    from platform_core.operations.platform import open_platform

    settings = read_settings(environment=environment)
    everybodys = _environment(settings)
    folder = deployed_folder(everybodys, state=settings.state)
    platform = open_platform(personal(everybodys, person), state=settings.state)
    done: dict[str, tuple[Difference, DbtResult | None]] = {}
    try:
        for project in _parsed(settings, platform.environment):
            found = difference(project, folder, lake=platform.lake)
            result = build_difference(project, found, platform=platform) if found.models else None
            done[project.name] = (found, result)
            if not as_json:
                click.echo("\n".join([_said(project.name, found), *(_lines(result) if result else ())]))
    finally:
        if not keep:
            forget(platform)
    if as_json:
        click.echo(json.dumps({name: _as_json(*each) for name, each in done.items()}, indent=2))
    if any(result is not None and result.failures for _, result in done.values()):
        raise SystemExit(1)


@command.command("deployed")
@environment_option
def deployed(environment: str | None) -> None:
    """Remember the dbt projects as they are here as what is deployed; a pipeline says so after it has deployed.

    `edp publish` does it by itself, and so does each apply that publishes.
    """
    settings = read_settings(environment=environment)
    for line in keep_deployed_manifests(settings, _environment(settings)):
        click.echo(line)


def keep_deployed_manifests(settings: Settings, environment: EnvironmentSpec) -> list[str]:
    """Keep the manifests of all projects of this checkout as the deployed ones; returns what was done, for people.

    Raises:
        PlatformError: a manifest is missing or old, or the storage refused.
    """
    from platform_core.operations.dbt_state import deployed_folder, keep_deployed

    folder = deployed_folder(environment, state=settings.state)
    return [
        f"dbt project {project.name}: deployed to {environment.name} as it is here"
        for project in _projects(settings, environment)
        if keep_deployed(project, folder)
    ]


def _environment(settings: Settings) -> EnvironmentSpec:
    from platform_core.control.environment import load_environment

    return load_environment(settings)


def _parsed(settings: Settings, environment: EnvironmentSpec) -> Iterator[DbtProject]:
    """All projects of the workspace, each with its newest manifest."""
    from platform_core.lake.paths import Lake
    from platform_core.operations.dbt_project import parse

    for project in _projects(settings, environment):
        # Parsing opens no table, so no secret of the store is needed.
        parse(project, lake=Lake.of(environment.lake.root, environment.person, storage_options={}))
        yield project


def _projects(settings: Settings, environment: EnvironmentSpec) -> Iterator[DbtProject]:
    from platform_core.control.load import load_manifest
    from platform_core.control.workspace import read_workspace
    from platform_core.operations.dbt_project import open_project

    for location in read_workspace(settings):
        if location.control is None:
            continue
        manifest = load_manifest(location.control, environment=settings.environment, state=settings.state)
        for spec in manifest.dbt:
            yield open_project(
                spec, root=manifest.root, state=settings.state, person=environment.person, choice=environment.dbt
            )


def _said(name: str, found: Difference) -> str:
    if not found.deployed:
        return f"{name}: was never deployed, so all {len(found.models)} models differ"
    return f"{name}: {len(found.models)} models differ from what is deployed, or are made from one that does"


def _lines(result: DbtResult) -> list[str]:
    built = f"built {len(result.models)} models; {len(result.tests)} tests ran"
    return [built, *result.failures]


def _as_json(found: Difference, result: DbtResult | None = None) -> dict[str, object]:
    said: dict[str, object] = {"deployed": found.deployed, "models": list(found.models)}
    if result is not None:
        said |= {
            "built": list(result.models),
            "tests": {name: node.status for name, node in result.tests.items()},
            "failures": list(result.failures),
        }
    return said
