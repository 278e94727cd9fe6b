"""The only reader of environment variables; read inside a function, never at import."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from platform_core import faults
from platform_core.errors import ConfigError, Issue, Place

WORKSPACE_FILE = "workspace.yaml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where this installation keeps its files, and which environment it serves.

    Args:
        project: folder of ``workspace.yaml``.
        home: ``DAGSTER_HOME``: ``dagster.yaml`` and ``environments/``; in git.
        state: ``EDP_STATE``: everything the embedded default writes; never in git.
        environment: ``EDP_ENVIRONMENT``: name of a file in ``environments/``.
        user: ``EDP_USER``: who develops here, where the environment is a personal one; None: it does not say.
        account: of the operating system, for want of ``user``; None: the system does not know.
    """

    project: Path
    home: Path
    state: Path
    environment: str
    user: str | None = None
    account: str | None = None

    @property
    def environments(self) -> Path:
        """Folder of the environment files."""
        return self.home / "environments"

    @property
    def dagster_state(self) -> Path:
        """Folder of Dagster's own databases and logs; a value in ``dagster.yaml`` cannot be composed from two."""
        return self.state / "dagster"

    def variables(self) -> dict[str, str]:
        """The environment variables that carry these settings to a child process."""
        variables = {
            "EDP_PROJECT": str(self.project),
            "DAGSTER_HOME": str(self.home),
            "EDP_STATE": str(self.state),
            "EDP_DAGSTER_STATE": str(self.dagster_state),
            "EDP_ENVIRONMENT": self.environment,
        }
        return variables if self.user is None else {**variables, "EDP_USER": self.user}


def read_settings(*, start: Path | None = None, environment: str | None = None) -> Settings:
    """Read the settings of this process.

    Args:
        start: folder in which the search for ``workspace.yaml`` begins, upwards; default: the current one.
        environment: name that goes before ``EDP_ENVIRONMENT``.

    Raises:
        ConfigError: no ``workspace.yaml`` is found and ``EDP_PROJECT`` is not set.
    """
    project = _project(start or Path.cwd())
    return Settings(
        project=project,
        home=_folder("DAGSTER_HOME", project / "dagster_home"),
        state=_folder("EDP_STATE", project / ".edp"),
        environment=environment or os.environ.get("EDP_ENVIRONMENT") or "dev",
        user=os.environ.get("EDP_USER") or None,
        account=_account(),
    )


def publish(settings: Settings) -> None:
    """Make Dagster, dbt and child processes of this process see the same settings."""
    os.environ.update(settings.variables())


def environment_value(name: str) -> str | None:
    """One environment variable, for plug-ins that are configured with its name."""
    return os.environ.get(name)


def arm_fault() -> None:
    """Arm the fault that a test wants this process to meet; the main function of a worker calls it once.

    ``PLATFORM_FAULT`` (``<point>:<action>[:<nth>[:<seconds>]]``) counts only beside ``PLATFORM_TEST=1``.

    Raises:
        ValueError: there is no such point or action.
    """
    if os.environ.get("PLATFORM_TEST") == "1" and (fault := os.environ.get("PLATFORM_FAULT")):
        faults.arm(fault)


def child_environment(
    extra: dict[str, str], *, keep: tuple[str, ...] = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
) -> dict[str, str]:
    """The environment for a child process: the few variables named in ``keep``, and ``extra``."""
    return {name: os.environ[name] for name in keep if name in os.environ} | extra


def _project(start: Path) -> Path:
    if configured := os.environ.get("EDP_PROJECT"):
        return Path(configured).resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / WORKSPACE_FILE).is_file():
            return folder
    raise ConfigError(
        [
            Issue(
                Place(start / WORKSPACE_FILE),
                "no workspace.yaml here or in any folder above",
                ("run edp inside a project, or set EDP_PROJECT to its folder",),
            )
        ]
    )


def _account() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container may run under a number that no account has.
        return None


def _folder(name: str, default: Path) -> Path:
    return Path(os.environ.get(name) or default).resolve()
