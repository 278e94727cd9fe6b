"""Tells whether an open Delta table is still the newest version, for less than opening it again costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_core.lake.storage import filesystem, local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable


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
