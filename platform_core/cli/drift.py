"""``edp drift``: what differs from git in an environment, and who made it so."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import CHANGES_PENDING, environment_option, json_option, open_control
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_core.control.plan.declared import Declared
    from platform_core.control.reviewed_sql.drift import DriftedRow, DriftedValue
    from platform_core.settings import Settings

_LONGEST_VALUE = 60


@click.group("drift", invoke_without_command=True)
@environment_option
@json_option
@click.pass_context
def command(context: click.Context, environment: str | None, as_json: bool) -> None:
    """Show what an environment holds that git does not say, value by value, and who made it so.

    That is an override by a reviewed SQL change, a commit that is older than the control files here, or a hand in the
    database. Exit codes: 0 nothing differs, 1 error, 2 something does.

    \b
    Examples:
      edp drift --env prod
      edp drift export --env prod crm.orders
    """
    if context.invoked_subcommand is not None:
        context.obj = environment
        return
    _, _, drift = _found(environment)
    if as_json:
        click.echo(json.dumps([_row_as_json(row) for row in drift], indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(drift)))
    raise SystemExit(CHANGES_PENDING if drift else 0)


@command.command("export")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@environment_option
@json_option
@click.pass_obj
def export_command(above: str | None, addresses: tuple[str, ...], environment: str | None, as_json: bool) -> None:
    """Write what was set in an environment into the control files, for a merge request.

    Only what overrides and hands have set, of all rows or of those named; what git has newer stays. The rest of each
    file stays as it is, comments and order included. The result passes `edp check`, and the next plan has nothing to
    change in these rows; else nothing is written. Files with uncommitted edits are refused.

    \b
    Example:
      edp drift export --env prod crm.orders
    """
    from platform_core.control.reviewed_sql.exporting import chosen, export_drift

    settings, declared, drift = _found(environment or above)
    rows = chosen(drift, addresses)
    if not rows:
        click.echo("[]" if as_json else "nothing to write back")
        return
    done = export_drift(settings, declared, rows)
    if as_json:
        told = {
            "files": [str(file) for file in done.files],
            "rows": [{"kind": key.kind, "location": key.location, "address": key.address} for key in done.rows],
            "notes": list(done.notes),
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for file in done.files:
        click.echo(f"wrote {file}")
    for note in done.notes:
        click.echo(f"note: {note}")
    counted = f"{len(done.rows):,} {'row' if len(done.rows) == 1 else 'rows'}"
    click.echo(f"{counted}; look at the files with git diff, and open a merge request: it holds for all environments")


def _found(environment: str | None) -> tuple[Settings, Declared, list[DriftedRow]]:
    from platform_core.control.plan.declared import read_declared
    from platform_core.control.reviewed_sql.drift import find_drift

    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    declared = read_declared(settings)
    return settings, declared, find_drift(declared, spec, store)


def _lines(drift: Sequence[DriftedRow]) -> list[str]:
    if not drift:
        return ["no drift: the environment holds what git says"]
    lines = []
    counts: Counter[str] = Counter()
    for row in drift:
        symbol = "+" if row.git is None else "-" if row.live is None else "~"
        lines.append(f"{symbol} {row.key.kind:<10} {row.key.address:<30}  {row.place or ''}".rstrip())
        for value in row.values:
            counts[value.cause] += 1
            lines.append(f"    {_told(row, value)}")
            lines.append(f"      {_who(value)}")
    counted = ", ".join(f"{counts[cause]:,} {words}" for cause, words in _COUNTED.items() if counts[cause])
    return [*lines, "", f"Drift: {len(drift):,} {'row' if len(drift) == 1 else 'rows'}: {counted}"]


_COUNTED = {"override": "overridden", "by hand": "changed by hand", "older": "older than git"}


def _told(row: DriftedRow, value: DriftedValue) -> str:
    if not value.path:
        return "is not in git" if row.git is None else "is in git only"
    return f"{value.field}: {_shown(value.git)} in git, {_shown(value.live)} here"


def _who(value: DriftedValue) -> str:
    override, source = value.override, value.provenance
    if override is not None:
        until = f"expired on {override.expires}; the next apply takes it back" if value.expired else override.expires
        words = "" if value.expired else "until "
        return f"override by {override.owner}, {words}{until} ({override.file}, serial {override.serial})"
    if value.cause == "by hand":
        return "by hand: past git and every reviewed change"
    if source is None:
        return "not applied yet"
    commit = f", commit {source.git_commit[:12]}" if source.git_commit else ""
    return f"applied by {source.author} at {source.applied_at:%Y-%m-%d %H:%M} UTC, serial {source.serial}{commit}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _row_as_json(row: DriftedRow) -> dict[str, Any]:
    return {
        "kind": row.key.kind,
        "location": row.key.location,
        "address": row.key.address,
        "place": row.place,
        "values": [_value_as_json(value) for value in row.values],
    }


def _value_as_json(value: DriftedValue) -> dict[str, Any]:
    override, source = value.override, value.provenance
    return {
        "field": value.field,
        "git": value.git,
        "live": value.live,
        "cause": str(value.cause),
        "override": None
        if override is None
        else {
            "owner": override.owner,
            "expires": override.expires.isoformat(),
            "expired": value.expired,
            "reason": override.reason,
            "file": override.file,
            "serial": override.serial,
        },
        "applied": None
        if source is None
        else {
            "serial": source.serial,
            "author": source.author,
            "at": source.applied_at.isoformat(timespec="seconds"),
            "origin": source.origin,
            "commit": source.git_commit,
        },
    }
