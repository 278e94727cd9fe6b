"""Every error the platform raises on purpose.

    PlatformError
    ├── ConfigError        a file a person wrote is wrong; carries every issue found, each with its place
    ├── PluginError        a plug-in is missing, broken, or lacks its optional dependency
    ├── PlanError          a plan cannot be made or applied
    ├── MigrationError     a DDL or control-table migration is edited, missing or out of order
    ├── SourceError        a source cannot be reached or read
    ├── SchemaError        a table's columns are not what was agreed
    │   └── Unclassified       a table that holds personal data has new columns that nobody has classified
    ├── LoadError          a load was stopped before it could do harm
    │   ├── DeletesStopped     it would have flagged too many rows deleted; a person may approve it
    │   ├── Overtaken          somebody else loaded the table meanwhile; the load begins anew
    │   └── LeaseError         the table is being loaded by somebody else, or its lease was lost
    ├── StepError          a processing step failed
    ├── RefreshError       a dashboard was not refreshed
    ├── TimeLimitError     a step did not end within its time
    ├── InputsError        what a step or dashboard reads is not fit to be read; it looked at nothing
    ├── SecretError        a secret is missing or unreadable; the message holds its name only
    │   └── SecretMissing      the store has no secret of that name
    ├── AlertError         a channel did not take an alert; another try may help
    │   └── AlertRefused       no further try would help
    ├── StorageError       the lake or a disk refused
    ├── ControlError       the control database cannot be reached, or refused
    └── SnapshotError      the published metadata of a location is missing, damaged, or not for this place

A message says where (file:line or table), what, what was looked at, and what to do. It never holds a
value of a row: errors of engines and drivers pass through :func:`redacted` first.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


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

    may_pass: ClassVar[bool] = True
    """Whether the same may succeed at another time without a person's doing; only then it is tried again."""


class ConfigError(PlatformError):
    """Control files are wrong; all that was found is in ``issues``."""

    may_pass = False

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = tuple(sorted(set(issues)))
        super().__init__("\n".join(str(issue) for issue in self.issues))


class PluginError(PlatformError):
    """A plug-in is missing, broken, or lacks its optional dependency."""

    may_pass = False


class PlanError(PlatformError):
    """A plan cannot be made or applied."""

    may_pass = False


class MigrationError(PlatformError):
    """A migration is edited, missing or out of order."""

    may_pass = False


class SourceError(PlatformError):
    """A source cannot be reached or read."""


class SchemaError(PlatformError):
    """A table's columns are not what was agreed."""

    may_pass = False


class Unclassified(SchemaError):  # noqa: N818 - says what is the matter with the columns
    """A table that holds personal data has new columns that nobody has classified; nothing was written."""


class LoadError(PlatformError):
    """A load was stopped before it could do harm."""

    may_pass = False


class DeletesStopped(LoadError):  # noqa: N818 - says what happened to the deletes
    """A load would have flagged too many rows deleted; nothing was applied.

    Args:
        message: as of every error.
        deletes: rows that it would have flagged.
        current: rows that are current in bronze.
    """

    def __init__(self, message: str, *, deletes: int, current: int) -> None:
        self.deletes = deletes
        self.current = current
        super().__init__(message)


class Overtaken(LoadError):  # noqa: N818 - not the load's own fault: it begins anew
    """Somebody else loaded the table since this load began; nothing of this one was applied."""

    may_pass = True


class RowsUnknown(LoadError):  # noqa: N818 - not the load's own fault: it reads everything
    """A source said of rows that they are unchanged, and bronze has not got them; nothing was applied."""


class LeaseError(LoadError):
    """A table is being loaded by somebody else, or the lease on it was lost."""

    may_pass = True


class StepError(PlatformError):
    """A processing step failed."""


class RefreshError(PlatformError):
    """A dashboard was not refreshed."""


class TimeLimitError(PlatformError):
    """A step did not end within its time, and was ended."""


class InputsError(PlatformError):
    """What a step or dashboard reads is not fit to be read; it ended before it looked at anything."""

    may_pass = False


class SecretError(PlatformError):
    """A secret is missing or unreadable; the message holds its name only."""


class SecretMissing(SecretError):  # noqa: N818 - says what is the matter
    """The store has no secret of that name."""

    may_pass = False


