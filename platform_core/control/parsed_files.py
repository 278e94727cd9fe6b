"""Remembers what control files held when they were last parsed, by their text: parsing takes most of a plan's time."""

from __future__ import annotations

import hashlib
import marshal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

PathPart = str | int
Key = tuple[int, PathPart]
"""A container by its identity, and a key or index in it."""

_Entry = tuple[dict[str, Any], list[int]]
"""A parsed file without a fault, and the line of each key and item in the order of :func:`_walk`."""

_memory: ContextVar[ParsedFiles | None] = ContextVar("parsed_files", default=None)


class ParsedFiles:
    """Parsed files of one run and of the run before it; only files without a fault are remembered.

    Args:
        file: keeps them between runs; a file that is damaged or of another version of the reader is as good as none.
        reader: the module that parses; a change in it makes everything be parsed anew.
    """

    def __init__(self, file: Path, *, reader: Path) -> None:
        self._file = file
        self._version = _version(reader)
        self._before = self._load()
        self._now: dict[str, bytes] = {}

    def find(self, text: str) -> tuple[dict[str, Any], Mapping[Key, int]] | None:
        """Value and lines of a file with this text; None where it must be parsed."""
        name = _digest(text)
        kept = self._before.get(name)
        if kept is None:
            return None
        self._now[name] = kept
        # A value of its own for each caller: references in it are replaced in place.
        value, lines = marshal.loads(kept)  # noqa: S302 - our own file, in a folder that only this user writes
        return value, LateLines(value, lines)

    def keep(self, text: str, value: dict[str, Any], lines: Mapping[Key, int]) -> None:
        """Remember a file that was parsed without a fault."""
        entry: _Entry = (value, [lines[key] for key, _ in _walk(value)])
        self._now[_digest(text)] = marshal.dumps(entry)

    def save(self) -> None:
        """Keep what this run has seen; a run that fails to is a run that remembers nothing."""
        if self._now.keys() == self._before.keys():
            return
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._file.parent, delete=False) as file:
                file.write(marshal.dumps((self._version, self._now)))
            Path(file.name).replace(self._file)

    def _load(self) -> dict[str, bytes]:
        try:
            version, entries = marshal.loads(self._file.read_bytes())  # noqa: S302 - as above
        except (OSError, ValueError, EOFError, TypeError):
            return {}
        return entries if version == self._version and isinstance(entries, dict) else {}


class LateLines(Mapping[Key, int]):
    """Lines that are laid out when the first of them is asked for; those of the file's own lists are at hand."""

    def __init__(self, value: dict[str, Any], lines: list[int]) -> None:
        self._value = value
        self._lines = lines
        self._laid_out: dict[Key, int] | None = None

    def __getitem__(self, key: Key) -> int:
        return self._all()[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._lines)

    def items_of(self, items: list[Any]) -> list[int]:
        """Line of each item of a list."""
        place = len(self._value)
        for inner in self._value.values():
            if inner is items:
                return self._lines[place : place + len(items)]
            place += len(inner) if isinstance(inner, (dict, list)) else 0
        return [self[id(items), index] for index in range(len(items))]

    def _all(self) -> dict[Key, int]:
        if self._laid_out is None:
            self._laid_out = dict(zip((key for key, _ in _walk(self._value)), self._lines, strict=True))
        return self._laid_out


@contextmanager
def remembering(file: Path, *, reader: Path) -> Iterator[None]:
    """Within the block control files are parsed only where their text is not among those remembered in ``file``."""
    memory = ParsedFiles(file, reader=reader)
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)
        memory.save()


def current_memory() -> ParsedFiles | None:
    """The memory of the block that this is called in; None: there is none."""
    return _memory.get()


def _walk(value: dict[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Every key and item of a file: first those of the file itself, then those of its lists, then what is nested."""
    waiting: list[Any] = [value]
    for container in waiting:
        identity = id(container)
        for key, inner in container.items() if isinstance(container, dict) else enumerate(container):
            yield (identity, key), inner
            if isinstance(inner, (dict, list)):
                waiting.append(inner)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _version(reader: Path) -> str:
    own = b"".join(hashlib.sha256(module.read_bytes()).digest() for module in (reader, Path(__file__)))
    return f"{sys.version} {yaml.__version__} {hashlib.sha256(own).hexdigest()}"
