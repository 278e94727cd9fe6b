"""Every error the platform raises on purpose.

    PlatformError
    ├── ConfigError        a file a person wrote is wrong; carries every issue found, each with its place
    ├── PluginError        a plug-in is missing, broken, or lacks its optional dependency
    ├── PlanError          a plan cannot be made or applied
    ├── MigrationError     a DDL or control-table migration is edited, missing or out of order
    ├── SourceError        a source cannot be reached or read
    ├── SchemaError        a table's columns are not what was agreed
    ├── LoadError          a load was stopped before it could do harm
    ├── StepError          a processing step failed
    ├── RefreshError       a dashboard was not refreshed
    ├── SecretError        a secret is missing or unreadable; the message holds its name only
    └── StorageError       the lake or a disk refused

A message says where (file:line or table), what, what was looked at, and what to do. It never holds a
value of a row: errors of engines and drivers pass through :func:`redacted` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, counted from 1; line 0 means the file as a whole."""

    file: Path
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, order=True)
class Issue:
    """One thing that is wrong, and what to do about it.

    Args:
        place: where it stands.
        message: what is wrong, in one line.
        hints: lines that help: what was looked at, what is known, what to do.
    """

    place: Place
    message: str
    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.place}: {self.message}", *(f"  {hint}" for hint in self.hints)])


class PlatformError(Exception):
    """The root of every error raised on purpose."""


class ConfigError(PlatformError):
    """Control files are wrong; all that was found is in ``issues``."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = tuple(sorted(set(issues)))
        super().__init__("\n".join(str(issue) for issue in self.issues))


class PluginError(PlatformError):
    """A plug-in is missing, broken, or lacks its optional dependency."""


class PlanError(PlatformError):
    """A plan cannot be made or applied."""


class MigrationError(PlatformError):
    """A migration is edited, missing or out of order."""


class SourceError(PlatformError):
    """A source cannot be reached or read."""


class SchemaError(PlatformError):
    """A table's columns are not what was agreed."""


class LoadError(PlatformError):
    """A load was stopped before it could do harm."""


class StepError(PlatformError):
    """A processing step failed."""


class RefreshError(PlatformError):
    """A dashboard was not refreshed."""


class SecretError(PlatformError):
    """A secret is missing or unreadable; the message holds its name only."""


class StorageError(PlatformError):
    """The lake or a disk refused."""
