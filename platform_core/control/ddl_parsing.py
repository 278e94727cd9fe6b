"""Splits a migration into statements and parses each, without running any."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType

_MISSING = re.compile(r"Required keyword: .* missing for <class '.*\.(\w+)'>")


class SqlFault(ValueError):  # noqa: N818 - of a text, not of the program
    """A statement that cannot be taken.

    Args:
        message: what is wrong, in one line.
        line: of the file, counted from 1.
        hints: what was looked at, what to do.
    """

    def __init__(self, message: str, *hints: str, line: int = 0) -> None:
        self.message = message
        self.line = line
        self.hints = hints
        super().__init__(message)


@dataclass(frozen=True)
class Part:
    """One statement: its text, the line on which it begins, and what it parses to."""

    sql: str
    line: int
    node: exp.Expression


def split(text: str, *, dialect: str) -> list[Part]:
    """The statements of a text.

    Raises:
        SqlFault: one cannot be read.
    """
    try:
        tokens = sqlglot.tokenize(text, dialect=dialect)
    except SqlglotError:
        raise SqlFault("cannot be read as SQL: a quote or comment is not closed") from None
    return [_part(text, group, dialect) for group in _groups(tokens)]


def body_of(sql: str, *, dialect: str) -> str:
    """The SELECT of a CREATE VIEW as it is written: what stands behind AS.

    Raises:
        SqlFault: there is none.
    """
    depth = 0
    tokens = sqlglot.tokenize(sql, dialect=dialect)
    for token, following in pairwise(tokens):
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if token.token_type is TokenType.ALIAS and depth == 0:
            return sql[following.start :]
    raise SqlFault("a view needs AS and a SELECT")


def _groups(tokens: list[Token]) -> Iterator[list[Token]]:
    group: list[Token] = []
    for token in tokens:
        if token.token_type is not TokenType.SEMICOLON:
            group.append(token)
        elif group:
            yield group
            group = []
    if group:
        yield group


def _part(text: str, tokens: list[Token], dialect: str) -> Part:
    # A token's line is that of its end.
    start = tokens[0].start
    line = text.count("\n", 0, start) + 1
    sql = text[start : tokens[-1].end + 1]
    try:
        with _quiet():
            found = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError as error:
        raise _fault(error, line) from None
    except RecursionError:
        raise SqlFault("is nested too deeply", line=line) from None
    nodes = [node for node in found if node is not None]
    if len(nodes) != 1:
        raise SqlFault("cannot be read as one SQL statement", line=line)
    return Part(sql, line, nodes[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """sqlglot says on the terminal that it does not know a statement; that is said better where it is refused."""
    logger = logging.getLogger("sqlglot")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _fault(error: SqlglotError, line: int) -> SqlFault:
    # Only the parser's own words and the position pass: its full text quotes the statement with terminal colours.
    found = getattr(error, "errors", None)
    if not found:
        return SqlFault("cannot be read as SQL: a quote or bracket is not closed", line=line)
    first = found[0]
    missing = _MISSING.match(str(first["description"]))
    said = f"something is missing in {missing[1].upper()}" if missing else first["description"]
    near = f" near '{first['highlight']}'" if first.get("highlight") else ""
    return SqlFault(f"cannot be read as SQL: {said}{near}", line=line + (first.get("line") or 1) - 1)
