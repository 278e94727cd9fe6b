"""The mask that makes the same token of the same value, and of nothing else, without a way back.

The token is HMAC-SHA-256 under the workstream's masking key: equal values can be joined and counted, and someone
without the key cannot try out values. A plain hash would be undone by trying them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from platform_core.errors import SecretError
from platform_core.masks.by_value import by_value
from platform_core.masks.calling_codes import CALLING_CODES
from platform_core.masks.canonical import FORM_VERSIONS, Domain, as_text, canonical, takes
from platform_core.masks.keys import derived, key_id, require_strong
from platform_core.plugins.interfaces import Disclosure, Mask, Secret
from platform_core.specs.base import Model

if TYPE_CHECKING:
    import polars as pl


class KeyedHashOptions(Model):
    """What the column holds."""

    domain: Domain = Field(description="Columns are joined by their tokens only if they are of one domain.")
    country: str | None = Field(
        default=None,
        description="For phone: the country (ISO 3166, such as NL) of numbers that are written without one.",
    )
    case_sensitive: bool = Field(default=False, description="For identifier: two may differ in case alone.")
    no_value: tuple[str, ...] = Field(
        default=(),
        description="Texts that stand for no value, such as 'unknown'; they are treated as the empty text is.",
    )
    blank_to_null: bool = Field(
        default=False, description="Whether what is empty or all white space becomes null; else it is the empty text."
    )

    @field_validator("country")
    @classmethod
    def _check_country(cls, value: str | None) -> str | None:
        if value is not None and value not in CALLING_CODES:
            raise ValueError(f"must be one of {', '.join(sorted(CALLING_CODES))}")
        return value

    @model_validator(mode="after")
    def _check_domain(self) -> Self:
        if self.country is not None and self.domain is not Domain.PHONE:
            raise ValueError("'country' is for domain phone")
        if self.case_sensitive and self.domain is not Domain.IDENTIFIER:
            raise ValueError("'case_sensitive' is for domain identifier; email never has it, text always")
        return self


class KeyedHashMask(Mask):
    """``<key id>.<64 hex digits>``: the key id tells which key made a token, and changes when the key does.

    A value is first brought to the one form of its domain, so that spellings of one thing get one token: Unicode NFC
    and no white space around it, then

    - ``email``: lower case;
    - ``phone``: ``+`` and digits only, a leading ``00`` read as ``+``; with a ``country`` a number without one gets
      it, and loses the zero that is dialled at home; what holds letters is no number and is read as text;
    - ``identifier``: without white space, in lower case (unless ``case_sensitive``), leading zeros kept; an integer by
      its digits, a decimal without the zeros that end its fraction;
    - ``date``: ``YYYY-MM-DD``, a time after it left out; a text must be written so to match a date column;
    - ``number``: plain digits, without leading zeros, ``+``, or zeros that end a fraction;
    - ``text``: as it is, case included.

    But for ``text`` characters that nobody sees are left out too. null stays null. What is empty, all white space,
    listed under ``no_value`` or (but for ``text``) without a letter or digit becomes the empty text, or null by
    ``blank_to_null``: a token of it would tie together rows that have nothing in common.
    """

    Options = KeyedHashOptions
    needs_key = True
    discloses = Disclosure.EQUALITY
    options: KeyedHashOptions

    def __init__(self, options: Any, *, key: Secret | None) -> None:
        super().__init__(options, key=key)
        if key is None:
            raise SecretError("mask hash needs the workstream's masking key")
        require_strong(key)
        self._secret = key
        self.makes_null = self.options.blank_to_null
        version = FORM_VERSIONS[self.options.domain]
        self._prefix = key_id(key, form_version=version) + "."
        no_value = self.options.no_value
        forms = self._forms(pa.array(no_value, pa.string())).collect() if no_value else None
        self._no_values = [] if forms is None else forms.to_series().to_list()

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        if not takes(self.options.domain, type_):
            raise ValueError(f"mask hash with domain {self.options.domain} cannot take {type_}; cast it at the source")
        return pa.string()

    def apply(self, values: pa.Array) -> pa.Array:
        return by_value(values, self._tokens)

    def _tokens(self, values: pa.Array) -> pa.Array:
        import polars as pl
        import polars_hash  # noqa: F401 - registers the namespace `chash`

        value = pl.col("value")
        column: Any = pl.col("value").chash  # type: ignore[attr-defined]
        token = pl.concat_str(pl.lit(self._prefix), column.hmac_sha256(key=self._domain_key()))
        blank = value == ""
        if self._no_values:
            blank = blank | value.is_in(self._no_values)
        hidden = pl.when(blank).then(pl.lit(None if self.options.blank_to_null else "")).otherwise(token)
        # One query: handing a small column to the threads of polars and waiting for them costs as much as its tokens.
        tokens = self._forms(as_text(values)).select(hidden.cast(pl.String).alias("value"))
        return tokens.collect().to_series().to_arrow().cast(pa.string())

    def _forms(self, texts: pa.Array) -> pl.LazyFrame:
        """The form of each text, in a column ``value``."""
        import polars as pl

        form = canonical(
            pl.col("value"),
            self.options.domain,
            country=None if self.options.country is None else CALLING_CODES[self.options.country],
            case_sensitive=self.options.case_sensitive,
            ascii_only=bool(pc.all(pc.string_is_ascii(texts)).as_py()),
        )
        return pl.LazyFrame(pl.Series("value", texts)).select(form.alias("value"))

    def _domain_key(self) -> str:
        version = str(FORM_VERSIONS[self.options.domain]).encode()
        return derived(self._secret, b"token", self.options.domain.encode(), version)
