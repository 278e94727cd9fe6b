"""Builds the SELECT that a source runs, in its own dialect, from what control files ask for.

Control files are trusted less than code and more than rows. A filter is therefore one condition made of parts that
are known to be harmless, a query is one SELECT that only reads, and what reaches the server is written anew from what
was understood here: a comment that a server would run is not in it. What this page lets pass is held a second time by
the user's own privileges and, where the system has them, by a read-only transaction.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.sources.naming import column, identifier
from platform_core.sources.statement_parts import (
    BARRED_FUNCTIONS,
    BARRED_PREFIXES,
    CONDITIONS,
    FILTER_FUNCTION_NAMES,
    FILTER_PARTS,
    FUNCTIONS_BEHIND_PREFIXES,
    READING_ONLY,
)

LONGEST_FILTER = 10_000
LONGEST_QUERY = 100_000
_ROWS = "edp_rows"
_UNQUOTED = re.compile(r"\w[\w$#]*")


class StatementError(SourceError, ValueError):
    """A filter or a query that may not run: a ValueError for who checks it, a SourceError for who reads."""


@dataclass(frozen=True)
class Statement:
    """A SELECT and the values of its placeholders, in their order."""

    sql: str
    parameters: tuple[object, ...]


class Range(NamedTuple):
    """A part of a column's values: from ``low`` on and below ``high``, None: open; or the rows that have none.

    ``Range()`` is every row, null or not.
    """

    low: Any = None
    high: Any = None
    nulls: bool = False


def select_statement(
    request: ReadRequest,
    *,
    dialect: str,
    table: exp.Table | None,
    columns: Sequence[str | exp.Expression],
    placeholder: Callable[[int], exp.Expression],
    where: exp.Expression | None = None,
    cursor: exp.Expression | None = None,
    split: exp.Expression | None = None,
    part: Range | None = None,
) -> Statement:
    """The SELECT of one request.

    Args:
        request: its query, filter, cursor, since, until and split_by are used; its columns are not.
        dialect: sqlglot's name of the SQL.
        table: what is read; None: the request's query.
        columns: what is selected, in this order: names, or expressions with their alias.
        placeholder: the n-th placeholder of the statement, counted from 1: ``exp.Placeholder()`` for ``?``, …
        where: a further condition of the source's own, without placeholders.
        cursor: what is compared with since and until; default: the column of that name.
        split: what ``part`` speaks of; default: the column ``split_by``.
        part: the share of one of several parallel readers.

    Returns:
        parameters are, as far as they are there: since, until, low and high of the part.

    Raises:
        StatementError: the query or the filter may not run.
    """
    parameters: list[object] = []

    def bound(value: object) -> exp.Expression:
        parameters.append(value)
        return placeholder(len(parameters))

    selected = exp.select(*(column(item) if isinstance(item, str) else item for item in columns))
    if table is not None:
        selected = selected.from_(table)
    else:
        if request.query is None:
            raise ValueError("a table or a query is needed")
        query = check_query(request.query, dialect=dialect)
        if dialect == "tsql" and not (query.args.get("limit") or query.args.get("offset")):
            # Refused within brackets there, and the order is of no use here.
            query.set("order", None)
        selected = selected.from_(query.subquery(identifier(_ROWS), copy=False))
    conditions = [] if request.filter is None else [exp.paren(check_filter(request.filter, dialect=dialect))]
    if request.since is not None or request.until is not None:
        if request.cursor is None:
            raise ValueError("since and until need cursor")
        compared = cursor or column(request.cursor)
        if request.since is not None:
            conditions.append(exp.GTE(this=compared.copy(), expression=bound(request.since)))
        if request.until is not None:
            conditions.append(exp.LTE(this=compared.copy(), expression=bound(request.until)))
    if part is not None:
        if split is None and request.split_by is None:
            raise ValueError("a part needs split_by")
        conditions += _within(part, split or column(request.split_by or ""), bound)
    if where is not None:
        conditions.append(exp.paren(where))
    if conditions:
        selected = selected.where(*conditions, copy=False)
    return Statement(written(selected, dialect=dialect), tuple(parameters))


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Say of which source and object a filter or query is that may not run."""
    try:
        yield
    except StatementError as error:
        raise StatementError(f"{where}: {error}") from None


def written(statement: exp.Expression, *, dialect: str) -> str:
    """The SQL text of a statement: without comments, and with function names as they were given."""
    text: str = statement.sql(
        dialect=dialect, comments=False, normalize_functions=False, unsupported_level=sqlglot.ErrorLevel.IGNORE
    )
    return text