class AlertError(PlatformError):
    """A channel did not take an alert, or may not have; another try may help.

    Args:
        message: as of every error.
        retry_after: seconds that the service asked us to wait; None: it asked for nothing.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class AlertRefused(AlertError):  # noqa: N818 - says what became of the alert
    """A channel refuses an alert for good."""

    may_pass = False


class StorageError(PlatformError):
    """The lake or a disk refused."""


class ControlError(PlatformError):
    """The control database cannot be reached, or refused."""


class SnapshotError(PlatformError):
    """The published metadata of a location is missing, damaged, or not for this place."""

    may_pass = False


_SPEAKS_OF_NO_ROW = frozenset(
    {
        "adbc_driver_manager.InterfaceError",
        "deltalake.CommitFailedError",
        "deltalake.TableNotFoundError",
        "duckdb.BinderException",
        "duckdb.CatalogException",
        "duckdb.InterruptException",
        "duckdb.IOException",
        "duckdb.OutOfMemoryException",
        "duckdb.ParserException",
        "duckdb.PermissionException",
        "pyarrow.ArrowCancelled",
        "pyarrow.ArrowNotImplementedError",
    }
)
"""Classes whose first line names objects, settings or memory, and no value of a row."""

_PACKAGES = {"_duckdb": "duckdb", "_internal": "deltalake", "pyarrow.lib": "pyarrow"}
_LONGEST = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CODES = ("sqlstate", "pgcode", "errno", "full_code", "sqlite_errorname")
_CODE = re.compile(r"-?[0-9]{1,6}|[0-9A-Z]{5}|(ORA|DPY|DPI)-[0-9]{1,6}|SQLITE_[A-Z_]{1,40}")
_NUMBERED = frozenset({"pymysql"})
"""Packages whose errors have their number as the first argument."""

_OWN_WORDS = frozenset({"socket", "ssl"})
"""Modules whose errors say in ``strerror`` what the network or a certificate lacks."""


def redacted(error: BaseException) -> str:
    """What may be said of an engine's or driver's error: its class, its code, and a text that holds no row value.

    Our own errors are clean already and keep their text. Of any other class the text is withheld, unless that class
    is known to speak of objects and settings only: many engines quote the value that they could not take. An error of
    the operating system is told in the system's words, with the file.
    """
    if isinstance(error, PlatformError):
        return str(error)
    if isinstance(error, OSError) and (said := _of_the_system(error)):
        return said
    label = _label(error)
    first = next(iter(_COLOUR.sub("", str(error)).strip().splitlines()), "")
    if _class_of(error) in _SPEAKS_OF_NO_ROW and first:
        return f"{label}: {first[:_LONGEST]}"
    return f"{label} (its text is withheld: it may hold row values)"


def unexpected(error: BaseException) -> PlatformError:
    """The last boundary: an error that nobody foresaw, as one that may be shown and stored.

    It holds what :func:`redacted` lets through, and where in the code it arose: file, line and function of every frame.
    """
    frames = "".join(
        f"\n  at {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    )
    return PlatformError(f"unexpected error: {redacted(error)}{frames}")


def _of_the_system(error: OSError) -> str | None:
    if error.errno is None:
        return None
    known = error.errno in errno.errorcode and type(error).__module__ not in _OWN_WORDS
    # A library may raise the system's errors with a text of its own.
    words = os.strerror(error.errno) if known else error.strerror
    if not words or not (known or type(error).__module__ in _OWN_WORDS):
        return None
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    return f"{type(error).__qualname__}: {words}{where}"


def _class_of(error: BaseException) -> str:
    module = type(error).__module__
    return f"{_PACKAGES.get(module, module.partition('.')[0])}.{type(error).__qualname__}"


def _label(error: BaseException) -> str:
    """Class and code of an error, and of the driver's error that a library carries in its own."""
    inner = getattr(error, "orig", None)
    behind = f" from {_label(inner)}" if isinstance(inner, BaseException) and inner is not error else ""
    code = _code(error)
    return _class_of(error).removeprefix("builtins.") + (f" [{code}]" if code else "") + behind


def _code(error: BaseException) -> str | None:
    detail = error.args[0] if error.args else None
    found = [getattr(owner, name, None) for owner in (error, detail) for name in _CODES]
    if type(error).__module__.partition(".")[0] in _NUMBERED and isinstance(detail, int):
        found.append(detail)
    # What is no code may be anything.
    return next((str(code) for code in found if isinstance(code, (str, int)) and _CODE.fullmatch(str(code))), None)
