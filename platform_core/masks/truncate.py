"""The mask that keeps the coarse part: the first characters of a code, or a date down to its month."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from platform_core.masks.by_value import by_value
from platform_core.masks.canonical import is_text
from platform_core.masks.day_texts import days_in
from platform_core.masks.full import MASKED
from platform_core.plugins.interfaces import Mask
from platform_core.specs.base import Model

MOST_KEPT = 6
"""Most characters that may be kept."""


class Unit(StrEnum):
    """What a date or time is brought down to."""

    YEAR = "year"
    QUARTER = "quarter"
    MONTH = "month"
    WEEK = "week"
    DAY = "day"
    HOUR = "hour"


_POLARS_UNITS = {Unit.YEAR: "1y", Unit.QUARTER: "1q", Unit.MONTH: "1mo", Unit.WEEK: "1w", Unit.DAY: "1d"}


class TruncateOptions(Model):
    """What is kept: ``keep`` of a code, or ``to`` of a date."""

    keep: int | None = Field(
        default=None, ge=1, le=MOST_KEPT, description="Characters of a code that are kept, white space not counted."
    )
    keep_short: bool = Field(
        default=False, description="Whether a code that is no longer than that is kept; else it becomes ***."
    )
    to: Unit | None = Field(default=None, description="Unit to whose beginning a date or time is brought down.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.keep is None) == (self.to is None):
            raise ValueError("needs either 'keep' (characters of a code) or 'to' (year, month, … of a date)")
        if self.keep_short and self.keep is None:
            raise ValueError("'keep_short' needs 'keep'")
        return self


class TruncateMask(Mask):
    """The postcode ``1012 AB`` becomes ``1012`` with ``keep: 4``; 17 May 1984 becomes 1 May with ``to: month``.

    With ``keep`` it takes text and integers and makes text. A code without anything to cut off becomes ``***``, for it
    would be shown whole; ``keep_short`` keeps it, where the short code is what everybody shares.

    With ``to`` it takes dates and timestamps, whose type stays (with a time zone in UTC; weeks begin on Monday), and
    texts: what begins with a date ``YYYY-MM-DD`` becomes the first date of its unit, and anything else ``***``.
    """

    keeps_apart = False

    Options = TruncateOptions
    options: TruncateOptions

    @classmethod
    def discloses_more(cls, options: TruncateOptions, *, than: TruncateOptions) -> bool:
        if options.keep is not None and than.keep is not None:
            return options.keep > than.keep or (options.keep_short and not than.keep_short)
        if options.to is not None and than.to is not None:
            coarsest_first = list(Unit)
            return coarsest_first.index(options.to) > coarsest_first.index(than.to)
        return True

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        to = self.options.to
        if to is None:
            if is_text(type_) or pa.types.is_integer(type_):
                return pa.string()
            raise ValueError(f"mask truncate with 'keep' takes text and integers, not {type_}; a date takes 'to'")
        if pa.types.is_timestamp(type_) or (pa.types.is_date(type_) and to is not Unit.HOUR):
            return type_
        if is_text(type_) and to is not Unit.HOUR:
            return pa.string()
        takes = "timestamps" if to is Unit.HOUR else "dates, timestamps and texts of dates"
        raise ValueError(f"mask truncate to {to} takes {takes}, not {type_}")

    def apply(self, values: pa.Array) -> pa.Array:
        keep, to = self.options.keep, self.options.to
        if keep is not None:
            return by_value(values, lambda codes: self._cut(codes, keep))
        if to is not None and is_text(values.type):
            return by_value(values, lambda texts: _first_days(texts, to))
        return pc.floor_temporal(values, unit=str(to)).cast(values.type)

    def _cut(self, codes: pa.Array, keep: int) -> pa.Array:
        import polars as pl

        frame = pl.Series("value", codes.cast(pa.string())).to_frame()
        code = pl.col("value").str.replace_all(r"\s", "")
        kept = code.str.head(keep)
        if not self.options.keep_short:
            # In polars null is not at most anything, so null stays null.
            kept = pl.when(code.str.len_chars() <= keep).then(pl.lit(MASKED)).otherwise(kept)
        return frame.select(kept.alias("value")).to_series().to_arrow().cast(pa.string())


def _first_days(texts: pa.Array, to: Unit) -> pa.Array:
    import polars as pl

    frame = pl.Series("value", texts).to_frame()
    value = pl.col("value")
    first = days_in(value).dt.truncate(_POLARS_UNITS[to]).dt.strftime("%Y-%m-%d").fill_null(MASKED)
    kept = pl.when(value.is_null()).then(None).otherwise(first)
    return frame.select(kept.alias("value")).to_series().to_arrow().cast(pa.string())
