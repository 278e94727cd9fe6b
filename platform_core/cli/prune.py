"""``edp prune``: remove tables of the lake whose spec is gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from platform_core.cli.plan import author_of, author_option, environment_option, json_option, open_control
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.operations.prune import Remnant


@click.command("prune")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Remove them; without it they are only listed.")
@click.option("--approve", metavar="REASON", help="Why the data may go; goes into history. Needed with --yes.")
@environment_option
@json_option
@author_option
def command(
    tables: tuple[str, ...], yes: bool, approve: str | None, environment: str | None, as_json: bool, author: str | None
) -> None:
    """List tables of the lake whose spec was deleted; with --yes remove them, with landing, quarantine and history.

    TABLE is written <workstream>.<layer>.<name>; without one all are meant. Tables that were never applied are not
    touched, nor those that a dbt project may make. There is no way back but a backup.

    \b
    Examples:
      edp prune --env prod
      edp prune crm.bronze.leads --env prod --yes --approve "retention is over, ticket 913"
    """
    from platform_core.operations.platform import open_platform
    from platform_core.operations.prune import find_remnants, prune

    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    platform = open_platform(spec, state=settings.state)
    found = find_remnants(store, platform.lake)
    if unknown := sorted(set(tables) - {str(each.ref) for each in found}):
        known = ", ".join(str(each.ref) for each in found) or "none"
        raise click.UsageError(f"'{unknown[0]}' is not to be pruned; tables whose spec is gone: {known}")
    chosen = [each for each in found if not tables or str(each.ref) in tables]
    if yes and any(each.kept is None for each in chosen):
        prune(store, platform, chosen, author=author_of(settings, author), reason=approve or "")
    if as_json:
        click.echo(json.dumps([_as_json(each, removed=yes) for each in chosen], indent=2, ensure_ascii=False))
    elif not chosen:
        click.echo("nothing to prune: every table that was applied still has its spec, or is gone already")
    else:
        click.echo("\n".join(_line(each, removed=yes) for each in chosen))
        if not yes and any(each.kept is None for each in chosen):
            click.echo(f'\nremove them for good: edp prune --env {spec.name} --yes --approve "<reason>"')


def _line(remnant: Remnant, *, removed: bool) -> str:
    if remnant.kept is not None:
        return f"{remnant.ref}: stays, as {remnant.kept}"
    when = f"{remnant.deleted_at:%Y-%m-%d} by {remnant.version.author}"
    return f"{remnant.ref}: {'removed; ' if removed else ''}its spec was deleted {when}"


def _as_json(remnant: Remnant, *, removed: bool) -> dict[str, object]:
    return {
        "table": str(remnant.ref),
        "deleted_at": remnant.deleted_at.isoformat(timespec="seconds"),
        "deleted_by": remnant.version.author,
        "folders": list(remnant.folders),
        "kept": remnant.kept,
        "removed": removed and remnant.kept is None,
    }
