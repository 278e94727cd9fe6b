"""Shows a run while it works, and what it did at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from platform_core.execution.outcomes import AssetOutcome, WorkspaceOutcome

_MARKS = {"ok": ("ok", "green"), "failed": ("failed", "bold red"), "skipped": ("skipped", "yellow")}

_DEFERRED = "edp/deferred"
_WIDTH = 120
"""Of what is written to a file, and of tables anywhere at the least."""


@contextmanager
def own_console() -> Iterator[Console]:
    """A console on a copy of standard output: Dagster redirects the original into a run's log file."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace") as stream:
        width = None if stream.isatty() else 140
        yield Console(file=stream, width=width, highlight=False)


@contextmanager
def aside(*, show: bool) -> Iterator[None]:
    """Keep what runs write to standard output and error from ours; each run's own log file has it in any case.

    Args:
        show: send it to standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours = os.dup(1), os.dup(2)
    target = os.dup(2) if show else os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, saved in zip((1, 2), ours, strict=True):
            os.dup2(saved, stream)
            os.close(saved)


class RunDisplay:
    """One line on a terminal, one line for each finished asset elsewhere.

    Args:
        console: where to write.
        total: how many assets are going to run.
        quiet: write nothing.
    """

    def __init__(self, console: Console, *, total: int, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._running: set[str] = set()
        self._done: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[running]}"),
            console=console,
            transient=True,
            # What steps print belongs into their run's log file, not above the bar.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("run", total=total, running="")

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, outcome: AssetOutcome) -> None:
        """Take note of a change of status."""
        name = ".".join(outcome.key.path)
        if outcome.status == "running":
            self._running.add(name)
        elif outcome.status in _MARKS and name not in self._done:
            self._running.discard(name)
            self._done.add(name)
            if not self._quiet and not self._console.is_terminal:
                self._console.print(Text(f"{outcome.status:8}{name}"))
        self._progress.update(
            self._task, completed=len(self._done), running=Text.from_markup(", ".join(sorted(self._running)[:3])).plain
        )

    def stopping(self) -> None:
        """Say that the request to stop was heard."""
        if not self._quiet:
            self._console.print("stopping: running steps have a few seconds to end; Ctrl-C once more ends them now")


def print_report(console: Console, outcome: WorkspaceOutcome) -> None:
    """Tables a person wants to read: what was ingested, made of it, shown and kept up."""
    assets = list(outcome.assets.values())
    bronze = [asset for asset in assets if asset.key.path[1] == "bronze"]
    dashboards = [asset for asset in assets if asset.key.path[1] == "dashboard"]
    upkeep = [asset for asset in assets if asset.key.path[1] == "upkeep"]
    steps = [asset for asset in assets if asset not in bronze and asset not in dashboards and asset not in upkeep]
    if bronze:
        counts = ("read", "inserted", "updated", "deleted", "unchanged", "late")
        table = _table("ingested", "mode", *counts, "commit", "seconds", "status")
        for asset in bronze:
            _row(
                table,
                asset,
                str(asset.metadata.get("edp/mode", "")),
                *(_count(asset.metadata.get(f"edp/{name}")) for name in counts),
                _commit(asset),
            )
        _print(console, table)
    if steps:
        table = _table("made", "rows", "seconds", "status")
        for asset in steps:
            rows = asset.metadata.get("edp/rows", asset.metadata.get("dagster/row_count"))
            _row(table, asset, _count(rows))
        _print(console, table)
    if dashboards:
        table = _table("dashboard", "seconds", "status")
        for asset in dashboards:
            _row(table, asset)
        _print(console, table)
    if upkeep:
        figures = ("tables_looked_at", "files_merged_away", "files_freed", "bytes_freed")
        table = _table("upkeep", "tables", "merged away", "files freed", "bytes freed", "seconds", "status")
        for asset in upkeep:
            _row(table, asset, *(_count(asset.metadata.get(f"edp/{name}")) for name in figures))
        _print(console, table)
    for asset in assets:
        if shared := asset.metadata.get(_DEFERRED):
            console.print(f"{'.'.join(asset.key.path)} read everybody's {', '.join(shared)}", soft_wrap=True)
    for text in failures(assets):
        console.print(Text(text, style="red"), soft_wrap=True)


def failures(assets: Iterable[AssetOutcome]) -> list[str]:
    """The message of each failed asset, assets of one failed step together."""
    texts: dict[str, list[str]] = {}
    for asset in assets:
        if asset.status == "failed":
            texts.setdefault(asset.error, []).append(".".join(asset.key.path))
    return [_named(names, error) for error, names in texts.items()]


def _named(names: list[str], error: str) -> str:
    """The message with the assets before it, where it does not begin with them anyway."""
    first = error.splitlines()[0].partition(" (")[0]
    return error if all(name in first for name in names) else f"{', '.join(names)}: {error}"


def outcome_as_json(outcome: WorkspaceOutcome) -> dict[str, Any]:
    """The same as data."""
    return {
        "succeeded": outcome.succeeded,
        "runs": [{"run_id": run.run_id, "job": run.job, "status": run.status.value} for run in outcome.runs],
        "assets": [
            {
                "asset": ".".join(asset.key.path),
                "status": asset.status.value,
                "run_id": asset.run_id,
                "seconds": round(asset.seconds, 3),
                "error": asset.error,
                "figures": {
                    name.removeprefix("edp/"): value
                    for name, value in asset.metadata.items()
                    if isinstance(value, int | float | str) and not name.startswith("dagster")
                },
                # Only in a personal environment.
                **({"deferred": asset.metadata[_DEFERRED]} if _DEFERRED in asset.metadata else {}),
            }
            for asset in outcome.assets.values()
        ],
    }


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="left" if column in ("mode", "status", "commit") else "right")
    return table


def _print(console: Console, table: Table) -> None:
    # On a narrow terminal lines run over; figures that are cut would tell nothing.
    width = console.width
    console.width = max(width, _WIDTH)
    console.print(table)
    console.width = width


def _row(table: Table, asset: AssetOutcome, *cells: str) -> None:
    mark, style = _MARKS.get(asset.status, (asset.status, ""))
    seconds = f"{asset.seconds:.2f}" if asset.seconds else ""
    table.add_row(".".join(asset.key.path), *cells, seconds, Text(mark, style=style))


def _commit(asset: AssetOutcome) -> str:
    if "edp/committed" not in asset.metadata:
        return ""
    return f"v{asset.metadata['edp/version']}" if asset.metadata["edp/committed"] else "none"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
