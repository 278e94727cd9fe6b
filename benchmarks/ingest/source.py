"""The source's tables, made inside PostgreSQL by formula, and what a right copy of each must add up to.

One schema for each state of the source, so that every load can be repeated: ``day1``; ``day2``, with one row in a
hundred changed, one in a thousand gone and one in a hundred new; ``tenth``, with nine in a hundred changed and one in a
hundred new. A changed row lies behind the others, as an update leaves it.

One table more, in ``live``, begins as that of ``day1`` and becomes that of ``day2`` by the statements of an
application: a server can tell changes only where they happen.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = {
    "id": "bigint",
    "customer_id": "bigint",
    "status": "text",
    "email": "text",
    "name": "text",
    "amount": "numeric(12,2)",
    "tax": "numeric(12,2)",
    "quantity": "integer",
    "ratio": "double precision",
    "paid": "boolean",
    "ordered_on": "date",
    "updated_at": "timestamp",
}
PERSONAL = ("email", "name")
"""Columns that our side masks."""

DAYS = {
    "day1": ("false", "false"),
    "day2": ("n % 100 = 3", "n % 1000 = 7"),
    "tenth": ("n % 100 IN (11, 22, 33, 44, 55, 66, 77, 88, 99)", "false"),
}
"""By schema: which of the first rows are changed, and which are gone."""

LIVE = "live"

_ROW = """
SELECT n AS id, n * 7919 % 100003 AS customer_id, (ARRAY['new','paid','sent','done'])[1 + n % 4] AS status,
  'user' || n || '@example.com' AS email, CASE WHEN n % 50 > 0 THEN 'Customer ' || n % 90001 END AS name,
  ((n % 1000000) / 100.0 + {changed})::numeric(12,2) AS amount, ((n % 210000) / 100.0)::numeric(12,2) AS tax,
  (n % 100 + {changed})::integer AS quantity, n / 7.0::float8 AS ratio, n % 3 = 0 AS paid,
  date '2020-01-01' + (n % 1500)::integer AS ordered_on,
  timestamp '2024-01-01' + (n + {changed} * {rows}) * interval '1.5 seconds' AS updated_at
FROM generate_series({first}::bigint, {last}) n WHERE {where}
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A database that holds the tables.

    Args:
        rows: of ``day1``.
        expected: figures of a right copy, by schema.
    """

    host: str
    port: int
    user: str
    database: str
    rows: int
    binaries: str
    expected: dict[str, dict[str, int]]

    @property
    def gone(self) -> int:
        """Rows of ``day1`` that ``day2`` lacks."""
        return self.rows // 1000


def row_text(columns: tuple[str, ...], *, postgres: bool) -> str:
    """An expression for the text of a row that PostgreSQL and DuckDB write alike."""
    parts = []
    for name in columns:
        match COLUMNS[name]:
            case "double precision":
                value = f"floor({name} * 1099511627776)::bigint::text"
            case "boolean":
                value = f"({name}::integer)::text"
            case "timestamp" if postgres:
                value = f"(extract(epoch FROM {name}) * 1000000)::bigint::text"
            case "timestamp":
                value = f"epoch_us({name}::timestamp)::text"
            case "text":
                value = name
            case type_:
                value = f"{name}::{type_}::text"
        parts.append(f"coalesce({value}, '~')")
    return f"concat_ws('|', {', '.join(parts)})"


def fingerprint(columns: tuple[str, ...], *, postgres: bool) -> str:
    """An expression for the sum over all rows of 60 bits of the MD5 of a row's text."""
    digits = f"left(md5({row_text(columns, postgres=postgres)}), 15)"
    return f"sum(('x' || {digits})::bit(60)::bigint)" if postgres else f"sum(('0x' || {digits})::bigint)"


