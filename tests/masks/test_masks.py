"""What the built-in masks make of values."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import unicodedata
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.errors import SecretError
from platform_core.masks.full import FullMask
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.masks.partial import PartialMask
from platform_core.plugins.interfaces import Secret

KEY = b"4f" * 32
WHITE = re.compile(r"^\s+|\s+$")
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


def keyed(domain: str, key: bytes = KEY) -> KeyedHashMask:
    return KeyedHashMask(KeyedHashMask.Options(domain=domain), key=Secret("crm/masking_key", key))


def masked(mask: Any, values: list[Any], type_: pa.DataType | None = None) -> list[Any]:
    array = pa.array(values, type_)
    result = mask.apply(array)
    assert result.type == mask.output_type(array.type)
    return result.to_pylist()


def token(domain: str, form: str, key: bytes = KEY) -> str:
    """The documented token, by Python's own hmac."""
    derived = [
        hmac.new(key, b"edp1\x1f" + purpose, hashlib.sha256).hexdigest()
        for purpose in (b"key-id", b"token\x1f" + domain.encode())
    ]
    return f"{derived[0][:8]}.{hmac.new(derived[1].encode(), form.encode(), hashlib.sha256).hexdigest()}"


def test_full_shows_only_whether_there_is_a_value() -> None:
    assert masked(FullMask(None, key=None), ["Anna", "", None]) == ["***", "***", None]
    assert masked(FullMask(None, key=None), [dt.date(2000, 1, 1), None]) == ["***", None]
    assert masked(FullMask(None, key=None), [{"a": 1}, None]) == ["***", None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"keep_first": 1}, ["J***", "***", "***", None, "A***"]),
        ({"keep_last": 2}, ["***en", "***", "***", None, "***éé"]),
        ({"keep_first": 1, "keep_last": 1}, ["J***n", "***", "***", None, "A***é"]),
    ],
)
def test_partial_keeps_the_ends_of_values_that_are_long_enough(options: dict[str, int], expected: list[Any]) -> None:
    mask = PartialMask(PartialMask.Options(**options), key=None)
    assert masked(mask, ["Jansen", "J", "", None, "Aéé" + "é"]) == expected


def test_partial_of_an_address_shows_its_domain_only_where_there_is_one() -> None:
    mask = PartialMask(PartialMask.Options(keep_first=1, email=True), key=None)
    addresses = ["anna@example.org", "a@example.org", "no address", "a@b@c", "@example.org", None]
    assert masked(mask, addresses) == ["a***@example.org", "***@example.org", "***", "***", "***@example.org", None]


def test_partial_takes_integers() -> None:
    assert masked(PartialMask(PartialMask.Options(keep_last=3), key=None), [123456789, 12, None]) == [
        "***789",
        "***",
        None,
    ]


@given(text, st.integers(0, 3), st.integers(1, 3))
def test_partial_never_shows_more_than_half(value: str, first: int, last: int) -> None:
    (shown,) = masked(PartialMask(PartialMask.Options(keep_first=first, keep_last=last), key=None), [value])
    kept = shown.replace("***", "", 1) if "*" not in value else ""
    assert len(kept) <= len(value) / 2
    assert "***" in shown


@pytest.mark.parametrize("options", [{}, {"keep_first": 0}, {"keep_first": 4, "keep_last": 3}, {"keep_first": -1}])
def test_partial_refuses_to_show_nothing_or_too_much(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        PartialMask.Options(**options)


@pytest.mark.parametrize("type_", [pa.float64(), pa.date32(), pa.list_(pa.string())])
def test_partial_refuses_types_it_cannot_shorten(type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="use mask full"):
        PartialMask(PartialMask.Options(keep_first=1), key=None).output_type(type_)


@given(st.lists(st.none() | text, max_size=30))
def test_hash_is_the_hmac_of_the_canonical_form_value_by_value(values: list[str | None]) -> None:
    def expected(value: str | None, domain: str) -> str | None:
        if value is None:
            return None
        form = WHITE.sub("", unicodedata.normalize("NFC", value))
        return token(domain, form) if form else ""

    for domain in ("text", "identifier"):
        assert masked(keyed(domain), values, pa.string()) == [expected(value, domain) for value in values]


@pytest.mark.parametrize(
    ("domain", "spellings", "form"),
    [
        ("email", ["Anna@Example.org", " anna@example.ORG\n", "anna@example.org"], "anna@example.org"),
        ("phone", ["+31 6-1234 5678", "0031612345678", "+31 (6) 12345678"], "+31612345678"),
        ("phone", ["06 123", "(06)123"], "06123"),
        ("phone", ["none", " none "], "none"),
        ("number", ["0042", "42", "+42.00", "42."], "42"),
        ("number", ["-0.50", "-0.5"], "-0.5"),
        ("number", ["-0", "0", "0.0"], "0"),
        ("number", ["1e3"], "1e3"),
        ("text", ["Cafe\u0301", "Café"], "Café"),
        ("date", ["2000-01-02 "], "2000-01-02"),
    ],
)
def test_spellings_of_one_thing_get_one_token(domain: str, spellings: list[str], form: str) -> None:
    assert set(masked(keyed(domain), spellings)) == {token(domain, form)}


@pytest.mark.parametrize(
    ("domain", "values", "type_", "form"),
    [
        ("identifier", [42], pa.int32(), "42"),
        ("phone", [31612345678], pa.int64(), "31612345678"),
        ("number", [-7], pa.int64(), "-7"),
        ("number", [Decimal("1.50")], pa.decimal128(10, 2), "1.5"),
        ("date", [dt.date(2000, 1, 2)], pa.date32(), "2000-01-02"),
    ],
)
def test_typed_columns_get_the_token_of_their_text(
    domain: str, values: list[Any], type_: pa.DataType, form: str
) -> None:
    assert masked(keyed(domain), values, type_) == [token(domain, form)]


@pytest.mark.parametrize("repeats", [1, 50])
def test_repeated_values_get_the_same_tokens_as_single_ones(repeats: int) -> None:
    values = ["a", None, "b", "", "  "] * repeats
    assert masked(keyed("text"), values) == [token("text", "a"), None, token("text", "b"), "", ""] * repeats


def test_domains_and_keys_have_tokens_of_their_own() -> None:
    tokens = {masked(keyed(domain), ["x"])[0] for domain in ("email", "text", "identifier", "phone", "date", "number")}
    assert len(tokens) == 6
    other = masked(keyed("text", b"5e" * 32), ["x"])[0]
    assert other.split(".")[0] != masked(keyed("text"), ["x"])[0].split(".")[0]
    assert other not in tokens


@pytest.mark.parametrize(
    ("domain", "type_"),
    [("email", pa.int64()), ("number", pa.float64()), ("date", pa.timestamp("us")), ("text", pa.binary())],
)
def test_types_without_a_canonical_form_are_refused(domain: str, type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="cast it at the source"):
        keyed(domain).output_type(type_)


def test_a_short_or_missing_key_is_refused_and_no_message_shows_it() -> None:
    with pytest.raises(SecretError, match="needs the workstream's masking key"):
        KeyedHashMask(KeyedHashMask.Options(domain="text"), key=None)
    with pytest.raises(SecretError, match=r"'crm/masking_key' is too short.*\n.*at least 32 bytes") as caught:
        keyed("text", b"hunter2" * 4)
    assert "hunter2" not in str(caught.value)
    assert KEY.decode() not in repr(keyed("text").__dict__)


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ValidationError):
        KeyedHashMask.Options(domain="name")
