"""Brings the tables of the control database up to date with Alembic: in order, each change once, all or nothing.

Beside Alembic's own ``alembic_version`` the table ``migrations`` keeps what was applied when, with a checksum, so
that an edited revision is noticed, and so that code from before Alembic refuses a database that has moved on.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema, CreateTable

from platform_core.control.tables import SCHEMA, migrations
from platform_core.errors import MigrationError

REVISIONS = Path(__file__).parent / "versions"
"""Folder of the revisions of this version of the code."""

_NAME = re.compile(r"([0-9]{4})_([a-z][a-z0-9_]*)\.py")
_LONGEST_NAME = 32
"""Alembic keeps the name of the newest revision in a column of this length."""

# Any number that nobody else uses for an advisory lock of the same database.
_LOCK = 4_037_112_201
_ALEMBIC_VERSION = sa.Table("alembic_version", sa.MetaData(schema=SCHEMA), sa.Column("version_num", sa.Text))
_BEFORE_ALEMBIC = {
    "0001_loads": frozenset(
        {
            "0cd5fa8790c372fe38e709d76b160586b09ba570f2cb4ca916768ccdd00a65ed",
            "b50cc32d1a52653d403ebd1bf72db43461af793954a65b919a17132ed2da1f53",
        }
    )
}
"""Checksums of the SQL files (of SQLite, of PostgreSQL) that made the same tables before there were revisions."""

# Alembic keeps the revision that is being applied in a place that all threads share.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, order=True)
class Migration:
    """One revision; never edited once it is released: a mistake is mended by the next one.

    Args:
        version: counted from 1, without gaps.
        name: of its file, and of the revision in it.
        checksum: SHA-256 (hex) of its text.
    """

    version: int
    name: str
    checksum: str

    def is_the_one_applied(self, checksum: str) -> bool:
        """Whether a row with this checksum stands for this revision as it is today."""
        return checksum == self.checksum or checksum in _BEFORE_ALEMBIC.get(self.name, ())


def read_migrations(folder: Path) -> list[Migration]:
    """The revisions of a folder, in order; none of them is run.

    Raises:
        MigrationError: a file has no version, or a version is missing or there twice.
    """
    found = sorted(_read(file) for file in folder.glob("*.py"))
    if [each.version for each in found] != list(range(1, len(found) + 1)):
        raise MigrationError(
            f"{folder}: versions must be 1, 2, 3 and so on, without gaps\n"
            f"  found: {', '.join(each.name for each in found) or 'none'}"
        )
    return found


def bring_up_to_date(
    connection: sa.Connection, *, shown: str, now: dt.datetime, folder: Path | None = None
) -> list[str]:
    """Apply what is missing, within the transaction of the connection.

    Processes that start at once wait for each other: by the transaction in SQLite, by an advisory lock in PostgreSQL.

    Args:
        shown: what a person calls the database.
        folder: holds the revisions; None: those of this version of the code.

    Returns:
        Names of the revisions that were applied.

    Raises:
        MigrationError: an applied one was edited or is missing, one is out of order, or the database is newer.
    """
    folder = folder or REVISIONS
    known = read_migrations(folder)
    applied = _applied(connection)
    if applied is None or len(applied) < len(known):
        # Looked at again under the lock: somebody else may have been first.
        _lock(connection)
        applied = _applied(connection)
        if applied is None:
            connection.execute(CreateTable(migrations))
            applied = {}
    missing = _missing(known, applied, shown=shown)
    if missing:
        _upgrade(connection, folder, known, newest=len(applied), now=now)
    return [each.name for each in missing]


def waiting_migrations(connection: sa.Connection, *, shown: str, folder: Path | None = None) -> list[str]:
    """Names of the revisions that the database still lacks; nothing is changed. Arguments and errors as above."""
    known = read_migrations(folder or REVISIONS)
    return [each.name for each in _missing(known, _applied(connection) or {}, shown=shown)]


def take_lock(connection: sa.Connection) -> None:
    """Wait until nobody else changes the tables of this database; held until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _read(file: Path) -> Migration:
    match = _NAME.fullmatch(file.name)
    if match is None or len(file.stem) > _LONGEST_NAME:
        raise MigrationError(f"{file}: the name must read like 0001_loads.py, at most {_LONGEST_NAME} characters long")
    return Migration(int(match[1]), file.stem, hashlib.sha256(file.read_text(encoding="utf-8").encode()).hexdigest())


