"""``edp``: the command line, a thin skin over functions that a pipeline can call."""

from __future__ import annotations

import atexit
import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from platform_core.errors import PlatformError, unexpected
from platform_core.settings import arm_fault

_COMMANDS = {
    "setup": "prepare this project: storage, keys, dbt manifests",
    "check": "check control files",
    "doctor": "look at all that an environment needs, and say what to do",
    "list": "list what is declared",
    "env": "list environments, and show what tells two apart",
    "own": "list and drop your own tables in a personal environment",
    "run": "run assets without a running Dagster",
    "ingest": "look into single tables, load them again, let stopped loads pass",
    "quality": "evaluate what is expected of tables",
    "dashboards": "show which versions of its tables every dashboard shows",
    "dbt": "build what differs from the dbt projects that are deployed",
    "keys": "show, rotate and retire masking keys",
    "secrets": "set, list, check and remove secrets; never show one",
    "demo": "play two days on sample data",
    "ddl": "bring tables and views to what the migrations in git say",
    "plan": "show what an apply would change, and whom that reaches",
    "apply": "do what a plan says",
    "publish": "give code locations what is applied",
    "sql": "change control tables by reviewed SQL",
    "drift": "show what differs from git in an environment, and who made it so",
    "rollback": "plan the way back to an earlier apply",
    "history": "list what was applied, by whom and why",
    "show": "show one spec as it is applied, or was",
    "unlock": "take the lock on the control tables away",
    "prune": "remove tables of the lake whose spec is gone",
    "alerts": "list alerts, test channels, send again, close",
    "schema": "write JSON Schemas of the control files",
    "docs": "write the command reference",
}


class _Commands(click.Group):
    """Imports a command's module only when that command is used: some need Dagster, most do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # `list` is a module of this package once it is imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"platform_core.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], _COMMANDS, n=1, cutoff=0.65)
            hint = f"did you mean '{close[0]}'?" if close else f"commands: {', '.join(_COMMANDS)}"
            ctx.fail(f"unknown command '{args[0]}'\n  {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edp-platform-core", prog_name="edp")
def edp() -> None:
    """Register tables in YAML; run, check and inspect the platform.

    Exit codes: 0 done or nothing to do, 1 error, 2 changes pending.
    """


def main() -> None:
    """Entry point: errors raised on purpose become one clear message, without a traceback."""
    # Handlers run in reverse: this is the last thing that happens before the interpreter ends.
    atexit.register(_say_no_more)
    arm_fault()
    try:
        # Without standalone mode click returns the code given to `exit`.
        code = edp.main(prog_name="edp", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except PlatformError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - a text that nobody foresaw may hold row values
        click.echo(str(unexpected(error)), err=True)
        sys.exit(1)


def _say_no_more() -> None:
    # DuckDB's binding prints a page about its own reference counts while the interpreter takes it down.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