def live_on(cursor: Any, rows: int) -> None:
    """Make the changes of ``day2`` in the table that an application changes."""
    changed, gone = DAYS["day2"]
    where = {"rows": rows, "first": rows + 1, "last": rows + rows // 100, "where": "true"}
    for statement in (
        f"UPDATE {LIVE}.orders SET amount = amount + 1, quantity = quantity + 1, "
        f"updated_at = updated_at + {rows} * interval '1.5 seconds' WHERE {changed.replace('n', 'id')}",
        f"DELETE FROM {LIVE}.orders WHERE {gone.replace('n', 'id')}",
        f"INSERT INTO {LIVE}.orders {_ROW.format(changed=1, **where)}",
    ):
        cursor.execute(statement)


PLAIN = tuple(name for name in COLUMNS if name not in PERSONAL)
HIDDEN = ("id", *PERSONAL)


@contextmanager
def running_source(
    rows: int, *, days: tuple[str, ...] = tuple(DAYS), small_tables: int = 0, live: bool = False
) -> Iterator[tuple[Source, str]]:
    """A server with the tables, ended at the end of the block; comes with its password.

    Args:
        live: with the table that :func:`live_on` changes.
    """
    from tests.services.postgres import running_postgres
    from tests.services.server_process import unprivileged

    settings = {"shared_buffers": "256MB", "max_wal_size": "1GB", "jit": "off", "max_connections": "60"}
    # The server's own folder may be in memory; tables as large as these belong on a disk.
    disk = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    disk.chmod(0o711)
    place = disk / "tables"
    place.mkdir(mode=0o700)
    unprivileged(place)
    try:
        with running_postgres(settings=settings) as server:
            server.execute(f"CREATE TABLESPACE disk LOCATION '{place}'", database="postgres")
            server.execute("CREATE DATABASE bench TABLESPACE disk", database="postgres")
            with server.connect("bench") as connection, closing(connection.cursor()) as cursor:
                expected = {day: _fill(cursor, day, rows) for day in days}
                if live:
                    _fill(cursor, LIVE, rows)
                cursor.execute("CREATE SCHEMA warm")
                _copy_few(cursor, "warm.orders", 100)
                for number in range(small_tables):
                    _copy_few(cursor, f"public.table_{number:03}", rows)
            yield (
                Source(
                    host=server.host,
                    port=server.port,
                    user=server.user,
                    database="bench",
                    rows=rows,
                    binaries=str(server.binaries),
                    expected=expected,
                ),
                server.password,
            )
    finally:
        shutil.rmtree(disk, ignore_errors=True)


def _parts(day: str, rows: int) -> str:
    day = "day1" if day == LIVE else day
    changed, gone = DAYS[day]
    parts = [_ROW.format(changed=0, rows=rows, first=1, last=rows, where=f"NOT ({changed}) AND NOT ({gone})")]
    if day != "day1":
        parts.append(_ROW.format(changed=1, rows=rows, first=1, last=rows, where=changed))
        parts.append(_ROW.format(changed=1, rows=rows, first=rows + 1, last=rows + rows // 100, where="true"))
    return " UNION ALL ".join(parts)


def _fill(cursor: Any, day: str, rows: int) -> dict[str, int]:
    names = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
    for statement in (
        f"CREATE SCHEMA {day}",
        f"CREATE UNLOGGED TABLE {day}.orders ({names})",
        f"INSERT INTO {day}.orders {_parts(day, rows)}",
        f"ALTER TABLE {day}.orders ADD PRIMARY KEY (id)",
        f"CREATE INDEX ON {day}.orders (updated_at)",
        f"VACUUM ANALYZE {day}.orders",
    ):
        cursor.execute(statement)
    cursor.execute(
        f"SELECT count(*), {fingerprint(PLAIN, postgres=True)}::text, {fingerprint(HIDDEN, postgres=True)}::text "
        f"FROM {day}.orders"
    )
    ((count, plain, hidden),) = cursor.fetchall()
    return {"rows": int(count), "plain": int(plain), "hidden": int(hidden)}


def _copy_few(cursor: Any, name: str, rows: int) -> None:
    cursor.execute(f"CREATE UNLOGGED TABLE {name} AS SELECT * FROM day1.orders ORDER BY id LIMIT {rows}")
    cursor.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