def check_filter(filter: str, *, dialect: str) -> exp.Expression:
    """One condition on the columns of one table.

    Raises:
        StatementError: it is no condition, cannot be parsed, or holds something that a filter may not.
    """
    _check_text("filter", filter, longest=LONGEST_FILTER, dialect=dialect)
    try:
        parsed = sqlglot.parse_one(filter, dialect=dialect, into=exp.Condition)
        nodes = [*parsed.walk()]
    except (SqlglotError, RecursionError) as error:
        raise _syntax("filter", error, expected="one condition, such as status <> 'draft'") from None
    for node in nodes:
        _check_part(node)
    if not isinstance(parsed.unnest(), CONDITIONS):
        raise StatementError(f"the filter is no condition but {_described(parsed)}; write one that is true or false")
    return parsed


def check_query(query: str, *, dialect: str) -> exp.Query:
    """One SELECT that only reads: WITH, UNION and subqueries are fine.

    Raises:
        StatementError: it is something else, cannot be parsed, or reaches beyond the tables of its database.
    """
    _check_text("query", query, longest=LONGEST_QUERY, dialect=dialect)
    try:
        statements = [found for found in sqlglot.parse(query, dialect=dialect) if found is not None]
        statements = [found for found in statements if not isinstance(found, exp.Semicolon)]
        nodes = [node for found in statements for node in found.walk()]
    except (SqlglotError, RecursionError) as error:
        raise _syntax("query", error, expected="one SELECT") from None
    if len(statements) != 1:
        raise StatementError(f"the query holds {len(statements)} statements; write one SELECT")
    root = statements[0]
    if not isinstance(root, (exp.Select, exp.SetOperation, exp.Subquery)):
        raise StatementError(f"the query is {_described(root)}; write one SELECT")
    for node in nodes:
        _check_reading(node, dialect=dialect)
    return root


def split_ranges(low: Any, high: Any, parts: int, *, nullable: bool = False) -> list[Range]:
    """Ranges of equal width that together hold every value, also below ``low`` and above ``high``.

    Args:
        low: smallest value; int, Decimal, date or datetime. None: there is none.
        high: largest value, of the same type.
        parts: most ranges wanted; fewer where there are fewer values.
        nullable: the column may be null: a further range holds these rows.

    Raises:
        ValueError: values of another type.
    """
    if low is None or high is None or parts <= 1:
        return [Range()]
    return ranges_between([_step(low, high, number, parts) for number in range(1, parts)], above=low, nullable=nullable)


def ranges_between(bounds: Sequence[Any], *, above: Any = None, nullable: bool = False) -> list[Range]:
    """Ranges that meet at the given bounds; of equal ones, and of those not above ``above``, none is empty.

    Args:
        bounds: values in ascending order.
        above: bounds up to this value are left out; None: none is.
        nullable: the column may be null: a further range holds these rows.
    """
    inner = [bound for bound in dict.fromkeys(bounds) if above is None or bound > above]
    if not inner:
        return [Range()]
    ends = [None, *inner, None]
    ranges = [Range(low, high) for low, high in pairwise(ends)]
    return [*ranges, Range(nulls=True)] if nullable else ranges


def _within(part: Range, split: exp.Expression, bound: Callable[[object], exp.Expression]) -> Iterator[exp.Expression]:
    if part.nulls:
        yield exp.Is(this=split.copy(), expression=exp.Null())
    if part.low is not None:
        yield exp.GTE(this=split.copy(), expression=bound(part.low))
    if part.high is not None:
        yield exp.LT(this=split.copy(), expression=bound(part.high))


def _step(low: Any, high: Any, number: int, parts: int) -> Any:
    if isinstance(low, bool) or not isinstance(low, (int, Decimal, dt.date)) or type(low) is not type(high):
        raise ValueError(f"a column of {type(low).__name__} values cannot be split into ranges")
    if isinstance(low, Decimal):
        return low + (high - low) * number / parts
    # One step more than lies between them, so that neighbours are parted too.
    step: Any = 1 if isinstance(low, int) else dt.timedelta(days=1)
    if isinstance(low, dt.datetime):
        step = dt.timedelta(microseconds=1)
    return low + (high - low + step) * number // parts


def _check_text(what: str, text: str, *, longest: int, dialect: str) -> None:
    if len(text) > longest:
        raise StatementError(f"the {what} has {len(text):,} characters; at most {longest:,} are read")
    if "\0" in text:
        raise StatementError(f"the {what} holds a character of code 0")
    try:
        tokens = sqlglot.tokenize(text, read=dialect)
    except SqlglotError as error:
        raise _syntax(what, error, expected="quotes and comments that are closed") from None
    comments = [comment for token in tokens for comment in token.comments]
    if any(comment.startswith(("!", "M!")) for comment in comments):
        raise StatementError(f"the {what} holds a comment that MySQL would run: /*! … */; write it as SQL")


