"""The queries that measure what is expected of a table; they give counts, and rows only for the side table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.specs.column_names import normalised
from platform_core.specs.expectation import ExpectationKind, ExpectationSpec, Scalar
from platform_core.specs.expectation_tables import target_table
from platform_core.specs.sql import DIALECT, condition
from platform_core.specs.table import TableRef

CURRENT = "_is_current"
"""Column of bronze that is false for rows that are gone from the source."""

NEWEST = "_modified_at"
"""Column whose newest value tells how fresh a table is, where no other is named."""

FAILED = "_failed_expectations"
"""Column of the side table: the names of what a row fails."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One expectation over the columns that its table has.

    Args:
        columns: as the table names them.
        scope: rows that are looked at; None: all current ones.
        fails: true for rows that fail; None where that is no matter of a row alone.
        target: column of the referenced table, as that names it.
        values: of its parameters.
    """

    expectation: ExpectationSpec
    columns: tuple[str, ...]
    scope: exp.Expression | None
    fails: exp.Expression | None = None
    target: str | None = None
    values: Mapping[str, Any]

    @property
    def kind(self) -> ExpectationKind:
        """What is expected."""
        return self.expectation.kind


class Misfit(ValueError):  # noqa: N818 - says what the expectation is
    """An expectation does not fit the table's columns; the text says why."""


def plan(expectation: ExpectationSpec, schema: pa.Schema, *, number: int, now: dt.datetime) -> Planned:
    """Match an expectation with the columns of its table.

    Args:
        number: of the expectation, which keeps its parameters apart from those of others.
        now: the moment that freshness counts from, UTC.

    Raises:
        Misfit: a column is not there, or a value cannot be one of it.
        SqlError: a condition is none.
    """
    named = expectation.columns
    if expectation.kind is ExpectationKind.FRESH and not named:
        named = (NEWEST,)
    columns = tuple(column_of(name, schema.names) for name in named)
    where = None if expectation.where is None else _bare(condition(expectation.where))
    present = [_not_null(name) for name in columns] if expectation.kind in _LEAVES_NULLS_OUT else []
    values = _Values(number)
    fails = _fails(expectation, columns, schema, values)
    if expectation.kind is ExpectationKind.FRESH:
        if not pa.types.is_temporal(type_ := schema.field(columns[0]).type):
            raise Misfit(f"column '{columns[0]}' is {type_}: only days and times tell how fresh a table is")
        values.add((now - (expectation.fresh or dt.timedelta(0))).astimezone(dt.UTC).replace(tzinfo=None))
    return Planned(
        expectation=expectation,
        columns=columns,
        scope=_all([*([where] if where else []), *present]),
        fails=fails,
        values=values.given,
    )


def column_of(name: str, names: Sequence[str]) -> str:
    """The column that a person means, by its name in the lake or at its source.

    Raises:
        Misfit: there is none.
    """
    if name in names:
        return name
    try:
        kept = normalised(name)
    except ValueError:
        kept = name
    if kept in names:
        return kept
    raise Misfit(f"there is no column '{name}'; columns: {', '.join(names)}")


def counts(planned: Sequence[Planned], *, table: TableRef, schema: pa.Schema) -> exp.Select:
    """One row over one scan: for the expectation at place i ``checked_i``, and ``failing_i`` or ``fresh_i``."""
    shown: list[exp.Expression] = []
    for place, each in enumerate(planned):
        shown.append(exp.alias_(_count(each.scope), f"checked_{place}"))
        if each.fails is not None:
            shown.append(exp.alias_(_count(_all([each.scope, each.fails])), f"failing_{place}"))
        if each.kind is ExpectationKind.FRESH:
            newest = exp.Max(this=exp.cast(_column(each.columns[0]), "TIMESTAMP"))
            limit = exp.cast(_parameter(next(iter(each.values))), "TIMESTAMP")
            shown.append(exp.alias_(exp.GTE(this=_filtered(newest, each.scope), expression=limit), f"fresh_{place}"))
    return _current(exp.select(*shown).from_(_table(table)), schema)


def doubles(planned: Planned, *, table: TableRef, schema: pa.Schema) -> exp.Select:
    """One row: ``checked_0`` rows without a null in the columns, of which ``failing_0`` share their values."""
    groups = _groups(planned, table, schema).select(exp.alias_(exp.Count(this=exp.Star()), "edp_rows"))
    rows = exp.column("edp_rows")
    more = exp.GT(this=rows.copy(), expression=exp.Literal.number(1))
    return exp.select(
        exp.alias_(_sum(rows.copy()), "checked_0"),
        exp.alias_(_sum(exp.If(this=more, true=rows.copy())), "failing_0"),
    ).from_(groups.subquery("edp_groups"))


