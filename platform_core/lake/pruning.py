"""Which data files can hold rows of a batch, told by the range of keys in each file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.lake.comparison import Landed
from platform_core.lake.delta import DataFile
from platform_core.lake.file_statistics import EXACT_TEXT_BYTES
from platform_core.lake.parquet_sql import column, render

FEW_BYTES = 64 * 1024 * 1024
"""Smaller tables are compared whole."""

_RANGES = "key_ranges"
_MILLISECOND = dt.timedelta(milliseconds=1)


def files_with_keys(
    connection: Any,
    files: Sequence[DataFile],
    *,
    key: str,
    type_: pa.DataType,
    landed: Landed,
    landing: dict[str, Any],
) -> list[int]:
    """Positions of the files in whose range of a key column a row of the batch lies, or whose range is not known.

    Args:
        files: with statistics of ``key``.
        type_: of ``key`` in the batch.
        landing: parameters by which ``landed`` is read.
    """
    ranges = {at: bounds for at, file in enumerate(files) if (bounds := _range(file, key)) is not None}
    if len(files) < 2 or not ranges or sum(file.size for file in files) < FEW_BYTES:
        return list(range(len(files)))
    table = pa.table(
        {
            "position": pa.array(list(ranges), pa.int64()),
            "low": pa.array([low for low, _ in ranges.values()], type_),
            "high": pa.array([high for _, high in ranges.values()], type_),
        }
    )
    connection.register(_RANGES, table)
    found = connection.execute(_inside(key, landed), landing or None).fetchall()
    connection.unregister(_RANGES)
    hit = {int(at) for (at,) in found}
    return [at for at in range(len(files)) if at in hit or at not in ranges]


def _range(file: DataFile, key: str) -> tuple[Any, Any] | None:
    low, high = file.lowest.get(key), file.highest.get(key)
    if low is None or high is None:
        return None
    if isinstance(high, str) and len(high.encode()) >= EXACT_TEXT_BYTES:
        return None
    return low, high + _MILLISECOND if isinstance(high, dt.datetime) else high


@lru_cache(maxsize=1024)
def _inside(key: str, landed: Landed) -> str:
    rows = landed.rows(exp.alias_(column(key, "landed"), "key"))
    inside = "landed_keys.key >= key_ranges.low AND landed_keys.key <= key_ranges.high"
    hits = exp.select("position").from_(_RANGES).join(rows.subquery("landed_keys"), on=inside, join_type="semi")
    return render(hits)
