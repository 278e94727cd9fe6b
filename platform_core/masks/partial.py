"""The mask that keeps a few characters at the ends, for values a person must recognise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pyarrow as pa
from pydantic import Field, model_validator

from platform_core.masks.by_value import by_value
from platform_core.masks.canonical import is_text
from platform_core.masks.full import MASKED
from platform_core.plugins.interfaces import Mask
from platform_core.specs.base import Model

if TYPE_CHECKING:
    import polars as pl

MOST_SHOWN = 6
"""Most characters that a partial mask may show in all."""

# Spelled as what it excludes of ASCII: classes of all Unicode letters take milliseconds to compile, for every batch.
_LABEL = r"[^\s\x00-,./:-@\[-`{-\x7f]"
_ADDRESS = rf"^[^@\s]*@(?:{_LABEL}+\.)+{_LABEL}{{2,}}$"


class PartialOptions(Model):
    """Which characters stay."""

    keep_first: int = Field(default=0, ge=0, description="Characters shown at the beginning.")
    keep_last: int = Field(default=0, ge=0, description="Characters shown at the end.")
    email: bool = Field(default=False, description="Mask the part before @ only; the domain is shown.")

    @model_validator(mode="after")
    def _check_shown(self) -> Self:
        shown = self.keep_first + self.keep_last
        if not 1 <= shown <= MOST_SHOWN:
            raise ValueError(
                f"keep_first and keep_last must show 1 to {MOST_SHOWN} characters in all; to show none, use mask full"
            )
        return self


class PartialMask(Mask):
    """``Jansen`` becomes ``J***`` with ``keep_first: 1``; the length is not shown.

    A value shorter than twice the characters shown becomes ``***``, white space around it not counted: it may be all
    that a fixed-width column holds. With ``email`` that counts for the part before the @, and a value that is not one
    address becomes ``***``. Takes text and integers.
    """

    keeps_apart = False

    Options = PartialOptions
    options: PartialOptions

    @classmethod
    def discloses_more(cls, options: PartialOptions, *, than: PartialOptions) -> bool:
        shows_fewer = options.keep_first <= than.keep_first and options.keep_last <= than.keep_last
        # The part before the @ and the whole value cannot be compared.
        return not shows_fewer or options.email != than.email

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        if is_text(type_) or (pa.types.is_integer(type_) and not self.options.email):
            return pa.string()
        raise ValueError(f"mask partial takes text and integers, not {type_}; use mask full")

    def apply(self, values: pa.Array) -> pa.Array:
        return by_value(values, self._masked)

    def _masked(self, values: pa.Array) -> pa.Array:
        import polars as pl

        value = pl.col("value").str.strip_chars()
        if self.options.email:
            parts = value.str.split_exact("@", 1)
            name, domain = parts.struct.field("field_0"), parts.struct.field("field_1")
            address = pl.concat_str(self._shortened(name), pl.lit("@"), domain)
            # What stands behind the @ of a text that is no address may be anything.
            masked = pl.when(value.str.contains(_ADDRESS)).then(address).otherwise(pl.lit(MASKED))
        else:
            masked = self._shortened(value)
        kept = pl.when(value.is_null()).then(None).otherwise(masked)
        frame = pl.Series("value", values.cast(pa.string())).to_frame()
        return frame.select(kept.alias("value")).to_series().to_arrow().cast(pa.string())

    def _shortened(self, text: pl.Expr) -> pl.Expr:
        import polars as pl

        first, last = self.options.keep_first, self.options.keep_last
        # In polars a tail of 0 is the empty text, as it should be.
        shown = pl.concat_str(text.str.head(first), pl.lit(MASKED), text.str.tail(last))
        return pl.when(text.str.len_chars() < 2 * (first + last)).then(pl.lit(MASKED)).otherwise(shown)
