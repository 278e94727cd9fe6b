"""When the keys of source and bronze are compared, to find rows that the source lost without saying so."""

from __future__ import annotations

import datetime as dt

from platform_core.control.loads import Loads
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.table import TableRef

COMPARED_AT = "keys_compared_at"
"""Figure of the load log: when the keys were last compared; each load hands it on to the next."""

_LOOKED_BACK = 50
_EARLY = 0.1
"""Share of the interval by which a comparison may come early: a daily load that begins a second earlier than yesterday
would otherwise compare every other day."""


def last_compared(loads: Loads, table: TableRef) -> dt.datetime | None:
    """When the keys of a table were last compared, UTC; None where the load log does not know.

    Then a comparison is due: one too many costs time, one too few leaves rows that are gone.
    """
    for row in loads.recent(table=table, limit=_LOOKED_BACK):
        if row.status == "succeeded" and (text := row.figures.get(COMPARED_AT)):
            return dt.datetime.fromisoformat(text)
    return None


def is_due(spec: IngestionSpec, last: dt.datetime | None, *, now: dt.datetime) -> bool:
    """Whether the keys are to be compared now."""
    if spec.detect_deletes is None:
        return False
    return last is None or now - last >= spec.detect_deletes.every * (1 - _EARLY)
