"""``edp list``: show what is declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from platform_core.control.workspace import check_workspace
from platform_core.errors import Place
from platform_core.settings import Settings, read_settings
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import StepKind
from platform_core.specs.table import TableRef

_HEADINGS = ("NAME", "KIND", "MODE", "KEY", "FROM")
_WIDEST = 60


@click.command("list")
@click.argument("workstreams", metavar="[WORKSTREAM]...", nargs=-1)
@click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(workstreams: tuple[str, ...], environment: str | None, as_json: bool) -> None:
    """List declared tables, steps, dbt projects and dashboards of all locations.

    \b
    Examples:
      edp list
      edp list mobility --json
    """
    settings = read_settings(environment=environment)
    manifests = check_workspace(settings)
    known = sorted(spec.name for manifest in manifests for spec in manifest.location.workstreams)
    if unknown := sorted(set(workstreams) - set(known)):
        raise click.UsageError(f"unknown workstream '{unknown[0]}'; known: {', '.join(known)}")
    entries = [
        entry
        for manifest in manifests
        for entry in _entries(manifest, settings)
        if not workstreams or entry["workstream"] in workstreams
    ]
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    elif entries:
        click.echo(_table([_row(entry) for entry in entries]))
    else:
        click.echo("nothing is declared")


def _entries(manifest: Manifest, settings: Settings) -> Iterator[dict[str, Any]]:
    """Every declared thing of a location, as data."""

    def entry(kind: str, ref: TableRef, place: Place | None, inputs: Sequence[str], **more: object) -> dict[str, Any]:
        return {
            "name": str(ref),
            "kind": kind,
            "location": manifest.location.name,
            "workstream": ref.workstream,
            "inputs": list(inputs),
            **more,
            "declared": _declared(place, settings),
        }

    for table in manifest.ingestions:
        connection = manifest.connection(table.workstream, table.source)
        yield entry(
            "table",
            table.ref,
            table.place,
            (),
            source=table.source,
            type=connection.type,
            object=table.object,
            mode=str(table.mode),
            key=list(table.key),
            cursor=table.cursor,
            masked=sorted(table.masks),
        )
    for step in manifest.steps:
        inputs = [str(ref) for ref in step.inputs]
        if step.kind is StepKind.EXTERNAL:
            where = {"source": step.source, "object": step.object} if step.source else {}
            yield entry("step", step.ref, step.place, (), type=str(step.kind), **where)
            continue
        yield entry("step", step.ref, step.place, inputs, type=str(step.kind), mode=str(step.write), key=list(step.key))
    for project in manifest.dbt:
        ref = TableRef(project.workstream, project.layer, project.name)
        yield entry("dbt project", ref, project.place, (), project=project.project)
    for dashboard in manifest.refreshes:
        inputs = [str(ref) for ref in dashboard.inputs]
        yield entry("dashboard", dashboard.ref, dashboard.place, inputs, type=dashboard.type)


def _declared(place: Place | None, settings: Settings) -> str | None:
    if place is None:
        return None
    file = place.file.relative_to(settings.project) if place.file.is_relative_to(settings.project) else place.file
    return str(Place(file, place.line))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    kind = f"{entry['kind']} ({entry['type']})" if "type" in entry else entry["kind"]
    origin = f"{entry['source']}: {entry['object']}" if "source" in entry else ", ".join(entry["inputs"])
    return (
        entry["name"],
        kind,
        entry.get("mode", ""),
        ", ".join(entry.get("key", ())),
        origin or entry.get("project", ""),
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    """Rows in columns, each as wide as its widest cell; long cells are cut."""
    cells = [tuple(text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…" for text in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (_HEADINGS, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)
