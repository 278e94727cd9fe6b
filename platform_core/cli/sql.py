"""``edp sql``: plan and apply reviewed SQL changes of the control tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import (
    CHANGES_PENDING,
    author_of,
    author_option,
    environment_option,
    json_option,
    markdown_option,
    open_control,
)
from platform_core.cli.publish import publish_applied, published_as_json, published_lines
from platform_core.errors import ConfigError
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.reviewed_sql.applying import Done
    from platform_core.control.reviewed_sql.planning import PlannedChange, Scope, SqlStatus
    from platform_core.control.snapshot.publish import Published
    from platform_core.settings import Settings


@click.group("sql")
def command() -> None:
    """Change control tables by reviewed SQL, where YAML does not suit.

    A change is a file control_sql/<environment>/NNNN_description.sql beside dagster_home: INSERT, UPDATE and DELETE on
    control tables. Its first lines say who wants it, until when and why (-- owner:, -- expires:, -- reason:). What it
    sets holds against git until then.

    \b
    Example:
      edp sql plan --env prod
    """


@command.command("plan")
@environment_option
@json_option
@markdown_option
@author_option
def plan_command(environment: str | None, as_json: bool, as_markdown: bool, author: str | None) -> None:
    """Show what the changes that wait would do, row by row; nothing is changed.

    Every statement is run, looked at, and taken back. Exit codes: 0 nothing to do, 1 error, 2 changes pending.

    \b
    Examples:
      edp sql plan --env prod
      edp sql plan --env prod --markdown
    """
    from platform_core.control.plan import rendering
    from platform_core.control.reviewed_sql.planning import plan_changes

    scope, settings = _opened(environment)
    planned = plan_changes(scope, author=author_of(settings, author))
    if as_json:
        click.echo(json.dumps([_planned_as_json(each) for each in planned], indent=2, ensure_ascii=False))
    elif not planned:
        click.echo("nothing to do: no reviewed SQL change waits")
    for each in () if as_json else planned:
        click.echo(f"{_title(each)}\n" if not as_markdown else f"#### `{each.change.name}`\n\n{_title(each)}\n")
        click.echo(rendering.as_markdown(each.plan) if as_markdown else rendering.as_text(each.plan))
        click.echo()
    raise SystemExit(CHANGES_PENDING if planned else 0)


@command.command("apply")
@environment_option
@click.option("--approve", metavar="REASON", help="Why the marked changes are right; goes into history.")
@json_option
@author_option
def apply_command(environment: str | None, approve: str | None, as_json: bool, author: str | None) -> None:
    """Apply the changes that wait, in order, each in one transaction.

    Refused if a file is wrong, was edited, is missing, late or expired, if what comes of it would not pass as control
    files, or while somebody else applies. Changes that are marked need a reason.

    \b
    Examples:
      edp sql apply --env staging
      edp sql apply --env prod --approve "agreed with the owner, ticket 812"
    """
    from platform_core.control.reviewed_sql.applying import apply_changes

    scope, settings = _opened(environment)
    done: list[Done] = []

    def tell(each: Done) -> None:
        done.append(each)
        if not as_json:
            click.echo("\n".join(_lines(each)))

    published: Published | None = None
    try:
        try:
            apply_changes(scope, author=author_of(settings, author), approval=approve, tell=tell)
        finally:
            # Where a later change failed, those before it stand, and code locations want to know of them.
            if done:
                serial = done[-1].applied.serial
                published = publish_applied(scope.environment, scope.store, state=settings.state, serial=serial)
    finally:
        if as_json:
            told = [_done_as_json(each) for each in done]
            found = {"applied": told, "published": published_as_json(published) if published else None}
            click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    if as_json:
        return
    if not done:
        click.echo("nothing to do: no reviewed SQL change waits")
    if published is not None and (published.moved or published.gone):
        click.echo("\n".join(published_lines(published, environment=scope.environment.name)))


@command.command("status")
@environment_option
@json_option
def status_command(environment: str | None, as_json: bool) -> None:
    """List the changes that were applied, and those that wait.

    Exit code 1 where files are wrong, or do not fit what was applied.

    \b
    Example:
      edp sql status --env prod
    """
    from platform_core.control.reviewed_sql.planning import Scope, sql_status

    settings = read_settings(environment=environment)
    status = sql_status(Scope(settings, *open_control(settings)))
    if as_json:
        click.echo(json.dumps(_status_as_json(status), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_status_lines(status)))
    if status.issues:
        raise SystemExit(1)


def _opened(environment: str | None) -> tuple[Scope, Settings]:
    from platform_core.control.reviewed_sql.planning import Scope

    settings = read_settings(environment=environment)
    scope = Scope(settings, *open_control(settings))
    scope.look()
    return scope, settings


def _title(each: PlannedChange) -> str:
    change = each.change
    return f"{change.name}: {change.reason} ({change.owner}, until {change.expires:%Y-%m-%d})"


def _lines(each: Done) -> list[str]:
    from platform_core.control.plan.applying import reloads

    applied, plan = each.applied, each.planned.plan
    lines = [
        f"applied {each.planned.change.name} to {plan.environment}: {applied.created:,} created, "
        f"{applied.changed:,} changed, {applied.deleted:,} deleted; serial {applied.serial}",
        *(f"note: {note}" for note in plan.notes),
    ]
    lines += [
        f"to do: {change.address} wants reload: {mark.reload}: edp ingest reload {change.address} "
        f"--env {plan.environment}"
        for change, mark in reloads(plan)
    ]
    return lines


def _planned_as_json(each: PlannedChange) -> dict[str, Any]:
    return {"change": _change_as_json(each), "plan": each.plan.model_dump(mode="json")}


def _change_as_json(each: PlannedChange) -> dict[str, Any]:
    change = each.change
    return {
        "number": change.number,
        "name": change.name,
        "file": str(change.shown),
        "owner": change.owner,
        "expires": change.expires.isoformat(),
        "reason": change.reason,
    }


def _done_as_json(each: Done) -> dict[str, Any]:
    applied = each.applied
    return {
        **_change_as_json(each.planned),
        "environment": each.planned.plan.environment,
        "serial": applied.serial,
        "applied_at": applied.at.isoformat(),
        "created": applied.created,
        "changed": applied.changed,
        "deleted": applied.deleted,
    }


def _status_lines(status: SqlStatus) -> list[str]:
    rows = [("CHANGE", "STATUS", "SERIAL", "APPLIED (UTC)", "AUTHOR", "OWNER", "EXPIRES")]
    for row in status.applied:
        moment = f"{row.applied_at:%Y-%m-%d %H:%M:%S}"
        rows.append((row.name, "applied", str(row.serial), moment, row.author, row.owner, f"{row.expires:%Y-%m-%d}"))
    rows += [(each.name, "waits", "", "", "", each.owner, f"{each.expires:%Y-%m-%d}") for each in status.waiting]
    lines = []
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row_ in rows:
            lines.append("  ".join(text.ljust(width) for text, width in zip(row_, widths, strict=True)).rstrip())
    elif not status.issues:
        lines.append("there are no reviewed SQL changes")
    if status.issues:
        lines += [""] * bool(lines) + [str(ConfigError(status.issues))]
    return lines


def _status_as_json(status: SqlStatus) -> dict[str, Any]:
    return {
        "environment": status.environment,
        "applied": [
            {
                "number": row.number,
                "name": row.name,
                "serial": row.serial,
                "applied_at": row.applied_at.isoformat(),
                "author": row.author,
                "owner": row.owner,
                "expires": row.expires.isoformat(),
                "reason": row.reason,
                "statements": row.statements,
            }
            for row in status.applied
        ],
        "waiting": [each.name for each in status.waiting],
        "issues": [str(issue) for issue in status.issues],
    }