def strangers(planned: Planned, *, table: TableRef, schema: pa.Schema, target: pa.Schema) -> exp.Select:
    """One row: ``checked_0`` rows with a value, of which ``failing_0`` have one that the referenced table lacks."""
    own = _current(exp.select(exp.alias_(_column(planned.columns[0]), "edp_value")).from_(_table(table)), schema)
    if planned.scope is not None:
        own = own.where(planned.scope.copy())
    missing = exp.Is(this=exp.column("edp_hit", "edp_known"), expression=exp.null())
    return (
        exp.select(exp.alias_(_count(None), "checked_0"), exp.alias_(_count(missing), "failing_0"))
        .from_(own.subquery("edp_own"))
        .join(
            _known(planned, table, target, "edp_key").subquery("edp_known"),
            on=exp.EQ(this=exp.column("edp_value", "edp_own"), expression=exp.column("edp_key", "edp_known")),
            join_type="left",
        )
    )


def failing_rows(
    planned: Sequence[Planned], *, table: TableRef, schema: pa.Schema, targets: Mapping[TableRef, pa.Schema]
) -> exp.Select:
    """The current rows that fail any of these expectations, once each, and the names of those that they fail."""
    query = exp.select(exp.Column(this=exp.Star(), table=exp.to_identifier("edp_rows"))).from_(
        _current(exp.select("*").from_(_table(table)), schema).subquery("edp_rows")
    )
    flags = []
    for place, each in enumerate(planned):
        fails = each.fails
        if fails is None:
            side, keys = f"edp_side_{place}", [f"edp_{place}_{at}" for at in range(len(each.columns))]
            if each.kind is ExpectationKind.UNIQUE:
                looked_up = _groups(each, table, schema).having("count(*) > 1")
                looked_up = looked_up.select(
                    *(exp.alias_(_column(name), key) for name, key in zip(each.columns, keys, strict=True)),
                    exp.alias_(exp.true(), f"edp_hit_{place}"),
                )
            else:
                looked_up = _known(each, table, targets[_target(each, table)], keys[0], hit=f"edp_hit_{place}")
            on = _all(
                [
                    exp.EQ(this=exp.column(name, "edp_rows", quoted=True), expression=exp.column(key, side))
                    for name, key in zip(each.columns, keys, strict=True)
                ]
            )
            query = query.join(looked_up.subquery(side), on=on, join_type="left")
            hit: exp.Expression = exp.Is(this=exp.column(f"edp_hit_{place}", side), expression=exp.null())
            fails = exp.Not(this=hit) if each.kind is ExpectationKind.UNIQUE else hit
        flags.append(_all([each.scope, fails]))
    names = [
        exp.Case().when(flag.copy(), exp.Literal.string(each.expectation.check))  # type: ignore[union-attr]
        for flag, each in zip(flags, planned, strict=True)
    ]
    listed = exp.func("concat_ws", exp.Literal.string(", "), *names, dialect=DIALECT)
    return query.select(exp.alias_(listed, FAILED)).where(exp.or_(*(flag for flag in flags if flag is not None)))


def text_of(query: exp.Expression) -> str:
    """A query as the engine takes it."""
    return str(query.sql(dialect=DIALECT, comments=False))


def columns_read(query: exp.Expression, names: Iterable[str]) -> tuple[str, ...]:
    """Which of a table's columns a query may read; SQL names are the same in any case."""
    wanted = {column.name.lower() for column in query.find_all(exp.Column)}
    return tuple(name for name in names if name.lower() in wanted)


_LEAVES_NULLS_OUT = frozenset(
    {
        ExpectationKind.UNIQUE,
        ExpectationKind.ACCEPTED_VALUES,
        ExpectationKind.RANGE,
        ExpectationKind.MATCHES,
        ExpectationKind.REFERENCES,
    }
)


