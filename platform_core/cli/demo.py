"""``edp demo``: play two days of the sample data through the whole platform."""

from __future__ import annotations

import json
import shutil
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from platform_core.cli.progress import own_console, print_report
from platform_core.cli.run import leave_unless_succeeded, run_workspace
from platform_core.cli.setup import set_up
from platform_core.errors import PlatformError
from platform_core.settings import Settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

_ACTS = {
    1: "Day one: everything is new",
    2: "Day two: rows changed, vanished and arrived late at the sources",
}
_GROUP = "edp.samples"
"""Entry points of packages that bring sample data: a function ``lay_out(folder: Path, *, day: int)``."""


@click.command("demo")
@click.option("--fresh", is_flag=True, help="Forget the last demo first: its lake, its sources and its runs.")
@click.option("--until", type=click.IntRange(1, max(_ACTS)), default=max(_ACTS), help="Stop after this day.")
def command(fresh: bool, until: int) -> None:
    """Play two days of the sample data through the whole platform.

    Played again, nothing is new at the sources, and the tables show that; --fresh starts over.

    \b
    Example:
      edp demo
    """
    settings = read_settings()
    if fresh:
        _forget(settings)
    with own_console() as console:
        started = time.monotonic()
        set_up(settings, say=lambda line: console.print(line, soft_wrap=True))
        played = _played(settings)
        for day in [day for day in _ACTS if played < day <= until] or [played]:
            console.rule(Text(_ACTS[day] if day > played else "Nothing new at the sources"), align="left")
            lay_out_sources(settings.state / "sources", day=day)
            outcome = run_workspace(settings, (), console=console)
            print_report(console, outcome)
            leave_unless_succeeded(outcome, again="edp demo")
            _remember(settings, day)
        _what_next(console, settings, time.monotonic() - started)


def lay_out_sources(folder: Path, *, day: int) -> None:
    """Let every installed sample make its sources as they are on a day.

    Args:
        folder: each sample gets a folder of its own in it, named by its entry point.
        day: 1 or 2.
    """
    samples = entry_points(group=_GROUP)
    if not samples:
        raise PlatformError("no sample data is installed\n  run `make setup` in the project folder")
    for sample in sorted(samples, key=lambda entry: entry.name):
        target = folder / sample.name
        target.mkdir(parents=True, exist_ok=True)
        sample.load()(target, day=day)


def _what_next(console: Console, settings: Settings, seconds: float) -> None:
    console.rule(style="dim")
    console.print(f"done in {seconds:.0f} s")
    for page in sorted((settings.state / "lake").glob("*/dashboard/*/index.html")):
        console.print(f"dashboard  {page}", soft_wrap=True)
    console.print("next       make ui        # the graph, the runs and the lineage in the browser")
    console.print("           edp list       # what the teams declared")
    console.print("           docs/quickstart.md registers a table of your own")


def _state_file(settings: Settings) -> Path:
    return settings.state / "demo.json"


def _played(settings: Settings) -> int:
    """The last day that was played to its end; 0 before the first."""
    file = _state_file(settings)
    return int(json.loads(file.read_text())["day"]) if file.is_file() else 0


def _remember(settings: Settings, day: int) -> None:
    file = _state_file(settings)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({"day": day}))
    temporary.replace(file)


def _forget(settings: Settings) -> None:
    for name in ("lake", "sources", "dbt"):
        shutil.rmtree(settings.state / name, ignore_errors=True)
    _state_file(settings).unlink(missing_ok=True)
