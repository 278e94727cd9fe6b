"""The pieces of SQL that all work on Parquet files shares: files by parameter, quoted names, written files.

A row is known by where it lies: one number of the file's position in the list that is read and of the row's in the
file, which DuckDB gives as ``file_index`` and ``file_row_number``. One number, because millions of rows carry it
through a join.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sqlglot
from sqlglot import exp

DIALECT = "duckdb"

MOST_GROUP_ROWS = 122_880

_DICTIONARY_VALUES = 8_192
"""A column with more distinct values in a row group is written without a dictionary: DuckDB would give up later, at
24,576 of a full group, and had built one in vain until then for every column of distinct texts: a fifth of all time."""


def column(name: str, table: str | None = None) -> exp.Column:
    """A quoted column."""
    return exp.column(exp.to_identifier(name, quoted=True), table=table)


def parameter(name: str) -> exp.Parameter:
    """``$name``."""
    return exp.Parameter(this=exp.var(name))


def parquet(files: str) -> exp.Table:
    """A list of Parquet files, given by the parameter of that name, and named like it.

    Files may lack a column that others of the list have; it is null there.
    """
    union = exp.Kwarg(this=exp.var("union_by_name"), expression=exp.true())
    read = exp.Anonymous(this="read_parquet", expressions=[parameter(files), union])
    return exp.Table(this=read, alias=exp.TableAlias(this=exp.to_identifier(files)))


_ROW_BITS = 40


def place(table: str) -> exp.Expression:
    """Where a row of a relation lies; not null."""
    file = exp.cast(exp.column("file_index", table), "bigint")
    shifted = exp.BitwiseLeftShift(this=file, expression=exp.Literal.number(_ROW_BITS))
    return exp.paren(exp.BitwiseOr(this=exp.paren(shifted), expression=exp.column("file_row_number", table)))


def file_of(place: str) -> str:
    """SQL for the file's position in a place."""
    return f"({place} >> {_ROW_BITS})"


def moved(place: str, *, to: str) -> str:
    """SQL for the same row after its file got another position: the one at which the list ``$to`` names the old."""
    return f"((list_position(${to}, {file_of(place)}) - 1)::BIGINT << {_ROW_BITS}) | ({place} & {(1 << _ROW_BITS) - 1})"


def keys(key: tuple[str, ...], table: str | None = None) -> list[exp.Expression]:
    """Key columns under the names ``key_0``, ``key_1`` and so on."""
    return [exp.alias_(column(name, table), f"key_{i}") for i, name in enumerate(key)]


def same_key(key: tuple[str, ...], one: str, other: str) -> exp.Condition:
    """Two relations with columns of :func:`keys` have one key: texts are equal byte by byte."""
    return exp.and_(
        *(exp.EQ(this=column(f"key_{i}", one), expression=column(f"key_{i}", other)) for i in range(len(key)))
    )


def parsed(sql: str) -> exp.Select:
    """A query of ours, to be completed."""
    return _template(sql).copy()


@cache
def _template(sql: str) -> exp.Select:
    return sqlglot.parse_one(sql, dialect=DIALECT, into=exp.Select)


def render(query: exp.Expression) -> str:
    """The text of a statement."""
    return str(query.sql(dialect=DIALECT))


def temporary_table(name: str, rows: exp.Query) -> str:
    """Make a temporary table of the connection from a query."""
    made = rows.ctas(name)
    made.set("properties", exp.Properties(expressions=[exp.TemporaryProperty()]))
    return render(made)


@dataclass(frozen=True)
class Writing:
    """How files are written.

    Args:
        file_bytes: a file is closed once it has this size.
        group_rows: rows of one row group: a writer holds some of these in memory for each of its threads.
    """

    file_bytes: int
    group_rows: int = MOST_GROUP_ROWS


def written(rows: exp.Query, writing: Writing) -> str:
    """Write the rows of a query as Parquet files.

    Parameters beside the query's own: ``$folder``, and ``$pattern`` of the files' names.
    """
    options = {
        "FORMAT": exp.var("PARQUET"),
        "COMPRESSION": exp.var("ZSTD"),
        "COMPRESSION_LEVEL": exp.Literal.number(1),
        "DICTIONARY_SIZE_LIMIT": exp.Literal.number(_DICTIONARY_VALUES),
        "ROW_GROUP_SIZE": exp.Literal.number(writing.group_rows),
        "FILE_SIZE_BYTES": exp.Literal.number(writing.file_bytes),
        "FILENAME_PATTERN": parameter("pattern"),
        "OVERWRITE_OR_IGNORE": exp.true(),
        "RETURN_STATS": exp.true(),
    }
    return render(
        exp.Copy(
            this=rows.subquery(),
            kind=False,
            files=[parameter("folder")],
            params=[exp.CopyParameter(this=exp.var(name), expression=value) for name, value in options.items()],
        )
    )
