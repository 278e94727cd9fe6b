"""Says how a row of the control tables is written in a control file."""

from __future__ import annotations

import re
from typing import Any

from platform_core.control.shapes import KINDS as FILES
from platform_core.control.shapes import WORKSTREAM, Kind
from platform_core.control.store.codec import Content, codec
from platform_core.control.store.kinds import KINDS

_REFERENCE = re.compile(r"\$\{(?!env\.state\}|location\.root\})")
_FILES = {kind.model: kind for kind in FILES.values()}


def file_kind(kind: str) -> Kind | None:
    """The kind of control file that lists specs of a kind; None: the location's own file, or that of variables."""
    return _FILES.get(KINDS[kind].model)


def head_of(kind: str, content: Content) -> dict[str, str]:
    """What stands at the top of a file for every entry of it."""
    found = file_kind(kind)
    return {} if found is None else {key: str(content[key]) for key in found.head}


def written(kind: str, content: Content) -> dict[str, Any]:
    """An entry of a control file: what differs from the defaults, by key, as a person writes it.

    Args:
        content: a row of that kind.
    """
    rows = codec(KINDS[kind])
    own = {
        column.key: content[column.name]
        for column in rows.columns
        if column.name in content and content[column.name] != column.plain_default
    }
    head = file_kind(kind)
    for key in head.head if head else (WORKSTREAM,):
        own.pop(key, None)
    if head is not None and head.flat:
        own.update(own.pop("options", None) or {})
    if kind == "variable":
        own.update(own.pop("values", None) or {})
        own.pop("name", None)
    if kind == "location":
        own.pop("name", None)
    if kind in ("ingestion", "processing") and "columns" in own:
        own["columns"] = {name: _column(column) for name, column in own["columns"].items()}
    return {key: _escaped(value) for key, value in own.items()}


def _column(column: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in column.items() if key != "masking"}
    masking = column.get("masking")
    if not masking:
        return found
    return {"mask": masking["mask"], **masking.get("options", {}), **found}


def _escaped(value: Any) -> Any:
    """Texts that would be read as references to variables, so that they are not."""
    if isinstance(value, str):
        return _REFERENCE.sub("$${", value)
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return value
