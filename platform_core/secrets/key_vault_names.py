"""Writes a secret's name as Azure Key Vault takes names, and reads it back."""

from __future__ import annotations

import re

from platform_core.secrets.names import is_secret_name

_PLAIN = re.compile(r"[a-z0-9]")
_SIGNS = {"_": "-", "/": "--"}
_TOKEN = re.compile(r"[a-z0-9]|---(?P<code>[0-9a-f]{2})|(?P<sign>-{1,2})(?=[a-z0-9])")
_LONGEST = 127


def vault_name(name: str) -> str | None:
    """``crm/rides_password`` as ``crm--rides-password``; None where it would be longer than Key Vault takes.

    Key Vault knows letters without their case, digits and hyphens. So a lower case letter or digit stays, ``_``
    becomes ``-`` and ``/`` becomes ``--``; everything else, and a sign next to another or at an end, becomes ``---``
    and the two hex digits of its character. No two names become one.
    """
    written = ""
    for position, character in enumerate(name):
        after = name[position + 1 : position + 2]
        if _PLAIN.fullmatch(character):
            written += character
        elif character in _SIGNS and written and not written.endswith("-") and _PLAIN.fullmatch(after):
            written += _SIGNS[character]
        else:
            written += f"---{ord(character):02x}"
    return written if len(written) <= _LONGEST else None


def secret_name(written: str) -> str | None:
    """The name that :func:`vault_name` wrote; None for a name of somebody else's making."""
    # Key Vault shows a name in the case in which it was first written.
    written = written.lower()
    signs = {sign: character for character, sign in _SIGNS.items()}
    name, position = "", 0
    while position < len(written):
        match = _TOKEN.match(written, position)
        if match is None:
            return None
        name += chr(int(match["code"], 16)) if match["code"] else signs.get(match["sign"] or "", match[0])
        position = match.end()
    return name if is_secret_name(name) and vault_name(name) == written else None
