"""Takes the rows of one batch, and lands them only where that is needed."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from platform_core.lake.landing import LandedBatch, LandingWriter, remove_batch

HELD_BYTES = 32 * 1024 * 1024
"""A batch is held in memory up to this size."""


class BatchSink:
    """Takes the rows of one batch: holds them in memory while they are few, and lands them from then on.

    What is held can be compared with bronze before anything is written, so that a batch which changes nothing costs no
    file. Use it as a context manager: left with an error, or without :meth:`keep`, it removes what it landed.

    Args:
        uri: folder of the batch.
        schema: of the rows.
    """

    def __init__(
        self,
        uri: str,
        *,
        storage_options: Mapping[str, str],
        schema: pa.Schema,
        batch_id: int,
        mode: str,
        held_batch: int,
    ) -> None:
        self._uri = uri
        self._storage_options = storage_options
        self._schema = schema
        self._batch_id = batch_id
        self._mode = mode
        self._held_batch = held_batch
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._writer: LandingWriter | None = None
        self._cursors: dict[str, str | None] = {}
        self._landed: LandedBatch | None = None
        self._kept = False

    def __enter__(self) -> BatchSink:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None and self._landed is None:
            self._writer.__exit__()
        elif self._landed is not None and not self._kept:
            remove_batch(self._uri, storage_options=self._storage_options)

    @property
    def held(self) -> pa.Table | None:
        """The whole batch, where it is held in memory."""
        return None if self._writer is not None else pa.Table.from_batches(self._batches, schema=self._schema)

    @property
    def landed(self) -> LandedBatch | None:
        """The landed batch; None where nothing was landed yet."""
        return self._landed

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            StorageError: the disk or store refused.
        """
        if self._writer is not None:
            self._writer.write(batch)
            return
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > HELD_BYTES:
            self._opened()

    def complete(self, *, cursor_from: str | None, cursor_to: str | None) -> None:
        """Say that these were all rows; where they are not held, the batch exists in the landing from now on.

        Raises:
            StorageError: the disk or store refused.
        """
        self._cursors = {"cursor_from": cursor_from, "cursor_to": cursor_to}
        if self._writer is not None:
            self._landed = self._writer.complete(**self._cursors)

    def land(self) -> LandedBatch:
        """The batch in the landing, written now where it was held until now.

        Raises:
            StorageError: the disk or store refused.
        """
        if self._landed is None:
            self._landed = self._opened().complete(**self._cursors)
        return self._landed

    def keep(self) -> None:
        """Leave the landed batch where it is."""
        self._kept = True

    def _opened(self) -> LandingWriter:
        """The landing, to which the held rows have moved."""
        if self._writer is None:
            self._writer = LandingWriter(
                self._uri,
                storage_options=self._storage_options,
                schema=self._schema,
                batch_id=self._batch_id,
                mode=self._mode,
                held_batch=self._held_batch,
            )
            for batch in self._batches:
                self._writer.write(batch)
            self._batches = []
        return self._writer
