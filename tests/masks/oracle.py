"""The documented tokens, computed value by value with Python's own hmac."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.plugins.interfaces import Mask, Secret

KEY = b"5b1d0a7c9e3f4826b0d1c7e85fa2934617ce0b5d8a924f3ee16c7d02b9f853a4"
OTHER_KEY = b"c2f86e01749bd53a8ef0271d4ba6930c5e17f8d2640ab39c81d5e7f20346bb9f"

ASSIGNED = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Co"])
"""Characters that every version of Unicode in use here knows alike."""

# Python counts four separators among control characters as white space; Unicode does not.
_WHITE = "".join(chr(point) for point in range(0x3001) if chr(point).isspace() and not 0x1C <= point <= 0x1F)
_INVISIBLE = dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF])


def keyed(domain: str, *, key: bytes = KEY, **options: Any) -> KeyedHashMask:
    """The mask `hash` of a domain."""
    return KeyedHashMask(KeyedHashMask.Options(domain=domain, **options), key=Secret("crm/masking_key", key))


def masked(mask: Mask, values: list[Any], type_: pa.DataType | None = None) -> list[Any]:
    """What a mask makes of values, its announced type checked."""
    array = pa.array(values, type_)
    result = mask.apply(array)
    assert result.type == mask.output_type(array.type)
    found: list[Any] = result.to_pylist()
    return found


def token(domain: str, form: str, *, key: bytes = KEY, version: int = 1) -> str:
    """The token of a canonical form; none for the empty one."""
    if not form:
        return ""

    def derived(*purpose: str) -> str:
        return hmac.new(key, "\x1f".join(("edp1", *purpose)).encode(), hashlib.sha256).hexdigest()

    domain_key = derived("token", domain, str(version)).encode()
    return f"{derived('key-id', str(version))[:8]}.{hmac.new(domain_key, form.encode(), hashlib.sha256).hexdigest()}"


def form(domain: str, text: str) -> str:
    """The documented form of a text."""
    text = unicodedata.normalize("NFC", text).strip(_WHITE)
    if domain == "text":
        return text
    text = text.translate(_INVISIBLE).strip(_WHITE)
    if not any(unicodedata.category(character)[0] in "LN" for character in text):
        return ""
    match domain:
        case "email":
            return unicodedata.normalize("NFC", text.lower())
        case "identifier":
            return unicodedata.normalize("NFC", re.sub(f"[{_WHITE}]", "", text).lower())
        case "date":
            return found[1] if (found := re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})([T ].*)?", text)) else text
        case "number":
            return _number(text)
        case _:
            return _phone(text)


def _number(text: str) -> str:
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text):
        return text
    whole, _, fraction = text.lstrip("+-").partition(".")
    plain = (whole.lstrip("0") or "0") + ("." + fraction.rstrip("0") if fraction.rstrip("0") else "")
    return plain if plain == "0" or not text.startswith("-") else "-" + plain


def _phone(text: str) -> str:
    digits = re.sub("[^0-9]", "", text)
    if not digits or any(unicodedata.category(character)[0] == "L" for character in text):
        return unicodedata.normalize("NFC", text.lower())
    short = re.sub("[^0-9]", "", text.replace("(0)", "", 1))
    if re.match(r"[^0-9]*\+", text):
        return "+" + short
    return "+" + short[2:] if digits.startswith("00") else digits
