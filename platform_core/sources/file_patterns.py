"""Finds the entries of a tree of folders that match a pattern, and never looks away from a folder it cannot list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Literal

from platform_core.errors import SourceError

_MAGIC = re.compile(r"[*?[]")
# Office programs and rsync name files so while somebody has them open or is writing them.
_HIDDEN = (".", "~$")


Kind = Literal["file", "folder", "link", "other"]
"""What lies at a path; ``link``: one that the storage does not resolve; ``other``: a device, a pipe, a socket."""


@dataclass(frozen=True)
class Entry:
    """Something in a folder.

    Args:
        name: path relative to the root, with slashes.
        linked: whether it is a link, to whatever ``kind`` says.
        info: what the storage said of it.
    """

    name: str
    kind: Kind
    linked: bool = False
    info: Mapping[str, Any] = field(default_factory=dict, compare=False)


Entries = Callable[[str], list[Entry]]
"""Gives the entries of a folder, itself relative to the root; none where there is no such folder."""


def check_pattern(pattern: str, *, where: str) -> None:
    """Raise SourceError unless the pattern names something below the root, whatever it matches."""
    parts = PurePosixPath(pattern).parts
    if pattern.startswith(("/", "~")) or ".." in parts or "\\" in pattern or "://" in pattern or "\0" in pattern:
        raise SourceError(
            f"{where}: the object must be a path or glob below the connection's root, such as weather/*.csv\n"
            "  absolute paths, '..', '~', backslashes and URLs are refused"
        )
    if any("**" in part and part != "**" for part in parts):
        raise SourceError(f"{where}: '**' stands for any number of folders, so it must stand alone between slashes")


def matching(pattern: str, *, entries: Entries, entry: Callable[[str], Entry | None]) -> list[Entry]:
    """What matches a pattern, by name, each once.

    ``*``, ``?`` and ``[…]`` match within one name, and no name that begins with a dot or ``~$``; ``**`` matches any
    number of folders and follows no links. Any error of listing a folder ends the search.

    Args:
        entries: lists a folder.
        entry: what lies at a path; None: nothing.
    """
    known: dict[str, list[Entry]] = {}

    def listed(folder: str) -> list[Entry]:
        if folder not in known:
            known[folder] = entries(folder)
        return known[folder]

    found = _walk([part for part in pattern.split("/") if part not in ("", ".")], "", listed, entry)
    return sorted({item.name: item for item in found}.values(), key=lambda item: item.name)


def _walk(parts: list[str], folder: str, entries: Entries, entry: Callable[[str], Entry | None]) -> Iterator[Entry]:
    if not parts:
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _walk(rest or ["*"], folder, entries, entry)
        for item in entries(folder):
            if item.kind == "folder" and not item.linked and _shown(item.name):
                yield from _walk(parts, item.name, entries, entry)
    elif not _MAGIC.search(head):
        path = f"{folder}/{head}" if folder else head
        if rest:
            yield from _walk(rest, path, entries, entry)
        elif (found := entry(path)) is not None:
            yield found
    else:
        for item in entries(folder):
            name = item.name.rpartition("/")[2]
            if (head.startswith(".") or _shown(name)) and fnmatchcase(name, head):
                if not rest:
                    yield item
                elif item.kind == "folder":
                    yield from _walk(rest, item.name, entries, entry)


def _shown(name: str) -> bool:
    return not name.rpartition("/")[2].startswith(_HIDDEN)
