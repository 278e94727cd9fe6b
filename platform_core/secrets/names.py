"""What a secret may be called, and how long it may be, in every store that can be written."""

from __future__ import annotations

import re

from platform_core.errors import SecretError

LARGEST = 25_000
"""Bytes of a value: what Azure Key Vault takes, so that a secret can move from any store to any other."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LONGEST = 127


def is_secret_name(name: str) -> bool:
    """Whether a text reads ``<workstream>/<name>``."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Refuse what is no name of a secret.

    Raises:
        SecretError: with the name.
    """
    if not is_secret_name(name):
        raise SecretError(
            f"secret name '{name}' must read <workstream>/<name>, of letters, digits, '_', '-' and '.', "
            f"at most {_LONGEST} long"
        )


def check_value(name: str, value: bytes) -> None:
    """Refuse a value that no store can keep.

    Raises:
        SecretError: it is empty or too long; the message holds the name and the length.
    """
    if not value:
        raise SecretError(f"secret '{name}': the value is empty; nothing was changed")
    if len(value) > LARGEST:
        raise SecretError(
            f"secret '{name}': the value has {len(value):,} bytes, and at most {LARGEST:,} are kept; "
            "nothing was changed\n  keep a key or a password here, and files elsewhere"
        )
