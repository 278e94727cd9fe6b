"""Tells whether a Delta table is still what somebody saw or wrote before, for less than reading it costs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.lake.delta import APPLICATION
from platform_core.lake.storage import filesystem, local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable


_OURS = ("edp.upkeep", "edp.fence")
"""Marks of commits that change no row of a table."""

_LOOKED_BACK = 100
_LOG = "_delta_log"
_COMMIT = ".json"
_LARGEST_COMMIT = 1 << 20


@dataclass(frozen=True)
class NewestLoad:
    """The newest commit of a table, which is a load's.

    Args:
        version: of the table.
        batch_id: of the load.
    """

    version: int
    batch_id: int


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


def newest_load(uri: str) -> NewestLoad | None:
    """The newest commit of a table of this machine; None where that is no load's, or only opening the table tells.

    Most tables are found as their last load left them: then one file of the log says as much as the whole of it.
    """
    if (folder := local_path(uri)) is None:
        return None
    try:
        return _newest_load(folder / _LOG)
    except (OSError, ValueError, KeyError):  # whoever opens the table says what is wrong with it
        return None


def _newest_load(log: Path) -> NewestLoad | None:
    names = [found.name for found in os.scandir(log)]
    commits = [name for name in names if name.endswith(_COMMIT) and name[: -len(_COMMIT)].isdigit()]
    if not commits:
        return None
    newest = max(commits)
    # A log may have been cut down to its checkpoint.
    if any(name > newest and ".checkpoint" in name for name in names if name[:1].isdigit()):
        return None
    with (log / newest).open("rb") as file:
        content = file.read(_LARGEST_COMMIT + 1)
    if len(content) > _LARGEST_COMMIT:
        return None
    for line in content.splitlines():
        if line.startswith(b'{"txn"') and (written := json.loads(line)["txn"])["appId"] == APPLICATION:
            return NewestLoad(int(newest.removesuffix(_COMMIT)), int(written["version"]))
    return None


def is_newest(version: int, uri: str, *, storage_options: Mapping[str, str]) -> bool:
    """Whether no version of a table was committed after one.

    The Delta protocol numbers commits without a gap, so that one look for the next one tells.

    Raises:
        OSError: the store cannot be read.
    """
    import pyarrow.fs

    next_commit = f"{_LOG}/{version + 1:020d}{_COMMIT}"
    if (folder := local_path(uri)) is not None:
        return not (folder / next_commit).exists()
    info = filesystem(uri, storage_options).get_file_info(next_commit)
    return bool(info.type == pyarrow.fs.FileType.NotFound)
