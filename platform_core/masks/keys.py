"""What is made of a workstream's masking key: its id, the keys of its domains, and whether it is fit to be one."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from itertools import pairwise

from platform_core.errors import SecretError
from platform_core.plugins.interfaces import Secret

SHORTEST_KEY = 32
"""Bytes."""

KEY_ID_LENGTH = 8
"""Hex digits."""

_LABEL = b"edp1"
_BITS = 256
_LEAST_DISTINCT = 16
_LONGEST_RUN = 12
_ALPHABETS = (
    (re.compile(rb"[0-9]+"), 10, 3.32),
    (re.compile(rb"[0-9a-f]+|[0-9A-F]+"), 16, 4.0),
    (re.compile(rb"[0-9A-Za-z+/_=-]+"), 64, 6.0),
    (re.compile(rb"[\x20-\x7e]+"), 95, 6.57),
    (re.compile(rb".+", re.DOTALL), 256, 8.0),
)
"""How a key may be written: pattern, number of symbols, bits of one symbol."""


def key_id(key: Secret, *, form_version: int = 1) -> str:
    """Eight hex digits that tell which key, and which version of a form, a token was made with.

    They are computed from the key by a way that nothing else uses, and say nothing about it.
    """
    return derived(key, b"key-id", str(form_version).encode())[:KEY_ID_LENGTH]


def derived(key: Secret, *purpose: bytes) -> str:
    """A key of its own for each purpose: 64 hex digits; the masking key itself never leaves this function."""
    return hmac.new(key.reveal(), b"\x1f".join((_LABEL, *purpose)), hashlib.sha256).hexdigest()


def require_strong(key: Secret) -> None:
    """Refuse what cannot be a random key of 256 bits.

    No look at a key can prove that it is random. What is found: a key that is short, also for the way it is written
    (32 hex digits are 128 bits), and one of few symbols, of a long run, of a repeated part, or that counts up or down.

    Raises:
        SecretError: with the name of the secret, and no part of its value.
    """
    if (why := weakness(key.reveal())) is not None:
        raise SecretError(
            f"secret '{key.name}' {why}\n"
            f"  it must have at least {SHORTEST_KEY} bytes from a random source, raw or as 64 hex digits; "
            "`edp setup` makes one where secrets are in a vault or in files"
        )


def weakness(value: bytes) -> str | None:
    """Why a value is no key, or None."""
    if len(value) < SHORTEST_KEY:
        return f"is too short for a masking key: {len(value)} bytes"
    symbols, bits = next((symbols, bits) for pattern, symbols, bits in _ALPHABETS if pattern.fullmatch(value))
    distinct = len(set(value))
    steps = Counter((after - before) % 256 for before, after in pairwise(value))
    if distinct < min(_LEAST_DISTINCT, symbols // 2):
        return f"is no random key: it is made of {distinct} different bytes"
    if value in (value + value)[1:-1]:
        return "is no random key: a part of it is repeated"
    if max(steps.values()) * 2 >= len(value):
        return "is no random key: its bytes count up or down"
    if _longest_run(value) >= _LONGEST_RUN:
        return "is no random key: one byte is repeated in it"
    if len(value) * bits < _BITS:
        return f"is too short for a masking key: as it is written, it holds {int(len(value) * bits)} bits at most"
    return None


def _longest_run(value: bytes) -> int:
    longest = run = 1
    for before, after in pairwise(value):
        run = run + 1 if before == after else 1
        longest = max(longest, run)
    return longest