def _check_part(node: exp.Expression) -> None:
    _check_name("filter", node)
    if isinstance(node, exp.Column):
        if node.args.get("table") is not None:
            raise StatementError(f"the filter names column '{_dotted(node)}' with its table; write the column alone")
        if isinstance(node.this, exp.Star):
            raise StatementError("the filter holds *; name a column")
    foreign = (exp.DataType.Type.USERDEFINED, exp.DataType.Type.UNKNOWN)
    if isinstance(node, (exp.ObjectIdentifier, exp.PseudoType)) or (
        isinstance(node, exp.DataType) and node.this in foreign
    ):
        raise StatementError(f"the filter casts to type '{_short(node)}'; only SQL's own types are taken")
    if isinstance(node, exp.Anonymous) and isinstance(node.this, str) and node.name.lower() in FILTER_FUNCTION_NAMES:
        return
    if type(node) in FILTER_PARTS:
        return
    if isinstance(node, (exp.Query, exp.Exists)):
        raise StatementError("the filter holds a SELECT; use 'query' in place of a table for that")
    if isinstance(node, exp.Func):
        raise StatementError(
            f"the filter calls function '{_function(node)}', which is not one that a filter may use\n"
            f"  it may use: {', '.join(_filter_functions())}\n"
            "  or write the condition into 'query'"
        )
    if isinstance(node, (exp.Parameter, exp.Placeholder, exp.SessionParameter)):
        raise StatementError("the filter holds a parameter; write the value itself")
    raise StatementError(f"the filter holds {_described(node)}, which a filter may not; write it into 'query'")


def _check_reading(node: exp.Expression, *, dialect: str) -> None:
    if isinstance(node, READING_ONLY):
        raise StatementError(f"the query only reads: {_described(node)} is not allowed")
    if isinstance(node, exp.Lock):
        raise StatementError("the query only reads: it takes no locks (FOR UPDATE, FOR SHARE)")
    if isinstance(node, exp.WithTableHint):
        raise StatementError("the query holds a table hint, which changes what is locked or seen; leave it out")
    if isinstance(node, (exp.Parameter, exp.Placeholder, exp.SessionParameter)):
        raise StatementError("the query holds a parameter or variable; write the value itself")
    if isinstance(node, exp.Table) and dialect == "oracle" and "@" in node.name:
        raise StatementError("the query reads through a database link; declare a connection to that database")
    _check_name("query", node)
    if isinstance(node, exp.Func):
        name = _function(node)
        barred = name.startswith(BARRED_PREFIXES) and name not in FUNCTIONS_BEHIND_PREFIXES
        if barred or name in BARRED_FUNCTIONS:
            raise StatementError(f"the query calls '{name}', which does more than read the tables of its database")
    # Oracle's packages; a function without arguments is written like a column there.
    if isinstance(node, exp.Dot) or (isinstance(node, exp.Column) and dialect == "oracle"):
        for package in (part.name.lower() + "." for part in node.find_all(exp.Identifier)):
            if package.startswith(("dbms_", "utl_")) and package not in FUNCTIONS_BEHIND_PREFIXES:
                raise StatementError(f"the query calls '{package[:-1]}', which does more than read its database")


def _check_name(what: str, node: exp.Expression) -> None:
    """Without quotes a name could be a parameter to the server, such as $x."""
    if isinstance(node, exp.Identifier) and not node.args.get("quoted") and not _UNQUOTED.fullmatch(node.name):
        raise StatementError(f"the {what} holds the name '{_short(node.name)}', which needs quotes")


def _function(node: exp.Func) -> str:
    name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
    return str(name).lower()


def _filter_functions() -> list[str]:
    known = {kind.sql_names()[0].lower() for kind in FILTER_PARTS if issubclass(kind, exp.Func)}
    return sorted(known | FILTER_FUNCTION_NAMES)


def _dotted(node: exp.Column) -> str:
    return _short(".".join(part.name for part in node.parts))


def _described(node: exp.Expression) -> str:
    word = str(node.key).upper()
    return f"{'an' if word[0] in 'AEIOU' else 'a'} {word}"


def _short(node: object) -> str:
    text = str(node)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _syntax(what: str, error: Exception, *, expected: str) -> StatementError:
    if isinstance(error, RecursionError):
        return StatementError(f"the {what} is nested too deeply")
    # The parser's own words quote the text with terminal colours; the place is enough.
    found = next(iter(getattr(error, "errors", None) or []), None)
    at = f" (line {found['line']}, near '{_short(found.get('highlight', ''))}')" if found and found.get("line") else ""
    return StatementError(f"the {what} cannot be read as SQL{at}; expected is {expected}")
