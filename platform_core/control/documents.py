"""Read one YAML file strictly: what a person sees in it is what the platform gets.

YAML has many ways to surprise: ``no`` is false, ``12:30`` is 750, the last of two equal keys wins, an alias
can blow up a kilobyte to a gigabyte. Here scalars follow the core schema of YAML 1.2, and everything that hides
what is meant is refused, with its line. The parser's events are read in a loop and never by recursion, so that
no nesting, however deep, can exhaust the stack.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from platform_core.control.parsed_files import LateLines, current_memory
from platform_core.control.report import Report, excerpt
from platform_core.errors import Place

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50

PathPart = str | int
"""A key of a mapping or an index of a list."""

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MERGE_KEY = "<<"
_QUOTED = ("'", '"', "|", ">")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PADDED = re.compile(r"[-+]?0[0-9]+")
_BITS = 64

# Characters that a reader does not see: controls, zero-width and direction marks, lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

_CONSTANTS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


@dataclass(frozen=True)
class Document:
    """One file, as plain values that remember their lines.

    Args:
        file: the file.
        value: mappings, lists, texts, numbers, true/false and None only.
        templated: whether any text may hold a ``${…}``.
        lines: line by container and key; the container by its identity, which is why values are changed in place.
    """

    file: Path
    value: dict[str, Any]
    templated: bool = False
    lines: Mapping[tuple[int, PathPart], int] = field(default_factory=dict, repr=False)

    def line(self, path: Sequence[PathPart] = ()) -> int:
        """Line of a key or list item, counted from 1; of the deepest part of the path that the file has."""
        line, container = 1, self.value
        for part in path:
            found = self.lines.get((id(container), part))
            if found is None:
                break
            line, container = found, container[part]  # type: ignore[index]
        return line

    def place(self, path: Sequence[PathPart] = ()) -> Place:
        """File and line of a key or list item."""
        return Place(self.file, self.line(path))

    def item_lines(self, items: list[Any]) -> list[int]:
        """Line of each item of a list of this document."""
        if isinstance(self.lines, LateLines):
            return self.lines.items_of(items)
        identity = id(items)
        return [self.lines[identity, index] for index in range(len(items))]


def read_document(file: Path, report: Report, *, example: str = "key: value") -> Document | None:
    """Read one file; what is wrong with it goes to the report.

    Args:
        file: a YAML file.
        report: takes the issues.
        example: shown where the file is empty or holds something else than a mapping.

    Returns:
        The document, or None where there is none to go on with.
    """
    text = _read_text(file, report)
    if text is None:
        return None
    memory = current_memory()
    if memory is not None and (known := memory.find(text)) is not None:
        return Document(file, known[0], "${" in text, known[1])
    reader = _Reader(file, report)
    if not reader.read(text):
        return None
    if reader.root is None or reader.root == {}:
        # A file whose only keys were refused is not empty.
        if not reader.refused:
            report.add(file, 0, "the file is empty", f"it should begin like: {example}")
        return None
    if not isinstance(reader.root, dict):
        report.add(file, 1, f"expected a mapping, got {kind_of(reader.root)}", f"it should begin like: {example}")
        return None
    if memory is not None and not reader.refused:
        memory.keep(text, reader.root, reader.lines)
    return Document(file, reader.root, "${" in text, reader.lines)


def scalar(text: str) -> Any:  # any YAML scalar
    """The value of an unquoted scalar by the core schema of YAML 1.2.

    Numbers with leading zeros stay texts (``007`` is a code, not seven), so do ``.inf`` and ``.nan``.

    Raises:
        ValueError: a number that does not fit in 64 bits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    first = text[0]
    if not (first.isdigit() or first in "+-.") or _PADDED.fullmatch(text):
        return text
    if _INTEGER.fullmatch(text):
        # The length goes first: turning a million digits into a number takes for ever.
        number = int(text, 0) if len(text) <= _BITS else 2**_BITS
        if number.bit_length() >= _BITS:
            raise ValueError("the number does not fit in 64 bits; in quotes it is a text")
        return number
    if _FLOAT.fullmatch(text):
        number_ = float(text)
        if number_ in (float("inf"), float("-inf")):
            raise ValueError("the number does not fit in 64 bits; in quotes it is a text")
        return number_
    return text


