"""What a table's rows are expected to be: one entry of ``expectations:`` is one check of the table."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from platform_core.specs.base import Column, Columns, Duration, Model, Name, TableName, is_name
from platform_core.specs.patterns import MOST_STATES, states
from platform_core.specs.table import TableRef

LONGEST_TEXT = 4_000
"""Characters of a condition, a query or a pattern."""

_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?%")
_NO_LETTER = re.compile(r"[^a-z0-9]+")
_QUERY = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


class Severity(StrEnum):
    """What an expectation that is not met is."""

    WARN = "warn"
    ERROR = "error"


class ExpectationKind(StrEnum):
    """What is expected; the key of an entry that says so."""

    NOT_NULL = "not_null"
    UNIQUE = "unique"
    ACCEPTED_VALUES = "accepted_values"
    RANGE = "range"
    MATCHES = "matches"
    ROW_COUNT = "row_count"
    ROW_COUNT_CHANGE = "row_count_change"
    FRESH = "fresh"
    REFERENCES = "references"
    SQL = "sql"


def percent(text: str) -> Decimal:
    """The number of a text such as ``2.5 %``.

    Raises:
        ValueError: it does not read like that.
    """
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise ValueError("must read like '5 %': a number and a percent sign")
    return Decimal(match[1])


def _check_percent(value: str) -> str:
    percent(value)
    return value


def _check_share(value: int | str) -> int | str:
    if isinstance(value, str) and percent(value) > 100:
        raise ValueError("is more than 100 %")
    if isinstance(value, int) and value < 0:
        raise ValueError("must be at least 0")
    return value


def _check_pattern(value: str) -> str:
    if states(value) > MOST_STATES:
        raise ValueError(f"repeats too much: written out it is longer than {MOST_STATES:,} characters")
    return value


Percent = Annotated[str, AfterValidator(_check_percent), Field(json_schema_extra={"examples": ["5 %", "0.1 %"]})]
"""A share, written like ``5 %``."""

Share = Annotated[int | str, AfterValidator(_check_share), Field(json_schema_extra={"examples": [10, "0.5 %"]})]
"""A number of rows, or a share of them written like ``0.5 %``."""

Scalar = bool | int | float | str
"""A value that a row is compared with; days and times are written as texts, by ISO 8601."""

Condition = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
"""A condition in SQL over the columns of one row."""


class Range(Model):
    """Smallest and largest value, both included."""

    min: int | float | str | None = None
    max: int | float | str | None = None

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs 'min', 'max' or both")
        ends = (self.min, self.max)
        if all(isinstance(end, (int, float)) for end in ends) and self.min > self.max:  # type: ignore[operator]
            raise ValueError("'min' is larger than 'max'")
        return self


class RowCount(Model):
    """Fewest and most rows, both included."""

    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("'min' is larger than 'max'")
        return self


class RowCountChange(Model):
    """How far the number of rows may move from the one that was last accepted."""

    fewer: Percent | None = Field(default=None, description="Largest loss, such as 20 %.")
    more: Percent | None = Field(default=None, description="Largest growth, such as 300 %.")

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.fewer is None and self.more is None:
            raise ValueError("needs 'fewer', 'more' or both")
        return self


class Reference(Model):
    """A column of a table in which values are looked up."""

    table: TableName = Field(description="Table: layer.name or workstream.layer.name.")
    column: Column


_ON_A_COLUMN = frozenset(
    {ExpectationKind.ACCEPTED_VALUES, ExpectationKind.RANGE, ExpectationKind.MATCHES, ExpectationKind.REFERENCES}
)
_OF_THE_TABLE = frozenset({ExpectationKind.ROW_COUNT, ExpectationKind.ROW_COUNT_CHANGE, ExpectationKind.FRESH})


class ExpectationSpec(Model):
    """One thing that is expected of a table's current rows: exactly one of the keys that name a kind.

    A null passes everything but ``not_null``, as in a CHECK of SQL.
    """

    name: Name | None = Field(default=None, description="Name of the check; default: the kind and its columns.")
    column: Column | None = Field(
        default=None, description="For accepted_values, range, matches, references and fresh: the column."
    )
    not_null: Column | Columns | None = Field(default=None, description="Columns that always have a value.")
    unique: Column | Columns | None = Field(
        default=None, description="Columns whose values no two rows share; rows with a null in them are left out."
    )
    accepted_values: tuple[Scalar, ...] | None = Field(
        default=None, min_length=1, max_length=1_000, description="All values that the column may have."
    )
    range: Range | None = Field(default=None, description="Smallest and largest value of the column.")
    matches: Annotated[str, AfterValidator(_check_pattern)] | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_TEXT,
        description="Regular expression (RE2) that the whole value matches.",
    )
    row_count: RowCount | None = Field(default=None, description="Fewest and most rows.")
    row_count_change: RowCountChange | None = Field(
        default=None, description="How far the number of rows may move from the one that was last accepted."
    )
    fresh: Duration | None = Field(
        default=None, description="Largest age of the newest value of the column; default column: _modified_at."
    )
    references: Reference | None = Field(default=None, description="Where each value of the column stands, too.")
    sql: Condition | None = Field(
        default=None,
        description="A condition that holds for every row, or one SELECT over lake tables that gives no row.",
    )
    where: Condition | None = Field(default=None, description="Condition in SQL: only these rows are looked at.")
    severity: Severity = Field(default=Severity.ERROR, description="warn: is told; error: is a failure.")
    blocking: bool | None = Field(
        default=None, description="Whether what depends on the table waits for it; default: an error blocks."
    )
    at_most: Share | None = Field(
        default=None, description="So many failing rows are tolerated: a number, or a share such as 0.5 %."
    )
    quarantine: bool = Field(
        default=False, description="Copy failing rows to the table <workstream>.quarantined.<layer>__<table>."
    )
    description: str = ""

    @cached_property
    def kind(self) -> ExpectationKind:
        """What is expected."""
        return next(kind for kind in ExpectationKind if getattr(self, kind) is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, as declared."""
        named = self.not_null if self.not_null is not None else self.unique
        if named is not None:
            return (named,) if isinstance(named, str) else named
        return () if self.column is None else (self.column,)

    @property
    def check(self) -> str:
        """Name of the check, unique among those of a table."""
        if self.name is not None:
            return self.name
        return "_".join((self.kind, *(_NO_LETTER.sub("_", name.lower()).strip("_") for name in self.columns)))

    @property
    def blocks(self) -> bool:
        """Whether what depends on the table waits until it is met."""
        return self.severity is Severity.ERROR and self.blocking is not False

    @property
    def is_query(self) -> bool:
        """Whether it is a SELECT that gives no row."""
        return self.sql is not None and _QUERY.match(self.sql) is not None

    @property
    def is_of_rows(self) -> bool:
        """Whether each row meets it or does not, so that the rows that do not can be told."""
        return self.kind not in _OF_THE_TABLE and not self.is_query

    def tolerates(self, *, failing: int, checked: int) -> bool:
        """Whether so many failing rows among those that were looked at are no more than ``at_most``."""
        if isinstance(self.at_most, str):
            return failing * 100 <= percent(self.at_most) * checked
        return failing <= (self.at_most or 0)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        given = [kind for kind in ExpectationKind if getattr(self, kind) is not None]
        if len(given) != 1:
            said = f"'{given[0]}' and '{given[1]}' are two" if given else "none is there"
            raise ValueError(f"an entry has exactly one of the keys {', '.join(ExpectationKind)}: {said}")
        kind = given[0]
        if kind in _ON_A_COLUMN and self.column is None:
            raise ValueError(f"'{kind}' needs 'column'")
        if self.column is not None and kind not in _ON_A_COLUMN and kind is not ExpectationKind.FRESH:
            raise ValueError(f"'column' means nothing to '{kind}'")
        if kind in (ExpectationKind.NOT_NULL, ExpectationKind.UNIQUE) and not self.columns:
            raise ValueError(f"'{kind}' names no column")
        self._check_what_rows_can()
        if self.blocking and self.severity is Severity.WARN:
            raise ValueError("a warning blocks nothing; remove 'blocking' or use severity error")
        self._check_name()
        return self

    def _check_what_rows_can(self) -> None:
        if self.is_query and self.where is not None:
            raise ValueError("'where' belongs into the SELECT")
        if self.is_query and isinstance(self.at_most, str):
            raise ValueError("a SELECT gives failing rows only: 'at_most' is a number of them")
        if self.kind in _OF_THE_TABLE and self.at_most is not None:
            raise ValueError(f"'{self.kind}' is met by the table or not: remove 'at_most'")
        if self.quarantine and not self.is_of_rows:
            what = "a SELECT" if self.is_query else f"'{self.kind}'"
            raise ValueError(f"{what} does not tell which rows of the table fail: remove 'quarantine'")

    def _check_name(self) -> None:
        if self.name is None and self.kind is ExpectationKind.SQL:
            raise ValueError("'sql' needs 'name': what the check is called")
        if not is_name(self.check):
            raise ValueError("needs 'name': its columns make no name of at most 63 letters, digits and _")


Expectations = tuple[ExpectationSpec, ...]
"""What is expected of one table."""


def check_apart(expectations: Expectations) -> None:
    """Raise ValueError where two expectations of a table have one name."""
    seen: set[str] = set()
    for expectation in expectations:
        if expectation.check in seen:
            raise ValueError(f"two expectations are named '{expectation.check}'; give one of them a 'name'")
        seen.add(expectation.check)


def quarantined(table: TableRef) -> TableRef:
    """The side table that holds the rows of a table that fail what is expected of them."""
    return TableRef(table.workstream, "quarantined", f"{table.layer}__{table.name}")


def quality_state(table: TableRef) -> TableRef:
    """Where the numbers of rows that were last accepted are kept, addressed like a table."""
    return TableRef(table.workstream, "quality_state", f"{table.layer}__{table.name}")
