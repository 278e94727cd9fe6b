"""What every operation works with: the lake, the engine and the secrets of one environment."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from platform_core.control.loads import Loads, open_loads
from platform_core.lake.paths import Lake
from platform_core.operations.run_options import RunOptions
from platform_core.plugins.interfaces import Engine, SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import EnvironmentSpec, PluginChoice


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One environment, opened.

    Args:
        environment: its declaration, paths resolved.
        lake: where tables live.
        engine: where data work runs.
        secrets: where secret values come from.
        loads: leases of tables, and the log of their loads.
        state: local folder for this installation's own files (dbt's database file, spill).
        log: where an operation says what it does; texts hold no row values.
        cancelled: true once the run is being cancelled; long operations poll it between batches.
        run: what the run asks of its steps: full refresh, the range of a backfill.
    """

    environment: EnvironmentSpec
    lake: Lake
    engine: Engine
    secrets: SecretStore
    loads: Loads
    state: Path
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("platform_core"))
    cancelled: Callable[[], bool] = _never
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def scope(self) -> str:
        """What migrations are remembered for: the environment, and in a personal one whose it is: ``personal/anna``."""
        person = self.environment.person
        return self.environment.name if person is None else f"{self.environment.name}/{person}"

    def for_step(
        self, log: logging.Logger, cancelled: Callable[[], bool], *, run: RunOptions | None = None
    ) -> Platform:
        """The same platform with the log and the cancellation of one step, and what its run asks of it."""
        return replace(self, log=log, cancelled=cancelled, run=run or RunOptions())


def open_platform(environment: EnvironmentSpec, *, state: Path) -> Platform:
    """Open the plug-ins that an environment names.

    Args:
        environment: paths in it are resolved.
        state: local folder for this installation's own files.

    Raises:
        PluginError: a named plug-in is missing.
        ConfigError: it is a personal environment, and it is not known whose.
    """
    engine = plugin("engine", environment.engine.type)
    store = open_secrets(environment.secrets)
    return Platform(
        environment=environment,
        lake=open_lake(environment, secrets=store),
        engine=engine(engine.Options(**environment.engine.options)),
        secrets=store,
        loads=open_loads(environment.control, state=state, secrets=store, person=environment.person),
        state=state,
    )


def open_secrets(choice: PluginChoice) -> SecretStore:
    """The secret store that an environment names; nothing of it is read yet.

    Raises:
        PluginError: it is missing.
    """
    kind = plugin("secret store", choice.type)
    store: SecretStore = kind(kind.Options(**choice.options))
    return store


def open_lake(environment: EnvironmentSpec, *, secrets: SecretStore) -> Lake:
    """The lake of an environment, its secret options filled in; of a personal one as its user sees it.

    Raises:
        SecretError: one of them is missing.
        ConfigError: it is a personal environment, and it is not known whose.
    """
    options = {
        name: secrets.get(value.secret).reveal().decode() if isinstance(value, SecretRef) else value
        for name, value in environment.lake.storage_options.items()
    }
    return Lake.of(environment.lake.root, environment.person, storage_options=options)
