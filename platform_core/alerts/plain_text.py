"""Makes any text fit to be shown to people: one that holds no link, no mention and nothing hidden."""

from __future__ import annotations

import re

# Controls but the line break, zero-width and direction marks, lone surrogates: what a reader does not see.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SCHEME = re.compile(
    r":(?=[/\\])|(?<=mailto):(?=\S)|(?<=javascript):(?=\S)|(?<=vbscript):(?=\S)|(?<=tel):(?=\S)|(?<=data):(?=\S)",
    re.IGNORECASE,
)
_WWW = re.compile(r"\bwww\.", re.IGNORECASE)
# A host's name as mail programs and chats make links of it: letters after the last dot, then a path or the end.
_DOMAIN = re.compile(r"(?<=[A-Za-z0-9])\.(?=[A-Za-z]{2,24}(?:[/?#\\]|:[0-9]|\[:\]))")
_MENTION = re.compile(r"@(?=\w)|<(?=/?at\b)", re.IGNORECASE)
_WORD_JOINER = "\u2060"
_SPACES = re.compile(r"[ \t]+")


def plain(text: str, *, most: int) -> str:
    """The text without what is hidden, its addresses written so that no program makes links of them.

    ``https://host/path`` becomes ``https[:]//host[.]tld/path``, and an @ no longer touches the name after it.

    Args:
        most: characters that it may have; the rest is cut off.
    """
    shown = _HIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # Cut to its length in the end: a cut through an address would leave its beginning as it was.
    shown = shown[: 2 * most + 100]
    shown = _SCHEME.sub("[:]", shown)
    shown = _WWW.sub("www[.]", shown)
    shown = _DOMAIN.sub("[.]", shown)
    return cut(_MENTION.sub(lambda found: found[0] + _WORD_JOINER, shown), most)


def one_line(text: str, *, most: int) -> str:
    """As :func:`plain`, and without line breaks: fit for a title or a header."""
    return plain(_SPACES.sub(" ", " ".join(text.split())), most=most)


def cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[: max(0, most - 1)].rstrip() + "…"
