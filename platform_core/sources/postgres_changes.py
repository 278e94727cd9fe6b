"""Tells which rows of a PostgreSQL table may have changed since a moment, by the transactions that wrote them.

Every version of a row carries the id of its transaction (``xmin``). A version that a later snapshot sees and an earlier
one did not was written by a transaction that had not ended when the earlier one was taken: its id is not below the
oldest that was running then. That holds for transactions that committed late, in another order, or in parts. Rows below
that id are the same as before; rows above it may be, and are read.

Ids have 32 bits, and are compared by their distance from now, which is sound over two thousand million transactions;
over half of that everything is read. What may change a value without a new version of its row has to be the same as
before: the files and columns of the table, and the types of the database.

Ids are given out again where a server loses what it had done. A backup or a replica that takes over is another process
or has begun later; and after a crash a server lacks at most what it had not written to its log for good, so that a
moment only counts once all that it shows is written.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.naming import identifier
from platform_core.sources.postgres_catalog import DIALECT
from platform_core.sources.postgres_session import Session

MOST_TRANSACTIONS = 2**30
"""Transactions since a moment, over which rows are not told apart any more."""

_IDS = 2**32
_LOOKS_EVERY = 0.1
_DELAYS = 5
_WRITTEN = """
SELECT pg_catalog.pg_current_wal_flush_lsn() >= $1::text::pg_lsn,
    extract(epoch FROM current_setting('wal_writer_delay')::interval)::text
"""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A table as one snapshot saw it.

    Args:
        server: when the server was started, to the microsecond.
        table: stands for the table's files, columns and types.
        oldest: the oldest transaction that was running; all before it had ended. It counts on where ids begin anew.
        next: the first transaction that had not begun.
        log: up to where the server's log had been filled; empty on a replica, which shows only what is written.
    """

    server: str
    table: str
    oldest: int
    next: int
    log: str

    def packed(self) -> bytes:
        """The form in which it is kept."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def unpacked(cls, content: bytes) -> Moment | None:
        """What :meth:`packed` made; None where it is something else."""
        try:
            found = json.loads(content)
            return cls(
                server=str(found["server"]),
                table=str(found["table"]),
                oldest=int(found["oldest"]),
                next=int(found["next"]),
                log=str(found["log"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def tells_from(self, now: Moment) -> bool:
        """Whether rows that have not changed between this moment and a later one can be told."""
        same = self.server == now.server and self.table == now.table
        return same and self.next <= now.next and now.next - self.oldest < MOST_TRANSACTIONS


def moment(session: Session, schema: str, name: str) -> Moment:
    """The table as the session's snapshot sees it.

    Raises:
        SourceError: nobody can tell what changed in it: it is no table, or its rows are shown by policies.
    """
    with session.asking():
        session.cursor.execute(_MOMENT, (schema, name))
        ((kinds, secured, table, server, oldest, following, log),) = session.cursor.fetchall()
    if not set(kinds or "") <= {"r", "p"}:
        raise SourceError(
            f"{session.where}: which rows changed is known of tables only, and this is a view, a foreign table or the "
            "like\n  remove 'detect_changes', or read the tables that it is made of"
        )
    if secured:
        raise SourceError(
            f"{session.where}: policies decide which rows of the table are seen (row level security), and may change "
            "without the rows\n  remove 'detect_changes', or read with a user that policies do not bind"
        )
    return Moment(server=str(server), table=str(table), oldest=int(oldest), next=int(following), log=str(log or ""))


def settle(session: Session, seen: Moment) -> None:
    """Wait until a crash of the server could no longer undo what a moment shows.

    A commit that waits for its log has been written when others see it. One that does not wait is written within three
    times ``wal_writer_delay``, and as a rule at once; a log that goes on behind the last commit stays as it is.
    """
    if not seen.log:
        return
    looks = 0
    while True:
        ((written, delay),) = session.fetch(_WRITTEN, seen.log)
        if written or looks * _LOOKS_EVERY > _DELAYS * float(delay):
            return
        time.sleep(_LOOKS_EVERY)
        looks += 1


def may_have_changed(since: Moment) -> exp.Expression:
    """A condition for the rows that have changed since a moment; it holds for some others, too."""
    oldest = exp.Literal.string(str(since.oldest % _IDS))
    return exp.LTE(this=_age(exp.Column(this=identifier("xmin"))), expression=_age(_as_id(oldest)))


def _age(of: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="age", expressions=[of])


def _as_id(text: exp.Expression) -> exp.Expression:
    return exp.Cast(this=text, to=exp.DataType.build("xid", dialect=DIALECT, udt=True))


_MOMENT = """
WITH RECURSIVE parts(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION ALL
    SELECT i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
), files AS (
    SELECT string_agg(DISTINCT c.relkind::text, '') AS kinds,
        bool_or(pg_catalog.row_security_active(c.oid)) AS secured,
        string_agg(concat_ws('/', c.oid, c.relfilenode), ',' ORDER BY c.oid) AS said
    FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.oid
), columns AS (
    SELECT string_agg(
        concat_ws('/', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped,
            to_jsonb(a) ->> 'atthasmissing', to_jsonb(a) ->> 'attgenerated', pg_catalog.md5(d.adbin::text)),
        ',' ORDER BY a.attrelid, a.attnum) AS said
    FROM parts p
    JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0
    LEFT JOIN pg_catalog.pg_attrdef d
        ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND coalesce(to_jsonb(a) ->> 'attgenerated', '') <> ''
), labels AS (
    SELECT string_agg(concat_ws('/', e.enumtypid, e.oid, e.enumlabel), ',' ORDER BY e.oid) AS said
    FROM pg_catalog.pg_enum e
), composites AS (
    SELECT string_agg(concat_ws('/', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped), ','
        ORDER BY a.attrelid, a.attnum) AS said
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relkind = 'c'
)
SELECT files.kinds, files.secured,
    pg_catalog.md5(concat_ws('|', (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()),
        files.said, columns.said, labels.said, composites.said)),
    extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text,
    pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot())::text,
    pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text,
    CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn()::text END
FROM files, columns, labels, composites
"""
