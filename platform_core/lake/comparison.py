"""The SQL that compares a landed batch with bronze and writes the files that change.

Rows are known by where they lie: ``file_index`` (the file's position in the list that is read) and
``file_row_number``, two columns that DuckDB adds to Parquet files. Only keys, hashes and order are compared; all
columns are read of the files that are rewritten, and of no others.
"""

from __future__ import annotations

from functools import cache, lru_cache

import sqlglot
from sqlglot import exp

from platform_core.lake.row_hash import HASH_COLUMN

_DIALECT = "duckdb"

INSERT, UPDATE, DELETE, VANISH, LATE = "insert", "update", "delete", "vanish", "late"
"""What happens to a row: new; changed or returned; flagged by the source; missing from a full load; older than ours."""

COUNT_ACTIONS = "SELECT action, count(*) FROM changes GROUP BY action"
LANDED_ROWS = "SELECT count(*) FROM read_parquet($landed)"
CURRENT_ROWS = 'SELECT count(*) FROM read_parquet($bronze) WHERE "_is_current"'
DROP_LATE = f"DELETE FROM changes WHERE action = '{LATE}'"  # noqa: S608 - a constant of this module
TOUCHED_FILES = "SELECT DISTINCT old_file FROM changes WHERE old_file IS NOT NULL ORDER BY old_file"
REPOSITION = "UPDATE changes SET old_file = list_position($replaced, old_file) - 1 WHERE old_file IS NOT NULL"
"""``$replaced``: positions in the list of bronze's files of those that are replaced."""

_FAULTS = """
SELECT coalesce(sum(n), 0)::BIGINT,
       coalesce(sum(n) FILTER (unset), 0)::BIGINT,
       coalesce(sum(n - 1) FILTER (NOT unset), 0)::BIGINT
FROM grouped
"""

_CHANGES = f"""
SELECT
  CASE
    WHEN old.row_number IS NULL THEN '{INSERT}'
    WHEN new.row_number IS NULL THEN CASE WHEN old.is_current THEN '{VANISH}' END
    WHEN new.sequence < old.sequence OR (new.sequence IS NULL AND old.sequence IS NOT NULL) THEN '{LATE}'
    WHEN new.gone AND old.is_current THEN '{DELETE}'
    WHEN new.hash <> old.hash OR (NOT new.gone AND NOT old.is_current) THEN '{UPDATE}'
  END AS action,
  new.file AS new_file, new.row_number AS new_row,
  old.file AS old_file, old.row_number AS old_row,
  coalesce(new.gone, false) AS gone
FROM new FULL JOIN old ON keys_are_equal
"""  # noqa: S608 - constants of this module


@lru_cache(maxsize=1024)
def key_faults(key: tuple[str, ...]) -> str:
    """Counts of a landed batch: rows, rows with a null key, rows whose key another row has too.

    Parameter: ``$landed``, the batch's files.
    """
    unset = exp.or_(*(exp.Is(this=_column(name), expression=exp.null()) for name in key))
    keys = [exp.alias_(_column(name), f"key_{i}") for i, name in enumerate(key)]
    rows = exp.select(*keys, exp.alias_(unset, "unset")).from_(_parquet("landed"))
    grouped = (
        exp.select("count(*) AS n", "unset").from_("rows").group_by("unset", *(f"key_{i}" for i in range(len(key))))
    )
    return _render(_parsed(_FAULTS).with_("rows", as_=rows).with_("grouped", as_=grouped))


@lru_cache(maxsize=1024)
def make_changes(key: tuple[str, ...], *, sequence_by: str | None, deleted_flag: str | None, snapshot: bool) -> str:
    """Make the temporary table ``changes``: a row for each row that is not the same on both sides.

    Its columns: ``action``; ``new_file``, ``new_row``: where the row lies in the batch; ``old_file``, ``old_row``:
    where it lies in bronze; ``gone``: the source says that the row is gone.

    Parameters: ``$landed`` and ``$bronze``, lists of files.

    Args:
        snapshot: the batch is all that the source holds, so what it lacks has vanished.
    """
    new = _side("landed", key, sequence_by, exp.alias_(_gone(deleted_flag), "gone"))
    old = _side("bronze", key, sequence_by, exp.alias_(_column("_is_current"), "is_current"))
    query = _parsed(_CHANGES)
    join = query.args["joins"][0]
    join.set("side", "FULL" if snapshot else "LEFT")
    join.set(
        "on",
        exp.and_(
            *(exp.EQ(this=_column(f"key_{i}", "new"), expression=_column(f"key_{i}", "old")) for i in range(len(key)))
        ),
    )
    compared = exp.select("*").from_(query.subquery("compared")).where("action IS NOT NULL")
    made = compared.with_("new", as_=new).with_("old", as_=old).ctas("changes")
    made.set("properties", exp.Properties(expressions=[exp.TemporaryProperty()]))
    return _render(made)


