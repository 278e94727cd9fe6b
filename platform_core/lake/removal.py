"""Removes folders of the lake for good: nobody sees a table of which a part is gone."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from platform_core.errors import StorageError, redacted
from platform_core.lake.dropping import put_away
from platform_core.lake.storage import filesystem, local_path


def is_there(uri: str, *, storage_options: Mapping[str, str]) -> bool:
    """Whether a folder of the lake holds any file.

    Raises:
        StorageError: the store cannot be read.
    """
    import pyarrow.fs

    if (folder := local_path(uri)) is not None:
        return folder.is_dir()
    selector = pyarrow.fs.FileSelector("", recursive=True, allow_not_found=True)
    try:
        return any(info.is_file for info in filesystem(uri, storage_options).get_file_info(selector))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{uri}: the folder cannot be listed\n  {redacted(error)}") from None


def remove(uri: str, *, storage_options: Mapping[str, str]) -> None:
    """Remove a folder of the lake with all that is in it; doing it again goes on where it ended.

    Raises:
        StorageError: the store refused.
    """
    aside = put_away(uri, storage_options=storage_options, name=uuid.uuid4().hex[:12])
    if aside:
        parent = Path(aside).parent
        try:
            shutil.rmtree(aside)
        except OSError as error:
            raise StorageError(
                f"{uri}: was moved aside, but not all of it could be removed\n  {redacted(error)}\n"
                f"  what is left lies in {parent}"
            ) from None
        # It may hold tables that migrations dropped; those stay.
        with suppress(OSError):
            parent.rmdir()
