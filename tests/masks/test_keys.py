"""What is fit to be a masking key, and what is made of it."""

from __future__ import annotations

import base64
import re
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import SecretError
from platform_core.masks.keys import derived, key_id, require_strong, weakness
from platform_core.plugins.interfaces import Secret
from tests.masks.oracle import KEY, OTHER_KEY

RANDOM = bytes.fromhex(KEY.decode())


def secret(value: bytes) -> Secret:
    return Secret("crm/masking_key", value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "too short for a masking key: 0 bytes"),
        (RANDOM[:31], "too short for a masking key: 31 bytes"),
        (b"0" * 64, "1 different bytes"),
        (b"\xff" * 32, "1 different bytes"),
        (b"4f" * 32, "2 different bytes"),
        (b"0123456789abcdef" * 4, "a part of it is repeated"),
        (RANDOM[:24] * 2, "a part of it is repeated"),
        (b"correct horse battery staple, " * 2, "14 different bytes"),
        (bytes(range(32)), "its bytes count up or down"),
        (bytes(range(255, 190, -1)), "its bytes count up or down"),
        (b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "its bytes count up or down"),
        (RANDOM + b"\x00" * 16, "one byte is repeated in it"),
        (KEY[:32], "it holds 128 bits at most"),
        (base64.b64encode(RANDOM[:30]), "it holds 240 bits at most"),
    ],
)
def test_what_is_no_key_of_256_bits_is_refused_and_no_message_shows_it(value: bytes, why: str) -> None:
    with pytest.raises(SecretError, match=re.escape(why)) as caught:
        require_strong(secret(value))
    assert str(caught.value).startswith("secret 'crm/masking_key' ")
    assert len(value) < 8 or value[:8].decode("latin-1") not in str(caught.value)


@given(st.randoms(use_true_random=True))
def test_random_keys_are_taken_raw_in_hex_and_in_base64(chance: object) -> None:
    value = secrets.token_bytes(32)
    for written in (value, value.hex().encode(), value.hex().upper().encode(), base64.b64encode(value)):
        assert weakness(written) is None
    assert weakness(base64.urlsafe_b64encode(value).rstrip(b"=")) is None


def test_a_key_id_is_short_public_and_of_its_key_and_form_version() -> None:
    ids = {key_id(secret(key), form_version=version) for key in (KEY, OTHER_KEY) for version in (1, 2)}
    assert len(ids) == 4
    assert all(re.fullmatch("[0-9a-f]{8}", found) for found in ids)
    assert key_id(secret(KEY)) == key_id(secret(KEY), form_version=1)


def test_each_purpose_has_a_key_of_its_own_and_none_is_the_key() -> None:
    made = {derived(secret(KEY), b"token", domain, b"1") for domain in (b"email", b"text")}
    assert len(made) == 2
    assert KEY.decode() not in made
    assert derived(secret(KEY), b"a", b"b") != derived(secret(KEY), b"ab")