@lru_cache(maxsize=1024)
def copy_all(columns: tuple[str, ...], *, deleted_flag: str | None, file_bytes: int) -> str:
    """Write every landed row as a new row.

    Parameters: ``$landed``, ``$modified_at``, ``$batch_id``, ``$folder`` and ``$pattern`` of the new files' names.
    """
    rows = _fresh(columns, gone=_gone(deleted_flag)).from_(_parquet("landed"))
    return _copy(rows, file_bytes=file_bytes)


@lru_cache(maxsize=1024)
def copy_changed(columns: tuple[str, ...], *, rewrite: bool, file_bytes: int) -> str:
    """Write the rows of the replaced files that stay, and the landed rows that are new or changed.

    Parameters: those of :func:`copy_all`, and where files are replaced ``$replaced``, their list.
    """
    fresh = (
        _fresh(columns, gone=_column("gone", "changes"))
        .from_(_parquet("landed"))
        .join("changes", on="landed.file_index = changes.new_file AND landed.file_row_number = changes.new_row")
    )
    if not rewrite:
        return _copy(fresh, file_bytes=file_bytes)
    vanished = f"changes.action IS NOT DISTINCT FROM '{VANISH}'"
    kept = (
        exp.select(
            *(_column(name, "replaced") for name in columns),
            f'replaced."_is_current" AND NOT ({vanished}) AS "_is_current"',
            f'replaced."_is_deleted" OR ({vanished}) AS "_is_deleted"',
            f'CASE WHEN {vanished} THEN $modified_at::TIMESTAMPTZ ELSE replaced."_modified_at" END AS "_modified_at"',
            f'CASE WHEN {vanished} THEN $batch_id::BIGINT ELSE replaced."_batch_id" END AS "_batch_id"',
            _column(HASH_COLUMN, "replaced"),
            dialect=_DIALECT,
        )
        .from_(_parquet("replaced"))
        .join(
            "changes",
            on="replaced.file_index = changes.old_file AND replaced.file_row_number = changes.old_row",
            join_type="left",
        )
        .where(f"changes.action IS NULL OR changes.action = '{VANISH}'")
    )
    rows = exp.union(kept, fresh, distinct=False)
    return _copy(rows, file_bytes=file_bytes)


def _side(files: str, key: tuple[str, ...], sequence_by: str | None, flag: exp.Expression) -> exp.Select:
    return exp.select(
        *(exp.alias_(_column(name), f"key_{i}") for i, name in enumerate(key)),
        exp.alias_(_column(HASH_COLUMN), "hash"),
        exp.alias_(exp.null() if sequence_by is None else _column(sequence_by), "sequence"),
        exp.alias_(exp.column("file_index"), "file"),
        exp.alias_(exp.column("file_row_number"), "row_number"),
        flag,
    ).from_(_parquet(files))


def _fresh(columns: tuple[str, ...], *, gone: exp.Expression) -> exp.Select:
    return exp.select(
        *(_column(name, "landed") for name in columns),
        exp.alias_(exp.not_(gone.copy()), "_is_current"),
        exp.alias_(gone.copy(), "_is_deleted"),
        '$modified_at::TIMESTAMPTZ AS "_modified_at"',
        '$batch_id::BIGINT AS "_batch_id"',
        _column(HASH_COLUMN, "landed"),
        dialect=_DIALECT,
    )


def _gone(deleted_flag: str | None) -> exp.Expression:
    if deleted_flag is None:
        return exp.false()
    return exp.Coalesce(this=exp.cast(_column(deleted_flag), "boolean"), expressions=[exp.false()])


def _column(name: str, table: str | None = None) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True), table=table)


def _parquet(files: str) -> exp.Table:
    """A list of Parquet files, given by the parameter of that name, and named like it."""
    read = exp.Anonymous(this="read_parquet", expressions=[_parameter(files)])
    return exp.Table(this=read, alias=exp.TableAlias(this=exp.to_identifier(files)))


def _parameter(name: str) -> exp.Parameter:
    return exp.Parameter(this=exp.var(name))


@cache
def _template(sql: str) -> exp.Select:
    return sqlglot.parse_one(sql, dialect=_DIALECT, into=exp.Select)


def _parsed(sql: str) -> exp.Select:
    return _template(sql).copy()


def _render(query: exp.Expression) -> str:
    return str(query.sql(dialect=_DIALECT))


def _copy(rows: exp.Query, *, file_bytes: int) -> str:
    options = {
        "FORMAT": exp.var("PARQUET"),
        "COMPRESSION": exp.var("ZSTD"),
        "COMPRESSION_LEVEL": exp.Literal.number(1),
        "FILE_SIZE_BYTES": exp.Literal.number(file_bytes),
        "FILENAME_PATTERN": _parameter("pattern"),
        "OVERWRITE_OR_IGNORE": exp.true(),
        "RETURN_STATS": exp.true(),
    }
    return _render(
        exp.Copy(
            this=rows.subquery(),
            kind=False,
            files=[_parameter("folder")],
            params=[exp.CopyParameter(this=exp.var(name), expression=value) for name, value in options.items()],
        )
    )
