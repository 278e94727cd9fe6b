"""Brings the tables of the control database up to date, in order, each change once, all or nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema, CreateTable

from platform_core.control.tables import SCHEMA, migrations
from platform_core.errors import MigrationError

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"([0-9]{4})_([a-z][a-z0-9_]*)\.sql")
# Any number that nobody else uses for an advisory lock of the same database.
_LOCK = 4_037_112_201


@dataclass(frozen=True, order=True)
class Migration:
    """One change of the tables; never edited once it is released: a mistake is mended by the next one.

    Args:
        version: counted from 1, without gaps.
        name: of its file.
        checksum: SHA-256 (hex) of its text.
        statements: what is run, in order.
    """

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...] = field(repr=False)


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations of a folder, in order.

    Raises:
        MigrationError: a file has no version, or a version is missing or there twice.
    """
    found = sorted(_read(file) for file in folder.iterdir() if file.suffix == ".sql")
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
        folder: holds the migrations; None: those of this version of the code.

    Returns:
        Names of the migrations that were applied.

    Raises:
        MigrationError: an applied one was edited or is missing, one is out of order, or the database is newer.
    """
    known = read_migrations(folder or _FOLDER / connection.dialect.name)
    applied = _applied(connection)
    if applied is None or len(applied) < len(known):
        # Looked at again under the lock: somebody else may have been first.
        _lock(connection)
        applied = _applied(connection)
        if applied is None:
            connection.execute(CreateTable(migrations))
            applied = {}
    missing = _missing(known, applied, shown=shown)
    for each in missing:
        for statement in each.statements:
            connection.exec_driver_sql(statement)
        row = {"version": each.version, "name": each.name, "checksum": each.checksum, "applied_at": now}
        connection.execute(migrations.insert(), row)
    return [each.name for each in missing]


def _read(file: Path) -> Migration:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise MigrationError(f"{file}: the name must read like 0001_loads.sql")
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    statements = tuple(part.strip() for part in re.split(r";[ ]*(?:\n|$)", "\n".join(lines)) if part.strip())
    return Migration(int(match[1]), file.stem, hashlib.sha256(text.encode()).hexdigest(), statements)


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    # A user who may not make schemas can use one that was made for it.
    if not sa.inspect(connection).has_schema(SCHEMA):
        connection.execute(CreateSchema(SCHEMA))


def _applied(connection: sa.Connection) -> dict[int, sa.Row[tuple[int, str, str]]] | None:
    """Applied migrations by version; None where there is no table of them."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    if not sa.inspect(connection).has_table(migrations.name, schema=schema):
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
        if row.checksum != by_version[version].checksum:
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
