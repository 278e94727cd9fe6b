"""Python values and Arrow tables as columns of settled types: a value fits exactly, or the read stops."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from platform_core.sources.types import UNBOUNDED_DECIMAL, UnfitError, convert

_UTC = pa.timestamp("us", tz="UTC")
_FIXED = {
    "text": pa.string(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "bigint": pa.int64(),
    "binary": pa.binary(),
    "json": pa.string(),
    "complex": pa.string(),
    "date": pa.date32(),
    "time": pa.string(),
    "wei": pa.decimal128(38, 0),
}
_DECIMAL_PRECISION, _DECIMAL_SCALE = 38, 9


def hinted_type(hint: Mapping[str, Any]) -> pa.DataType | None:
    """The Arrow type of a dlt column hint; None where it names no type."""
    match hint.get("data_type"):
        case "timestamp":
            return pa.timestamp("us") if hint.get("timezone") is False else _UTC
        case "decimal":
            precision, scale = hint.get("precision"), hint.get("scale")
            if precision is None:
                return pa.decimal128(_DECIMAL_PRECISION, _DECIMAL_SCALE if scale is None else scale)
            return pa.decimal128(precision, scale or 0)
        case name:
            return _FIXED.get(str(name))


def inferred_type(values: Iterable[Any]) -> pa.DataType:
    """The type that holds all of some values; text where there is no better one."""
    return _INFERRED.get(frozenset(_kind(value) for value in values if value is not None), pa.string())


def _kind(value: Any) -> type | str:
    """What a value is, for inference: times with and without a zone are two things."""
    kind: type = next((kind for kind in _KINDS if isinstance(value, kind)), object)
    return _ZONED if kind is dt.datetime and value.tzinfo is not None else kind


_ZONED = "time with a zone"
_KINDS = (bool, int, float, Decimal, str, bytes, dt.datetime, dt.date)
_INFERRED: dict[frozenset[type | str], pa.DataType] = {
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({Decimal}): UNBOUNDED_DECIMAL,
    frozenset({Decimal, int}): UNBOUNDED_DECIMAL,
    frozenset({bytes}): pa.binary(),
    frozenset({dt.datetime}): pa.timestamp("us"),
    frozenset({_ZONED}): _UTC,
    frozenset({dt.datetime, _ZONED}): _UTC,
    frozenset({dt.date}): pa.date32(),
}


def column_of(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """One column of rows.

    A time without a zone is taken to be in UTC where the column knows zones, as dlt takes it; what is nested becomes
    JSON text.

    Raises:
        UnfitError: a value would be changed, or is not of that type at all; it counts them.
    """
    try:
        return _exact(values, type_)
    except _UNFIT:
        raise UnfitError(sum(not _fits(value, type_) for value in values)) from None


def table_column(table: pa.Table | pa.RecordBatch, name: str, type_: pa.DataType) -> pa.Array:
    """One column of an Arrow table; null where the table lacks it.

    Raises:
        UnfitError: a value would be changed.
    """
    if name not in table.schema.names:
        return pa.nulls(table.num_rows, type_)
    found = table.column(name)
    array = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if (
        pa.types.is_timestamp(array.type)
        and pa.types.is_timestamp(type_)
        and (array.type.tz is None) != (type_.tz is None)
    ):
        if type_.tz is None:
            raise UnfitError(len(array) - array.null_count)
        array = array.cast(pa.timestamp(array.type.unit)).view(pa.timestamp(array.type.unit, tz="UTC"))
    return convert(array, type_)


_UNFIT = (pa.ArrowException, InvalidOperation, OverflowError, UnfitError, TypeError, ValueError)


def _fits(value: Any, type_: pa.DataType) -> bool:
    try:
        _exact([value], type_)
    except _UNFIT:
        return False
    return True


def _exact(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    kinds = {type(value) for value in values} - {type(None)}
    if pa.types.is_timestamp(type_):
        return _times(values, kinds, type_)
    if pa.types.is_decimal(type_):
        return _decimals(values, kinds, type_)
    if kinds <= _natural(type_):
        return pa.array(values, type_)
    if pa.types.is_binary(type_):
        raise UnfitError(len(values))
    return convert(pa.array([text_of(value) for value in values], pa.string()), type_)


def _natural(type_: pa.DataType) -> set[type]:
    """Python types whose values Arrow takes as they are."""
    if pa.types.is_boolean(type_):
        return {bool}
    if pa.types.is_integer(type_):
        return {int}
    if pa.types.is_floating(type_):
        return {int, float}
    if pa.types.is_binary(type_):
        return {bytes}
    if pa.types.is_date(type_):
        return {dt.date}
    return {str} if pa.types.is_string(type_) else {list, dict}


def _times(values: Sequence[Any], kinds: set[type], type_: pa.DataType) -> pa.Array:
    zoned = type_.tz is not None
    times = [value for value in values if isinstance(value, dt.datetime)]
    if not zoned and any(time.tzinfo is not None for time in times):
        raise UnfitError(len(values))
    exact = [_in_utc(value) if zoned and isinstance(value, dt.datetime) else value for value in values]
    if all(issubclass(kind, dt.datetime) for kind in kinds):
        return pa.array(exact, type_)
    return convert(pa.array([text_of(value) for value in exact], pa.string()), type_)


def _in_utc(value: dt.datetime) -> dt.datetime:
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def _decimals(values: Sequence[Any], kinds: set[type], type_: pa.DataType) -> pa.Array:
    if bool in kinds or not kinds <= {int, float, Decimal, str}:
        raise UnfitError(len(values))
    # The shortest text of a float is what was written, up to 15 digits.
    return pa.array([None if value is None else Decimal(str(value)) for value in values], type_)


def text_of(value: Any) -> str | None:
    """A value as text: texts as they are, times by ISO 8601, what is nested as JSON.

    Raises:
        TypeError: the value has no text.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    text = text_of(value) if isinstance(value, (Decimal, uuid.UUID, dt.date, dt.time, dt.timedelta)) else None
    if text is None:
        raise TypeError(f"a {type(value).__name__} has no JSON")
    return text
