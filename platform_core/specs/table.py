"""How tables are named across the platform: workstream, layer, name."""

from __future__ import annotations

from typing import NamedTuple


class TableRef(NamedTuple):
    """One table (or dashboard) of the platform; written ``workstream.layer.name``.

    The same three parts make the asset key, the storage path and the name in SQL.
    """

    workstream: str
    layer: str
    name: str

    def __str__(self) -> str:
        return ".".join(self)

    @classmethod
    def parse(cls, text: str, *, workstream: str) -> TableRef:
        """Read ``layer.name`` (of the given workstream) or ``workstream.layer.name``.

        Raises:
            ValueError: the text has other than two or three parts.
        """
        parts = text.split(".")
        if len(parts) == 2:
            parts = [workstream, *parts]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"'{text}' must be written layer.name or workstream.layer.name")
        return cls(*parts)
