"""How a source's column name becomes the column's name in the lake."""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache

from platform_core.specs.ingestion import TECHNICAL_COLUMNS

LONGEST_NAME = 128
"""Characters of a column's name; a longer one is cut and ends in a hash of the whole."""

RESERVED_NAMES = frozenset((*TECHNICAL_COLUMNS, "_valid_from", "_valid_to", "_reason", "file_row_number", "file_index"))
"""Names that bronze, its history, its quarantine and the engine give to columns of their own."""

_RESERVED_SUFFIX = "_source"
_HASH_DIGITS = 8


@lru_cache(maxsize=16_384)
def normalised(name: str) -> str:
    """The name in the lake: lower case, words and digits parted by ``_``, letters of any alphabet.

    ``OrderDate``, ``ORDER DATE`` and ``order-date`` all become ``order_date``; ``2nd`` becomes ``_2nd``; a name that
    the platform needs for itself gets ``_source`` behind it. The same name always gives the same result, whatever
    stands beside it, and a name that is normalised already stays as it is.

    Raises:
        ValueError: nothing of the name is a letter or a digit.
    """
    parts = _spaced(unicodedata.normalize("NFKC", name)).split()
    text = unicodedata.normalize("NFKC", "_".join(_words(part) for part in parts).lower())
    if not any(character.isalnum() for character in text):
        raise ValueError("has neither letter nor digit")
    if text[0].isdigit():
        text = f"_{text}"
    if text in RESERVED_NAMES:
        text += _RESERVED_SUFFIX
    if len(text) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
        text = f"{text[: LONGEST_NAME - _HASH_DIGITS - 1]}_{digest}"
    return text


def _spaced(text: str) -> str:
    """Letters and digits of any alphabet, ``_``, and the marks that belong to a letter; all else becomes a space."""
    return "".join(
        character if character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M" else " "
        for character in text
    )


def _words(part: str) -> str:
    """Part the words of ``camelCase``: before a capital behind a small letter or digit, and before the last capital of
    several that a small letter follows (``HTTPServer``), but for a plural's s (``customerIDs``)."""
    made: list[str] = []
    for at, character in enumerate(part):
        before = part[at - 1] if at else ""
        after = part[at + 1 : at + 3]
        if character.isupper() and before and before != "_":
            ends_plural = after[:1] == "s" and not after[1:2].islower()
            if not before.isupper() or (after[:1].islower() and not ends_plural):
                made.append("_")
        made.append(character)
    return "".join(made)
