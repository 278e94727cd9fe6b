"""``edp quality``: evaluate what is expected of tables, as they are now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import environment_option, json_option
from platform_core.errors import PlatformError
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.operations.quality import Checked, ExpectationResult, QualityResult
    from platform_core.specs.manifest import Manifest

_HEADINGS = ("TABLE", "EXPECTATION", "RESULT", "FAILING", "CHECKED", "SHARE", "")


@click.command("quality")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--accept", is_flag=True, help="Take the present numbers of rows as those that later ones are held to.")
@environment_option
@json_option
def command(tables: tuple[str, ...], accept: bool, environment: str | None, as_json: bool) -> None:
    """Evaluate what is expected of tables now, without Dagster; without a TABLE, of all tables.

    TABLE is a table (workstream.layer.name) or a workstream. Failing rows are counted and nothing is written; with
    --accept the numbers of rows are, for row_count_change. Warnings do not make the command fail.

    \b
    Examples:
      edp quality
      edp quality crm.bronze.riders mobility --env prod
      edp quality mobility.silver.rides --accept
    """
    from platform_core.control.environment import load_environment
    from platform_core.control.workspace import check_workspace
    from platform_core.operations.platform import open_platform
    from platform_core.operations.quality import evaluate

    settings = read_settings(environment=environment)
    chosen = _chosen(check_workspace(settings), tables)
    platform = open_platform(load_environment(settings), state=settings.state)
    results, faults = [], []
    for spec in chosen:
        try:
            results.append(evaluate(spec, platform=platform, keep=False, accept=accept))
        except PlatformError as error:
            # One table that is not there keeps no other from being looked at.
            faults.append(str(error))
    if as_json:
        click.echo(json.dumps([_as_json(result) for result in results], indent=2))
    elif results:
        click.echo(_aligned(_HEADINGS, [row for result in results for row in _rows(result)]))
        click.echo(f"\n{_summary(results)}")
    elif not faults:
        click.echo("nothing is expected of any table")
    for fault in faults:
        click.echo(fault, err=True)
    if faults or not all(result.passed for result in results):
        raise SystemExit(1)


def _chosen(manifests: Iterable[Manifest], names: Sequence[str]) -> list[Checked]:
    """What declares expectations of the named tables, or of all."""
    declared: list[Checked] = []
    for manifest in manifests:
        declared += [*manifest.ingestions, *manifest.steps]
    known = {str(spec.ref) for spec in declared} | {spec.workstream for spec in declared}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
            raise click.UsageError(f"no table or workstream '{name}'\n  {hint}")
        if not any(spec.expectations for spec in declared if name in (str(spec.ref), spec.workstream)):
            raise click.UsageError(f"nothing is expected of '{name}'\n  declare it under 'expectations' of the table")
    return [
        spec
        for spec in declared
        if spec.expectations and (not names or str(spec.ref) in names or spec.workstream in names)
    ]


def _as_json(result: QualityResult) -> dict[str, Any]:
    return {
        "table": str(result.table),
        "version": result.version,
        "passed": result.passed,
        "queries": result.queries,
        "seconds": round(result.seconds, 3),
        "expectations": [each.as_json() for each in result.results],
    }


def _rows(result: QualityResult) -> Iterator[tuple[str, ...]]:
    for each in result.results:
        yield (
            str(result.table),
            each.check,
            _word(each),
            "" if each.failing is None else f"{each.failing:,}",
            "" if each.checked is None else f"{each.checked:,}",
            "" if not each.ratio else f"{each.ratio:.2%}",
            each.message,
        )


def _word(result: ExpectationResult) -> str:
    if result.passed:
        return "passed"
    return "warning" if result.severity.value == "warn" else "FAILED"


def _summary(results: Sequence[QualityResult]) -> str:
    words = [_word(each) for result in results for each in result.results]
    counts = ", ".join(f"{words.count(word)} {word.lower()}" for word in ("passed", "warning", "FAILED"))
    return f"Quality: {counts}, of {len(results)} tables"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    )
