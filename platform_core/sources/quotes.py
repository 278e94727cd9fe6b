"""Checks that the quotes of a CSV begin and end values: parsers take it for granted, and drop or misread others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from platform_core.errors import SourceError

_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = b"\r\n"


class Quotes:
    """Follows the quotes of a text through its pieces.

    Where every quote stands as RFC 4180 has it, the odd ones of all follow a delimiter, a line end or another quote,
    and the even ones are followed by such: so places and numbers of quotes tell all, and nothing is parsed.
    """

    def __init__(self, *, quote: str, delimiter: str, strict: bool, where: str) -> None:
        """Begin before the first piece.

        Args:
            strict: whether quotes within values that are not quoted, or after the end of one that is, are refused.
            where: source, object and file, for messages.
        """
        self._quote = quote.encode()
        self._strict = strict
        self._where = where
        ends = _LINE_ENDS + self._quote
        self._before: NDArray[np.bool_] = np.isin(np.arange(256), list(ends + delimiter.encode()[-1:]))
        self._after: NDArray[np.bool_] = np.isin(np.arange(256), list(ends + delimiter.encode()[:1]))
        self._count = 0
        self._last = b""
        self._line = 1

    def follow(self, text: bytes) -> None:
        """Take the next piece of the text, in UTF-8.

        Raises:
            SourceError: a quote neither begins nor ends a value; the message says in which line.
        """
        if not text:
            return
        if not self._strict:
            self._count += text.count(self._quote)
            return
        if not self._last:
            # Where the text begins, a value does.
            text, self._last = text.removeprefix(_BOM), b"\n"
        self._check(self._last + text)
        self._line += text.count(b"\n")
        self._last = text[-1:] or self._last

    def end(self) -> None:
        """Take note of the end.

        Raises:
            SourceError: the last quote was not closed.
        """
        if self._count % 2:
            raise SourceError(
                f"{self._where}: the quotes in it do not pair up, so it was cut off, or a value holds one\n"
                "  if the file quotes no values, set 'quote: null' in the table's options"
            )

    def _check(self, text: bytes) -> None:
        """Check a piece that begins with the last character of the one before, which then knows what follows it."""
        if self._quote not in text:
            return
        characters = np.frombuffer(text, np.uint8)
        places = np.flatnonzero(characters == self._quote[0])
        carried = int(len(places) > 0 and places[0] == 0)
        # Openings and ends take turns, so that every second place is one of either.
        first_is_opening = (self._count - carried) % 2 == 0
        opening, closing = places[1 - first_is_opening :: 2], places[int(first_is_opening) :: 2]
        self._count += len(places) - carried
        if carried and first_is_opening:
            opening = opening[1:]
        if len(closing) and closing[-1] == len(text) - 1:
            closing = closing[:-1]
        wrong = _first(opening, self._before[characters[opening - 1]])
        wrong += _first(closing, self._after[characters[closing + 1]])
        if wrong:
            line = self._line + text.count(b"\n", 1, min(wrong))
            raise SourceError(
                f"{self._where}, line {line:,}: a quote stands within a value, or text after the end of a quoted one\n"
                "  a quote within a quoted value is doubled; if the file quotes no values, set 'quote: null', and if "
                "such quotes are meant, 'stray_quotes: keep' in the table's options"
            )


def _first(places: NDArray[np.intp], right: NDArray[np.bool_]) -> list[int]:
    return [] if right.all() else [int(places[right.argmin()])]
