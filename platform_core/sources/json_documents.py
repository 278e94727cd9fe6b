"""JSON documents: a list of objects, or a document that holds one under a key; one object at a time is taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from platform_core.errors import SourceError
from platform_core.sources.file_options import FileOptions
from platform_core.sources.json_values import DECODER, FaultError, Record
from platform_core.sources.text_stream import TextStream

_SPACE = re.compile(r"[ \t\n\r]*")
_PIECE = 1 << 20


def records(stream: TextStream, options: FileOptions, *, where: str) -> Iterator[Record]:
    """The objects of a file, one by one.

    The text of the file is held in memory, which 'largest_document_mb' limits; its objects are not.

    Raises:
        SourceError: the file is no such document, has no such key, or is too large.
    """
    path = options.records_at.split(".") if options.records_at else []
    document = _Document(_text(stream, options, where), where)
    yield from document.records(path)


def _text(stream: TextStream, options: FileOptions, where: str) -> str:
    pieces, size = [], 0
    while piece := stream.read(_PIECE):
        size += len(piece)
        if size > options.largest_document_mb << 20:
            raise SourceError(
                f"{where}: is larger than {options.largest_document_mb:,} MB, and a JSON document is held in memory\n"
                "  set 'largest_document_mb' in the table's options, or have it delivered as JSON lines"
            )
        pieces.append(piece)
    try:
        return b"".join(pieces).decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise SourceError(f"{where}: is not {options.encoding}\n  set 'encoding' in the table's options") from None


class _Document:
    """A walk through the text of a document, which is checked to its end."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0
        self._number = 0

    def records(self, path: list[str]) -> Iterator[Record]:
        yield from self._within(path, [])
        if self._next():
            raise self._fault("text follows where the document has ended")

    def _within(self, path: list[str], passed: list[str]) -> Iterator[Record]:
        if not path:
            yield from self._list(passed)
            return
        self._expect("{", f"no object {{…}} that could hold '{path[0]}'")
        seen: set[str] = set()
        if self._next() == "}":
            self._at += 1
        else:
            while True:
                key = self._value()
                if not isinstance(key, str) or self._text[self._at - 1] != '"':
                    raise self._fault("a key is no text")
                if key in seen:
                    raise self._fault("an object has the same key twice")
                seen.add(key)
                self._expect(":", "a key has no value")
                if key == path[0]:
                    yield from self._within(path[1:], [*passed, key])
                else:
                    self._value()
                if self._next() != ",":
                    break
                self._at += 1
            self._expect("}", "an object does not end")
        if path[0] not in seen:
            raise SourceError(
                f"{self._where}: has no key '{'.'.join([*passed, path[0]])}'\n"
                "  correct 'records_at' in the table's options"
            )

    def _list(self, passed: list[str]) -> Iterator[Record]:
        what = f"'{'.'.join(passed)}'" if passed else "the document"
        hint = "no list […]; name the key that holds one with 'records_at' in the table's options"
        self._expect("[", f"{what} is {hint}")
        if self._next() == "]":
            self._at += 1
            return
        while True:
            begin = self._at
            row = self._value()
            self._number += 1
            if not isinstance(row, dict):
                raise SourceError(f"{self._where}, record {self._number:,}: is not a JSON object {{…}}")
            yield Record(self._number, row, self._at - begin)
            if self._next() != ",":
                break
            self._at += 1
        self._expect("]", "a list does not end")

    def _value(self) -> object:
        self._next()
        try:
            value, self._at = DECODER.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError):
                self._at = min(error.pos, len(self._text))
            raise self._fault(str(error) if isinstance(error, FaultError) else "") from None
        return value

    def _next(self) -> str:
        """The character that comes next, spaces left out; none at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str, otherwise: str) -> None:
        if self._next() != character:
            raise self._fault(otherwise)
        self._at += 1

    def _fault(self, why: str) -> SourceError:
        line = self._text.count("\n", 0, self._at) + 1
        return SourceError(
            f"{self._where}, line {line:,}: is not JSON as expected{f': {why}' if why else ''}\n"
            "  the file was cut off, or is no JSON document"
        )