def hidden_character(text: str) -> str | None:
    """The first character that a reader does not see; None: there is none."""
    found = _HIDDEN.search(text)
    return found[0] if found else None


def kind_of(value: object) -> str:
    """What a person calls a value of this type; the value itself is not shown."""
    for type_, words in _KINDS:
        if isinstance(value, type_):
            return words
    return "nothing"


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (str, "a text"),
    (int, "a whole number"),
    (float, "a number"),
    (list, "a list"),
    (dict, "a mapping"),
)


def _read_text(file: Path, report: Report) -> str | None:
    try:
        status = file.stat()
        # A pipe or device would block for ever or never end.
        if not stat.S_ISREG(status.st_mode):
            report.add(file, 0, "is not a regular file")
            return None
        if status.st_size > MAX_BYTES:
            report.add(file, 0, f"has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read", "split the file")
            return None
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        report.add(file, 0, f"cannot be read: {error.strerror or type(error).__name__}")
        return None
    if data.startswith(_BYTE_ORDER_MARKS):
        report.add(file, 1, "begins with a byte order mark", "save the file as UTF-8 without BOM")
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        report.add(file, data.count(b"\n", 0, error.start) + 1, "is not UTF-8 text", "save the file as UTF-8")
        return None
    return text if _check_characters(file, text, report) else None


def _check_characters(file: Path, text: str, report: Report) -> bool:
    clean = True
    for number, line in enumerate(text.split("\n"), start=1):
        if line.isascii() and "\t" not in line and line.rstrip("\r").isprintable():
            continue
        if "\t" in line:
            report.add(file, number, "holds a tab", 'indent with spaces; inside a text write "\\t"')
            clean = False
        if found := _HIDDEN.search(line.rstrip("\r")):
            report.add(file, number, f"holds the invisible character U+{ord(found[0]):04X}", "remove it")
            clean = False
    return clean


