"""Tells whether a Delta table is still what somebody saw or wrote before, for less than reading it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_core.lake.storage import filesystem, local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable


_OURS = ("edp.upkeep", "edp.fence")
"""Marks of commits that change no row of a table."""

_LOOKED_BACK = 100


def is_as_loaded(table: DeltaTable, batch_id: int) -> bool:
    """Whether a table holds all rows of a batch, none of them set aside, and nothing else has changed it since.

    Others are a restore, a statement, another writer. False where it cannot be told, because the log does not reach
    back to the batch's commit.
    """
    for commit in table.history(_LOOKED_BACK):
        if commit.get("edp.batch") == str(batch_id):
            return bool(commit.get("edp.quarantined") == "0")
        if not any(mark in commit for mark in _OURS):
            return False
    return False


def is_newest(table: DeltaTable, uri: str, *, storage_options: Mapping[str, str]) -> bool:
    """Whether no version was committed since a table was opened.

    The Delta protocol numbers commits without a gap, so that one look for the next one tells.

    Raises:
        OSError: the store cannot be read.
    """
    import pyarrow.fs

    next_commit = f"_delta_log/{table.version() + 1:020d}.json"
    if (folder := local_path(uri)) is not None:
        return not (folder / next_commit).exists()
    info = filesystem(uri, storage_options).get_file_info(next_commit)
    return bool(info.type == pyarrow.fs.FileType.NotFound)
