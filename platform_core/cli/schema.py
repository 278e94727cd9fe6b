"""``edp schema``: write the JSON Schemas that editors check control files with."""

from __future__ import annotations

import click

from platform_core.control.schema import SCHEMA_FOLDER, schema_files
from platform_core.settings import read_settings


@click.command("schema")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the committed schemas differ.")
def command(check: bool) -> None:
    """Write schemas/<kind>.json, made from the models and the options of every installed plug-in.

    \b
    Example:
      edp schema --check
    """
    project = read_settings().project
    wanted = schema_files(project)
    stale = [file for file, text in wanted.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    left_over = sorted(set((project / SCHEMA_FOLDER).glob("*.json")) - set(wanted))
    if check:
        for file in (*stale, *left_over):
            click.echo(f"{file.relative_to(project)} is not up to date", err=True)
        if stale or left_over:
            click.echo("  run `edp schema` and commit the result", err=True)
            raise SystemExit(1)
        return
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted[file], encoding="utf-8")
    for file in left_over:
        file.unlink()
    click.echo(f"wrote {len(stale)}, removed {len(left_over)}, kept {len(wanted) - len(stale)} schemas")
