"""``edp history``: what was applied when, by whom, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import environment_option, json_option, open_control
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.store.history import Apply, Version

_WIDEST = 60
_COMMIT = 12


@click.command("history")
@click.argument("kind", required=False)
@click.argument("address", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@environment_option
@json_option
def command(kind: str | None, address: str | None, limit: int, environment: str | None, as_json: bool) -> None:
    """List applies, newest first; with KIND and ADDRESS the versions of one spec.

    \b
    Examples:
      edp history --env prod
      edp history ingestion crm.riders --env prod
    """
    from platform_core.control.store.history import read_applies, read_versions

    if (kind is None) is not (address is None):
        raise click.UsageError("give KIND and ADDRESS, such as ingestion crm.riders, or neither")
    known_kind(kind)
    _, store = open_control(read_settings(environment=environment))
    entries: list[dict[str, Any]]
    if kind is None or address is None:
        entries = [_apply(each) for each in store.read(lambda connection: read_applies(connection, limit=limit))]
    else:
        versions = store.read(lambda connection: read_versions(connection, kind=kind, address=address, limit=limit))
        entries = [version_as_json(each) for each in versions]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    elif entries:
        told = [
            name for name in entries[0] if name not in _HIDDEN and any(entry[name] is not None for entry in entries)
        ]
        shown = [{name: _short(name, entry[name]) for name in told} for entry in entries]
        click.echo(_aligned(list(shown[0]), [[_cell(value) for value in entry.values()] for entry in shown]))
    else:
        click.echo("nothing was applied" if kind is None else f"no {kind} {address} was ever applied")


_HIDDEN = ("plan", "content", "hash", "kind", "address")


def known_kind(kind: str | None) -> None:
    """Refuse a kind that there is not.

    Raises:
        click.UsageError: it lists the kinds.
    """
    from platform_core.control.store.kinds import KINDS

    if kind is not None and kind not in KINDS:
        raise click.UsageError(f"unknown kind '{kind}'; known: {', '.join(KINDS)}")


def version_as_json(version: Version) -> dict[str, Any]:
    """One version of a spec, as data."""
    return {
        "serial": version.serial,
        "at": version.applied_at.isoformat(timespec="seconds"),
        "change": version.change,
        "kind": version.key.kind,
        "address": version.key.address,
        "location": version.key.location,
        "origin": version.origin,
        "commit": version.git_commit,
        "author": version.author,
        "reason": version.approval,
        "hash": version.hash,
        "content": version.content,
    }


def _apply(apply: Apply) -> dict[str, Any]:
    return {
        "serial": apply.serial,
        "at": apply.applied_at.isoformat(timespec="seconds"),
        "created": apply.created,
        "changed": apply.changed,
        "deleted": apply.deleted,
        "origin": apply.origin,
        "commit": apply.git_commit,
        "author": apply.author,
        "reason": apply.approval,
        "went back to": apply.restored,
        "plan": apply.plan,
    }


def _short(name: str, value: Any) -> Any:
    """A commit as git abbreviates it; anything else as it is."""
    if name != "commit" or value is None:
        return value
    commit, dash, rest = str(value).partition("-")
    return commit[:_COMMIT] + dash + rest


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = [heading.upper() for heading in headings]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (titles, *rows)]
    return "\n".join(line.rstrip() for line in lines)
