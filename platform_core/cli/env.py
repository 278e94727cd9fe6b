"""``edp env``: which environments there are, and what tells them apart."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import click

from platform_core.control.environment import environment_names, read_environment
from platform_core.control.report import Report
from platform_core.settings import read_settings


@click.group("env")
def command() -> None:
    """Look into environments.

    \b
    Examples:
      edp env list
      edp env diff staging prod
    """


@command.command("list")
def list_() -> None:
    """Name every environment; the one in use is marked, and which ones are personal."""
    settings = read_settings()
    for name in environment_names(settings):
        # A file that is wrong is a name all the same; edp check tells what is wrong with it.
        spec = read_environment(replace(settings, environment=name), Report(settings.project))
        personal = "  (personal: each user's own tables)" if spec is not None and spec.developer else ""
        click.echo(f"{'*' if name == settings.environment else ' '} {name}{personal}")


@command.command("diff")
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff(one: str, other: str, as_json: bool) -> None:
    """Show what differs between two environments: their files, and what variables make of the control files.

    Exit code 0 also where they differ: two environments should.
    """
    from platform_core.control.plan.environments import divergences

    found = divergences(read_settings(), one, other)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    if not found:
        click.echo(f"{one} and {other} do not differ")
    last = None
    for each in found:
        if each.where != last:
            click.echo(each.where)
            last = each.where
        if each.field:
            click.echo(f"  {each.field}: {_shown(each.one)} -> {_shown(each.other)}")
        else:
            click.echo(f"  only in {other if each.one is None else one}")


def _shown(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
