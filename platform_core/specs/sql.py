"""Read which tables and parameters one SELECT names, without running it.

What is refused here is refused a second time by the engine's own walls; here it gets a line number, and it is
found by ``edp check`` long before a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from platform_core.specs.table import TableRef

DIALECT = "duckdb"

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree", "repeat"})
"""Functions that a query may use in place of a table; all others (read_parquet, glob, query, …) are refused."""

OUTSIDE_FUNCTIONS = frozenset(
    {
        "current_setting",
        "getenv",
        "getvariable",
        "glob",
        "parquet_file_metadata",
        "parquet_kv_metadata",
        "parquet_metadata",
        "parquet_schema",
        "query",
        "query_table",
        "read_blob",
        "read_csv",
        "read_csv_auto",
        "read_json",
        "read_json_auto",
        "read_ndjson",
        "read_parquet",
        "read_text",
        "sniff_csv",
        "write_log",
    }
)
"""Functions that reach beyond the query's tables; refused wherever they stand."""

_MISSING = re.compile(r"Required keyword: .* missing for <class '.*\.(\w+)'>")

_STATEMENTS = (
    exp.Alter,
    exp.Analyze,
    exp.Attach,
    exp.Command,
    exp.Copy,
    exp.Create,
    exp.Delete,
    exp.Detach,
    exp.Drop,
    exp.Export,
    exp.Insert,
    exp.Install,
    exp.Into,
    exp.Merge,
    exp.Pragma,
    exp.Set,
    exp.Update,
    exp.Use,
)

_CONDITIONS = (exp.Condition, exp.Func, exp.Paren)


class SqlError(ValueError):
    """A query that a step may not run.

    Args:
        message: what is wrong, in one line, without the line number.
        line: line of the SQL text, counted from 1; 0 means the text as a whole.
    """

    def __init__(self, message: str, *, line: int = 0) -> None:
        self.message = message
        self.line = line
        super().__init__(f"line {line}: {message}" if line else message)


def referenced_tables(sql: str, *, workstream: str) -> tuple[TableRef, ...]:
    """The lake tables that a query reads, each once, in the order of the text.

    Args:
        sql: one SELECT; WITH, UNION and subqueries are fine.
        workstream: workstream of names that are written ``layer.name``.

    Raises:
        SqlError: it is not one SELECT, reads something other than lake tables, or cannot be parsed.
    """
    return _table_refs(_select(sql), workstream=workstream)


def parameters(sql: str) -> tuple[str, ...]:
    """Names of the ``$name`` parameters of a query, each once, in the order of the text.

    Raises:
        SqlError: as :func:`referenced_tables`, or a parameter has no name (``?``, ``$1``).
    """
    return _parameter_names(_select(sql))


def references(sql: str, *, workstream: str) -> tuple[tuple[TableRef, ...], tuple[str, ...]]:
    """:func:`referenced_tables` and :func:`parameters` of a query that is parsed once."""
    root = _select(sql)
    return _table_refs(root, workstream=workstream), _parameter_names(root)


def select(sql: str) -> exp.Query:
    """A query as a tree; errors as of :func:`referenced_tables`, but for those of tables."""
    return _select(sql)


def condition(sql: str) -> exp.Expression:
    """A condition over the columns of one row, such as ``amount >= discount``, as a tree.

    Raises:
        SqlError: it is none, names no column or a table, reads other rows, or cannot be parsed.
    """
    statements = _statements(sql)
    if len(statements) > 1:
        raise SqlError(f"one condition is expected, {len(statements)} statements are there", line=_line(statements[1]))
    root = statements[0]
    if isinstance(root, (*_STATEMENTS, exp.Query, exp.Alias, exp.Star, exp.Tuple)) or not isinstance(root, _CONDITIONS):
        raise SqlError(f"a condition over the columns of a row is expected, not {root.key.upper()}", line=_line(root))
    for node in root.walk(bfs=False):
        _check(node)
        if isinstance(node, (exp.Query, exp.Table, exp.Star)):
            raise SqlError("a condition reads one row: write a SELECT to look at others", line=_line(node))
        if isinstance(node, (exp.AggFunc, exp.Window)):
            raise SqlError(f"a condition reads one row: {node.key.upper()} reads several", line=_line(node))
        if isinstance(node, (exp.Placeholder, exp.Parameter)):
            raise SqlError("a condition has no parameters", line=_line(node))
        if isinstance(node, exp.Column) and len(node.parts) > 1:
            raise SqlError(f"write the column alone: {node.name}", line=_line(node))
    if root.find(exp.Column) is None:
        raise SqlError("a condition names a column: this is the same for every row", line=_line(root))
    return root


