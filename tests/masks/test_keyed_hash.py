"""The tokens of the mask `hash`."""

from __future__ import annotations

import datetime as dt
import hashlib
import unicodedata
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.errors import SecretError
from platform_core.masks.canonical import FORM_VERSIONS, Domain
from platform_core.masks.keyed_hash import KeyedHashMask
from tests.masks.oracle import ASSIGNED, KEY, OTHER_KEY, form, keyed, masked, token

TEXT = st.text(ASSIGNED, max_size=12)
LIKE_ADDRESSES = st.from_regex(r"[ ]?[A-Za-z.é]{1,6}@[A-Za-z]{1,6}\.[a-z]{2}\s?", fullmatch=True)
LIKE_NUMBERS = st.from_regex(r"[ ]?[+-]?0{0,2}[0-9]{0,4}(\.[0-9]{0,3})?", fullmatch=True)
LIKE_PHONES = st.from_regex(r"(\+|00|\(0\)|0)?[0-9 ()./-]{0,12}(\(0\))?[0-9]{0,3}", fullmatch=True)
LIKE_DATES = st.dates().map(str) | st.datetimes().map(str) | st.datetimes().map(dt.datetime.isoformat)


@pytest.mark.parametrize("domain", Domain)
@given(values=st.lists(st.none() | TEXT | LIKE_ADDRESSES | LIKE_NUMBERS | LIKE_PHONES | LIKE_DATES, max_size=30))
@settings(deadline=None)
@example(values=["", "  ", "\u00a0", "\u200b", "-", "0", "-0", ".", "+", "+31 (0)6", "(0)(0)1", "É", "E\u0301", None])
def test_every_token_is_the_hmac_of_the_documented_form(domain: Domain, values: list[str | None]) -> None:
    expected = [None if value is None else token(domain, form(domain, value)) for value in values]
    assert masked(keyed(domain), values, pa.string()) == expected


@pytest.mark.parametrize("repeats", [1, 50])
def test_repeated_values_get_the_tokens_of_single_ones(repeats: int) -> None:
    values = ["a", None, "b", "", "  "] * repeats
    assert masked(keyed("text"), values) == [token("text", "a"), None, token("text", "b"), "", ""] * repeats
    numbers = [7, None, 7, 8] * repeats
    assert masked(keyed("number"), numbers) == [
        token("number", "7"),
        None,
        token("number", "7"),
        token("number", "8"),
    ] * (repeats)


@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        ("email", " Zoë@Example.org", "c4a8de08.f349482f117177af552a332d975c7bfa8a5b654b707030f0516f2419468e6e21"),
        ("phone", "0031 (0)6 1234 5678", "c4a8de08.eeaf0e8c8f0233294dbfedaa8ecc7fdd6a8a0a6fe8dca00d909547e19b922bab"),
        ("identifier", "NL 0042 ab", "c4a8de08.b4c69c0f1550b4daada7de82e4d6c039655ffd476bf4a973d7b9576c725daaa8"),
        ("date", "2000-01-02 00:00:00", "c4a8de08.2a74b813163ef237af8010ff562f05ea902ef738478394754440ae253f34e6f2"),
        ("number", "-042.50", "c4a8de08.1ddeda74f1f11d3e0c81841a3db676c3cfe2e421d48d4c42c4e859b48e240f66"),
        ("text", " Zoë ", "c4a8de08.d9c4e742cfee69290ca1734dc8c74dfef6a2edb6475734cd2d48af5cd42692a3"),
    ],
)
def test_tokens_stay_what_they_were_while_key_and_form_version_do(domain: str, value: str, expected: str) -> None:
    # Whoever has to change a line here raises the version of that form, and says in the change log which tables to
    # reload.
    assert masked(keyed(domain), [value]) == [expected]


@pytest.mark.parametrize(
    ("domain", "spellings", "same"),
    [
        ("email", ["Anna@Example.org", " anna@example.ORG\n", "anna@example.org", "\ufeffanna@example.org"], True),
        ("email", ["anna@example.org", "anna@example.com"], False),
        ("identifier", ["NL91 ABNA 0417", "nl91abna0417", " NL91ABNA 0417\t"], True),
        ("identifier", ["Zoë-1", "zoe\u0308-1", "ZOË-1"], True),
        ("identifier", ["0042", "42"], False),
        ("identifier", ["1-23", "12-3"], False),
        ("number", ["0042", "42", "+42.00", "42."], True),
        ("number", ["-0.50", "-.5", "-0.5"], True),
        ("number", ["-0", "0", "0.0", "000"], True),
        ("number", ["1", "-1"], False),
        ("number", ["10", "1", "100"], False),
        ("text", ["Cafe\u0301", "Café", " Café "], True),
        ("text", ["Café", "café"], False),
        ("date", ["2000-01-02", "2000-01-02 ", "2000-01-02 00:00:00", "2000-01-02T00:00:00Z"], True),
        ("date", ["2000-01-02", "2000-02-01"], False),
        ("phone", ["+31 6-1234 5678", "0031612345678", "+31 (6) 12345678", "+31 (0)6 12345678"], True),
        ("phone", ["06 123", "(06)123"], True),
        ("phone", ["06 123 ext 4", "06 1234"], False),
    ],
)
def test_f9_spellings_of_one_thing_get_one_token_and_other_things_do_not(
    domain: str, spellings: list[str], same: bool
) -> None:
    tokens = set(masked(keyed(domain), spellings))
    assert len(tokens) == (1 if same else len(spellings))


