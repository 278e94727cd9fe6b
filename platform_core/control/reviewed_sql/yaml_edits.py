"""Changes single values in the text of a control file, and leaves every other character of it as it is.

The parser says where each value begins and ends; only that stretch of the text is written anew, so that comments,
order, quotes and line breaks of people stay. Whoever edits reads the result again and compares: see ``exporting``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from platform_core.control.documents import PathPart, scalar

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./@+:-]*( [A-Za-z0-9_./@+-]+)*")
_BLOCK_SCALARS = ("|", ">")


class EditFault(ValueError):  # noqa: N818 - of a text, not of the program
    """A change that cannot be made in this text without a person."""


class YamlText:
    """The text of one file, changed step by step."""

    def __init__(self, text: str) -> None:
        self.text = text

    def raw(self, path: Sequence[PathPart]) -> str | None:
        """A scalar as it is written, references and all; None where there is none, or no scalar."""
        node = self._find(path)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def has(self, path: Sequence[PathPart]) -> bool:
        """Whether there is a value at a path."""
        return self._find(path) is not None

    def put(self, path: Sequence[PathPart], value: Any) -> None:
        """Give a key a value, in place of the one it has.

        Raises:
            EditFault: what the key belongs to is not there.
        """
        *above, key = path
        mapping = self._find(above)
        if isinstance(mapping, yaml.ScalarNode) and not mapping.value and above:
            # A key without a value, such as `columns:`.
            self.put(above, {str(key): value})
            return
        if not isinstance(mapping, yaml.MappingNode):
            raise EditFault("there is nothing to write it into")
        pair = next(((name, node) for name, node in mapping.value if name.value == key), None)
        if pair is None:
            self._add(mapping, str(key), value)
        else:
            self._replace(*pair, value)

    def take_out(self, path: Sequence[PathPart]) -> None:
        """Remove a key, or an item of a list.

        Raises:
            EditFault: it is not there, or is written in a way that only a person can change.
        """
        *above, last = path
        container = self._find(above)
        if isinstance(container, yaml.MappingNode):
            places = [place for place, (name, _) in enumerate(container.value) if name.value == last]
            parts = [(name, node) for name, node in container.value]
        elif isinstance(container, yaml.SequenceNode):
            places = [place for place in range(len(container.value)) if place == last]
            parts = [(node, node) for node in container.value]
        else:
            places, parts = [], []
        if not places:
            raise EditFault("it is not there")
        if len(parts) == 1:
            if not above:
                raise EditFault("nothing would be left of the file")
            self.put(above, [] if isinstance(container, yaml.SequenceNode) else {})
        elif isinstance(container, yaml.CollectionNode) and container.flow_style:
            self._cut_flow(parts, places[0])
        else:
            self._cut_block(container, parts, places[0])

    def append(self, path: Sequence[PathPart], item: Mapping[str, Any]) -> None:
        """Add a mapping to a list.

        Raises:
            EditFault: there is no list.
        """
        found = self._find(path)
        if not isinstance(found, yaml.SequenceNode) or not found.value:
            self.put(path, [dict(item)])
        elif found.flow_style:
            self._insert(self._end(found.value[-1]), f", {inline(dict(item))}")
        else:
            indent = " " * found.start_mark.column
            self._insert(self._line_end(self._end(found)), "\n" + as_item(item, indent=indent))

    def _add(self, mapping: yaml.MappingNode, key: str, value: Any) -> None:
        told = f"{inline(key)}: {inline(value)}"
        if not mapping.value:
            self._write(self._start(mapping), self._end(mapping), f"{{{told}}}")
        elif mapping.flow_style:
            self._insert(self._end(mapping.value[-1][1]), f", {told}")
        else:
            indent = " " * mapping.value[0][0].start_mark.column
            self._insert(self._line_end(self._end(mapping)), f"\n{indent}{told}")

    def _replace(self, key: yaml.Node, node: yaml.Node, value: Any) -> None:
        start, end = self._start(node), self._end(node)
        is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') and isinstance(value, str):
            self._write(start, end, _quoted(value, node.style))
        elif is_block and isinstance(node, yaml.SequenceNode) and isinstance(value, list) and value:
            indent = " " * node.start_mark.column
            self._write(start, end, f"\n{indent}".join(f"- {inline(each)}" for each in value))
        elif is_block or end == start or (isinstance(node, yaml.ScalarNode) and node.style in _BLOCK_SCALARS):
            colon = self.text.index(":", self._end(key)) + 1
            self._write(colon, max(end, colon), f" {inline(value)}")
        else:
            self._write(start, end, inline(value))

    def _cut_flow(self, parts: Sequence[tuple[yaml.Node, yaml.Node]], place: int) -> None:
        if place + 1 < len(parts):
            self._write(self._start(parts[place][0]), self._start(parts[place + 1][0]), "")
        else:
            self._write(self._end(parts[place - 1][1]), self._end(parts[place][1]), "")

    def _cut_block(self, container: yaml.Node | None, parts: Sequence[tuple[yaml.Node, yaml.Node]], place: int) -> None:
        first, last = parts[place]
        start = self._start(first)
        if isinstance(container, yaml.SequenceNode):
            start = self.text.rindex("-", 0, start)
        begin = self.text.rfind("\n", 0, start) + 1
        if self.text[begin:start].strip():
            # Something else stands before it on its line, such as the dash of the item that it is the first key of.
            if isinstance(container, yaml.SequenceNode) or place + 1 == len(parts):
                raise EditFault("it shares its line with something else")
            self._write(start, self._start(parts[place + 1][0]), "")
            return
        self._write(begin, min(self._line_end(self._end(last)) + 1, len(self.text)), "")

    def _find(self, path: Sequence[PathPart]) -> yaml.Node | None:
        node: yaml.Node | None = yaml.compose(self.text, Loader=yaml.CBaseLoader)
        for part in path:
            if isinstance(node, yaml.MappingNode):
                node = next((value for key, value in node.value if key.value == part), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                return None
        return node

    def _start(self, node: yaml.Node) -> int:
        return self._offset(node.start_mark)

    def _end(self, node: yaml.Node) -> int:
        """Behind the last character of a node; of a block the parser says where the next thing begins."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return max(self._end(each) for each in (last if isinstance(last, tuple) else (last,)))
        end = self._offset(node.end_mark)
        if isinstance(node, yaml.ScalarNode) and node.style in _BLOCK_SCALARS:
            return len(self.text[:end].rstrip())
        return end

    def _offset(self, mark: Any) -> int:
        lines = self.text.split("\n")
        return sum(len(line) + 1 for line in lines[: mark.line]) + int(mark.column)

    def _line_end(self, offset: int) -> int:
        found = self.text.find("\n", offset)
        if found == -1:
            return len(self.text)
        return found - 1 if self.text[found - 1] == "\r" else found

    def _insert(self, offset: int, text: str) -> None:
        self._write(offset, offset, text)

    def _write(self, start: int, end: int, text: str) -> None:
        if "\r\n" in self.text:
            text = text.replace("\n", "\r\n")
        self.text = self.text[:start] + text + self.text[end:]


def inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(key)}: {inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, str):
        return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def as_item(item: Mapping[str, Any], *, indent: str = "") -> str:
    """A mapping as an item of a list, a line for each key."""
    lines = [f"{inline(key)}: {inline(value)}" for key, value in item.items()]
    return f"{indent}- " + f"\n{indent}  ".join(lines)


def _is_plain(text: str) -> bool:
    """Whether a text means itself without quotes."""
    return bool(_PLAIN.fullmatch(text)) and ": " not in f"{text} " and scalar(text) == text


def _quoted(text: str, style: str) -> str:
    if style == "'" and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return json.dumps(text, ensure_ascii=False)
