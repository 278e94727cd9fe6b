"""``edp ingest``: look into single tables, load them again, and let stopped loads pass."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import logging
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.loads import LoadRow
    from platform_core.operations.load_result import LoadResult
    from platform_core.operations.platform import Platform
    from platform_core.operations.preview import Preview
    from platform_core.settings import Settings
    from platform_core.specs.connection import ConnectionSpec
    from platform_core.specs.ingestion import IngestionSpec
    from platform_core.specs.manifest import Manifest

_BATCH = re.compile(r"(?P<table>[^@]+)@(?P<batch>[0-9]{1,12})")
_WIDEST = 40

_environment = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_logs = click.option("--logs", is_flag=True, help="Show the log lines of the load, too, on standard error.")


@click.group("ingest")
def command() -> None:
    """Look into single tables, load them again, and let stopped loads pass.

    A TABLE is written <workstream>.<table>, or <workstream>.bronze.<table>; a BATCH behind it follows an @.
    Ordinary loads are runs: see `edp run`.

    \b
    Example:
      edp ingest preview crm.riders
    """


@command.command("preview")
@click.argument("table")
@click.option("--rows", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many rows.")
@_environment
@_as_json
def preview_command(table: str, rows: int, environment: str | None, as_json: bool) -> None:
    """Show the columns and first rows of TABLE, masked as a load would mask them; nothing is written.

    \b
    Examples:
      edp ingest preview crm.riders
      edp ingest preview crm.riders --rows 3 --json
    """
    from platform_core.operations.preview import preview

    found = _found(table, environment)
    seen = preview(found.spec, connection=found.connection, platform=found.platform(), rows=rows)
    if as_json:
        click.echo(json.dumps(_preview_as_json(seen), indent=2, ensure_ascii=False))
        return
    click.echo(f"{seen.table}, read from {found.connection.name} ({found.connection.type}): {found.spec.object}\n")
    headings = ("COLUMN", "AT THE SOURCE", "TYPE THERE", "TYPE HERE", "MASK", "CLASSIFIED", "CHANGE")
    click.echo(_aligned(headings, [_described(column) for column in _preview_as_json(seen)["columns"]]))
    values = [[_cell(_plain(value)) for value in row.values()] for row in seen.rows.to_pylist()]
    click.echo("\n" + _aligned(seen.rows.column_names, values) if values else "\nno rows")


@command.command("reload")
@click.argument("table")
@click.option("--since", metavar="VALUE", help="Lowest cursor value that is read; default: from the beginning.")
@click.option("--until", metavar="VALUE", help="Highest cursor value that is read; default: to the end.")
@click.option("--detect-deletes", is_flag=True, help="Compare the keys too, and flag rows deleted that are gone.")
@click.option("--from-landing", "batch", metavar="BATCH", type=int, help="Apply this landed batch; reads no source.")
@_environment
@_logs
@_as_json
def reload_command(
    table: str,
    since: str | None,
    until: str | None,
    detect_deletes: bool,
    batch: int | None,
    environment: str | None,
    logs: bool,
    as_json: bool,
) -> None:
    """Read TABLE again from its source, from the beginning or from a cursor value on.

    Rows are compared with bronze as ever: what is the same stays untouched. A row that bronze holds in a newer
    state stays, too. Mode append is refused: every row would be there twice.

    \b
    Examples:
      edp ingest reload crm.riders
      edp ingest reload crm.orders --since 2026-03-01
      edp ingest reload crm.orders --detect-deletes
      edp ingest reload crm.orders --from-landing 12
    """
    from platform_core.operations.ingest import ingest
    from platform_core.operations.reload import Reload
    from platform_core.operations.replay import replay

    if batch is not None and (since or until or detect_deletes):
        raise click.UsageError("--from-landing reads no source: leave out --since, --until and --detect-deletes")
    found = _found(table, environment)
    if batch is not None:
        _tell(replay(found.spec, batch, platform=found.platform(logs=logs)), as_json=as_json)
        return
    again = Reload(since=since, until=until, detect_deletes=detect_deletes)
    platform = found.platform(logs=logs)
    _tell(ingest(found.spec, connection=found.connection, platform=platform, reload=again), as_json=as_json)


@command.command("replay")
@click.argument("batch", metavar="TABLE@BATCH")
@_environment
@_logs
@_as_json
def replay_command(batch: str, environment: str | None, logs: bool, as_json: bool) -> None:
    """Apply a landed batch again, such as after bronze was restored from an older copy; no source is read.

    A batch that bronze holds is not applied again, and one that is older than bronze is refused.

    \b
    Example:
      edp ingest replay crm.riders@12
    """
    from platform_core.operations.replay import replay

    table, number = _table_and_batch(batch)
    found = _found(table, environment)
    _tell(replay(found.spec, number, platform=found.platform(logs=logs)), as_json=as_json)


@command.command("approve")
@click.argument("batch", metavar="TABLE@BATCH")
@click.option("--why", required=True, help="The reason, for the record.")
@click.option("--by", help="Who approves it; default: the user of the operating system.")
@_environment
@_logs
@_as_json
def approve_command(batch: str, why: str, by: str | None, environment: str | None, logs: bool, as_json: bool) -> None:
    """Let exactly one load pass that was stopped because it would flag too many rows deleted.

    The batch is applied as it was landed, once; who approved it and why is kept. It is refused where bronze was
    loaded since, or where a later load made it superfluous.

    \b
    Example:
      edp ingest approve crm.riders@12 --why "the shop in Delft was closed"
    """
    from platform_core.operations.replay import approve

    if not why.strip():
        raise click.UsageError("--why is empty: write down the reason")
    table, number = _table_and_batch(batch)
    found = _found(table, environment)
    by = by or getpass.getuser()
    _tell(approve(found.spec, number, platform=found.platform(logs=logs), by=by, why=why), as_json=as_json)


@command.command("log")
@click.argument("table", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many loads.")
@_environment
@_as_json
def log_command(table: str | None, limit: int, environment: str | None, as_json: bool) -> None:
    """List what the newest loads did, of TABLE or of all tables.

    \b
    Examples:
      edp ingest log
      edp ingest log crm.riders --limit 5 --json
    """
    if table is None:
        settings = read_settings(environment=environment)
        ref, platform = None, _platform(settings)
    else:
        found = _found(table, environment)
        ref, platform = found.spec.ref, found.platform()
    rows = platform.loads.recent(table=ref, limit=limit)
    if as_json:
        click.echo(json.dumps([_row_as_json(row) for row in rows], indent=2))
    elif not rows:
        click.echo("nothing was loaded yet")
    else:
        headings = ("BEGAN (UTC)", "TABLE", "BATCH", "MODE", "STATUS", *map(str.upper, _COUNTS), "SECONDS")
        click.echo(_aligned(headings, [_logged(row) for row in rows]))
        for row in rows:
            if row.error:
                click.echo(f"\n{row.table}@{row.batch_id} {row.status}:\n  " + row.error.replace("\n", "\n  "))


_COUNTS = ("read", "inserted", "updated", "deleted", "unchanged", "late")


@dataclass(frozen=True)
class _Found:
    """A declared table, and the settings that it was found with."""

    spec: IngestionSpec
    connection: ConnectionSpec
    settings: Settings

    def platform(self, *, logs: bool = False) -> Platform:
        """The platform of its environment, opened."""
        return _platform(self.settings, logs=logs)


def _platform(settings: Settings, *, logs: bool = False) -> Platform:
    from platform_core.control.environment import load_environment
    from platform_core.operations.platform import open_platform

    platform = open_platform(load_environment(settings), state=settings.state)
    log = logging.getLogger("platform_core.cli")
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO if logs else logging.WARNING)
    log.propagate = False
    return platform.for_step(log, platform.cancelled)


def _found(table: str, environment: str | None) -> _Found:
    from platform_core.control.workspace import check_workspace

    settings = read_settings(environment=environment)
    parts = table.split(".")
    if len(parts) == 3 and parts[1] == "bronze":
        parts = [parts[0], parts[2]]
    if len(parts) != 2:
        raise click.UsageError(f"'{table}' is no table: write <workstream>.<table>")
    manifests: Sequence[Manifest] = check_workspace(settings)
    names: list[str] = []
    for manifest in manifests:
        for spec in manifest.ingestions:
            if [spec.workstream, spec.table] == parts:
                return _Found(spec, manifest.connection(spec.workstream, spec.source), settings)
            names.append(f"{spec.workstream}.{spec.table}")
    raise click.UsageError(_unknown(".".join(parts), names))


def _unknown(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"tables: {', '.join(sorted(known)) or 'none'}"
    return f"no table '{name}' is ingested\n  {hint}"


def _table_and_batch(text: str) -> tuple[str, int]:
    match = _BATCH.fullmatch(text)
    if match is None:
        raise click.UsageError(f"'{text}' is no batch: write <workstream>.<table>@<batch>, such as crm.riders@12")
    return match["table"], int(match["batch"])


def _tell(result: LoadResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
        return
    for part in result.parts:
        click.echo(part.line())


def _preview_as_json(seen: Preview) -> dict[str, Any]:
    def text(type_: object) -> str | None:
        return None if type_ is None else str(type_)

    return {
        "table": str(seen.table),
        "columns": [
            {
                "name": column.name,
                "source": column.source,
                "source_type": text(column.source_type),
                "type": text(column.type),
                "mask": column.mask,
                "personal": column.personal,
                "declared": column.declared,
                "change": column.change,
            }
            for column in seen.columns
        ],
        "rows": [{name: _plain(value) for name, value in row.items()} for row in seen.rows.to_pylist()],
    }


def _described(column: dict[str, Any]) -> list[str]:
    said = "personal" if column["personal"] else "declared" if column["declared"] else ""
    named = (column[name] or "-" for name in ("name", "source", "source_type", "type"))
    return [*named, column["mask"] or "", said, column["change"]]


def _row_as_json(row: LoadRow) -> dict[str, Any]:
    return {
        "table": str(row.table),
        "batch": row.batch_id,
        "mode": row.mode,
        "status": row.status,
        "run": row.run_id,
        "host": row.host,
        "pid": row.pid,
        "taken_over": row.taken_over,
        "started_at": row.started_at.isoformat(),
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "error": row.error,
        "figures": dict(row.figures),
    }


def _logged(row: LoadRow) -> list[str]:
    seconds = "" if row.finished_at is None else f"{(row.finished_at - row.started_at).total_seconds():.1f}"
    names = ("rows_read" if name == "read" else name for name in _COUNTS)
    counts = ["" if (count := row.figures.get(name)) is None else f"{count:,}" for name in names]
    return [
        f"{row.started_at:%Y-%m-%d %H:%M:%S}",
        str(row.table),
        str(row.batch_id),
        row.mode,
        row.status,
        *counts,
        seconds,
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.hex()
        case dt.date() | dt.time():
            return value.isoformat()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # A value may hold what a terminal takes for a command.
    text = "".join(character if character.isprintable() else "�" for character in text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    )
