"""The column types that people may declare, and exact conversion to them: a value fits, or the read stops."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from platform_core.errors import SourceError
from platform_core.specs.base import Model

UNBOUNDED_DECIMAL = pa.decimal128(38, 10)
"""Type of a source's numeric column without declared precision: exact, or the read stops."""

_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}
_EPOCH = dt.date(1970, 1, 1).toordinal()
_DAYS = (dt.date.min.toordinal() - _EPOCH, dt.date.max.toordinal() - _EPOCH)
_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
KNOWN_TYPES = f"{', '.join(_TYPES)}, decimal(precision,scale) with a precision up to 38"
"""The type names that people may declare, for messages."""


class UnfitError(Exception):
    """Values do not fit a type; holds their number, never a value."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count} values do not fit")


def parse_type(text: str) -> pa.DataType:
    """The Arrow type of a declared type name.

    Raises:
        ValueError: the name is not known.
    """
    name = text.strip().lower()
    if name in _TYPES:
        return _TYPES[name]
    if (match := _DECIMAL.fullmatch(name)) and 1 <= int(match[1]) <= 38 and int(match[2]) <= int(match[1]):
        return pa.decimal128(int(match[1]), int(match[2]))
    raise ValueError(f"'{text}' is no known type; known: {KNOWN_TYPES}")


def type_name(type_: pa.DataType) -> str:
    """How a type is declared; Arrow's own name for one that cannot be."""
    for name, known in _TYPES.items():
        if known.equals(type_):
            return name
    if pa.types.is_decimal128(type_):
        return f"decimal({type_.precision},{type_.scale})"
    return str(type_)


def _check(text: str) -> str:
    parse_type(text)
    return text


TypeName = Annotated[str, AfterValidator(_check)]
"""A declared type: ``text``, ``integer``, ``decimal(18,2)``, ``timestamptz``, …"""


class TypedOptions(Model):
    """Options of one object whose column types can be declared."""

    columns: dict[str, TypeName] = Field(
        default_factory=dict,
        description="Type by column, where it is not the source's own.",
        examples=[{"amount": "decimal(18,4)", "seen_at": "timestamptz"}],
    )


def convert(values: pa.Array, target: pa.DataType) -> pa.Array:
    """The same values in another type, exactly.

    Raises:
        UnfitError: a value would be changed, or is not of that type at all.
    """
    if values.type.equals(target):
        return values
    try:
        converted = values.cast(target)
    except pa.ArrowException:
        raise UnfitError(_count_unfit(values, target)) from None
    if pa.types.is_floating(target) and pa.types.is_string(values.type):
        _refuse_overflow(values, converted)
    return converted


def _refuse_overflow(texts: pa.Array, numbers: pa.Array) -> None:
    """Refuse texts of numbers that are too large: the cast makes infinity of them."""
    infinite = pc.is_inf(numbers)
    if pc.any(infinite).as_py():
        digits = pc.match_substring_regex(texts.filter(infinite), "[0-9]")
        if count := pc.sum(digits).as_py():
            raise UnfitError(count)


def refuse_other_years(values: pa.Array) -> None:
    """Refuse dates and times outside the years 1 to 9999, infinite ones among them, also within lists and structs.

    Systems that know others hand them over as numbers that neither Python nor the lake can name.

    Raises:
        UnfitError: there are some.
    """
    type_ = values.type
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        refuse_other_years(values.flatten())
    elif pa.types.is_struct(type_):
        for child in values.flatten():
            refuse_other_years(child)
    elif pa.types.is_map(type_):
        refuse_other_years(values.keys)
        refuse_other_years(values.items)
    elif pa.types.is_date32(type_):
        _refuse_beyond(values.cast(pa.int32()), _DAYS)
    elif pa.types.is_timestamp(type_):
        a_day = _A_DAY[type_.unit]
        _refuse_beyond(values.cast(pa.int64()), (_DAYS[0] * a_day, (_DAYS[1] + 1) * a_day - 1))


def _refuse_beyond(values: pa.Array, span: tuple[int, int]) -> None:
    found = pc.min_max(values).as_py()
    low, high = (min(max(bound, -(2**63)), 2**63 - 1) for bound in span)
    if found["min"] is not None and (found["min"] < low or found["max"] > high):
        raise UnfitError(pc.sum(pc.or_(pc.less(values, low), pc.greater(values, high))).as_py())


def unfit(where: str, *, column: str, type_: pa.DataType, count: int, rows: tuple[int, int]) -> SourceError:
    """The error for values that do not fit.

    Args:
        where: source and object.
        column: name of the column.
        type_: the type they do not fit.
        count: number of such values.
        rows: first and last row among which they are, counted from 1.
    """
    return SourceError(
        f"{where}: of rows {rows[0]:,} to {rows[1]:,}, {count:,} hold a value in column '{column}' "
        f"that does not fit its type {type_name(type_)}\n"
        f"  correct them at the source, or name another type in the table's options: columns: {{{column}: text}}"
    )


def _count_unfit(values: pa.Array, target: pa.DataType) -> int:
    count = 0
    for index in range(len(values)):
        try:
            values.slice(index, 1).cast(target)
        except pa.ArrowException:
            count += 1
    return count
