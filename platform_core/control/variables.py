"""Puts values in the place of ``${var.name}`` and ``${env.state}`` in control YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from platform_core.control.documents import Document
from platform_core.control.report import Report, excerpt
from platform_core.specs.variable import Value

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


def interpolate(document: Document, values: Mapping[str, Value | None], report: Report) -> bool:
    """Replace the references in every text of a document, in place.

    A text that is nothing but one reference takes over the value with its type, so that ``port: ${var.port}``
    is a number. ``$${`` stands for a literal ``${``.

    Args:
        document: what was read.
        values: by reference (``var.rides``); None for a variable without a value in this environment.
        report: takes what cannot be replaced.

    Returns:
        Whether everything could be replaced.
    """
    replacer = _Replacer(document, values, report)
    waiting: list[Any] = [document.value]
    while waiting:
        container = waiting.pop()
        items: list[tuple[Any, Any]] = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, value in items:
            if isinstance(value, str):
                if "${" in value:
                    container[key] = replacer.replace(value, document.lines.get((id(container), key), 0))
            elif isinstance(value, (dict, list)):
                waiting.append(value)
    return replacer.complete


class _Replacer:
    def __init__(self, document: Document, values: Mapping[str, Value | None], report: Report) -> None:
        self.document = document
        self.values = values
        self.report = report
        self.complete = True

    def replace(self, text: str, line: int) -> Value:
        whole = _REFERENCE.fullmatch(text)
        if whole is not None and whole[1] is not None:
            return self._value(whole[1], line)
        return _REFERENCE.sub(lambda match: self._text(match, line), text)

    def _text(self, match: re.Match[str], line: int) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            self._refuse(line, "a reference '${' is not closed", "write ${var.name}, or $${ for a literal ${")
            return ""
        value = self._value(match[1], line)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _value(self, name: str, line: int) -> Value:
        if name not in self.values:
            hints = self.report.choice("variables", name, self.values)
            self._refuse(line, f"unknown variable '{excerpt(name)}'", *hints)
            return ""
        value = self.values[name]
        if value is None:
            self._refuse(line, f"variable '{name}' has no value in this environment", "give it one, or a default")
            return ""
        return value

    def _refuse(self, line: int, message: str, *hints: str) -> None:
        self.complete = False
        self.report.add(self.document.file, line, message, *hints)
