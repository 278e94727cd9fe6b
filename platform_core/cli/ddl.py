"""``edp ddl``: bring tables and views of an environment to what the migrations in git say."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import click

from platform_core.errors import MigrationError
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_core.control.database import Database
    from platform_core.operations.ddl import DdlScope, DdlStatus
    from platform_core.operations.ddl_plan import DdlPlan
    from platform_core.operations.platform import Platform
    from platform_core.settings import Settings

_CHANGES = 2

_environment = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
_location = click.option(
    "--location", "locations", multiple=True, help="Only this location; may be given several times. Default: all."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("ddl")
def command() -> None:
    """Bring tables and views to what the migrations in git say.

    A migration is a file ddl/<workstream>/NNNN_name.sql of a location's package: CREATE TABLE and VIEW, ALTER TABLE,
    COMMENT ON, DROP, for the lake, or for the database that its first line names (-- target: serving).

    \b
    Example:
      edp ddl plan --env prod
    """


@command.command("plan")
@_environment
@_location
@_as_json
def plan_command(environment: str | None, locations: tuple[str, ...], as_json: bool) -> None:
    """Show what an environment lacks; nothing is changed.

    Every statement is checked against the tables as they will be then. Exit codes: 0 nothing to do, 1 error,
    2 there are changes.

    \b
    Examples:
      edp ddl plan
      edp ddl plan --env prod --location mobility --json
    """
    from platform_core.operations.ddl import plan_ddl

    opened = _Opened(environment, locations)
    plan = plan_ddl(opened.scope, platform=opened.platform, database=opened.database)
    if as_json:
        click.echo(json.dumps(_plan_as_json(plan), indent=2, ensure_ascii=False))
    else:
        _tell_plan(plan)
    if plan.migrations:
        raise SystemExit(_CHANGES)


@command.command("apply")
@_environment
@_location
@click.option("--approve", metavar="REASON", help="Let statements through that destroy something; the reason is kept.")
@click.option("--author", help="Who applies them; default: git's user, else that of the operating system.")
@_as_json
def apply_command(
    environment: str | None, locations: tuple[str, ...], approve: str | None, author: str | None, as_json: bool
) -> None:
    """Apply what an environment lacks, in order.

    A statement of the lake is one commit, a migration of a serving database one transaction. After an error or a
    crash, apply again: it goes on where it stood. DROP, narrower types and dropped promises need --approve.

    \b
    Examples:
      edp ddl apply --env staging
      edp ddl apply --env prod --approve "column was never filled, see ticket 812"
    """
    from platform_core.control.authorship import default_author
    from platform_core.operations.ddl import apply_ddl

    opened = _Opened(environment, locations)
    done = apply_ddl(
        opened.scope,
        platform=opened.platform,
        database=opened.database,
        author=author or default_author(opened.settings.project),
        approve=approve,
        tell=(lambda _: None) if as_json else click.echo,
    )
    if as_json:
        found = [
            {
                "migration": str(each.migration.migration),
                "target": each.migration.migration.target,
                "statements": each.statements,
                "seconds": round(each.seconds, 3),
            }
            for each in done
        ]
        click.echo(json.dumps(found, indent=2))
    elif not done:
        click.echo("nothing to do")
    else:
        statements = sum(each.statements for each in done)
        click.echo(f"applied {_counted(len(done), 'migration')}, {_counted(statements, 'statement')}")


@command.command("status")
@_environment
@_location
@_as_json
def status_command(environment: str | None, locations: tuple[str, ...], as_json: bool) -> None:
    """List what an environment holds, as the control database remembers it, and what waits.

    Exit code 1 where files and history do not fit.

    \b
    Example:
      edp ddl status --env prod
    """
    from platform_core.operations.ddl import ddl_status

    opened = _Opened(environment, locations)
    status = ddl_status(opened.scope, platform=opened.platform, database=opened.database)
    if as_json:
        click.echo(json.dumps(_status_as_json(status), indent=2, ensure_ascii=False))
    else:
        _tell_status(status)
    if status.issues:
        raise SystemExit(1)


class _Opened:
    """An environment and the migrations that are looked at."""

    def __init__(self, environment: str | None, locations: Sequence[str]) -> None:
        from platform_core.control.database import open_database
        from platform_core.control.environment import load_environment
        from platform_core.operations.ddl_scope import ddl_scope
        from platform_core.operations.platform import open_platform

        self.settings: Settings = read_settings(environment=environment)
        self.scope: DdlScope = ddl_scope(self.settings, only=locations)
        spec = load_environment(self.settings)
        opened = open_platform(spec, state=self.settings.state)
        log = logging.getLogger("platform_core.cli")
        log.handlers = [logging.StreamHandler(sys.stderr)]
        log.setLevel(logging.INFO)
        log.propagate = False
        self.platform: Platform = opened.for_step(log, opened.cancelled)
        self.database: Database = open_database(spec.control, state=self.settings.state, secrets=opened.secrets)


def _tell_plan(plan: DdlPlan) -> None:
    for planned in plan.migrations:
        migration = planned.migration
        kind = "" if migration.target == "lake" else f"  ({migration.target})"
        click.echo(f"{'!' if planned.destroys else '+'} {migration}{kind}")
        for each in planned.statements:
            if each.meaning is None:
                click.echo(f"    {each.statement.position}. made already")
                continue
            click.echo(f"    {each.statement.position}. {each.meaning.summary}")
            for note in each.meaning.notes:
                click.echo(f"       {note}")
            if each.meaning.destroys:
                click.echo(f"       loses {each.meaning.destroys}: needs --approve")
    for migration in plan.left_out:
        click.echo(f"  {migration} is left out: environment '{plan.environment}' has no database '{migration.target}'")
    if not plan.migrations:
        click.echo(f"{'' if not plan.left_out else chr(10)}nothing to do")
        return
    statements = sum(1 for planned in plan.migrations for each in planned.statements if each.meaning is not None)
    waiting = sum(1 for planned in plan.migrations if planned.needs_approval)
    click.echo(
        f"\nPlan: {_counted(len(plan.migrations), 'migration')}, {_counted(statements, 'statement')} to make"
        + (f"; {waiting} to approve" if waiting else "")
    )


def _tell_status(status: DdlStatus) -> None:
    rows: list[tuple[str, ...]] = [("MIGRATION", "TARGET", "STATUS", "DONE", "APPLIED (UTC)", "AUTHOR", "SECONDS")]
    for row in status.applied:
        moment = f"{row.applied_at:%Y-%m-%d %H:%M:%S}" if row.applied_at else ""
        done = f"{row.done}/{row.statements}"
        name, seconds = f"{row.workstream}/{row.name}", f"{row.seconds:.1f}"
        rows.append((name, row.target, row.status, done, moment, row.author, seconds))
    rows += [(name, "", "waits", "", "", "", "") for name in status.waiting]
    if len(rows) == 1 and not status.issues:
        click.echo("there are no migrations")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip())
    for row in status.applied:
        if row.error:
            click.echo(f"\n{row.workstream}/{row.name} failed:\n  " + row.error.replace("\n", "\n  "))
        if row.approved:
            click.echo(f"\n{row.workstream}/{row.name} was approved: {row.approved}")
    if status.issues:
        click.echo("\n" + str(MigrationError("\n".join(str(issue) for issue in status.issues))))


def _plan_as_json(plan: DdlPlan) -> dict[str, Any]:
    return {
        "environment": plan.environment,
        "migrations": [
            {
                "location": planned.migration.location,
                "workstream": planned.migration.workstream,
                "number": planned.migration.number,
                "name": planned.migration.name,
                "file": str(planned.migration.shown),
                "target": planned.migration.target,
                "needs_approval": planned.needs_approval,
                "statements": [
                    {
                        "position": each.statement.position,
                        "line": each.statement.line,
                        "made": each.meaning is None,
                        "summary": each.meaning.summary if each.meaning else None,
                        "loses": each.meaning.destroys or None if each.meaning else None,
                        "notes": list(each.meaning.notes) if each.meaning else [],
                    }
                    for each in planned.statements
                ],
            }
            for planned in plan.migrations
        ],
        "left_out": [str(migration) for migration in plan.left_out],
    }


def _status_as_json(status: DdlStatus) -> dict[str, Any]:
    return {
        "environment": status.environment,
        "migrations": [
            {
                "location": row.location,
                "workstream": row.workstream,
                "number": row.number,
                "name": row.name,
                "target": row.target,
                "status": row.status,
                "done": row.done,
                "statements": row.statements,
                "author": row.author,
                "approved": row.approved,
                "started_at": row.started_at.isoformat(),
                "applied_at": row.applied_at.isoformat() if row.applied_at else None,
                "seconds": round(row.seconds, 3),
                "error": row.error,
            }
            for row in status.applied
        ],
        "waiting": list(status.waiting),
        "issues": [str(issue) for issue in status.issues],
    }


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
