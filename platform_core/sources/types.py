"""The column types that people may declare, and exact conversion to them: a value fits, or the read stops."""

from __future__ import annotations

import re
from typing import Annotated

import pyarrow as pa
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
        return values.cast(target)
    except pa.ArrowException:
        raise UnfitError(_count_unfit(values, target)) from None


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
