"""``edp run``: build assets in this process, without a running Dagster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from platform_core.cli.progress import RunDisplay, outcome_as_json, own_console, print_report
from platform_core.errors import PlatformError
from platform_core.settings import Settings, publish, read_settings

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from platform_core.execution.workspace import WorkspaceOutcome, WorkspaceRunner


@click.command("run")
@click.argument("selection", nargs=-1)
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--from-failure", "resume", metavar="RUN", help="Re-execute what failed in RUN ('last': the newest).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(selection: tuple[str, ...], environment: str | None, resume: str | None, as_json: bool) -> None:
    """Build assets in this process; without a SELECTION, everything.

    SELECTION is a workstream, a table, a table with + before it (and what it is made from) or after it (and
    what is made from it), or an expression of Dagster's selection language.

    \b
    Examples:
      edp run
      edp run mobility crm.bronze.riders
      edp run +mobility.dashboard.ridership
      edp run --from-failure last
    """
    if selection and resume:
        raise click.UsageError("give either a SELECTION or --from-failure: a resumed run knows what it holds")
    settings = read_settings(environment=environment)
    with own_console() as console:
        outcome = run_workspace(settings, selection, console=console, resume=resume, quiet=as_json)
        if as_json:
            console.file.write(json.dumps(outcome_as_json(outcome), indent=2) + "\n")
        else:
            print_report(console, outcome)
            print_runs(console, outcome)
    if not outcome.succeeded:
        raise SystemExit(1)


def run_workspace(
    settings: Settings,
    selection: tuple[str, ...],
    *,
    console: Console,
    resume: str | None = None,
    quiet: bool = False,
) -> WorkspaceOutcome:
    """Run a selection over all locations of the workspace.

    Args:
        settings: of this process; published to child processes.
        selection: as ``edp run`` takes it.
        console: where progress is shown.
        resume: a run to re-execute from failure, or ``last``.
        quiet: show no progress.
    """
    publish(settings)
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        runner = _load(settings, instance)
        if resume:
            run_id = runner.latest_failed_run() if resume == "last" else resume
            with RunDisplay(console, total=0) as display:
                return runner.resume(run_id, progress=(lambda _: None) if quiet else display)
        selected = runner.select(selection)
        with RunDisplay(console, total=len(selected)) as display:
            return runner.run(selected, progress=(lambda _: None) if quiet else display)


def print_runs(console: Console, outcome: WorkspaceOutcome) -> None:
    """Which runs were started, and how to go on after a failure."""
    for run in outcome.runs:
        if run.status.value != "SUCCESS":
            console.print(f"run {run.run_id[:8]} of {run.job} ended {run.status.value}")
            console.print(f"  once the cause is mended: edp run --from-failure {run.run_id[:8]}")


def _load(settings: Settings, instance: dg.DagsterInstance) -> WorkspaceRunner:
    from platform_core.control.workspace import read_workspace
    from platform_core.execution.workspace import WorkspaceRunner, load_location

    locations, broken = [], []
    for entry in read_workspace(settings):
        try:
            locations.append(load_location(entry.name, entry.module))
        except PlatformError as error:
            # One broken location must not keep the others from running.
            broken.append(f"location '{entry.name}' is left out:\n{error}")
    for text in broken:
        click.echo(text, err=True)
    if not locations:
        raise PlatformError("no location of the workspace can be loaded")
    return WorkspaceRunner(locations, instance=instance)
