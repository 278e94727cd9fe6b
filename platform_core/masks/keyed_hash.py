"""The mask that makes the same token of the same value, and of nothing else, without a way back.

The token is HMAC-SHA-256 under the workstream's masking key: equal values can be joined and counted, and someone
without the key cannot try out values. A plain hash would be undone by trying them all.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from platform_core.errors import SecretError
from platform_core.plugins.interfaces import Mask, Secret
from platform_core.specs.base import Model

if TYPE_CHECKING:
    import polars as pl

SHORTEST_KEY = 32
"""Bytes."""

_LABEL = b"edp1"
_KEY_ID_LENGTH = 8
_PROBED_ROWS = 16_384


class Domain(StrEnum):
    """What a value is, which says how it is written before it is hashed; each domain has tokens of its own."""

    EMAIL = "email"
    PHONE = "phone"
    IDENTIFIER = "identifier"
    DATE = "date"
    NUMBER = "number"
    TEXT = "text"


class KeyedHashOptions(Model):
    """What the column holds."""

    domain: Domain = Field(description="Columns are joined by their tokens only if they are of one domain.")


class KeyedHashMask(Mask):
    """``<key id>.<64 hex digits>``: the key id tells which key made a token, and changes when the key does.

    A value is first brought to the one form of its domain, so that spellings of one thing get one token: Unicode NFC
    and no white space around it, then

    - ``email``: lower case;
    - ``phone``: ``+`` and digits only, a leading ``00`` read as ``+``; a text without digits as ``text``;
    - ``identifier``: as it is; an integer by its digits;
    - ``date``: ``YYYY-MM-DD``; a text must be written so to match a date column;
    - ``number``: plain digits, without leading zeros, ``+``, or zeros that end a fraction;
    - ``text``: as it is, case included.

    null stays null, and text that is empty or all white space becomes the empty text: a token of it would tie together
    rows that have nothing in common.
    """

    Options = KeyedHashOptions
    needs_key = True
    options: KeyedHashOptions

    def __init__(self, options: Any, *, key: Secret | None) -> None:
        super().__init__(options, key=key)
        if key is None:
            raise SecretError("mask hash needs the workstream's masking key")
        if len(key.reveal()) < SHORTEST_KEY:
            raise SecretError(
                f"secret '{key.name}' is too short for a masking key\n"
                f"  it must have at least {SHORTEST_KEY} bytes, from a random source; the set-up makes one"
            )
        self._secret = key

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        if not self._takes(type_):
            raise ValueError(f"mask hash with domain {self.options.domain} cannot take {type_}; cast it at the source")
        return pa.string()

    def apply(self, values: pa.Array) -> pa.Array:
        texts = _as_text(values)
        # To hash each value once pays where they repeat; a few rows tell.
        probe = texts.slice(0, _PROBED_ROWS)
        if len(probe.unique()) * 2 > len(probe):
            return self._tokens(texts)
        encoded = texts.dictionary_encode()
        return self._tokens(encoded.dictionary).take(encoded.indices)

    def _takes(self, type_: pa.DataType) -> bool:
        if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
            return True
        match self.options.domain:
            case Domain.IDENTIFIER | Domain.PHONE:
                return bool(pa.types.is_integer(type_))
            case Domain.NUMBER:
                return bool(pa.types.is_integer(type_) or pa.types.is_decimal(type_))
            case Domain.DATE:
                return bool(pa.types.is_date(type_))
            case _:
                return False

    def _tokens(self, texts: pa.Array) -> pa.Array:
        import polars as pl
        import polars_hash  # noqa: F401 - registers the namespace `chash`

        value = pl.col("value")
        form = canonical(value, self.options.domain, ascii_only=bool(pc.all(pc.string_is_ascii(texts)).as_py()))
        column: Any = pl.col("value").chash  # type: ignore[attr-defined]
        token = pl.concat_str(pl.lit(self._key_id() + "."), column.hmac_sha256(key=self._domain_key()))
        hidden = pl.when(pl.col("value") == "").then(pl.lit("")).otherwise(token)
        frame = pl.Series("value", texts).to_frame()
        return frame.select(form.alias("value")).select(hidden.alias("value")).to_series().to_arrow().cast(pa.string())

    def _key_id(self) -> str:
        return self._derived(b"key-id")[:_KEY_ID_LENGTH]

    def _domain_key(self) -> str:
        return self._derived(b"token\x1f" + self.options.domain.encode())

    def _derived(self, purpose: bytes) -> str:
        """A key of its own for each purpose, 64 hex digits; the masking key itself never leaves this method."""
        return hmac.new(self._secret.reveal(), _LABEL + b"\x1f" + purpose, hashlib.sha256).hexdigest()


def canonical(value: pl.Expr, domain: Domain, *, ascii_only: bool = False) -> pl.Expr:
    """The one form in which a text of a domain is hashed.

    Args:
        ascii_only: every value is ASCII and so in NFC already; to know it is fifty times faster than to normalise.
    """
    import polars as pl

    def composed(text: pl.Expr) -> pl.Expr:
        return text if ascii_only else text.str.normalize("NFC")

    text = composed(value).str.strip_chars()
    match domain:
        case Domain.EMAIL:
            return composed(text.str.to_lowercase())
        case Domain.PHONE:
            digits = text.str.replace_all(r"[^0-9]", "")
            number = pl.concat_str(
                pl.when(text.str.contains(r"^(\+|00)")).then(pl.lit("+")).otherwise(pl.lit("")),
                pl.when(text.str.contains(r"^00")).then(digits.str.slice(2)).otherwise(digits),
            )
            return pl.when(digits == "").then(text).otherwise(number)
        case Domain.NUMBER:
            sign = pl.when(text.str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit(""))
            whole = text.str.extract(r"^[+-]?0*(\d+)(?:\.\d*)?$", 1)
            fraction = text.str.extract(r"\.(\d*)$", 1).fill_null("").str.strip_chars_end("0")
            point = pl.when(fraction == "").then(pl.lit("")).otherwise(pl.lit("."))
            plain = pl.concat_str(sign, whole, point, fraction)
            is_number = text.str.contains(r"^[+-]?\d+(\.\d*)?$")
            return pl.when(is_number).then(plain.replace("-0", "0")).otherwise(text)
        case _:
            return text


def _as_text(values: pa.Array) -> pa.Array:
    if pa.types.is_date64(values.type):
        values = values.cast(pa.date32())
    return pc.cast(values, pa.string())
