"""``edp run``: build assets in this process, without a running Dagster."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.progress import RunDisplay, aside, outcome_as_json, own_console, print_report
from platform_core.cli.setup import set_up_instance
from platform_core.control.environment import load_environment
from platform_core.errors import PlatformError
from platform_core.settings import Settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from platform_core.execution.locations import LoadedLocation
    from platform_core.execution.outcomes import WorkspaceOutcome
    from platform_core.execution.workspace import Work, WorkspaceRunner

_INTERRUPTED = 130
"""Exit code of a process that was asked to stop, as shells have it."""


@click.command("run")
@click.argument("selection", nargs=-1)
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--from-failure", "resume", metavar="RUN", help="Finish what RUN left undone ('last': the newest such).")
@click.option(
    "--full-refresh", is_flag=True, help="Make the tables of steps and dbt models anew, as if for the first time."
)
@click.option("--since", metavar="TIME", help="Backfill: the first moment of the range, such as 2026-01-31 (UTC).")
@click.option("--until", metavar="TIME", help="The first moment after the range; default: now.")
@click.option("--logs", is_flag=True, help="Show the log lines of the runs, too, on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    selection: tuple[str, ...],
    environment: str | None,
    resume: str | None,
    full_refresh: bool,
    since: str | None,
    until: str | None,
    logs: bool,
    as_json: bool,
) -> None:
    """Build assets in this process; without a SELECTION, everything.

    SELECTION is a workstream, a layer of it, a table, a table with + before it (and what it is made from) or after
    it (and what is made from it), or an expression of Dagster's selection language.

    What fails keeps only its dependents from running. --from-failure then builds what failed or was skipped, in
    all locations, and nothing else, with the options of the run that failed.

    --full-refresh and --since hold for all that the SELECTION names: name what is to be made anew, with a + after it
    where what is made from it has to follow. Bronze tables are loaded as ever: see edp ingest --help for reading a
    source again.

    \b
    Examples:
      edp run
      edp run mobility crm.bronze.riders
      edp run +mobility.dashboard.ridership
      edp run --from-failure last
      edp run --full-refresh mobility.silver.rides+
      edp run --since 2026-01-01 --until 2026-02-01 mobility.gold.daily_rides
    """
    if selection and resume:
        raise click.UsageError("give either a SELECTION or --from-failure: a failed run knows what it held")
    asked = _asked(full_refresh=full_refresh, since=since, until=until)
    if asked and resume:
        raise click.UsageError("--from-failure goes on as the failed run began: leave out what that run was asked for")
    settings = read_settings(environment=environment)
    with own_console() as console:
        outcome = run_workspace(
            settings, selection, console=console, resume=resume, quiet=as_json, logs=logs, run_config=asked
        )
        if as_json:
            console.file.write(json.dumps(outcome_as_json(outcome), indent=2) + "\n")
        elif not outcome.assets and not outcome.left_out:
            console.print("there is nothing to do")
        else:
            print_report(console, outcome)
    leave_unless_succeeded(outcome)


def run_workspace(
    settings: Settings,
    selection: tuple[str, ...],
    *,
    console: Console,
    resume: str | None = None,
    quiet: bool = False,
    logs: bool = False,
    run_config: Mapping[str, Any] | None = None,
) -> WorkspaceOutcome:
    """Run a selection over all locations of the workspace.

    Args:
        settings: of this process; published to child processes.
        selection: as ``edp run`` takes it.
        console: where progress is shown.
        resume: a run whose rest is to be done, or ``last``.
        quiet: show no progress.
        logs: let what the runs write to standard output and error through, to standard error.
        run_config: what the runs ask of their steps; None: nothing.

    Raises:
        ConfigError: the selection names nothing, or a file of the project is wrong.
        PlatformError: no location can be loaded, or the run cannot be resumed.
    """
    # First, and here: a fault in its file is one fault, not one of each location.
    load_environment(settings)
    set_up_instance(settings)
    import dagster as dg

    from platform_core.execution.workspace import WorkspaceRunner

    with dg.DagsterInstance.get() as instance:
        locations, broken = _load(settings)
        runner = WorkspaceRunner(locations, instance=instance)
        work = _plan(runner, selection, resume, run_config=run_config or {})
        with aside(show=logs), RunDisplay(console, total=len(work.keys), quiet=quiet) as display:
            outcome = runner.execute(work, progress=display, stopping=display.stopping)
    # Of a selection, nobody knows whether the broken location has a part in it; its fault is told all the same.
    return outcome if selection or resume else replace(outcome, left_out=tuple(broken))


def leave_unless_succeeded(outcome: WorkspaceOutcome, *, again: str | None = None) -> None:
    """End the process with the code and the last words that a failed or interrupted run calls for.

    Args:
        outcome: of the run.
        again: the command that goes on from there; default: ``edp run --from-failure``.
    """
    if outcome.succeeded:
        return
    lines = [f"location '{name}' was left out: see above" for name in outcome.left_out]
    unfinished = [run for run in outcome.runs if run.status.value != "SUCCESS"]
    for run in unfinished:
        lines.append(f"run {run.run_id[:8]} of {run.job} ended {run.status.value}")
        lines += [f"  {line}" for line in run.error.splitlines()]
    if unfinished:
        when = "to finish the rest" if outcome.cancelled else "once the cause is mended, finish the rest"
        lines.append(f"  {when}: {again or f'edp run --from-failure {unfinished[0].run_id[:8]}'}")
    click.echo("\n".join(lines), err=True)
    if outcome.cancelled:
        # A step that ignored the request to stop goes on in its thread: leave without waiting for it, and before
        # the interpreter is taken down under it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)
    raise SystemExit(1)


def _asked(*, full_refresh: bool, since: str | None, until: str | None) -> dict[str, Any]:
    """Run configuration for what the options ask; its range is checked, and has an end, before anything starts."""
    if not full_refresh and since is None and until is None:
        return {}
    from platform_core.factories.resource import run_config
    from platform_core.operations.run_options import COMMAND_LINE, run_options

    now = dt.datetime.now(dt.UTC)
    asked = run_options(run=None, full_refresh=full_refresh, since=since, until=until, now=now, given_in=COMMAND_LINE)
    return run_config(asked)


def _plan(
    runner: WorkspaceRunner, selection: tuple[str, ...], resume: str | None, *, run_config: Mapping[str, Any]
) -> Work:
    if resume is None:
        return runner.plan(selection, run_config=run_config)
    return runner.plan_rest(None if resume == "last" else resume)


def _load(settings: Settings) -> tuple[list[LoadedLocation], list[str]]:
    """The locations that can be loaded, and the names of the others, each of which is told about."""
    from platform_core.control.workspace import read_workspace
    from platform_core.execution.locations import load_location

    locations, broken = [], []
    for entry in read_workspace(settings):
        try:
            locations.append(load_location(entry.name, entry.module, folder=entry.folder))
        except PlatformError as error:
            # One broken location must not keep the others from running.
            click.echo(f"location '{entry.name}' is left out:\n{error}", err=True)
            broken.append(entry.name)
    if not locations:
        raise PlatformError("no location of the workspace can be loaded")
    return locations, broken
