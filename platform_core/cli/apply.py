"""``edp apply``: do what a plan says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from platform_core.cli.plan import (
    author_of,
    author_option,
    environment_option,
    json_option,
    locations_option,
    open_control,
    show_plan,
)
from platform_core.cli.publish import keep_deployed_dbt, publish_applied, published_as_json, published_lines
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.plan.applying import Applied
    from platform_core.control.plan.plan import Plan
    from platform_core.control.snapshot.publish import Published


@click.command("apply")
@click.argument("file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--auto", is_flag=True, help="Plan and apply in one go, without a file; for laptops.")
@environment_option
@locations_option
@click.option("--approve", metavar="REASON", help="Why the marked changes are right; goes into history.")
@json_option
@author_option
def command(
    file: Path | None,
    auto: bool,
    environment: str | None,
    locations: tuple[str, ...],
    approve: str | None,
    as_json: bool,
    author: str | None,
) -> None:
    """Do exactly what PLAN says, in one transaction.

    Refused if the control tables have moved since the plan was made, if it was made for another environment or by
    another release, if its file was edited, or while somebody else applies. Changes that are marked need a reason.
    Where code locations load snapshots (`control.manifest: snapshot`), the new one is published at once; if that fails,
    what was applied stands, and `edp publish` repairs it.

    \b
    Examples:
      edp apply plan.json --env staging
      edp apply plan.json --env prod --approve "agreed with the owner, ticket 812"
      edp apply --auto
    """
    from platform_core.control.plan.applying import apply_plan
    from platform_core.control.plan.plan import read_plan
    from platform_core.control.plan.planning import plan_from_git

    if (file is None) is not auto:
        raise click.UsageError("name the file of a plan, or say --auto to plan and apply in one go")
    if locations and not auto:
        raise click.UsageError("--location belongs to --auto: a plan's file says itself which locations it covers")
    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    who = author_of(settings, author)
    if file is not None:
        plan = read_plan(file)
    else:
        plan = plan_from_git(settings, spec, store, author=who, locations=locations)
        if not as_json:
            show_plan(plan, as_json=False, as_markdown=False, out=None)
    applied = apply_plan(plan, spec, store, author=who, approval=approve)
    if not as_json:
        click.echo("\n".join(_lines(plan, applied)))
    published: Published | None = None
    try:
        published = publish_applied(spec, store, state=settings.state, serial=applied.serial)
    finally:
        # Whatever becomes of publishing, a program learns what was applied.
        if as_json:
            click.echo(json.dumps(_as_json(plan, applied, published), indent=2, ensure_ascii=False))
    if published is not None:
        keep_deployed_dbt(settings, spec)
    if published is not None and not as_json and (published.moved or published.gone):
        click.echo("\n".join(published_lines(published, environment=spec.name)))


def _lines(plan: Plan, applied: Applied) -> list[str]:
    from platform_core.control.plan.applying import reloads

    if plan.is_empty:
        return [f"nothing to do: {plan.environment} stays at serial {applied.serial}"]
    lines = [
        f"applied to {plan.environment}: {applied.created:,} created, {applied.changed:,} changed, "
        f"{applied.deleted:,} deleted; serial {applied.serial}"
    ]
    lines += [
        f"to do: {change.address} wants reload: {mark.reload}: edp ingest reload {change.address} "
        f"--env {plan.environment}"
        for change, mark in reloads(plan)
    ]
    return lines


def _as_json(plan: Plan, applied: Applied, published: Published | None) -> dict[str, object]:
    from platform_core.control.plan.applying import reloads

    return {
        "environment": plan.environment,
        "serial": applied.serial,
        "plan": plan.digest,
        "applied_at": applied.at.isoformat(),
        "created": applied.created,
        "changed": applied.changed,
        "deleted": applied.deleted,
        "reloads": [{"table": change.address, "reload": mark.reload} for change, mark in reloads(plan)],
        "published": None if published is None else published_as_json(published),
    }