class _Reader:
    """Builds plain values from the events of one file."""

    def __init__(self, file: Path, report: Report) -> None:
        self.file = file
        self.report = report
        self.root: Any = None
        self.lines: dict[tuple[int, PathPart], int] = {}
        self.refused = False
        self._complete = True
        self._left_out: list[Any] = []
        # The open containers; for a mapping also the key that waits for its value.
        self._stack: list[dict[Any, Any] | list[Any]] = []
        self._keys: list[Any] = []
        self._scalars: dict[str, Any] = {}

    def read(self, text: str) -> bool:
        """Read all events; false where a part of the file has no value."""
        parser = yaml.CBaseLoader(text)
        try:
            self._read(parser.get_event)
        except _TooManyFaults:
            return False
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 0
            self.report.add(self.file, line, f"is not valid YAML: {_problem(error)}", *_advice(error))
            return False
        except yaml.YAMLError:
            # A reader error: a character that YAML does not allow.
            self.report.add(self.file, 0, "is not valid YAML: it holds a character that YAML does not allow")
            return False
        finally:
            parser.dispose()
        return self._complete

    def _read(self, next_event: Callable[[], Any]) -> None:
        documents = 0
        # Looked up once: the loop runs for every scalar of every file.
        scalar_event, mapping_start, mapping_end = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.MappingEndEvent
        sequence_start, sequence_end = yaml.SequenceStartEvent, yaml.SequenceEndEvent
        while True:
            event = next_event()
            kind = event.__class__
            if kind is scalar_event:
                self._put(self._scalar(event), event)
            elif kind is mapping_end or kind is sequence_end:
                self._stack.pop()
                self._keys.pop()
            elif kind is mapping_start or kind is sequence_start:
                if len(self._stack) >= MAX_DEPTH:
                    self._refuse(event, f"is nested more than {MAX_DEPTH} levels deep", "simplify it")
                    self._complete = False
                    return
                self._open(event, {} if kind is mapping_start else [])
            elif kind is yaml.AliasEvent:
                self._refuse(event, "uses an alias (*name)", "write the value out where it is needed")
                self._complete = False
                self._put(None, event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if event.version or event.tags:
                    self._refuse(event, "has a %YAML or %TAG line", "remove it")
                if documents > 1:
                    self._refuse(event, "holds more than one document (---)", "make a file of each")
                    self._complete = False
                    return
            elif kind is yaml.StreamEndEvent:
                return

    def _scalar(self, event: Any) -> Any:  # an event in, any scalar out
        if event.anchor is not None or event.tag is not None:
            self._check_properties(event)
        text: str = event.value
        if event.style in _QUOTED:
            if not text.isprintable() and (found := _HIDDEN.search(text)):
                self._refuse(event, f"holds the invisible character U+{ord(found[0]):04X}", "remove it")
            return text
        try:
            return self._scalars[text]
        except KeyError:
            pass
        try:
            value = scalar(text)
        except ValueError as error:
            self._refuse(event, str(error))
            return text
        self._scalars[text] = value
        return value

    def _open(self, event: Any, container: dict[Any, Any] | list[Any]) -> None:
        if event.anchor is not None or event.tag is not None:
            self._check_properties(event)
        self._put(container, event)
        self._stack.append(container)
        self._keys.append(_NO_KEY)

    def _put(self, value: Any, event: Any) -> None:
        """Hand a value to the innermost open container, or keep it as the next key there."""
        if not self._stack:
            self.root = value
            return
        container = self._stack[-1]
        if isinstance(container, list):
            self.lines[id(container), len(container)] = event.start_mark.line + 1
            container.append(value)
            return
        key = self._keys[-1]
        if key is _NO_KEY:
            self._keys[-1] = self._key(value, event, container)
            return
        self._keys[-1] = _NO_KEY
        if key is not _REFUSED_KEY:
            container[key] = value
        else:
            # Kept alive, or a later container could take over its identity and with it its lines.
            self._left_out.append(value)

    def _key(self, key: Any, event: Any, mapping: Any) -> Any:
        line = event.start_mark.line + 1
        if key.__class__ is not str:
            words = "nothing" if key is None else kind_of(key)
            self._refuse(event, f"a key must be a text, this is {words}", "put it in quotes")
            return _REFUSED_KEY
        if key == _MERGE_KEY:
            self._refuse(event, "uses a merge key (<<)", "write the keys out where they are needed")
            return _REFUSED_KEY
        if key in mapping:
            first = self.lines[id(mapping), key]
            self._refuse(event, f"key '{excerpt(key)}' stands twice", f"it stands on line {first} too; remove one")
            return _REFUSED_KEY
        self.lines[id(mapping), key] = line
        return key

    def _check_properties(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, "uses an anchor (&name)", "write the value out where it is needed")
        if event.tag is not None:
            self._refuse(event, "uses a tag (!name)", "remove it; quotes make a text of anything")

    def _refuse(self, event: Any, message: str, *hints: str) -> None:
        self.refused = True
        self.report.add(self.file, event.start_mark.line + 1, message, *hints)
        if self.report.is_full(self.file):
            raise _TooManyFaults


class _TooManyFaults(Exception):  # noqa: N818  # ends the reading of a file; nobody else sees it
    """Nothing more is said of a file, so that nothing more need be read of it."""


_NO_KEY = object()
_REFUSED_KEY = object()


def _problem(error: yaml.MarkedYAMLError) -> str:
    """The parser's own words, which name tokens and never quote the file."""
    return str(error.problem or "it cannot be read")


def _advice(error: yaml.MarkedYAMLError) -> tuple[str, ...]:
    problem = error.problem or ""
    if "mapping values are not allowed" in problem:
        return ("put a text that holds ': ' in quotes, and look at the indentation",)
    if "cannot start any token" in problem:
        return ("put the text in quotes",)
    if "did not find expected" in problem or "could not find expected" in problem:
        return ("look at the indentation, quotes and brackets of this line and the one above",)
    return ()
