"""The rows of one batch, in files or held in memory, as queries read them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from platform_core.lake.comparison import HELD_ROWS, LANDED_ROWS, Landed
from platform_core.lake.session import Session
from platform_core.lake.storage import engine_path, engine_root, filesystem
from platform_core.plugins.interfaces import BronzeLoad


class LandedRows:
    """The rows of one load."""

    def __init__(self, load: BronzeLoad) -> None:
        self._load = load
        self._landed = load.land is None

    @property
    def as_read(self) -> Landed:
        """How SQL sees them."""
        return Landed(held=self._load.rows is not None)

    @property
    def bytes(self) -> int:
        """Size in memory, or of the files."""
        load = self._load
        if load.rows is not None:
            return int(load.rows.nbytes)
        sizes = 0
        for uri in load.files:
            folder, _, name = uri.rpartition("/")
            sizes += filesystem(folder, load.storage_options).get_file_info(name).size or 0
        return sizes

    def land(self) -> None:
        """Bring rows that are held in memory into the landing, once; called before anything is written."""
        if not self._landed and self._load.land is not None:
            self._load.land()
            self._landed = True

    def offer(self, connection: Any, session: Session) -> tuple[dict[str, Any], int]:
        """Let a connection read the rows; returns the parameters for that, and the number of rows."""
        rows, load = self._load.rows, self._load
        if rows is not None:
            import numpy as np

            position = pa.array(np.arange(rows.num_rows, dtype=np.int64))
            placed = rows.append_column("file_index", pa.array(np.zeros(rows.num_rows, dtype=np.int64)))
            connection.register(HELD_ROWS, placed.append_column("file_row_number", position))
            return {}, rows.num_rows
        files = []
        for uri in load.files:
            folder, _, name = uri.rpartition("/")
            files.append(engine_path(f"{engine_root(session, folder, load.storage_options)}/{name}"))
        ((count,),) = connection.execute(LANDED_ROWS, {"landed": files}).fetchall()
        return {"landed": files}, int(count)
