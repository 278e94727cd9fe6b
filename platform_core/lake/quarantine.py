"""Rows without a key, or with the key of another row of their batch, set aside beside the table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlglot import exp

from platform_core.lake.comparison import Key, Landed
from platform_core.lake.parquet_sql import DIALECT, Writing, column, keys, parsed, place, temporary_table, written
from platform_core.lake.row_hash import HASH_COLUMN
from platform_core.lake.storage import filesystem, local_path, persist

NULL_KEY, DOUBLED_KEY = "null_key", "doubled_key"
"""What ``_reason`` says: the key is null or not a number; another row of the batch has it."""

REASON_COLUMN = "_reason"
PREFIX = "part-"

_BAD = f"""
SELECT at, CASE WHEN unset THEN '{NULL_KEY}' ELSE '{DOUBLED_KEY}' END AS reason
FROM ranked WHERE unset OR place > $winners
"""  # noqa: S608 - constants of this module
_COUNT = "SELECT count(*) FROM bad"
_FORGET = ("DROP TABLE IF EXISTS keyed", "DROP TABLE IF EXISTS bad", "DROP TABLE IF EXISTS doubled")


def find_bad_rows(connection: Any, *, key: Key, landed: Landed, winner_by: str | None, landing: dict[str, Any]) -> int:
    """Make the temporary tables ``bad``, where the bad rows of a batch lie, and ``doubled``, keys that rows share.

    Of the rows of one key that with the largest value of ``winner_by`` is good; null is the smallest, and among equal
    ones that with the largest hash wins. Without ``winner_by`` none is good.

    Args:
        landing: parameters by which ``landed`` is read.

    Returns:
        Number of bad rows.
    """
    for statement in _FORGET:
        connection.execute(statement).fetchall()
    connection.execute(_make_keyed(key, landed, winner_by), landing or None).fetchall()
    connection.execute(_make_doubled(key)).fetchall()
    connection.execute(_make_bad(key), {"winners": int(winner_by is not None)}).fetchall()
    connection.execute(_FORGET[0]).fetchall()
    ((bad,),) = connection.execute(_COUNT).fetchall()
    return int(bad)


def write_bad_rows(
    connection: Any,
    uri: str,
    *,
    root: str,
    columns: tuple[str, ...],
    landed: Landed,
    landing: dict[str, Any],
    writing: Writing,
) -> None:
    """Write the rows of ``bad`` as Parquet files below ``uri``, as they landed, with their reason.

    Args:
        root: how the engine addresses ``uri``.
        columns: the source's columns of the batch.

    Raises:
        duckdb.Error, OSError: the disk or store refused.
    """
    local = local_path(uri)
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
    statement = _copy_bad(columns, landed, writing)
    connection.execute(statement, {**landing, "folder": root, "pattern": PREFIX + "{i}"}).fetchall()
    if local is not None:
        persist(*(path for path in local.iterdir() if path.name.startswith(PREFIX)), local)


def remove_bad_rows(uri: str, *, storage_options: Mapping[str, str]) -> None:
    """Remove what :func:`write_bad_rows` left of an attempt that failed."""
    import pyarrow.fs

    folder = filesystem(uri, storage_options)
    for info in folder.get_file_info(pyarrow.fs.FileSelector("", allow_not_found=True)):
        folder.delete_file(info.path)
    if (local := local_path(uri)) is not None and local.exists():
        local.rmdir()


@lru_cache(maxsize=1024)
def _make_keyed(key: Key, landed: Landed, winner_by: str | None) -> str:
    """The key of every row, where it lies and what it is ranked by."""
    rank = exp.null() if winner_by is None else column(winner_by, "landed")
    rows = landed.rows(
        *keys(key.columns, "landed"),
        exp.alias_(key.unset("landed"), "unset"),
        exp.alias_(place("landed"), "at"),
        exp.alias_(rank, "rank_by"),
        exp.alias_(column(HASH_COLUMN, "landed"), "hash"),
    )
    return temporary_table("keyed", rows)


@lru_cache(maxsize=1024)
def _make_doubled(key: Key) -> str:
    shared = exp.select(*key.aliases).from_("keyed").where("NOT unset").group_by(*key.aliases)
    return temporary_table("doubled", shared.having("count(*) > 1"))


@lru_cache(maxsize=1024)
def _make_bad(key: Key) -> str:
    names = ", ".join(key.aliases)
    order = "rank_by DESC NULLS LAST, hash DESC, at"
    ranked = (
        exp.select(
            "at", "unset", f"row_number() OVER (PARTITION BY {names} ORDER BY {order}) AS place", dialect=DIALECT
        )
        .from_("keyed")
        .join("doubled", using=list(key.aliases), join_type="semi")
    )
    unset = exp.select("at", "unset", "1 AS place").from_("keyed").where("unset")
    return temporary_table("bad", parsed(_BAD).with_("ranked", as_=exp.union(ranked, unset, distinct=False)))


@lru_cache(maxsize=1024)
def _copy_bad(columns: tuple[str, ...], landed: Landed, writing: Writing) -> str:
    lies = exp.EQ(this=exp.column("at", "bad"), expression=place("landed"))
    shown = [column(name, "landed") for name in (*columns, HASH_COLUMN)]
    rows = landed.rows(*shown, exp.alias_(exp.column("reason", "bad"), REASON_COLUMN)).join("bad", on=lies)
    return written(rows, writing)
