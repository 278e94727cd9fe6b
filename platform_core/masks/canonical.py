"""The one form in which each kind of value is hashed, so that spellings of one thing get one token.

A form is part of what a token stands for: whoever changes one raises its version, and the tokens of that domain then
carry another key id.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.masks.calling_codes import CallingCode

if TYPE_CHECKING:
    import polars as pl


class Domain(StrEnum):
    """What a value is, which says how it is written before it is hashed; each domain has tokens of its own."""

    EMAIL = "email"
    PHONE = "phone"
    IDENTIFIER = "identifier"
    DATE = "date"
    NUMBER = "number"
    TEXT = "text"


FORM_VERSIONS: Mapping[Domain, int] = {
    Domain.EMAIL: 1,
    Domain.PHONE: 1,
    Domain.IDENTIFIER: 1,
    Domain.DATE: 1,
    Domain.NUMBER: 1,
    Domain.TEXT: 1,
}
"""Version of the form of each domain; it goes into every token."""

_INVISIBLE = "[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]"
_LETTER_OR_DIGIT = r"[\p{L}\p{N}]"
_DAY = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ].*)?$"


def takes(domain: Domain, type_: pa.DataType) -> bool:
    """Whether values of a type have a form in a domain."""
    if is_text(type_):
        return True
    match domain:
        case Domain.PHONE:
            return bool(pa.types.is_integer(type_))
        case Domain.IDENTIFIER | Domain.NUMBER:
            return bool(pa.types.is_integer(type_) or pa.types.is_decimal(type_))
        case Domain.DATE:
            # A time zone would have to be guessed to tell the day.
            return bool(pa.types.is_date(type_) or (pa.types.is_timestamp(type_) and type_.tz is None))
        case _:
            return False


def is_text(type_: pa.DataType) -> bool:
    """Whether a type holds texts."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def as_text(values: pa.Array) -> pa.Array:
    """Values of a type that some domain takes, as the texts that the same values have in a text column.

    A decimal loses the zeros that end its fraction: they belong to the column's type and not to the value.
    """
    if pa.types.is_decimal(values.type):
        import polars as pl

        # Arrow writes small decimals as 1E-10; polars never does.
        plain = pl.Series("value", values).cast(pl.String).to_frame()
        text = pl.col("value")
        short = text.str.strip_chars_end("0").str.strip_chars_end(".")
        kept = pl.when(text.str.contains(".", literal=True)).then(short).otherwise(text)
        return plain.select(kept).to_series().to_arrow().cast(pa.string())
    if pa.types.is_date64(values.type) or pa.types.is_timestamp(values.type):
        values = pc.cast(pc.floor_temporal(values, unit="day"), pa.date32())
    return pc.cast(values, pa.string())


def canonical(
    value: pl.Expr,
    domain: Domain,
    *,
    country: CallingCode | None = None,
    case_sensitive: bool = False,
    ascii_only: bool = False,
) -> pl.Expr:
    """The one form in which a text of a domain is hashed; the empty text where there is nothing to hash.

    Args:
        country: for phone numbers that are written without a country.
        case_sensitive: for identifiers of which two may differ in case alone.
        ascii_only: every value is ASCII and so in NFC already; to know it is fifty times faster than to normalise.
    """
    import polars as pl

    def composed(text: pl.Expr) -> pl.Expr:
        return text if ascii_only else text.str.normalize("NFC")

    def lower(text: pl.Expr) -> pl.Expr:
        return composed(text.str.to_lowercase())

    text = composed(value).str.strip_chars()
    if domain is Domain.TEXT:
        return text
    if not ascii_only:
        text = text.str.replace_all(_INVISIBLE, "").str.strip_chars()
    match domain:
        case Domain.EMAIL:
            form = lower(text)
        case Domain.PHONE:
            form = _phone(text, lower(text), country)
        case Domain.NUMBER:
            form = _number(text)
        case Domain.DATE:
            form = text.str.extract(_DAY, 1).fill_null(text)
        case Domain.IDENTIFIER:
            solid = text.str.replace_all(r"\s", "")
            form = solid if case_sensitive else lower(solid)
    # A dash or a question mark says that there is no value; a token of it would tie strangers together.
    # For null the condition is null, which is not true: null stays null.
    return pl.when(~text.str.contains(_LETTER_OR_DIGIT)).then(pl.lit("")).otherwise(form)


def _number(text: pl.Expr) -> pl.Expr:
    import polars as pl

    sign = pl.when(text.str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit(""))
    whole = text.str.extract(r"^[+-]?0*([0-9]+)", 1).fill_null("0")
    fraction = text.str.extract(r"\.([0-9]*)$", 1).fill_null("").str.strip_chars_end("0")
    point = pl.when(fraction == "").then(pl.lit("")).otherwise(pl.lit("."))
    plain = pl.concat_str(sign, whole, point, fraction)
    is_number = text.str.contains(r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)$")
    return pl.when(is_number).then(plain.replace("-0", "0")).otherwise(text)


def _phone(text: pl.Expr, otherwise: pl.Expr, country: CallingCode | None) -> pl.Expr:
    """``+`` and all digits of a number; what holds letters or no digit is no number and keeps its text."""
    import polars as pl

    exit_code = "00" if country is None else country.exit_code
    # +31 (0)6 is written for readers at home and abroad; nobody dials that zero from abroad.
    digits = text.str.replace(r"\(0\)", "").str.replace_all(r"[^0-9]", "")
    all_digits = text.str.replace_all(r"[^0-9]", "")
    plus, exits = text.str.contains(r"^[^0-9]*\+"), all_digits.str.starts_with(exit_code)
    abroad = pl.when(plus).then(digits).otherwise(digits.str.slice(len(exit_code)))
    if country is None:
        number = pl.when(plus | exits).then(pl.concat_str(pl.lit("+"), abroad)).otherwise(all_digits)
    else:
        number = pl.concat_str(
            pl.lit("+"),
            pl.when(plus | exits)
            .then(_without_doubled_trunk(abroad, country))
            .otherwise(_with_calling_code(all_digits, country)),
        )
    is_number = (all_digits != "") & ~text.str.contains(r"\p{L}")
    return pl.when(is_number).then(number).otherwise(otherwise)


def _without_doubled_trunk(digits: pl.Expr, country: CallingCode) -> pl.Expr:
    """Digits after ``+``; some write the trunk prefix of their own country after its calling code."""
    import polars as pl

    if not country.trunk or country.trunk == country.code:
        return digits
    doubled = country.code + country.trunk
    fixed = pl.concat_str(pl.lit(country.code), digits.str.slice(len(doubled)))
    return pl.when(digits.str.starts_with(doubled)).then(fixed).otherwise(digits)


def _with_calling_code(digits: pl.Expr, country: CallingCode) -> pl.Expr:
    """Digits of a number as it is dialled at home, or of one that has lost its ``+`` or its leading zero."""
    import polars as pl

    home = pl.concat_str(pl.lit(country.code), digits)
    if country.trunk:
        dialled = pl.concat_str(pl.lit(country.code), digits.str.slice(len(country.trunk)))
        home = pl.when(digits.str.starts_with(country.trunk)).then(dialled).otherwise(home)
    if country.digits is None:
        return home
    whole = digits.str.starts_with(country.code) & (digits.str.len_bytes() == len(country.code) + country.digits)
    return pl.when(whole).then(digits).otherwise(home)
