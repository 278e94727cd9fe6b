"""``edp unlock``: take the lock on the control tables away from whoever holds it."""

from __future__ import annotations

import click

from platform_core.cli.plan import environment_option, open_control
from platform_core.settings import read_settings


@click.command("unlock")
@click.argument("id_", metavar="ID")
@environment_option
def command(id_: str, environment: str | None) -> None:
    """Take away the lock with this ID, which the error about it tells.

    Only for a process that has surely ended, on a machine that cannot be asked; the lock of one that ended on this
    machine is taken over without a word. An apply that goes on all the same changes nothing.

    \b
    Example:
      edp unlock 5f1c0d7a93b24e88 --env prod
    """
    from platform_core.control.store.lock import unlock

    _, store = open_control(read_settings(environment=environment))
    store.prepare()
    click.echo(f"took the lock away from {unlock(store.database, id_)}")
