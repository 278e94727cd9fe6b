"""New data files of a table, and the one Delta commit that puts them in the place of others."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import StorageError, redacted
from platform_core.lake.delta import batch_of, commit_properties, first_configuration, open_table
from platform_core.lake.file_statistics import delta_statistics
from platform_core.lake.storage import filesystem, local_path, persist
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction
    from pyarrow.fs import FileInfo


class TableMoved(Exception):  # noqa: N818 - not an error: the writer looks again
    """Another writer committed first; nothing of ours was committed, and our files are gone."""


@dataclass(frozen=True)
class NewSchema:
    """Columns that a table gets with a commit.

    Args:
        added: fields that it lacks, which are null in the files that stay.
        whole: all columns, where types became wider: no file may stay then, as readers take a file's types to be those
            of the table. None: the types stay.
    """

    added: tuple[pa.Field, ...] = ()
    whole: pa.Schema | None = None


_MARK = "write"
"""Metadata of a commit, by which its writer knows it again where it added no file."""

_LOOK_BACK = 100


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
        self.uri = uri
        self.storage_options = storage_options
        self._statistics_for = statistics_for
        self._keep = False

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._keep:
            self.discard(info.path for info in self._written())

    def prepare(self) -> None:
        """Make the table's folder where it is missing; called before anything is written."""
        if (folder := local_path(self.uri)) is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def discard(self, names: Iterable[str]) -> None:
        """Remove some files that were written under the prefix."""
        folder = filesystem(self.uri, self.storage_options)
        for name in names:
            folder.delete_file(name)

    def commit(
        self,
        table: DeltaTable | None,
        *,
        of: TableRef,
        schema: pa.Schema,
        removed: Mapping[str, int],
        batch: int,
        metadata: Mapping[str, str],
        change: NewSchema | None = None,
    ) -> CommittedFiles:
        """Add the files written under the prefix and remove others, in one commit.

        Wider types are part of that commit. Added columns are not, as delta-rs commits them apart: they come right
        before it, as a commit without data.

        Args:
            table: the handle whose state was read; its version must still be the newest. None: make the table.
            of: for messages.
            schema: columns of the table.
            removed: size in bytes by path of the files that go.
            batch: committed with the data.
            metadata: texts that are committed with the data.
            change: what changes in the columns of a table that exists.

        Raises:
            TableMoved: another writer committed since ``table`` was opened.
            StorageError: the store refused; the message says whether it is known that nothing was committed.
        """
        from deltalake.exceptions import CommitFailedError, DeltaError

        self.prepare()
        added = list(self._added())
        # From here to the answer a commit may refer to the files.
        self._keep = True
        try:
            if table is not None and change is not None and change.whole is None:
                _add_columns(table, change.added)
            if table is not None and change is not None and change.whole is not None:
                _allow_types(table, change.whole)
            self._commit(table, added, schema=schema, removed=removed, batch=batch, metadata=metadata, change=change)
        except (DeltaError, OSError) as error:
            if not self._is_committed(of, error):
                self._keep = False
                if isinstance(error, CommitFailedError) or (table is None and self._reopened() is not None):
                    raise TableMoved from None
                raise StorageError(f"{of}: the commit failed; nothing was committed\n  {redacted(error)}") from None
        self._persist_log(table)
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
        change: NewSchema | None,
    ) -> None:
        from deltalake import Schema
        from deltalake.transaction import RemoveAction, create_table_with_add_actions

        properties = commit_properties(batch, {**metadata, _MARK: self.prefix})
        if table is None:
            create_table_with_add_actions(
                self.uri,
                Schema.from_arrow(schema),
                added,
                mode="error",
                configuration=first_configuration(self.uri),
                storage_options=dict(self.storage_options),
                commit_properties=properties,
            )
            return
        if change is not None and change.whole is not None:
            # The one mode in which a commit of files changes types too; it removes every file that the handle knows.
            whole = Schema.from_arrow(change.whole)
            table.create_write_transaction([*added], mode="overwrite", schema=whole, commit_properties=properties)
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

        folder = filesystem(self.uri, self.storage_options)
        local = local_path(self.uri)
        written = self._written()
        for info in written:
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
        if local is not None and written:
            persist(local)

    def _written(self) -> Sequence[FileInfo]:
        import pyarrow.fs

        folder = filesystem(self.uri, self.storage_options)
        found = folder.get_file_info(pyarrow.fs.FileSelector("", allow_not_found=True))
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
        if table is None:
            return False
        if any(self.prefix in uri for uri in table.file_uris()):
            return True
        return any(commit.get(f"edp.{_MARK}") == self.prefix for commit in table.history(_LOOK_BACK))

    def _persist_log(self, table: DeltaTable | None) -> None:
        """Force the commit itself to disk: delta-rs leaves that to the operating system."""
        if (folder := local_path(self.uri)) is not None:
            log = folder / "_delta_log"
            version = 0 if table is None else table.version() + 1
            persist(log / f"{version:020d}.json", log)

    def _reopened(self) -> DeltaTable | None:
        return open_table(self.uri, storage_options=self.storage_options)


def _add_columns(table: DeltaTable, fields: Sequence[pa.Field]) -> None:
    """Add columns in a commit without data, on the handle that the data will be committed with.

    It repeats the newest batch id, so that it is refused where another writer committed since. Where the load ends
    between the two commits, the table has columns without values, and the next load finds them there.
    """
    from deltalake import Schema

    added = Schema.from_arrow(pa.schema(fields)).fields
    table.alter.add_columns(added, commit_properties=commit_properties(batch_of(table), {}))


def _allow_types(table: DeltaTable, schema: pa.Schema) -> None:
    """Let a table have timestamps without zone, in a commit without data, where its protocol has none yet.

    A commit that changes types does not change the protocol by itself, and the table could not be read any more.
    """
    from deltalake import TableFeatures

    # Written out, also within a nested type; one with a zone names it behind a comma.
    naive = any("timestamp[us]" in str(type_) for type_ in schema.types)
    if naive and "timestampNtz" not in (table.protocol().writer_features or ()):
        table.alter.add_feature(
            TableFeatures.TimestampWithoutTimezone,
            allow_protocol_versions_increase=True,
            commit_properties=commit_properties(batch_of(table), {}),
        )
