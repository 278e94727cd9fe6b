"""Views of the lake: a small file with one SELECT in the place where a table of that name would lie.

``<root>/<workstream>/<layer>/<name>/_view.json`` holds the SELECT in DuckDB's dialect with every table named in full,
so that any reader of the lake can run it; the platform's engines do so where a step, a dashboard or a dbt project
names the view.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import MigrationError, SchemaError, StorageError, redacted
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.paths import Lake
from platform_core.lake.storage import filesystem, local_path, persist
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.ddl import CommentView, CreateView, DropView, Stamp, ViewChange
from platform_core.specs.sql import DIALECT, SqlError, referenced_tables
from platform_core.specs.table import TableRef

_FILE = "_view.json"
_LOG = "_delta_log"

Select = Callable[[str, Mapping[TableRef, TableReader]], pa.RecordBatchReader]
"""Runs one SELECT over tables, such as an engine does."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A view as the lake has it.

    Args:
        sql: one SELECT, every table named in full.
        reads: tables and views that it reads.
        revision: how often it was written, counted from 1.
        mark: of the newest statement that changed it.
        stamp: of that statement, as text.
    """

    table: TableRef
    sql: str
    reads: tuple[TableRef, ...]
    comment: str
    revision: int
    mark: int
    stamp: str


def read_view(ref: TableRef, uri: str, *, storage_options: Mapping[str, str]) -> View | None:
    """The view at ``uri``; None where there is none.

    Raises:
        StorageError: the file cannot be read, or is no view.
    """
    try:
        text = _read(uri, storage_options)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{ref}: the view at {uri} cannot be read\n  {redacted(error)}") from None
    if text is None:
        return None
    try:
        found = json.loads(text)
        sql = str(found["sql"])
        return View(
            table=ref,
            sql=sql,
            # Looked at anew: the file is in reach of whoever writes to the lake.
            reads=referenced_tables(sql, workstream=ref.workstream),
            comment=str(found["comment"]),
            revision=int(found["revision"]),
            mark=int(found["mark"]),
            stamp=str(found["stamp"]),
        )
    except (ValueError, KeyError, TypeError, SqlError) as error:
        raise StorageError(
            f"{ref}: {uri}/{_FILE} is no view ({type(error).__name__})\n"
            "  write it again: CREATE OR REPLACE VIEW in a new migration"
        ) from None


def is_view_made(change: ViewChange, *, uri: str, storage_options: Mapping[str, str], stamp: Stamp) -> bool:
    """Whether a statement has changed its view already.

    Raises:
        MigrationError: another text of the same statement has.
        StorageError: the store cannot be read.
    """
    view = read_view(change.table, uri, storage_options=storage_options)
    if view is None:
        return isinstance(change, DropView)
    return _holds(view, stamp)


def make_view(change: ViewChange, *, uri: str, storage_options: Mapping[str, str], stamp: Stamp) -> bool:
    """Make, change or remove a view at once; false where that was done before.

    Raises:
        MigrationError: it is not there, or a table lies in its place; nothing was changed.
        StorageError: the store refused.
    """
    view = read_view(change.table, uri, storage_options=storage_options)
    if view is not None and _holds(view, stamp):
        return False
    try:
        if isinstance(change, DropView):
            return view is not None and _remove(uri, storage_options)
        if isinstance(change, CommentView):
            if view is None:
                raise MigrationError(f"{change.table}: there is no such view\n  looked at: {uri}")
            changed = CreateView(table=change.table, sql=view.sql, reads=view.reads, comment=change.comment)
        else:
            changed = change
            if _is_table(uri, storage_options):
                raise MigrationError(
                    f"{change.table}: there is a table of this name, so it cannot be a view\n  looked at: {uri}"
                )
        _write(uri, storage_options, _text(changed, stamp, revision=1 + (view.revision if view else 0)))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{change.table}: the view cannot be written\n  {redacted(error)}") from None
    return True


@dataclass(frozen=True)
class ViewReader(TableReader):
    """The rows of a view, which an engine makes when they are asked for.

    Args:
        view: its definition.
        inputs: reader of each table and view that it reads.
        select: the engine's.
        deferred: whether it is the shared view, read in the place of one that a person does not have.
    """

    view: View
    inputs: Mapping[TableRef, TableReader] = field(repr=False)
    select: Select = field(repr=False)
    deferred: bool = False

    @property
    def version(self) -> int:
        """Grows whenever the view, or anything that it reads, gets a new version."""
        return self.view.revision + sum(reader.version for reader in self.inputs.values())

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._rows(exp.select("*").from_(self._name).limit(0)).schema

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        """Stream the view, or some columns of it.

        Raises:
            SchemaError: a column is not in the view.
            StepError: the query failed; the text holds no row value.
        """
        if columns is None:
            return self._rows(exp.select("*").from_(self._name))
        if unknown := [name for name in columns if name not in self.schema.names]:
            raise SchemaError(
                f"{self.view.table}: no column {', '.join(unknown)}\n  columns: {', '.join(self.schema.names)}"
            )
        return self._rows(exp.select(*(exp.column(name, quoted=True) for name in columns)).from_(self._name))

    @property
    def _name(self) -> exp.Table:
        workstream, layer, name = self.view.table
        return exp.table_(name, db=layer, catalog=workstream, quoted=True)

    def _rows(self, query: exp.Select) -> pa.RecordBatchReader:
        return self.select(query.sql(dialect=DIALECT), {self.view.table: self})


Opened = dict[TableRef, "DeltaTableReader | ViewReader"]
"""Readers by table, so that a table that is asked for twice is read as of one moment and from one place."""


def open_table_or_view(
    ref: TableRef, *, lake: Lake, select: Select, opened: Opened | None = None, above: tuple[TableRef, ...] = ()
) -> DeltaTableReader | ViewReader | None:
    """A reader of a table or view as of now; None where there is neither.

    In a person's lake, what the person does not have is read from the shared tables. A shared view reads the person's
    tables where there are such.

    Args:
        select: runs the view's SELECT when its rows are asked for.
        opened: what was opened before, and is not opened again; takes what is opened now.
        above: views through which it is read.

    Raises:
        StorageError: it cannot be read, or a view reads a table that is not there, or itself.
    """
    opened = {} if opened is None else opened
    if ref in opened:
        return opened[ref]
    found = _found(ref, lake)
    if found is None:
        return None
    if isinstance(found, DeltaTableReader):
        opened[ref] = found
        return found
    view, deferred = found
    if ref in above:
        raise StorageError(f"view {ref} reads itself: {' → '.join(map(str, (*above, ref)))}\n  make one of them anew")
    inputs: dict[TableRef, TableReader] = {}
    for read in view.reads:
        reader = open_table_or_view(read, lake=lake, select=select, opened=opened, above=(*above, ref))
        if reader is None:
            raise StorageError(
                f"view {ref}: table {read} does not exist yet\n  looked at: {lake.places(read)}\n  build {read} first"
            )
        inputs[read] = reader
    opened[ref] = ViewReader(view, inputs, select, deferred)
    return opened[ref]


def _found(ref: TableRef, lake: Lake) -> DeltaTableReader | tuple[View, bool] | None:
    """The table, or the view and whether it is the shared one; a person's own goes first."""
    options = lake.storage_options
    for uri, deferred in ((lake.table(ref), False), (lake.shared_table(ref), True)):
        if uri is None:
            continue
        table = DeltaTableReader.open(uri, storage_options=options, deferred=deferred)
        if table is not None:
            return table
        view = read_view(ref, uri, storage_options=options)
        if view is not None:
            return view, deferred
    return None


