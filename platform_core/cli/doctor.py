"""``edp doctor``: look at all that an environment needs, and say what to do."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from platform_core.settings import publish, read_settings

if TYPE_CHECKING:
    from platform_core.operations.doctor_findings import Check, Examined, Finding, Subject
    from platform_core.settings import Settings

_SIGN_OF_LIFE = dt.timedelta(minutes=2)
"""A daemon that is well gives one every half minute."""

_INDENT = " " * 11


@click.command("doctor")
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each check may take; they run side by side.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(environment: str | None, limit: float, as_json: bool) -> None:
    """Look at storage, databases, secrets, connections, versions and clocks, and say for each what to do.

    Nothing is changed, but for a probe that is written to the lake and removed. What fails keeps nothing else from
    being looked at. Exit code 1 if anything failed; warnings leave it at 0.

    \b
    Examples:
      edp doctor --env prod
      edp doctor --env prod --limit 60 --json
    """
    from platform_core.operations.doctor import examine_environment

    settings = read_settings(environment=environment)
    publish(settings)
    examined = examine_environment(settings, limit=limit, more=_dagster_checks(settings))
    if as_json:
        click.echo(json.dumps(_as_json(settings, examined), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(settings, examined)))
    code = 0 if examined.is_good else 1
    if examined.abandoned:
        # A thread still waits in a driver that cannot be ended, and must not meet the interpreter's end.
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


def _lines(settings: Settings, examined: Examined) -> Iterator[str]:
    yield f"environment {settings.environment}"
    area = ""
    for each in examined.findings:
        if each.area != area:
            area = each.area
            yield f"\n{area}"
        yield from _finding_lines(each)
    counts = {name: sum(each.verdict == name for each in examined.findings) for name in ("ok", "warning", "failed")}
    yield (
        f"\n{len(examined.findings)} looked at: {counts['ok']} ok, "
        f"{counts['warning']} {'warning' if counts['warning'] == 1 else 'warnings'}, {counts['failed']} failed"
    )


def _finding_lines(finding: Finding) -> Iterator[str]:
    yield f"  {finding.verdict:<7}  {finding.name}: {finding.told}"
    if finding.verdict == "ok":
        return
    if finding.looked_at and finding.looked_at not in finding.told and "looked at: " not in finding.advice:
        yield f"{_INDENT}looked at: {finding.looked_at}"
    for line in finding.advice.splitlines():
        yield f"{_INDENT}{line}"


def _as_json(settings: Settings, examined: Examined) -> dict[str, Any]:
    return {
        "environment": settings.environment,
        "good": examined.is_good,
        "findings": [asdict(each) for each in examined.findings],
    }


def _dagster_checks(settings: Settings) -> Iterator[Check]:
    from platform_core.operations.doctor_findings import Check, Subject

    about = Subject(area="dagster", name="storage", looked_at=str(settings.home / "dagster.yaml"))
    yield Check(about=about, look=lambda: _dagster(about, settings))


def _dagster(about: Subject, settings: Settings) -> Iterator[Finding]:
    from platform_core.cli.setup import DATABASES, is_embedded, read_instance_file
    from platform_core.operations.doctor_findings import Verdict

    document = read_instance_file(settings.home / "dagster.yaml")
    if is_embedded(document) and not all((settings.dagster_state / name).is_file() for name in DATABASES):
        yield about.finding(Verdict.WARNING, "there is none yet", advice="make it: edp setup")
        return
    from platform_core.execution.daemons import look_at_daemons

    found = look_at_daemons(settings.home, document)
    yield about.finding(Verdict.OK, f"holds {found.runs:,} {'run' if found.runs == 1 else 'runs'}")
    now = dt.datetime.now(dt.UTC)
    silent = sorted(name for name, at in found.seen.items() if at is None or now - at > _SIGN_OF_LIFE)
    if not silent:
        yield about.finding(Verdict.OK, "alive", name="daemon")
    else:
        yield _silent(about, settings, max((at for at in found.seen.values() if at), default=None), len(silent))
    if found.with_errors:
        advice = "see Deployment, Daemons in the Dagster UI, and the log of the daemon"
        told = f"the last round of {', '.join(found.with_errors)} ended in an error"
        yield about.finding(Verdict.WARNING, told, name="daemon", advice=advice)


def _silent(about: Subject, settings: Settings, last: dt.datetime | None, count: int) -> Finding:
    """What it means that daemons are silent depends on whether anything is to start by itself."""
    from platform_core.operations.doctor_findings import Verdict

    when = "never ran" if last is None else f"gave its last sign of life at {last:%Y-%m-%d %H:%M:%S} UTC"
    if not _starts_by_itself(settings):
        return about.finding(
            Verdict.OK, f"{when}; schedules and sensors of this environment do not start by themselves", name="daemon"
        )
    return about.finding(
        Verdict.FAILED,
        f"{when}; nothing starts by itself ({count} of its parts are silent)",
        name="daemon",
        advice="start dagster-daemon, or look into its log; see docs/how-to/deploy.md",
    )


def _starts_by_itself(settings: Settings) -> bool:
    from platform_core.control.environment import load_environment
    from platform_core.errors import ConfigError

    try:
        return load_environment(settings).schedules
    except ConfigError:
        # It is told as a finding of its own.
        return False
