"""``edp dashboards``: which version of each table every dashboard shows, and as of when."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import environment_option, json_option
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.refresh_log import RefreshRow
    from platform_core.plugins.interfaces import ShownTable
    from platform_core.specs.refresh import RefreshSpec


@click.command("dashboards")
@click.argument("names", metavar="[DASHBOARD]...", nargs=-1)
@environment_option
@json_option
def command(names: tuple[str, ...], environment: str | None, as_json: bool) -> None:
    """Show of every dashboard when it was refreshed last, as of when its data is, and which versions it shows.

    DASHBOARD is workstream.name or a workstream; without one, all are shown.

    \b
    Examples:
      edp dashboards
      edp dashboards mobility.ridership --env prod --json
    """
    from platform_core.control.environment import load_environment
    from platform_core.control.loads import open_loads
    from platform_core.control.workspace import check_workspace
    from platform_core.operations.platform import open_secrets

    settings = read_settings(environment=environment)
    declared = [spec for manifest in check_workspace(settings) for spec in manifest.refreshes]
    chosen = _chosen(declared, names)
    spec = load_environment(settings)
    loads = open_loads(spec.control, state=settings.state, secrets=open_secrets(spec.secrets), person=spec.person)
    log = loads.refresh_log()
    try:
        shown, newest = log.shown(), log.newest()
    finally:
        loads.close()
    found = [(each, shown.get(each.ref), newest.get(each.ref)) for each in chosen]
    if as_json:
        click.echo(json.dumps([_as_json(*each) for each in found], indent=2))
        return
    for each in found:
        click.echo("\n".join(_lines(*each)))
    if not found:
        click.echo("no dashboard is declared")


def _chosen(declared: Sequence[RefreshSpec], names: Sequence[str]) -> list[RefreshSpec]:
    known = {name for spec in declared for name in (_name(spec), spec.workstream)}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
            raise click.UsageError(f"no dashboard or workstream '{name}'\n  {hint}")
    return [spec for spec in declared if not names or _name(spec) in names or spec.workstream in names]


def _name(spec: RefreshSpec) -> str:
    return f"{spec.workstream}.{spec.name}"


def _lines(spec: RefreshSpec, shown: RefreshRow | None, newest: RefreshRow | None) -> Iterator[str]:
    if shown is None:
        yield f"{_name(spec)} ({spec.type}): not refreshed yet"
    else:
        yield f"{_name(spec)} ({spec.type}): as of {_time(shown.as_of)}, refreshed {_time(shown.ended_at)}"
        widest = max(map(len, shown.cut))
        for table, each in shown.cut.items():
            yield f"  {table.ljust(widest)}  {_version(each)}"
        if shown.moved:
            yield f"  newer when it ended: {', '.join(shown.moved)}"
    if newest is not None and newest.status != "succeeded":
        why = f": {newest.error.splitlines()[0]}" if newest.error else ""
        yield f"  {newest.status} {_time(newest.ended_at)}{why}"


def _version(shown: ShownTable) -> str:
    batch = f", batch {shown.batch}" if shown.batch else ""
    made = f", made {_time(shown.made_at)}" if shown.made_at else ""
    return f"version {shown.version}{batch}{made}"


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _as_json(spec: RefreshSpec, shown: RefreshRow | None, newest: RefreshRow | None) -> dict[str, Any]:
    return {
        "dashboard": _name(spec),
        "type": spec.type,
        "as_of": shown.as_of.isoformat() if shown else None,
        "refreshed_at": shown.ended_at.isoformat() if shown else None,
        "run_id": shown.run_id if shown else None,
        "url": shown.url if shown else None,
        "tables": {name: _table_as_json(each) for name, each in shown.cut.items()} if shown else {},
        "newer_when_it_ended": list(shown.moved) if shown else [],
        "last_attempt": None
        if newest is None
        else {"status": newest.status, "ended_at": newest.ended_at.isoformat(), "error": newest.error},
    }


def _table_as_json(shown: ShownTable) -> dict[str, Any]:
    made_at = shown.made_at.isoformat() if shown.made_at else None
    return {"version": shown.version, "batch": shown.batch or None, "made_at": made_at}
