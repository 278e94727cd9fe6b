"""``edp show``: one spec as it is applied, or was."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa
import yaml

from platform_core.cli.history import known_kind, version_as_json
from platform_core.cli.plan import environment_option, json_option, open_control
from platform_core.errors import PlanError
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.store.history import Version


@click.command("show")
@click.argument("kind")
@click.argument("address")
@click.option("--as-of", metavar="WHEN", help="A day (its end) or a moment, UTC; default: now.")
@environment_option
@json_option
def command(kind: str, address: str, as_of: str | None, environment: str | None, as_json: bool) -> None:
    """Show one spec as it is applied, or was at some time.

    KIND is a control table (ingestion, processing, refresh, …), ADDRESS the name with its workstream, of a step with
    its layer, too.

    \b
    Examples:
      edp show ingestion crm.riders --env prod
      edp show processing crm.gold.monthly --as-of 2026-01-31
    """
    from platform_core.control.store.history import live_version, read_versions, version_at

    known_kind(kind)
    moment = None if as_of is None else _moment(as_of)
    spec, store = open_control(read_settings(environment=environment))

    def look(connection: sa.Connection) -> Version | None:
        if moment is None:
            return live_version(connection, kind=kind, address=address)
        return version_at(connection, kind=kind, address=address, moment=moment)

    found = store.read(look)
    if found is None:
        ever = store.read(lambda connection: read_versions(connection, kind=kind, address=address, limit=1))
        when = f"at {moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "now"
        where = f"edp history {kind} {address} --env {spec.name}"
        hint = f"see its versions: {where}" if ever else "none of that name was ever applied"
        raise PlanError(f"there is no {kind} {address} {when}\n  {hint}")
    if as_json:
        click.echo(json.dumps(version_as_json(found), indent=2, ensure_ascii=False))
        return
    reason = f", because: {found.approval}" if found.approval else ""
    commit = f", commit {found.git_commit}" if found.git_commit else ""
    click.echo(f"# {kind} {address} of location {found.key.location}, serial {found.serial}{commit}")
    click.echo(
        f"# applied by {found.author or 'somebody'} from {found.origin} "
        f"at {found.applied_at:%Y-%m-%d %H:%M:%S} UTC{reason}"
    )
    click.echo(yaml.safe_dump(found.content, sort_keys=False, allow_unicode=True), nl=False)


def _moment(text: str) -> dt.datetime:
    try:
        if len(text) == len("2026-01-31"):
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time.max, tzinfo=dt.UTC)
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"'{text}' is no moment; write 2026-01-31 or 2026-01-31T06:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
