"""``edp plan``: what an apply would do to an environment's control tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.plan.plan import Plan
    from platform_core.control.store.store import ControlStore
    from platform_core.settings import Settings
    from platform_core.specs.environment import EnvironmentSpec

CHANGES_PENDING = 2
"""Exit code where there is something to apply."""

environment_option = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
author_option = click.option("--author", help="Who does it; default: git's user, else the user of the system.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
markdown_option = click.option("--markdown", "as_markdown", is_flag=True, help="Print it for a merge request.")
out_option = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to this file, for edp apply."
)
locations_option = click.option(
    "--location", "locations", multiple=True, metavar="NAME", help="Plan this location only; may be repeated."
)


@click.command("plan")
@environment_option
@locations_option
@json_option
@markdown_option
@out_option
@author_option
def command(
    environment: str | None,
    locations: tuple[str, ...],
    as_json: bool,
    as_markdown: bool,
    out: Path | None,
    author: str | None,
) -> None:
    """Compare the control files with what is applied, and show what would be created, changed and deleted.

    Nothing is changed. Each change comes with what lies downstream of it, in all locations. Exit codes: 0 nothing to
    do, 1 error, 2 changes pending.

    \b
    Examples:
      edp plan --env staging
      edp plan --env prod --location crm --out plan.json
      edp plan --env prod --markdown
    """
    from platform_core.control.plan.planning import plan_from_git

    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    plan = plan_from_git(settings, spec, store, author=author_of(settings, author), locations=locations)
    show_plan(plan, as_json=as_json, as_markdown=as_markdown, out=out)
    _tell_unpublished(spec, store, settings)
    raise SystemExit(0 if plan.is_empty else CHANGES_PENDING)


def _tell_unpublished(spec: EnvironmentSpec, store: ControlStore, settings: Settings) -> None:
    """Say where code locations do not get what is applied; beside the plan, which is not about it."""
    from platform_core.control.snapshot.standing import behind
    from platform_core.specs.environment import ManifestOrigin

    if spec.control.manifest is ManifestOrigin.SNAPSHOT and (late := behind(spec, store, state=settings.state)):
        click.echo(f"note: {late}", err=True)


def open_control(settings: Settings) -> tuple[EnvironmentSpec, ControlStore]:
    """The environment that the settings name, and its control tables."""
    from platform_core.control.environment import load_environment
    from platform_core.control.store.store import open_store

    spec = load_environment(settings)
    return spec, open_store(spec, state=settings.state)


def author_of(settings: Settings, given: str | None) -> str:
    """Who gives the command."""
    from platform_core.control.authorship import default_author

    return given or default_author(settings.project)


def show_plan(plan: Plan, *, as_json: bool, as_markdown: bool, out: Path | None) -> None:
    """Print a plan, and write it to a file if one is named."""
    from platform_core.control.plan import rendering

    if out is not None:
        out.write_text(plan.as_json(), encoding="utf-8")
    if as_json:
        click.echo(plan.as_json(), nl=False)
    elif as_markdown:
        click.echo(rendering.as_markdown(plan))
    else:
        click.echo(rendering.as_text(plan))
        if out is not None:
            click.echo(f"written to {out}; apply it with: edp apply {out} --env {plan.environment}")