def _holds(view: View, stamp: Stamp) -> bool:
    if view.mark == stamp.mark and view.stamp != str(stamp):
        raise MigrationError(
            f"{view.table}: statement {stamp.statement} of migration {stamp.number:04d} was edited after it had "
            "changed this view\n  put its text back, and make the change in a new migration"
        )
    return view.mark >= stamp.mark


def _text(change: CreateView, stamp: Stamp, *, revision: int) -> str:
    content = {
        "view": str(change.table),
        "sql": change.sql,
        "comment": change.comment,
        "reads": [str(ref) for ref in change.reads],
        "revision": revision,
        "mark": stamp.mark,
        "stamp": str(stamp),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _read(uri: str, storage_options: Mapping[str, str]) -> str | None:
    if (folder := local_path(uri)) is not None:
        file = folder / _FILE
        return file.read_text(encoding="utf-8") if file.is_file() else None
    import pyarrow.fs

    store = filesystem(uri, storage_options)
    if store.get_file_info(_FILE).type != pyarrow.fs.FileType.File:
        return None
    with store.open_input_stream(_FILE) as stream:
        return bytes(stream.read()).decode()


def _write(uri: str, storage_options: Mapping[str, str], text: str) -> None:
    if (folder := local_path(uri)) is None:
        # An object appears when it is complete.
        with filesystem(uri, storage_options).open_output_stream(_FILE) as stream:
            stream.write(text.encode())
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_FILE}-{uuid.uuid4().hex}"
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(folder / _FILE)
        persist(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _remove(uri: str, storage_options: Mapping[str, str]) -> bool:
    if (folder := local_path(uri)) is None:
        filesystem(uri, storage_options).delete_file(_FILE)
        return True
    (folder / _FILE).unlink()
    _tidy(folder)
    return True


def _tidy(folder: Path) -> None:
    """Remove what killed writers left, and the folder where nothing else is in it."""
    for left in folder.glob(f".{_FILE}-*"):
        left.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_table(uri: str, storage_options: Mapping[str, str]) -> bool:
    if (folder := local_path(uri)) is not None:
        return (folder / _LOG).is_dir()
    import pyarrow.fs

    selector = pyarrow.fs.FileSelector(_LOG, allow_not_found=True)
    return bool(filesystem(uri, storage_options).get_file_info(selector))