class _Values:
    """Values of parameters, each with a name of its own."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.given: dict[str, Any] = {}

    def add(self, value: Any) -> exp.Expression:
        """Keep a value; returns what stands for it in a query."""
        name = f"e{self._number}_{len(self.given)}"
        self.given[name] = value
        return _parameter(name)


def _fails(
    expectation: ExpectationSpec, columns: tuple[str, ...], schema: pa.Schema, values: _Values
) -> exp.Expression | None:
    """What is true for a row that fails; None where a row alone cannot tell."""
    match expectation.kind:
        case ExpectationKind.NOT_NULL:
            return exp.or_(*(exp.Is(this=_column(name), expression=exp.null()) for name in columns))
        case ExpectationKind.ACCEPTED_VALUES:
            type_ = schema.field(columns[0]).type
            allowed = [values.add(_as(value, type_, columns[0])) for value in expectation.accepted_values or ()]
            return exp.Not(this=exp.In(this=_column(columns[0]), expressions=allowed))
        case ExpectationKind.RANGE:
            return _out_of_range(expectation, columns[0], schema.field(columns[0]).type, values)
        case ExpectationKind.MATCHES:
            text = exp.cast(_column(columns[0]), "TEXT")
            return exp.Not(
                this=exp.Anonymous(this="regexp_full_match", expressions=[text, values.add(expectation.matches)])
            )
        case ExpectationKind.SQL if expectation.is_of_rows:
            return exp.Not(this=exp.paren(_bare(condition(expectation.sql or "")), copy=False))
        case _:
            return None


def _out_of_range(expectation: ExpectationSpec, column: str, type_: pa.DataType, values: _Values) -> exp.Expression:
    ends = expectation.range
    outside: list[exp.Expression] = []
    if ends is not None and ends.min is not None:
        outside.append(exp.LT(this=_column(column), expression=values.add(_as(ends.min, type_, column))))
    if ends is not None and ends.max is not None:
        outside.append(exp.GT(this=_column(column), expression=values.add(_as(ends.max, type_, column))))
    if pa.types.is_floating(type_):
        # DuckDB takes NaN for the largest number; it is within no range.
        outside.append(exp.IsNan(this=_column(column)))
    return exp.or_(*outside)


def _as(value: Scalar, type_: pa.DataType, column: str) -> Any:
    """A declared value as one of a column's type, so that it compares as the column's own do."""
    try:
        return _converted(value, type_)
    except (ValueError, ArithmeticError, pa.ArrowException, TypeError):
        raise Misfit(f"a declared value cannot be one of column '{column}', which is {type_}") from None


def _converted(value: Scalar, type_: pa.DataType) -> Any:
    types = pa.types
    if types.is_boolean(type_) != isinstance(value, bool):
        raise TypeError
    if types.is_string(type_) or types.is_large_string(type_):
        return str(value)
    if types.is_decimal(type_):
        try:
            return Decimal(str(value))
        except InvalidOperation:
            raise ValueError from None
    if types.is_integer(type_):
        return int(value) if isinstance(value, str) else value
    if types.is_floating(type_):
        return pa.scalar(float(value), pa.float64()).cast(type_).as_py()
    if not isinstance(value, str):
        if types.is_boolean(type_):
            return value
        raise TypeError
    if types.is_date(type_):
        return dt.date.fromisoformat(value)
    if types.is_timestamp(type_):
        moment = dt.datetime.fromisoformat(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return aware if type_.tz else aware.astimezone(dt.UTC).replace(tzinfo=None)
    if types.is_time(type_):
        return dt.time.fromisoformat(value)
    raise TypeError


def _groups(planned: Planned, table: TableRef, schema: pa.Schema) -> exp.Select:
    query = _current(exp.Select().from_(_table(table)), schema)
    if planned.scope is not None:
        query = query.where(planned.scope.copy())
    return query.group_by(*(_column(name) for name in planned.columns))


def _known(planned: Planned, table: TableRef, target: pa.Schema, key: str, *, hit: str = "edp_hit") -> exp.Select:
    """Every value of the referenced column, once."""
    name = planned.target or ""
    query = exp.select(exp.alias_(_column(name), key), exp.alias_(exp.true(), hit)).distinct()
    return _current(query.from_(_table(_target(planned, table))), target).where(_not_null(name))


def _target(planned: Planned, table: TableRef) -> TableRef:
    found = target_table(planned.expectation, table)
    if found is None:
        raise ValueError(f"{planned.expectation.check} references nothing")
    return found


def _current(query: exp.Select, schema: pa.Schema) -> exp.Select:
    return query.where(_column(CURRENT)) if CURRENT in schema.names else query


def _bare(tree: exp.Expression) -> exp.Expression:
    """The condition in brackets, so that nothing around it changes what it means."""
    return exp.paren(tree, copy=False)


def _count(where: exp.Expression | None) -> exp.Expression:
    # Four times as fast as count(*) with a FILTER each, and what conditions share is computed once.
    return exp.Count(this=exp.Star()) if where is None else exp.CountIf(this=where.copy())


def _filtered(aggregate: exp.Expression, where: exp.Expression | None) -> exp.Expression:
    return aggregate if where is None else exp.Filter(this=aggregate, expression=exp.Where(this=where.copy()))


def _sum(value: exp.Expression) -> exp.Expression:
    return exp.Coalesce(this=exp.Sum(this=value), expressions=[exp.Literal.number(0)])


def _all(conditions: Iterable[exp.Expression | None]) -> exp.Expression | None:
    given = [each for each in conditions if each is not None]
    return exp.and_(*given) if given else None


def _not_null(name: str) -> exp.Expression:
    return exp.Not(this=exp.Is(this=_column(name), expression=exp.null()))


def _column(name: str) -> exp.Column:
    return exp.column(name, quoted=True)


def _parameter(name: str) -> exp.Expression:
    return exp.Placeholder(this=name)


def _table(ref: TableRef) -> exp.Table:
    return exp.table_(ref.name, db=ref.layer, catalog=ref.workstream, quoted=True)
