"""How phone numbers of a country are dialled at home and from abroad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class CallingCode(NamedTuple):
    """How a country's numbers are written.

    Args:
        code: calling code, without ``+``.
        trunk: prefix of a number that is dialled at home, and is not part of the number; empty: there is none.
        digits: length of every subscriber's number without trunk prefix; None: it varies.
        exit_code: what is dialled at home before a calling code.
    """

    code: str
    trunk: str
    digits: int | None = None
    exit_code: str = "00"


CALLING_CODES: Mapping[str, CallingCode] = {
    "AT": CallingCode("43", "0"),
    "BE": CallingCode("32", "0"),
    "BG": CallingCode("359", "0"),
    "CA": CallingCode("1", "1", 10, "011"),
    "CH": CallingCode("41", "0", 9),
    "CY": CallingCode("357", "", 8),
    "CZ": CallingCode("420", "", 9),
    "DE": CallingCode("49", "0"),
    "DK": CallingCode("45", "", 8),
    "EE": CallingCode("372", ""),
    "ES": CallingCode("34", "", 9),
    "FI": CallingCode("358", "0"),
    "FR": CallingCode("33", "0", 9),
    "GB": CallingCode("44", "0"),
    "GR": CallingCode("30", "", 10),
    "HR": CallingCode("385", "0"),
    "HU": CallingCode("36", "06"),
    "IE": CallingCode("353", "0"),
    "IS": CallingCode("354", ""),
    "IT": CallingCode("39", ""),
    "LI": CallingCode("423", "0"),
    "LU": CallingCode("352", ""),
    "LV": CallingCode("371", "", 8),
    "MT": CallingCode("356", "", 8),
    "NL": CallingCode("31", "0", 9),
    "NO": CallingCode("47", "", 8),
    "PL": CallingCode("48", "", 9),
    "PT": CallingCode("351", "", 9),
    "RO": CallingCode("40", "0", 9),
    "SE": CallingCode("46", "0"),
    "SI": CallingCode("386", "0"),
    "SK": CallingCode("421", "0"),
    "US": CallingCode("1", "1", 10, "011"),
}
"""By country, as ISO 3166 names it."""
