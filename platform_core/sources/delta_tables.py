"""Tables of another lake: found below one root, opened at one version, streamed as plain Arrow."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import PlatformError, SourceError, redacted
from platform_core.plugins.interfaces import Secret
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.naming import column
from platform_core.specs.base import SecretRef

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyarrow.fs import FileSystem

_ARROW_TYPES = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.string(): "Utf8",
    pa.date32(): "Date32",
    pa.timestamp("us"): "Timestamp(Microsecond, None)",
    pa.timestamp("us", tz="UTC"): 'Timestamp(Microsecond, Some("UTC"))',
}
"""DataFusion's names. No floats: file statistics leave out NaN, and where smallest and largest are equal DataFusion
gives that value in place of what the file holds."""


_COMMITS_LOOKED_AT = 200
_CHANGE_NO_ROW = frozenset(
    {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "ADD FEATURE", "UPGRADE PROTOCOL", "FSCK"}
)
"""Operations, as Spark and delta-rs name them, after which every row is as it was."""


def check_path(path: str, *, where: str) -> None:
    """Refuse what is no path below a root; SourceError says so."""
    parts = path.split("/")
    if any(part in ("", ".", "..", "~") for part in parts) or any(sign in path for sign in "\\:?#%*\0"):
        raise SourceError(
            f"{where}: the object must be a path below the connection's root, such as sales/orders\n"
            "  absolute paths, '..', '~', URLs, backslashes and wildcards are refused"
        )


class DeltaRoot:
    """The tables below one root; nothing outside it can be named."""

    def __init__(
        self, root: str, storage_options: Mapping[str, str | SecretRef], *, secret: Callable[[str], Secret]
    ) -> None:
        """Keep the root; nothing is opened.

        Args:
            root: absolute folder or URL.
            storage_options: of the object store; references stand for the values of secrets.
            secret: gives the value of a named secret.
        """
        self._root = root.rstrip("/")
        self._storage_options = storage_options
        self._secret = secret

    def open(self, path: str, *, where: str, version: int | None = None) -> OpenTable:
        """A table as of its newest or the given version.

        Args:
            path: below the root, parts parted by ``/``.
            where: source and object, for messages.
            version: a past version.

        Raises:
            SourceError: there is none, it cannot be read, or the path leads out of the root.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        uri = self._uri(path, where)
        options = {
            name: self._secret(value.secret).reveal().decode() if isinstance(value, SecretRef) else value
            for name, value in self._storage_options.items()
        }
        with delta_errors(f"{where}: cannot open '{path}' in {self._root}"):
            try:
                table = DeltaTable(uri, version=version, storage_options=options)
            except TableNotFoundError:
                raise SourceError(
                    f"{where}: there is no Delta table '{path}' in {self._root}\n"
                    "  correct 'object' or the connection's 'root'"
                ) from None
            schema = pa.schema([(column.name, column.type) for column in pa.schema(table.schema().to_arrow())])
        return OpenTable(table, schema, options, where)

    def _uri(self, path: str, where: str) -> str:
        check_path(path, where=where)
        if "://" not in self._root:
            root = Path(self._root).resolve()
            if not (root / path).resolve().is_relative_to(root):
                raise SourceError(
                    f"{where}: '{path}' is a link that leads out of {self._root}\n  only tables below it are read"
                )
        return f"{self._root}/{path}"


