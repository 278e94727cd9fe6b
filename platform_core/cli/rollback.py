"""``edp rollback``: plan the way back to an earlier apply."""

from __future__ import annotations

from pathlib import Path

import click

from platform_core.cli.plan import (
    CHANGES_PENDING,
    author_of,
    author_option,
    environment_option,
    json_option,
    markdown_option,
    open_control,
    out_option,
    show_plan,
)
from platform_core.settings import read_settings


@click.command("rollback")
@click.argument("serial", type=click.IntRange(min=0))
@environment_option
@json_option
@markdown_option
@out_option
@author_option
def command(
    serial: int, environment: str | None, as_json: bool, as_markdown: bool, out: Path | None, author: str | None
) -> None:
    """Plan what makes the control tables what they were after apply SERIAL; `edp apply` then does it.

    It is a plan like any other, with its reach and its marks: going back may weaken a mask, too. Nothing is changed by
    this command. Exit codes: 0 nothing to do, 1 error, 2 changes pending.

    \b
    Examples:
      edp history --env prod
      edp rollback 41 --env prod --out back.json
      edp apply back.json --env prod
    """
    from platform_core.control.plan.planning import plan_rollback

    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    plan = plan_rollback(settings, spec, store, serial=serial, author=author_of(settings, author))
    show_plan(plan, as_json=as_json, as_markdown=as_markdown, out=out)
    raise SystemExit(0 if plan.is_empty else CHANGES_PENDING)
