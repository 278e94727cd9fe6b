"""``edp check``: find everything that is wrong with control files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from platform_core.control.workspace import WorkspaceCheck, examine
from platform_core.errors import Issue
from platform_core.settings import read_settings


@click.command("check")
@click.argument("targets", metavar="[LOCATION|FOLDER]...", nargs=-1)
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(targets: tuple[str, ...], environment: str | None, as_json: bool) -> None:
    """Check control files; without arguments those of every location, and references between them.

    All faults are listed in one go, each with file and line. Nothing is run, and no source is contacted.

    \b
    Examples:
      edp check
      edp check mobility
      edp check code_locations/crm --env prod
    """
    folder = next((Path(target) for target in targets if Path(target).is_dir()), None)
    found = examine(read_settings(start=folder, environment=environment), only=targets)
    issues = found.report.issues
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    elif issues:
        for issue in issues:
            click.echo(str(issue))
        files = len({issue.place.file for issue in issues})
        click.echo(f"\n{_counted(len(issues), 'problem')} in {_counted(files, 'file')}")
    else:
        counts = ", ".join(_counted(number, noun) for noun, number in _numbers(found).items() if number)
        click.echo(f"checked {_counted(found.files, 'file')}: {counts or 'nothing is declared'}")
    if found.unchecked and not as_json:
        click.echo(f"not checked, as their control files are not here: {', '.join(found.unchecked)}")
    if issues:
        raise SystemExit(1)


def _numbers(found: WorkspaceCheck) -> dict[str, int]:
    manifests = found.manifests
    return {
        "location": len(manifests),
        "connection": sum(len(manifest.connections) for manifest in manifests),
        "table": sum(len(manifest.ingestions) for manifest in manifests),
        "step": sum(len(manifest.steps) for manifest in manifests),
        "dbt project": sum(len(manifest.dbt) for manifest in manifests),
        "dashboard": sum(len(manifest.refreshes) for manifest in manifests),
    }


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _as_json(found: WorkspaceCheck) -> dict[str, Any]:
    return {
        "ok": not found.report,
        "files": found.files,
        "declared": {noun.replace(" ", "_"): number for noun, number in _numbers(found).items()},
        "unchecked": list(found.unchecked),
        "issues": [_issue(issue) for issue in found.report.issues],
    }


def _issue(issue: Issue) -> dict[str, Any]:
    return {
        "file": str(issue.place.file),
        "line": issue.place.line or None,
        "message": issue.message,
        "hints": list(issue.hints),
    }
