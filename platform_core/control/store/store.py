"""Opens the control tables of an environment: schema up to date, columns as the specs have them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from platform_core.control.database import PATIENCE, Database, open_database
from platform_core.control.store.layout import reconcile
from platform_core.errors import PlanError
from platform_core.plugins.interfaces import SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.environment import EnvironmentSpec

T = TypeVar("T")


class ControlStore:
    """The control tables of one environment; safe to use from every thread.

    Nothing is connected before the first transaction.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._reconciled = False
        self._reconciling = threading.Lock()

    def __str__(self) -> str:
        return str(self.database.url)

    def prepare(self) -> list[str]:
        """Make the tables those of this version of the code.

        Returns:
            What was added.

        Raises:
            MigrationError: the database is newer than this code, or a migration was edited.
            ControlError: it cannot be reached.
        """
        with self._reconciling:
            if self._reconciled:
                return []
            migrated = self.database.prepare()
            added = self.database.transact(
                lambda connection: reconcile(connection, shown=str(self.database.url)), durable=True
            )
            self._reconciled = True
            return migrated + added

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run one transaction that only reads, and sees the tables as they stood at one moment."""
        self.prepare()
        return self.database.transact(lambda connection: work(_at_one_moment(connection)))

    def change(self, work: Callable[[sa.Connection], T], *, patience: float = PATIENCE) -> T:
        """Run one transaction that is on disk when it returns; ``work`` may run more than once."""
        self.prepare()
        return self.database.transact(work, patience=patience, durable=True)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()


def _at_one_moment(connection: sa.Connection) -> sa.Connection:
    """The connection, whose statements all see what the first of them saw; SQLite's always do."""
    if connection.dialect.name == "postgresql":
        # Else rows of one table could be those before an apply, and rows of the next those after it.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    return connection


def open_store(environment: EnvironmentSpec, *, state: Path) -> ControlStore:
    """The control tables of an environment.

    Args:
        environment: its paths resolved.
        state: local folder of this installation.

    Raises:
        PluginError: the secret store is missing.
        ControlError: the URL means no database that can be used.
        PlanError: the environment is a personal one.
    """
    if environment.developer:
        raise PlanError(
            f"environment '{environment.name}' is a personal one: it runs what the control files say, and nothing is "
            "applied in it\n  name the environment that is meant: --env <name>"
        )
    kind = plugin("secret store", environment.secrets.type)
    secrets: SecretStore = kind(kind.Options(**environment.secrets.options))
    return ControlStore(open_database(environment.control, state=state, secrets=secrets))