@settings(deadline=None)
@given(st.text(ASSIGNED, min_size=1, max_size=12), st.sampled_from(["email", "identifier", "text"]))
def test_f9_composed_and_decomposed_texts_get_one_token(value: str, domain: str) -> None:
    both = [unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)]
    assert len(set(masked(keyed(domain), both))) == 1


@pytest.mark.parametrize(
    "number",
    ["06-12345678", "+31 6 12345678", "0031 6 12 34 56 78", "(06) 12345678", "+31 (0)6 12345678", "+31 06 12345678"],
)
def test_f9_a_national_phone_number_is_that_of_its_country(number: str) -> None:
    assert masked(keyed("phone", country="NL"), [number]) == [token("phone", "+31612345678")]


@pytest.mark.parametrize(
    ("country", "number", "whole"),
    [
        ("NL", "612345678", "+31612345678"),
        ("NL", "31612345678", "+31612345678"),
        ("NL", "+32 470 12 34 56", "+32470123456"),
        ("DE", "030 123456", "+4930123456"),
        ("GB", "020 7946 0958", "+442079460958"),
        ("HU", "06 1 234 5678", "+3612345678"),
        ("IT", "06 698 12345", "+390669812345"),
        ("ES", "612 34 56 78", "+34612345678"),
        ("US", "(650) 253-0000", "+16502530000"),
        ("US", "1-650-253-0000", "+16502530000"),
        ("US", "011 31 6 12345678", "+31612345678"),
    ],
)
def test_countries_dial_each_in_their_own_way(country: str, number: str, whole: str) -> None:
    assert masked(keyed("phone", country=country), [number]) == [token("phone", whole)]


@pytest.mark.parametrize(
    ("domain", "columns", "form_"),
    [
        ("identifier", [("42", pa.string()), (42, pa.int32()), (Decimal("42.00"), pa.decimal128(38, 10))], "42"),
        ("identifier", [(2**63 - 1, pa.int64()), (Decimal(2**63 - 1), pa.decimal128(20, 0))], str(2**63 - 1)),
        ("identifier", [(100, pa.int64()), (Decimal(100), pa.decimal128(3, 0)), ("100", pa.string())], "100"),
        ("number", [("-1.5", pa.string()), (Decimal("-1.50"), pa.decimal128(10, 2))], "-1.5"),
        ("number", [("0", pa.string()), (0, pa.int8()), (Decimal(0), pa.decimal128(38, 10))], "0"),
        ("number", [("0.0000000001", pa.string()), (Decimal("1e-10"), pa.decimal128(38, 10))], "0.0000000001"),
        ("phone", [("31612345678", pa.string()), (31612345678, pa.int64())], "31612345678"),
        (
            "date",
            [
                ("2000-01-02", pa.string()),
                (dt.date(2000, 1, 2), pa.date32()),
                (dt.date(2000, 1, 2), pa.date64()),
                (dt.datetime(2000, 1, 2), pa.timestamp("us")),
                (dt.datetime(2000, 1, 2, 23, 59), pa.timestamp("s")),
            ],
            "2000-01-02",
        ),
        ("date", [("0001-01-01", pa.string()), (dt.date(1, 1, 1), pa.date32())], "0001-01-01"),
        ("date", [("1969-12-31", pa.string()), (dt.datetime(1969, 12, 31, 1), pa.timestamp("us"))], "1969-12-31"),
        ("email", [("a@b.c", pa.string()), ("a@b.c", pa.large_string()), ("a@b.c", pa.string_view())], "a@b.c"),
    ],
)
def test_f9_columns_of_other_types_get_the_token_of_the_same_text(
    domain: str, columns: list[tuple[Any, pa.DataType]], form_: str
) -> None:
    found = [masked(keyed(domain), [value, None], type_) for value, type_ in columns]
    assert found == [[token(domain, form_), None]] * len(columns)


@settings(deadline=None)
@given(st.integers(-(10**27), 10**27), st.integers(0, 10))
def test_f9_a_decimal_is_the_number_that_its_digits_say(unscaled: int, scale: int) -> None:
    value = Decimal(unscaled).scaleb(-scale)
    (of_decimal,) = masked(keyed("number"), [value], pa.decimal128(38, scale))
    assert of_decimal == masked(keyed("number"), [f"{value:f}"])[0]


def test_f8_one_person_has_one_token_in_a_workstream_and_another_elsewhere() -> None:
    customers, orders = masked(keyed("email"), ["Anna@example.org"]), masked(keyed("email"), ["anna@example.org "])
    elsewhere = masked(keyed("email", key=OTHER_KEY), ["anna@example.org"])
    assert customers == orders
    assert customers[0].split(".")[0] != elsewhere[0].split(".")[0]
    assert customers[0].split(".")[1] != elsewhere[0].split(".")[1]


