"""Finds the names of secrets in what is declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from platform_core.specs.base import SecretRef


def secret_names(value: object) -> Iterator[str]:
    """The names in every ``{secret: <name>}`` of a model or a parsed document, whatever its depth."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, SecretRef):
            yield node.secret
        elif isinstance(node, BaseModel):
            waiting.extend(getattr(node, name) for name in type(node).model_fields)
        elif isinstance(node, Mapping):
            if node.keys() == {"secret"} and isinstance(node["secret"], str):
                yield node["secret"]
            else:
                waiting.extend(node.values())
        elif isinstance(node, (list, tuple, set, frozenset)):
            waiting.extend(node)