@dataclass(frozen=True)
class OpenTable:
    """One table as of one version.

    Args:
        handle: delta-rs's own.
        schema: its columns, all nullable, without metadata.
        storage_options: of its store.
        where: source and object, for messages.
    """

    handle: DeltaTable
    schema: pa.Schema
    storage_options: Mapping[str, str] = field(repr=False)
    where: str

    @property
    def version(self) -> int:
        """The version that is read."""
        return self.handle.version()

    @property
    def id(self) -> str:
        """What tells the table from another one at the same place."""
        return str(self.handle.metadata().id)

    @property
    def has_change_feed(self) -> bool:
        """Whether the change data feed is on."""
        return self.handle.metadata().configuration.get("delta.enableChangeDataFeed", "").lower() == "true"

    def newest_change(self) -> tuple[int, dt.datetime | None]:
        """Version and time, UTC, of the newest commit that may have changed rows; None where the log does not say.

        A table that was only tidied up for long is told by the oldest of the commits that were looked at.
        """
        with delta_errors(f"{self.where}: cannot read the log"):
            commits = self.handle.history(_COMMITS_LOOKED_AT)
        changes = [commit for commit in commits if commit.get("operation") not in _CHANGE_NO_ROW]
        found = changes[0] if changes else commits[-1] if commits else {}
        stamp = found.get("timestamp")
        made = None if stamp is None else dt.datetime.fromtimestamp(stamp / 1_000, dt.UTC)
        return int(found.get("version", self.version)), made

    def scan(self, names: list[str], within: CursorRange) -> pa.RecordBatchReader:
        """Stream columns; rows outside the range are left out where that can be told by file or value.

        Deletion vectors and column mapping are heeded.
        """
        predicate = _predicate(within)
        with delta_errors(f"{self.where}: cannot be read"):
            return pa.RecordBatchReader.from_stream(self.handle.scan(columns=names, predicate=predicate))

    def rows(self, names: list[str], within: CursorRange) -> Iterator[pa.RecordBatch]:
        """The batches of :meth:`scan` in the table's own types."""
        schema = pa.schema([self.schema.field(name) for name in names])
        return self.plain(self.scan(names, within), schema)

    def plain(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The columns of a schema, which delta-rs streams as view types."""
        with delta_errors(f"{self.where}: cannot be read"):
            for batch in reader:
                yield batch.select(schema.names).cast(schema)

    def log(self, version: int) -> list[dict[str, Any]] | None:
        """The actions of one commit; None where the log no longer holds it."""
        name = f"_delta_log/{version:020}.json"
        with delta_errors(f"{self.where}: cannot read the log of version {version}"):
            try:
                with self._files().open_input_stream(name) as stream:
                    return [json.loads(line) for line in stream.read().splitlines() if line.strip()]
            except FileNotFoundError:
                return None

    def _files(self) -> FileSystem:
        import pyarrow.fs
        from deltalake.fs import DeltaStorageHandler

        uri = self.handle.table_uri
        return pyarrow.fs.PyFileSystem(DeltaStorageHandler(uri, dict(self.storage_options)))


class Scanned:
    """A stream that can be had several times, for an engine that reads a table more than once."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Take what makes the stream: anything that speaks Arrow's C stream interface."""
        self._make = make

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._make().__arrow_c_stream__(requested_schema)


@contextmanager
def delta_errors(what: str) -> Iterator[None]:
    """Errors of delta-rs, its store and Arrow without what they may quote."""
    try:
        yield
    except PlatformError:
        raise
    # Where Rust panics, what arrives is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise SourceError(f"{what}\n  {redacted(error)}") from None


def _predicate(within: CursorRange) -> str | None:
    """The range as a condition of DataFusion; None where its type has no literal there."""
    if within.cursor is None:
        return None
    bounds = ((exp.GTE, within.since), (exp.LTE, within.until))
    conditions = [
        kind(this=column(within.cursor), expression=literal)
        for kind, bound in bounds
        if bound is not None and (literal := _literal(bound)) is not None
    ]
    return exp.and_(*conditions).sql(dialect="postgres") if conditions else None


def _literal(value: pa.Scalar) -> exp.Expression | None:
    name = _ARROW_TYPES.get(value.type)
    if pa.types.is_decimal128(value.type):
        name = f"Decimal128({value.type.precision}, {value.type.scale})"
    if name is None:
        return None
    given = value.as_py()
    text = given.isoformat() if hasattr(given, "isoformat") else str(given)
    return exp.func("arrow_cast", exp.Literal.string(text), exp.Literal.string(name))
