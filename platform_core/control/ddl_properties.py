"""Which properties a migration may give to a Delta table."""

from __future__ import annotations

import re
from collections.abc import Mapping

from platform_core.control.ddl_parsing import SqlFault

_OWN = re.compile(r"(?!delta\.|edp\.)[A-Za-z][A-Za-z0-9_.-]{0,127}")
_WHOLE = re.compile(r"[1-9][0-9]{0,8}")
_COUNT = re.compile(r"-1|[0-9]{1,4}")
_SPAN = re.compile(r"interval [1-9][0-9]{0,4} (second|minute|hour|day|week)s?", re.IGNORECASE)
_FLAG = re.compile(r"true|false", re.IGNORECASE)
_COLUMNS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(, ?[A-Za-z_][A-Za-z0-9_]*)*")

_KNOWN: Mapping[str, tuple[re.Pattern[str], str]] = {
    "delta.logRetentionDuration": (_SPAN, "interval 30 days"),
    "delta.deletedFileRetentionDuration": (_SPAN, "interval 7 days"),
    "delta.checkpointInterval": (_WHOLE, "20"),
    "delta.dataSkippingNumIndexedCols": (_COUNT, "32"),
    "delta.dataSkippingStatsColumns": (_COLUMNS, "day, station_id"),
    "delta.targetFileSize": (_WHOLE, "134217728"),
    "delta.enableExpiredLogCleanup": (_FLAG, "true"),
}
"""Delta's own properties that change neither what a file means nor who may write."""

_WHY_NOT = {
    "delta.appendOnly": "bronze and every step that overwrites or merges would fail",
    "delta.columnMapping.mode": "delta-rs cannot write such a table; RENAME and DROP COLUMN work without it",
    "delta.enableDeletionVectors": "delta-rs cannot write such a table",
    "delta.enableChangeDataFeed": "bronze's commits would leave no change data, so the feed would be wrong",
    "delta.setTransactionRetentionDuration": "batch ids are kept in transactions: they would be forgotten",
    "delta.minReaderVersion": "the protocol follows from what the table uses",
    "delta.minWriterVersion": "the protocol follows from what the table uses",
}


def checked_properties(given: Mapping[str, str]) -> dict[str, str]:
    """Properties that may be set.

    Raises:
        SqlFault: one would change how the table is read or written, or has no sensible value.
    """
    for key, value in given.items():
        if key in _KNOWN:
            pattern, example = _KNOWN[key]
            if not pattern.fullmatch(value):
                raise SqlFault(f"property '{key}' cannot be '{value[:60]}'", f"an example: '{example}'")
        elif key.startswith("delta."):
            why = _WHY_NOT.get(key, "it would change how the table is read or written, or is not known here")
            raise SqlFault(f"property '{key}' cannot be set: {why}", f"known: {', '.join(_KNOWN)}")
        elif not _OWN.fullmatch(key):
            raise SqlFault(f"'{key[:60]}' is no name of a property", "letters, digits and . _ -, not edp. at its begin")
    return dict(given)