def test_each_domain_and_each_version_of_its_form_has_tokens_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {masked(keyed(domain), ["1"])[0] for domain in Domain}
    assert len(before) == len(Domain)
    monkeypatch.setitem(FORM_VERSIONS, Domain.TEXT, 2)
    (after,) = masked(keyed("text"), ["1"])
    assert after == token("text", "1", version=2)
    assert after.split(".")[0] not in {found.split(".")[0] for found in before}


BLANK = ["", " ", "\t\n", "\u00a0\u2003", None]


@pytest.mark.parametrize("domain", Domain)
def test_f10_nothing_gets_no_token(domain: Domain) -> None:
    assert masked(keyed(domain), BLANK) == ["", "", "", "", None]
    assert masked(keyed(domain, blank_to_null=True), BLANK) == [None] * 5


@pytest.mark.parametrize("domain", [domain for domain in Domain if domain is not Domain.TEXT])
def test_f10_punctuation_that_stands_for_nothing_gets_no_token(domain: Domain) -> None:
    assert masked(keyed(domain), ["-", "--", "?", " . ", "\u200b"]) == [""] * 5


@pytest.mark.parametrize(
    ("domain", "declared", "values"),
    [
        ("email", ["None@Example.org"], ["none@example.org", " NONE@example.org"]),
        ("identifier", ["unknown", "000"], ["Unknown", " UN KNOWN", "000"]),
        ("date", ["1900-01-01"], ["1900-01-01", "1900-01-01 00:00:00"]),
        ("number", ["0"], ["0", "-0.0", "000"]),
    ],
)
def test_f10_declared_texts_stand_for_no_value_in_every_spelling(
    domain: str, declared: list[str], values: list[str]
) -> None:
    assert masked(keyed(domain, no_value=declared), values) == [""] * len(values)
    assert masked(keyed(domain, no_value=declared, blank_to_null=True), [*values, "1"])[:-1] == [None] * len(values)
    assert masked(keyed(domain, no_value=declared), ["1234"]) == [token(domain, "1234")]


def test_f10_a_declared_date_is_no_value_in_a_date_column_too() -> None:
    assert masked(keyed("date", no_value=["1900-01-01"]), [dt.date(1900, 1, 1)]) == [""]


def test_f7_someone_without_the_key_undoes_a_plain_hash_and_no_token() -> None:
    number = "123456"
    (found,) = masked(keyed("identifier"), [number])
    digest = found.split(".")[1]
    guesses = [f"{guess:06d}".encode() for guess in range(100_000, 200_000)]
    plain = hashlib.sha256(number.encode()).hexdigest()
    assert [guess for guess in guesses if hashlib.sha256(guess).hexdigest() == plain] == [number.encode()]
    # What is public: the label, the domain, the version and the key id.
    for known in (b"", b"edp1", b"identifier", found.split(".")[0].encode(), b"edp1\x1ftoken\x1fidentifier\x1f1"):
        assert not [guess for guess in guesses if hashlib.sha256(known + guess).hexdigest() == digest]


@pytest.mark.parametrize(
    ("domain", "type_"),
    [
        ("email", pa.int64()),
        ("text", pa.int64()),
        ("number", pa.float64()),
        ("identifier", pa.float64()),
        ("phone", pa.decimal128(11, 0)),
        ("date", pa.timestamp("us", "UTC")),
        ("date", pa.int32()),
        ("text", pa.binary()),
        ("text", pa.bool_()),
        ("text", pa.list_(pa.string())),
        ("text", pa.struct([("a", pa.string())])),
    ],
)
def test_types_without_a_form_are_refused_by_name(domain: str, type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="cast it at the source") as caught:
        keyed(domain).output_type(type_)
    assert str(type_) in str(caught.value)


def test_it_does_not_start_without_a_key() -> None:
    with pytest.raises(SecretError, match="needs the workstream's masking key"):
        KeyedHashMask(KeyedHashMask.Options(domain="text"), key=None)


@pytest.mark.parametrize("key", [b"", b"hunter2", b"\x00" * 32, b"hunter2hunter2hunter2hunter2hunter2hunter2hu"])
def test_it_does_not_start_with_a_key_that_is_none_and_no_message_shows_it(key: bytes) -> None:
    with pytest.raises(SecretError, match="'crm/masking_key'") as caught:
        keyed("text", key=key)
    assert not key or key.decode()[:7] not in str(caught.value)


def test_its_key_does_not_show() -> None:
    assert KEY.decode() not in repr(keyed("text").__dict__)


@pytest.mark.parametrize(
    "options",
    [
        {"domain": "name"},
        {"domain": "phone", "country": "XX"},
        {"domain": "phone", "country": "nl"},
        {"domain": "email", "country": "NL"},
        {"domain": "email", "case_sensitive": True},
        {"domain": "email", "salt": "x"},
        {},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeyedHashMask.Options(**options)


def test_identifiers_may_differ_in_case_where_that_is_declared() -> None:
    assert len(set(masked(keyed("identifier", case_sensitive=True), ["aB", "AB", " aB "]))) == 2
