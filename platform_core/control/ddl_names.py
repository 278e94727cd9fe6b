"""Which tables a migration may name as its own."""

from __future__ import annotations

from sqlglot import exp

from platform_core.control.ddl_parsing import SqlFault
from platform_core.specs.base import is_name
from platform_core.specs.processing import RESERVED_LAYERS
from platform_core.specs.table import TableRef

_PLATFORMS_OWN = tuple(layer for layer in (*RESERVED_LAYERS, "quarantine", "source_state", "ddl") if layer != "bronze")


def own_name(node: exp.Expression, workstream: str) -> TableRef:
    """The table that a statement changes.

    Raises:
        SqlFault: it is of another workstream, or in a layer that is the platform's own.
    """
    if not isinstance(node, exp.Table) or not node.name:
        raise SqlFault("a table is named layer.name", "such as gold.stations")
    return lake_name(".".join(part.name for part in node.parts), workstream)


def lake_name(written: str, workstream: str) -> TableRef:
    """As :func:`own_name`, of a name as text."""
    try:
        # SQL names are the same in any case, and all names of the platform are lower case.
        ref = TableRef.parse(written.lower(), workstream=workstream)
    except ValueError:
        raise SqlFault(
            f"'{written}' is no table of the lake",
            f"write layer.name, such as gold.{written.rpartition('.')[2] or 'x'}",
        ) from None
    if ref.workstream != workstream:
        raise SqlFault(
            f"'{ref}' belongs to workstream '{ref.workstream}'; this migration is of '{workstream}'",
            f"change it in ddl/{ref.workstream}/ of the location that holds that workstream",
        )
    if not all(is_name(part) for part in ref):
        raise SqlFault(f"'{written}': names are lower case letters, digits and _, and start with a letter")
    if ref.layer in _PLATFORMS_OWN:
        raise SqlFault(f"'{ref}': layer '{ref.layer}' belongs to the platform", "use silver, gold or one of your own")
    return ref