def qualified(sql: str, *, workstream: str) -> str:
    """The same text with every table written ``workstream.layer.name``.

    Only the missing workstream is put in, so that lines keep their numbers and nothing else of the query changes.

    Raises:
        SqlError: as :func:`referenced_tables`.
    """
    prefix = quoted(workstream) + "."
    starts = {_start(table) for table, _ in _tables(_select(sql), workstream=workstream) if not table.catalog}
    for start in sorted(starts, reverse=True):
        sql = sql[:start] + prefix + sql[start:]
    return sql


def quoted(name: str) -> str:
    """An SQL identifier, quoted; the one function through which identifiers go into SQL text."""
    return str(exp.to_identifier(name, quoted=True).sql(dialect=DIALECT))


def _statements(sql: str) -> list[exp.Expression]:
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect=DIALECT) if statement is not None]
    except SqlglotError as error:
        raise _syntax_error(error) from None
    statements = [statement for statement in statements if not isinstance(statement, exp.Semicolon)]
    if not statements:
        raise SqlError("there is no query: write one SELECT")
    return statements


def _select(sql: str) -> exp.Query:
    statements = _statements(sql)
    if len(statements) > 1:
        raise SqlError(f"one SELECT is expected, {len(statements)} statements are there", line=_line(statements[1]))
    root = statements[0]
    if not isinstance(root, (exp.Select, exp.SetOperation, exp.Subquery)):
        raise SqlError(f"one SELECT is expected, not {root.key.upper()}", line=_line(root))
    for node in root.walk(bfs=False):
        _check(node)
    return root


def _table_refs(root: exp.Query, *, workstream: str) -> tuple[TableRef, ...]:
    found = sorted(_tables(root, workstream=workstream), key=lambda pair: _start(pair[0]))
    return tuple(dict.fromkeys(ref for _, ref in found))


def _parameter_names(root: exp.Query) -> tuple[str, ...]:
    names = []
    for found in root.find_all(exp.Placeholder, exp.Parameter, bfs=False):
        name = found.name
        if not name.isidentifier():
            raise SqlError("a parameter needs a name: write $name", line=_line(found))
        names.append(name)
    return tuple(dict.fromkeys(names))


def _check(node: exp.Expression) -> None:
    if isinstance(node, _STATEMENTS):
        raise SqlError(f"a query only reads: {node.key.upper()} is not allowed", line=_line(node))
    if isinstance(node, exp.Func):
        function = _function_name(node)
        if function in OUTSIDE_FUNCTIONS:
            raise SqlError(
                f"function '{function}' reaches outside the query's tables; name a lake table instead", line=_line(node)
            )
    if isinstance(node, exp.Table) and isinstance(node.this, exp.Func):
        function = _function_name(node.this)
        if function not in TABLE_FUNCTIONS:
            raise SqlError(
                f"table function '{function}' is not allowed; allowed are {', '.join(sorted(TABLE_FUNCTIONS))}",
                line=_line(node),
            )


def _tables(root: exp.Query, *, workstream: str) -> Iterator[tuple[exp.Table, TableRef]]:
    for table in root.find_all(exp.Table, bfs=False):
        if isinstance(table.this, exp.Func):
            continue
        written = ".".join(part.name for part in table.parts)
        if len(table.parts) == 1:
            if not _is_named_query(table):
                raise SqlError(f"'{written}' is no table: write layer.name or workstream.layer.name", line=_line(table))
            continue
        try:
            # SQL names are the same in any case, and all names of the platform are lower case.
            yield table, TableRef.parse(written.lower(), workstream=workstream)
        except ValueError as error:
            raise SqlError(str(error), line=_line(table)) from None


def _is_named_query(table: exp.Table) -> bool:
    """Whether a name of one part means a WITH query that can be seen from here."""
    node: exp.Expression | None = table
    while node is not None:
        named = node.args.get("with_") or node.args.get("with")
        if named and any(query.alias.lower() == table.name.lower() for query in named.expressions):
            return True
        node = node.parent
    return False


def _function_name(function: exp.Func) -> str:
    name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
    return str(name).lower()


def _start(table: exp.Table) -> int:
    """Offset in the text of the first part of a table's name."""
    return int(table.parts[0].meta["start"])


def _line(node: exp.Expression) -> int:
    """Line of the first token of a node that has kept its place; 0 where none has."""
    return next((int(part.meta["line"]) for part in node.walk(bfs=False) if "line" in part.meta), 0)


def _syntax_error(error: SqlglotError) -> SqlError:
    # Only the parser's own words and the position pass: its full text quotes the query with terminal colours.
    found = getattr(error, "errors", None)
    if not found:
        # sqlglot reads `$a,$b` as the start of a dollar-quoted text.
        return SqlError("cannot be read as SQL: a quote is not closed, or a $name needs a space after its comma")
    first = found[0]
    missing = _MISSING.match(first["description"])
    said = f"something is missing in {missing[1].upper()}" if missing else first["description"]
    near = f" near '{first['highlight']}'" if first.get("highlight") else ""
    return SqlError(f"cannot be read as SQL: {said}{near}", line=first.get("line") or 0)
