"""The numbers of rows that were accepted last, kept beside the table: what ``row_count_change`` compares with.

The table's own earlier versions would not do: run again after a loss, a step would be compared with the loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from platform_core.lake.paths import Lake
from platform_core.lake.source_state import read_state, write_state
from platform_core.specs.expectation import RowCountChange, percent, quality_state
from platform_core.specs.table import TableRef

_FILE = 0
"""Number under which they are kept: there is one file a table."""

Counts = dict[str, dict[str, Any]]
"""``rows``, ``where``, ``version`` and ``at`` by name of the check."""


def read_counts(table: TableRef, lake: Lake) -> Counts:
    """What was kept; empty where nothing was.

    Raises:
        StorageError: the lake refused.
    """
    kept = read_state(lake.table(quality_state(table)), _FILE, storage_options=lake.storage_options)
    found: Counts = {} if kept is None else json.loads(kept)
    return found


def write_counts(table: TableRef, lake: Lake, counts: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep them in the place of those before, whole and durably.

    Raises:
        StorageError: the lake refused.
    """
    text = json.dumps(counts, sort_keys=True).encode()
    write_state(lake.table(quality_state(table)), _FILE, text, storage_options=lake.storage_options)


def moved(change: RowCountChange, *, before: int, rows: int) -> str:
    """In words what moved too far; empty: nothing."""
    if not before:
        return ""
    if change.fewer is not None and (before - rows) * 100 > percent(change.fewer) * before:
        return f"{rows:,} rows after {before:,} are more than {change.fewer} fewer"
    if change.more is not None and (rows - before) * 100 > percent(change.more) * before:
        return f"{rows:,} rows after {before:,} are more than {change.more} more"
    return ""