def _lock(connection: sa.Connection) -> None:
    take_lock(connection)
    # A user who may not make schemas can use one that was made for it.
    if connection.dialect.name == "postgresql" and not sa.inspect(connection).has_schema(SCHEMA):
        connection.execute(CreateSchema(SCHEMA))


def _schema(connection: sa.Connection) -> str | None:
    return SCHEMA if connection.dialect.name == "postgresql" else None


def _applied(connection: sa.Connection) -> dict[int, sa.Row[tuple[int, str, str]]] | None:
    """Applied revisions by version; None where there is no table of them."""
    if not sa.inspect(connection).has_table(migrations.name, schema=_schema(connection)):
        return None
    rows = connection.execute(sa.select(migrations.c.version, migrations.c.name, migrations.c.checksum))
    return {row.version: row for row in rows}


def _missing(
    known: list[Migration], applied: dict[int, sa.Row[tuple[int, str, str]]], *, shown: str
) -> list[Migration]:
    by_version = {each.version: each for each in known}
    newest = max(applied, default=0)
    if newest > len(known):
        raise MigrationError(
            f"control database: it is newer than this code: it has migration {applied[newest].name}, "
            f"the code knows {len(known)}\n  looked at: {shown}\n  run the version of the platform that migrated it, "
            "or a newer one; tables are never taken back"
        )
    for version, row in sorted(applied.items()):
        if not by_version[version].is_the_one_applied(row.checksum):
            raise MigrationError(
                f"control database: migration {row.name} was edited after it had been applied\n  looked at: {shown}\n"
                "  put its text back, and make the change in a new migration"
            )
    missing = [each for each in known if each.version not in applied]
    if missing and missing[0].version < newest:
        raise MigrationError(
            f"control database: migration {missing[0].name} was not applied, but later ones were\n"
            f"  looked at: {shown}\n  give it the next free number, or restore the row of it if it was lost"
        )
    return missing


def _upgrade(connection: sa.Connection, folder: Path, known: list[Migration], *, newest: int, now: dt.datetime) -> None:
    """Run the revisions after version ``newest``, and note each.

    Alembic itself reads them and keeps its own mark; it is imported by those processes only that find work for it.
    """
    from alembic import command
    from alembic.config import Config

    checksums = {each.name: each for each in known}

    def note(*, step: Any, **_: Any) -> None:
        done = checksums[step.up_revision_id]
        row = {"version": done.version, "name": done.name, "checksum": done.checksum, "applied_at": now}
        connection.execute(migrations.insert(), row)

    config = Config(
        attributes={"connection": connection, "version_table_schema": _schema(connection), "on_version_apply": note}
    )
    for name, value in {
        "script_location": str(Path(__file__).parent),
        "version_locations": str(folder),
        "path_separator": "newline",
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    with _one_at_a_time:
        last = known[newest - 1].name if newest else None
        if _alembic_version(connection) != last:
            # Migrated before there was Alembic: the tables are those of the revision of the same name. Where the two
            # disagree otherwise, our own record counts, which has checksums.
            config.attributes["on_version_apply"] = None
            command.stamp(config, last or "base", purge=True)
            config.attributes["on_version_apply"] = note
        command.upgrade(config, "head")


def _alembic_version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_ALEMBIC_VERSION.name, schema=_schema(connection)):
        return None
    return connection.execute(sa.select(_ALEMBIC_VERSION.c.version_num)).scalar()
