"""New data files of a table, and the one Delta commit that puts them in the place of others."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import StorageError, redacted
from platform_core.lake.delta import commit_properties, open_table
from platform_core.lake.file_statistics import delta_statistics
from platform_core.lake.storage import filesystem, local_path, persist
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction
    from pyarrow.fs import FileInfo


class Overtaken(Exception):  # noqa: N818 - not an error: the writer begins anew
    """Another writer committed first; nothing of ours was committed, and our files are gone."""


@dataclass(frozen=True)
class CommittedFiles:
    """What a commit added: the table's version after it, and the size of the files."""

    version: int
    bytes: int


class NewFiles:
    """Data files that one writer adds to a table's folder, told apart by their prefix.

    Until :meth:`commit` they are no part of the table. Left as a context manager with an error, they are removed,
    unless a commit refers to them or may do so.
    """

    def __init__(self, uri: str, *, storage_options: Mapping[str, str], statistics_for: frozenset[str]) -> None:
        """Choose the prefix.

        Args:
            uri: the table.
            statistics_for: columns whose statistics the log gets wherever they stand.
        """
        self.prefix = f"part-{uuid.uuid4().hex}-"
        self._uri = uri
        self._storage_options = storage_options
        self._statistics_for = statistics_for
        self._keep = False

    def __enter__(self) -> NewFiles:
        if (folder := local_path(self._uri)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._keep:
            folder = filesystem(self._uri, self._storage_options)
            for info in self._written():
                folder.delete_file(info.path)

    def commit(
        self,
        table: DeltaTable | None,
        *,
        of: TableRef,
        schema: pa.Schema,
        removed: Mapping[str, int],
        batch: int,
        metadata: Mapping[str, str],
    ) -> CommittedFiles:
        """Add the files written under the prefix and remove others, in one commit.

        Args:
            table: the handle whose state was read; its version must still be the newest. None: make the table.
            of: for messages.
            schema: columns of the table.
            removed: size in bytes by path of the files that go.
            batch: committed with the data.
            metadata: texts that are committed with the data.

        Raises:
            Overtaken: another writer committed since ``table`` was opened.
            StorageError: the store refused; the message says whether it is known that nothing was committed.
        """
        from deltalake.exceptions import CommitFailedError, DeltaError

        added = list(self._added())
        # From here to the answer a commit may refer to the files.
        self._keep = True
        try:
            self._commit(table, added, schema=schema, removed=removed, batch=batch, metadata=metadata)
        except (DeltaError, OSError) as error:
            if not self._is_committed(of, error):
                self._keep = False
                if isinstance(error, CommitFailedError) or (table is None and self._reopened() is not None):
                    raise Overtaken from None
                raise StorageError(f"{of}: the commit failed; nothing was committed\n  {redacted(error)}") from None
        version = 0 if table is None else table.version() + 1
        return CommittedFiles(version=version, bytes=sum(action.size for action in added))

    def _commit(
        self,
        table: DeltaTable | None,
        added: list[AddAction],
        *,
        schema: pa.Schema,
        removed: Mapping[str, int],
        batch: int,
        metadata: Mapping[str, str],
    ) -> None:
        from deltalake import Schema
        from deltalake.transaction import RemoveAction, create_table_with_add_actions

        properties = commit_properties(batch, metadata)
        if table is None:
            create_table_with_add_actions(
                self._uri,
                Schema.from_arrow(schema),
                added,
                mode="error",
                storage_options=dict(self._storage_options),
                commit_properties=properties,
            )
            return
        now = time.time_ns() // 1_000_000
        gone = [RemoveAction(path, True, now, size, {}) for path, size in removed.items()]
        table.create_write_transaction(
            [*added, *gone], mode="append", schema=table.schema(), commit_properties=properties
        )

    def _added(self) -> Iterator[AddAction]:
        """An action for each file that holds rows; files without are removed."""
        import pyarrow.parquet as pq
        from deltalake.transaction import AddAction

        folder = filesystem(self._uri, self._storage_options)
        local = local_path(self._uri)
        for info in self._written():
            with folder.open_input_file(info.path) as stream:
                footer = pq.read_metadata(stream)
            if footer.num_rows == 0:
                folder.delete_file(info.path)
                continue
            if local is not None:
                persist(local / info.path)
            yield AddAction(
                path=info.path,
                size=info.size,
                partition_values={},
                modification_time=time.time_ns() // 1_000_000,
                data_change=True,
                stats=delta_statistics(footer, always=self._statistics_for),
            )

    def _written(self) -> Sequence[FileInfo]:
        import pyarrow.fs

        folder = filesystem(self._uri, self._storage_options)
        found = folder.get_file_info(pyarrow.fs.FileSelector("", recursive=False))
        return [info for info in found if info.base_name.startswith(self.prefix)]

    def _is_committed(self, of: TableRef, error: Exception) -> bool:
        """Whether the table holds our files: an error may come from what delta-rs does after its commit."""
        try:
            table = self._reopened()
        except StorageError:
            raise StorageError(
                f"{of}: it is not known whether the commit went through\n  {redacted(error)}\n"
                "  run it again once the store answers: a batch that the table holds is not applied twice"
            ) from None
        return table is not None and any(self.prefix in uri for uri in table.file_uris())

    def _reopened(self) -> DeltaTable | None:
        return open_table(self._uri, storage_options=self._storage_options)
