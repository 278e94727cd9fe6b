"""Which columns and types a lake table may have, and how two sets of columns are compared."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import pyarrow as pa

from platform_core.errors import SchemaError
from platform_core.specs.ingestion import TECHNICAL_COLUMNS

ENGINE_COLUMNS = ("file_row_number", "file_index")
"""Names that DuckDB gives to a row's origin while it reads Parquet files; bronze is compared by them."""

_REFUSED = frozenset((*TECHNICAL_COLUMNS, *ENGINE_COLUMNS))


@lru_cache(maxsize=4096)
def lake_type(type_: pa.DataType) -> pa.DataType | None:
    """The type under which values of an Arrow type are kept in the lake; None where there is no such type.

    Integers and floats keep their width (unsigned ones get the next wider signed type), times become text, durations
    microseconds, timestamps microseconds (UTC where they know their zone), dictionaries their values, extensions their
    storage, and a column without a type (all null) text.
    """
    plain = _fixed(type_)
    if plain is not None:
        return plain
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    if pa.types.is_decimal(type_):
        fits = type_.precision <= 38 and 0 <= type_.scale <= type_.precision
        return pa.decimal128(type_.precision, type_.scale) if fits else None
    if pa.types.is_dictionary(type_):
        return lake_type(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return lake_type(type_.storage_type)
    return _nested(type_)


def _fixed(type_: pa.DataType) -> pa.DataType | None:
    checks = (
        (pa.types.is_uint8, pa.int16()),
        (pa.types.is_uint16, pa.int32()),
        (pa.types.is_uint32, pa.int64()),
        (pa.types.is_uint64, pa.decimal128(20, 0)),
        (pa.types.is_signed_integer, type_),
        (pa.types.is_float16, pa.float32()),
        (pa.types.is_floating, type_),
        (pa.types.is_boolean, type_),
        (pa.types.is_date, pa.date32()),
        (pa.types.is_duration, pa.int64()),
        (pa.types.is_time, pa.string()),
        (pa.types.is_null, pa.string()),
        (_is_text, pa.string()),
        (_is_bytes, pa.binary()),
    )
    return next((result for check, result in checks if check(type_)), None)


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_binary_view(type_)
        or pa.types.is_fixed_size_binary(type_)
    )


def _nested(type_: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        item = lake_type(type_.value_type)
        return None if item is None else pa.list_(pa.field("element", item))
    if pa.types.is_struct(type_) and type_.num_fields:
        inner = [(field.name, lake_type(field.type)) for field in type_]
        return None if any(kept is None for _, kept in inner) else pa.struct(inner)
    if pa.types.is_map(type_):
        key, item = lake_type(type_.key_type), lake_type(type_.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    return None


_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
"""Decimal digits that the integers of a width need."""

_EXACT_BITS = {pa.float32(): 24, pa.float64(): 53}
"""Widest integers that a float holds exactly."""


@lru_cache(maxsize=4096)
def widened(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """The type of the lake that holds every value of two types exactly; None where there is none.

    It is ``old`` where the new type is narrower, ``new`` where that is wider, and for decimals it may be wider than
    both. Integers widen to integers, decimals and (up to 32 bits) floats, floats to doubles, decimals to decimals with
    as many digits on both sides of the point, dates to timestamps without zone. Nothing becomes text, no zone is made
    up, and nested types are equal or not.
    """
    if old == new:
        return old
    integers = [type_ for type_ in (old, new) if pa.types.is_signed_integer(type_)]
    floats = [type_ for type_ in (old, new) if type_ in _EXACT_BITS]
    decimals = [type_ for type_ in (old, new) if pa.types.is_decimal(type_)]
    if len(integers) == 2 or len(floats) == 2:
        return max(old, new, key=lambda type_: type_.bit_width)
    if integers and floats:
        return next((type_ for type_ in (floats[0], pa.float64()) if _holds(type_, integers[0])), None)
    if len(decimals) + len(integers) == 2:
        scale = max((type_.scale for type_ in decimals), default=0)
        whole = max(*(type_.precision - type_.scale for type_ in decimals), *(_DIGITS[i.bit_width] for i in integers))
        return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else None
    if {old, new} == {pa.date32(), pa.timestamp("us")}:
        return pa.timestamp("us")
    return None


def _holds(type_: pa.DataType, integer: pa.DataType) -> bool:
    return bool(integer.bit_width <= _EXACT_BITS[type_])


def lake_schema(schema: pa.Schema, *, of: str, existing: pa.Schema | None = None) -> pa.Schema:
    """The schema under which rows of ``schema`` are kept.

    Args:
        schema: what a source, query or function yields.
        of: the table, for messages.
        existing: columns that the table has; a column without a type takes the type it has there.

    Raises:
        SchemaError: a type cannot be kept, or two names differ in nothing but case (Delta and SQL could not tell them
            apart).
    """
    seen: dict[str, str] = {}
    for name in schema.names:
        if (other := seen.setdefault(name.casefold(), name)) != name or schema.names.count(name) > 1:
            raise SchemaError(f"{of}: columns '{other}' and '{name}' differ in nothing but case\n  rename one of them")
        if not name:
            raise SchemaError(f"{of}: a column has no name\n  columns: {', '.join(schema.names)}")
    fields = []
    for field in schema:
        known = existing is not None and field.name in existing.names and pa.types.is_null(field.type)
        kept = existing.field(field.name).type if known and existing is not None else lake_type(field.type)
        if kept is None:
            raise SchemaError(
                f"{of}: column '{field.name}' has type {field.type}, which the lake cannot keep\n"
                "  cast it at the source"
            )
        fields.append(pa.field(field.name, kept))
    return pa.schema(fields)


def refuse_reserved(schema: pa.Schema, *, of: str) -> None:
    """Refuse columns of a source that are named like columns of ours.

    Raises:
        SchemaError: there is one; it must be renamed at the source, for example in a view.
    """
    if taken := [name for name in schema.names if name.casefold() in _REFUSED]:
        raise SchemaError(
            f"{of}: the source has columns whose names the platform needs: {', '.join(taken)}\n"
            f"  reserved: {', '.join(sorted(_REFUSED))}\n  rename them at the source, for example in a view"
        )


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types of :func:`lake_schema`; columns are taken by position.

    Timestamps finer than microseconds are cut. Raises ArrowException where a value does not fit.
    """
    if batch.schema == schema:
        return batch
    arrays = [_conform(array, field.type) for array, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _conform(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if array.type == type_:
        return array
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        return array.cast(type_, safe=False)
    if pa.types.is_duration(array.type):
        return array.cast(pa.duration("us"), safe=False).view(pa.int64())
    return array.cast(type_)


def refuse_drift(*, of: str, expected: pa.Schema, given: pa.Schema) -> None:
    """Refuse columns that are not exactly those of the table, in any order.

    Raises:
        SchemaError: it lists every added, missing and retyped column.
    """
    added = [name for name in given.names if name not in expected.names]
    missing = [name for name in expected.names if name not in given.names]
    retyped = [
        f"{field.name} ({expected.field(field.name).type} in the table, {field.type} now)"
        for field in given
        if field.name in expected.names and expected.field(field.name).type != field.type
    ]
    if added or missing or retyped:
        raise SchemaError(
            "\n".join(
                [
                    f"{of}: the columns are not those of the table; nothing was written",
                    *_line("added", added),
                    *_line("missing", missing),
                    *_line("changed type", retyped),
                    "  undo the change at the source, or load into a new table",
                ]
            )
        )


def _line(label: str, names: Iterable[str]) -> list[str]:
    return [f"  {label}: {text}"] if (text := ", ".join(names)) else []
