"""A 128-bit hash of each row, by which a load finds the rows that changed.

XXH3-128 is a published, fixed algorithm and here three to six times faster than MD5 over text, because rows are hashed
as they lie in memory. It is no signature: whoever may write to a source may also craft two rows of one hash, and would
gain nothing but that his own change stays unseen.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from platform_core.errors import LoadError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

HASH_VERSION = "xxh3-128/1"
"""Recorded on the ``_row_hash`` column of every bronze table; a change of the form below needs a new one."""

HASH_COLUMN = "_row_hash"
HASH_FIELD = pa.field(HASH_COLUMN, pa.binary())
"""Sixteen bytes as plain binary: Spark, DuckDB and delta-rs all read it, at half the size of text."""

_NULL, _NUMBER, _DECIMAL, _TEXT, _BYTES, _NESTED, _FLOAT, _BOOLEAN, _DATE, _INSTANT, _CLOCK = range(11)


def row_hashes(batch: pa.RecordBatch) -> pa.Array:
    """The hash of each row, as binary of sixteen bytes.

    The hashed form of a row is, for each column in the order of their names, one byte that tells its type (0 for null)
    and a value of fixed width: integers and floats in 64 bits (every NaN the same, and -0 as 0), dates, timestamps and
    decimals as they are, all little endian; texts and bytes as their own hash; nested values as the hash of their JSON
    with sorted keys. So null differs from '', no value runs into its neighbour, and neither the order of the source's
    columns nor a wider number type changes a hash.

    Args:
        batch: columns in types of the lake.
    """
    import numpy as np

    rows = batch.num_rows
    parts = [_column(batch.column(name)) for name in sorted(batch.schema.names)]
    form = np.zeros((rows, sum(1 + values.shape[1] for _, values in parts)), dtype=np.uint8)
    at = 0
    for tags, values in parts:
        form[:, at] = tags
        form[:, at + 1 : at + 1 + values.shape[1]] = values
        at += 1 + values.shape[1]
    offsets = np.arange(rows + 1, dtype=np.int64) * form.shape[1]
    whole = pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(form)])
    return _xxh3(whole).cast(pa.binary())


def require_version(version: str | None, *, of: str) -> None:
    """Refuse a table whose hashes were made in another way.

    Raises:
        LoadError: every row would seem changed.
    """
    if version != HASH_VERSION:
        raise LoadError(
            f"{of}: the row hashes of the table are of version {version or 'none'}, this release makes {HASH_VERSION}\n"
            "  every row would seem changed; load into a new table"
        )


def _column(array: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    import numpy as np

    rows = len(array)
    tag, values = _fixed(array)
    tags = np.full(rows, tag, dtype=np.uint8)
    if array.null_count:
        nulls = array.is_null().to_numpy(zero_copy_only=False)
        tags[nulls] = _NULL
        # What lies under a null is undefined in Arrow.
        values = values.copy()
        values[nulls] = 0
    return tags, values


def _fixed(array: pa.Array) -> tuple[int, npt.NDArray[np.uint8]]:
    import numpy as np

    type_, rows = array.type, len(array)
    if pa.types.is_string(type_):
        return _TEXT, _digests(array)
    if pa.types.is_binary(type_):
        return _BYTES, _digests(array)
    if pa.types.is_nested(type_):
        return _NESTED, _digests(_as_json(array))
    if pa.types.is_boolean(type_):
        return _BOOLEAN, _bytes_of(array.cast(pa.uint8()), rows)
    if pa.types.is_floating(type_):
        numbers = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        numbers[np.isnan(numbers)] = np.nan
        return _FLOAT, numbers.view(np.uint8).reshape(rows, 8)
    if pa.types.is_date(type_):
        return _DATE, _bytes_of(array, rows)
    if pa.types.is_timestamp(type_):
        return (_INSTANT if type_.tz else _CLOCK), _bytes_of(array, rows)
    if pa.types.is_decimal(type_):
        return _DECIMAL, _bytes_of(array, rows)
    return _NUMBER, _bytes_of(array.cast(pa.int64()), rows)


def _bytes_of(array: pa.Array, rows: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    width = array.type.bit_width // 8
    values = array.buffers()[1]
    if values is None or rows == 0:
        return np.zeros((rows, width), dtype=np.uint8)
    lying = np.frombuffer(values, dtype=np.uint8)
    return lying[array.offset * width : (array.offset + rows) * width].reshape(rows, width)


def _digests(array: pa.Array) -> npt.NDArray[np.uint8]:
    empty: Any = "" if pa.types.is_string(array.type) else b""
    return _bytes_of(_xxh3(array.fill_null(empty)).cast(pa.binary(16)), len(array))


def _xxh3(array: pa.Array) -> pa.Array:
    import polars as pl
    import polars_hash  # noqa: F401 - registers the namespace `nchash`

    values: pl.Series = pl.Series("value", array)
    hashed: Any = pl.col("value").nchash  # type: ignore[attr-defined]
    digest = values.to_frame().select(hashed.xxh3_128(return_binary=True, byte_order="big"))
    return digest.to_series().to_arrow().cast(pa.large_binary())


def _as_json(array: pa.Array) -> pa.Array:
    """Nested values as JSON; slower by far than flat columns, and rare."""
    texts = (
        None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False, default=_as_text)
        for value in array.to_pylist()
    )
    return pa.array(texts, pa.string())


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def with_hash(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with a last column ``_row_hash`` over all others."""
    return pa.RecordBatch.from_arrays([*batch.columns, row_hashes(batch)], schema=batch.schema.append(HASH_FIELD))
