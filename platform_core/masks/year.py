"""The mask that keeps the year of a date."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.masks.by_value import by_value
from platform_core.masks.canonical import is_text
from platform_core.masks.day_texts import days_in
from platform_core.masks.full import MASKED
from platform_core.plugins.interfaces import Mask


class YearMask(Mask):
    """``1984-05-01`` becomes 1984: an integer for dates and timestamps (of a time zone: the year in UTC).

    In a text column it is the text ``1984``, and what does not begin with a date ``YYYY-MM-DD`` becomes ``***``.
    """

    keeps_apart = False

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
            return pa.int32()
        if is_text(type_):
            return pa.string()
        raise ValueError(f"mask year takes dates, timestamps and texts of dates, not {type_}; use mask full or null")

    def apply(self, values: pa.Array) -> pa.Array:
        if is_text(values.type):
            return by_value(values, _years_of_texts)
        return pc.year(values).cast(pa.int32())


def _years_of_texts(texts: pa.Array) -> pa.Array:
    import polars as pl

    frame = pl.Series("value", texts).to_frame()
    value = pl.col("value")
    year = days_in(value).dt.strftime("%Y").fill_null(MASKED)
    kept = pl.when(value.is_null()).then(None).otherwise(year)
    return frame.select(kept.alias("value")).to_series().to_arrow().cast(pa.string())
