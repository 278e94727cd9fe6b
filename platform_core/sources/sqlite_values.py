"""Turns what SQLite holds into Arrow columns of their declared types, exactly."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.types import KNOWN_TYPES, UNBOUNDED_DECIMAL, UnfitError, convert

_DECLARED = re.compile(r"([^()]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*([^()]*)")
_NAMED = {
    **dict.fromkeys(("BOOL", "BOOLEAN"), pa.bool_()),
    "DATE": pa.date32(),
    **dict.fromkeys(("DATETIME", "TIMESTAMP", "TIMESTAMP WITHOUT TIME ZONE"), pa.timestamp("us")),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIMEOFFSET"), pa.timestamp("us", tz="UTC")),
    **dict.fromkeys(("TIME", "STRING", "JSON", "UUID", "XML"), pa.string()),
}
_DECIMALS = ("NUMERIC", "DECIMAL", "DEC", "NUMBER")
_AFFINITIES = (
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB"), pa.float64()),
)


def declared_type(name: str, declared: str, *, where: str) -> pa.DataType:
    """The Arrow type of a declared column type.

    Raises:
        SourceError: it stands for none.
    """
    match = _DECLARED.fullmatch(" ".join(declared.upper().split()))
    if match:
        base = f"{match[1]} {match[4]}".strip()
        if base in _NAMED:
            return _NAMED[base]
        if base in _DECIMALS:
            if match[2] is None:
                return UNBOUNDED_DECIMAL
            precision, scale = int(match[2]), int(match[3] or 0)
            if 1 <= precision <= 38 and scale <= precision:
                return pa.decimal128(precision, scale)
        for parts, type_ in _AFFINITIES:
            if any(part in base for part in parts):
                return type_
    given = f"declared type '{declared}', which stands for no type of the lake" if declared else "no declared type"
    raise SourceError(
        f"{where}: column '{name}' has {given}\n"
        f"  name its type under the table's options: columns: {{{name}: text}}\n"
        f"  known types: {KNOWN_TYPES}"
    )


def array_of(values: tuple[object, ...], type_: pa.DataType) -> pa.Array:
    """One column of one batch; every value fits exactly, or UnfitError counts those that do not."""
    try:
        return _exact(values, type_)
    except (pa.ArrowException, InvalidOperation, OverflowError, UnfitError):
        raise UnfitError(sum(not _fits(value, type_) for value in values)) from None


def _fits(value: object, type_: pa.DataType) -> bool:
    try:
        _exact((value,), type_)
    except (pa.ArrowException, InvalidOperation, OverflowError, UnfitError):
        return False
    return True


def _exact(values: tuple[object, ...], type_: pa.DataType) -> pa.Array:
    kinds = {*map(type, values)} - {type(None)}
    if not kinds <= _fitting(type_) or (pa.types.is_boolean(type_) and not {*values} <= {0, 1, None}):
        raise UnfitError(len(values))
    if pa.types.is_boolean(type_):
        return pa.array(values, pa.int8()).cast(pa.bool_())
    if pa.types.is_decimal(type_):
        return _decimals(values, kinds, type_)
    if pa.types.is_temporal(type_):
        return convert(pa.array(values, pa.string()), type_)
    if pa.types.is_string(type_) and kinds - {str}:
        return pa.array([None if value is None else str(value) for value in values], type_)
    return pa.array(values, type_)


def _fitting(type_: pa.DataType) -> set[type]:
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return {int}
    if pa.types.is_floating(type_):
        return {int, float}
    if pa.types.is_decimal(type_) or pa.types.is_string(type_):
        return {int, float, str}
    if pa.types.is_binary(type_):
        return {bytes}
    return {str}


def _decimals(values: tuple[object, ...], kinds: set[type], type_: pa.DataType) -> pa.Array:
    # SQLite keeps decimals as doubles: their shortest text is what was written, up to 15 digits.
    if kinds == {float}:
        return convert(pa.array(values, pa.float64()).cast(pa.string()), type_)
    return pa.array([None if value is None else Decimal(str(value)) for value in values], type_)
