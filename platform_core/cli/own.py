"""``edp own``: what you have made in a personal environment, and how to go back to everybody's tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from platform_core.control.environment import load_environment
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.operations.platform import Platform


@click.group("own")
def command() -> None:
    """Look at your own tables in a personal environment, and drop them to read everybody's again.

    \b
    Examples:
      edp own list --env personal
      edp own drop mobility.silver.rides_weather --env personal
    """


@command.command("list")
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def list_(environment: str | None, as_json: bool) -> None:
    """List what you have made: tables, views, files and pages."""
    from platform_core.operations.own_tables import own_tables

    platform = _opened(environment)
    found = own_tables(platform)
    if as_json:
        click.echo(json.dumps([{"table": str(each.ref), "shared": each.shared} for each in found], indent=2))
        return
    for each in found:
        click.echo(f"{each.ref}{'' if each.shared else '  (only yours)'}")
    if not found:
        click.echo(f"{platform.environment.person} has made nothing yet: every table is read from everybody's lake")


@command.command("drop")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that you have made.")
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
def drop(tables: tuple[str, ...], everything: bool, environment: str | None) -> None:
    """Remove your own tables, so that everybody's are read again; there is no way back.

    TABLE is written <workstream>.<layer>.<name>. Nobody else's tables are touched.
    """
    from platform_core.operations.own_tables import drop_own, own_tables

    if bool(tables) == everything:
        raise click.UsageError("name the tables, or say --all")
    platform = _opened(environment)
    found = {str(each.ref): each for each in own_tables(platform)}
    if unknown := sorted(set(tables) - set(found)):
        known = ", ".join(found) or "none"
        raise click.UsageError(f"'{unknown[0]}' is not among what you have made: {known}")
    chosen = [each for name, each in found.items() if everything or name in tables]
    drop_own(platform, [each.ref for each in chosen])
    for each in chosen:
        click.echo(f"{each.ref}: dropped{'; the shared one is read again' if each.shared else ''}")


def _opened(environment: str | None) -> Platform:
    from platform_core.operations.platform import open_platform

    settings = read_settings(environment=environment)
    return open_platform(load_environment(settings), state=settings.state)
