"""``edp check``: find everything that is wrong with control files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from platform_core.control.environment import environment_names
from platform_core.control.workspace import WorkspaceCheck, examine
from platform_core.errors import ConfigError, Issue, Place
from platform_core.settings import Settings, read_settings

_ALL = "all"


@click.command("check")
@click.argument("targets", metavar="[LOCATION|FOLDER]...", nargs=-1)
@click.option("--env", "environment", help="Environment, or all; default: EDP_ENVIRONMENT, else dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(targets: tuple[str, ...], environment: str | None, as_json: bool) -> None:
    """Check control files; without arguments those of every location, and references between them.

    All faults are listed in one go, each with file and line. Nothing is run, and no source is contacted. With --env all
    every environment is checked: each variable must have a value in each.

    \b
    Examples:
      edp check
      edp check mobility
      edp check code_locations/crm --env prod
      edp check --env all
    """
    folder = next((Path(target) for target in targets if Path(target).is_dir()), None)
    settings = read_settings(start=folder, environment=None if environment == _ALL else environment)
    if environment == _ALL:
        _check_all(settings, targets, as_json=as_json)
        return
    found = examine(settings, only=targets)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        _show(found, found.report.issues)
    if found.report:
        raise SystemExit(1)


def _check_all(settings: Settings, targets: tuple[str, ...], *, as_json: bool) -> None:
    names = environment_names(settings)
    if not names:
        raise ConfigError([Issue(Place(settings.environments), "no environment has a file here")])
    found = {name: examine(replace(settings, environment=name), only=targets) for name in names}
    if as_json:
        click.echo(json.dumps({name: _as_json(each) for name, each in found.items()}, indent=2))
    else:
        _show(found[names[0]], _named(found))
        click.echo(f"environments: {', '.join(names)}")
    if any(each.report for each in found.values()):
        raise SystemExit(1)


def _named(found: Mapping[str, WorkspaceCheck]) -> list[Issue]:
    """Every fault once, with the environments that have it where others have not."""
    having: dict[Issue, list[str]] = {}
    for name, each in found.items():
        for issue in each.report.issues:
            having.setdefault(issue, []).append(name)
    named = [
        issue if len(names) == len(found) else replace(issue, hints=(*issue.hints, f"environment: {', '.join(names)}"))
        for issue, names in having.items()
    ]
    return sorted(named, key=lambda issue: (str(issue.place.file), issue.place.line, issue.message))


def _show(found: WorkspaceCheck, issues: Sequence[Issue]) -> None:
    if issues:
        for issue in issues:
            click.echo(str(issue))
        files = len({issue.place.file for issue in issues})
        click.echo(f"\n{_counted(len(issues), 'problem')} in {_counted(files, 'file')}")
    else:
        counts = ", ".join(_counted(number, noun) for noun, number in _numbers(found).items() if number)
        click.echo(f"checked {_counted(found.files, 'file')}: {counts or 'nothing is declared'}")
    if found.unchecked:
        click.echo(f"not checked, as their control files are not here: {', '.join(found.unchecked)}")


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
