"""Streams CSV, JSON, Parquet and Excel files from a folder or any fsspec URL, each content once where wanted."""

from __future__ import annotations

import datetime as dt
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Observation, ReadRequest, Secret, Source
from platform_core.sources import file_formats
from platform_core.sources.delimited import BadRows
from platform_core.sources.file_content import FileContent
from platform_core.sources.file_ledger import Ledger
from platform_core.sources.file_observation import observed
from platform_core.sources.file_options import FileOptions, FilesOptions
from platform_core.sources.file_patterns import check_pattern
from platform_core.sources.file_selection import Choice, settled
from platform_core.sources.naming import check_columns, known
from platform_core.sources.storage import Storage, StoredFile
from platform_core.sources.streaming import (
    Batches,
    Stream,
    Streams,
    from_cursor,
    shaped,
    since_scalar,
    until_scalar,
)
from platform_core.sources.types import parse_type
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.step_kinds import Compare

_MODIFIED = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class _Plan:
    """What one read goes through.

    Args:
        files: those to be read, by name.
        listed: names of all files that match.
        types: Arrow type by column of the files.
        known: the names that objects of JSON may have; None: any.
        choice: where files are loaded once: decides which are; None: all files are read.
        notes: what is to be said of the read.
    """

    storage: Storage
    files: tuple[StoredFile, ...]
    listed: tuple[str, ...]
    format: str
    options: FileOptions
    types: Mapping[str, pa.DataType]
    known: Collection[str] | None
    choice: Choice | None
    where: str
    notes: list[str] = field(default_factory=list)

    @property
    def schema(self) -> pa.Schema:
        fields = list(self.types.items())
        if self.options.file_column:
            fields.append((self.options.file_column, pa.string()))
        if self.options.modified_column:
            fields.append((self.options.modified_column, _MODIFIED))
        return pa.schema(fields)

    def content(self, file: StoredFile) -> FileContent:
        return FileContent(self.storage, file, options=self.options, hashed=self.choice is not None, where=self.where)


class FilesSource(Source):
    """Files below one root; an object is a glob, and all files that match are one table.

    In modes ``incremental`` and ``append`` without a cursor each content is loaded once, by a ledger that is the
    source's state. Otherwise every read goes through all files.
    """

    Options = FilesOptions
    ObjectOptions = FileOptions
    kind = "file"
    keeps_state = True
    compares = frozenset(Compare)

    def __init__(self, options: FilesOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._keys: dict[tuple[StoredFile, str, str | None], tuple[str, ...]] = {}
        self._settled: set[StoredFile] = set()
        self._state: bytes | None = None
        self._notes: tuple[str, ...] = ()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns of the first file by name; of JSON, the keys of all files."""
        return _selected(self._plan(request).schema, request)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows, file by file in the order of their names."""
        plan = self._plan(request)
        schema = _selected(plan.schema, request)
        batches: Iterator[pa.RecordBatch] = self._rows(plan, request, schema)
        if request.cursor is not None:
            type_ = plan.schema.field(request.cursor).type
            since = since_scalar(request, type_, where=plan.where)
            until = until_scalar(request, type_, where=plan.where)
            batches = from_cursor(batches, cursor=request.cursor, since=since, until=until)
        elif request.since is not None or request.until is not None:
            raise ValueError("since and until need cursor")
        shaped_batches = shaped(batches, schema=schema, batch_rows=request.batch_rows)
        return self._streams.reader(schema, Stream(shaped_batches, resources=ExitStack(), where=plan.where))

    def state(self) -> bytes | None:
        """The ledger, with the files of the last drained read; None where files are not loaded once."""
        return self._state

    def notes(self) -> tuple[str, ...]:
        """What the last drained read has left out."""
        return self._notes

    @classmethod
    def check_object(cls, object_: str) -> None:
        """Refuse a pattern that leads out of any root."""
        check_pattern(object_, where=f"files '{object_}'")

    def observe(self, request: ReadRequest, *, by: Compare) -> Observation:
        """How the files that match stand, all of them together; one that is still being written is an error."""
        where = f"files '{request.object}'"
        options, storage = FileOptions(), self._opened()
        files = storage.list(request.object, partial=options.partial_names, where=where)
        if not files:
            raise storage.nothing_found(where=where)
        files = self._complete(files, request, options, None, storage, [], where)
        return observed(files, storage, by=by, where=where)

    def close(self) -> None:
        """Close the files of unfinished reads, and the connection."""
        self._streams.close()
        with self._lock:
            storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()

    def _plan(self, request: ReadRequest) -> _Plan:
        where = f"files '{request.object}'"
        if request.query is not None or request.filter is not None:
            raise SourceError(f"{where}: files know no SQL, so they take neither 'query' nor 'filter'")
        options = request.options if isinstance(request.options, FileOptions) else FileOptions()
        storage = self._opened()
        choice = _choice(request, options, where)
        notes: list[str] = []
        listed = storage.list(request.object, partial=options.partial_names, where=where)
        if not listed and (choice is None or choice.ledger.schema is None):
            raise storage.nothing_found(where=where)
        files = [file for file in listed if choice is None or not choice.ledger.is_unchanged(file)]
        files = self._complete(files, request, options, choice, storage, notes, where)
        files = _within(files, request, options, where)
        declared = {name: parse_type(text) for name, text in options.columns.items()}
        format_ = file_formats.format_of(files, options, where=where) if files else ""
        if options.delimiter == "," and files and all(file.extension == ".tsv" for file in files):
            options = options.model_copy(update={"delimiter": "\t"})
        plan = _Plan(
            storage, tuple(files), tuple(file.name for file in listed), format_, options, {}, None, choice, where, notes
        )
        types, known_names = self._types(plan, declared, request)
        for name in options.added_columns:
            if name in types:
                raise SourceError(f"{where}: the files have a column '{name}' of their own: rename the added one")
        asked = [*(request.columns or ()), *declared, *filter(None, [request.cursor])]
        check_columns(asked, [*types, *options.added_columns], where=where)
        return _Plan(storage, plan.files, plan.listed, format_, options, types, known_names, choice, where, notes)

    def _opened(self) -> Storage:
        with self._lock:
            if self._storage is None:
                self._storage = Storage(self.options.root, self.options.storage_options, secret=self.secret)
            return self._storage

    def _complete(
        self,
        files: list[StoredFile],
        request: ReadRequest,
        options: FileOptions,
        choice: Choice | None,
        storage: Storage,
        notes: list[str],
        where: str,
    ) -> list[StoredFile]:
        """The files that nobody is still writing; others are left for the next load where that does no harm."""
        settle = self.options.settle if self.options.settle is not None else storage.settles
        looked_at = [file for file in files if file not in self._settled]
        complete, writing = settled(
            looked_at,
            settle=settle,
            same_clock=storage.same_clock,
            look_again=lambda: storage.list(request.object, partial=options.partial_names, where=where),
        )
        if writing and (choice is None or choice.everything or request.state is None):
            raise SourceError(
                f"{where}: file '{writing[0].name}' is still being written\n  load again once it is complete"
            )
        if writing:
            notes.append(f"files left for the next load, for they are still being written: {len(writing):,}")
        gone = {*looked_at} - {*complete}
        self._settled.update(complete)
        return [file for file in files if file not in gone]

    def _types(
        self, plan: _Plan, declared: Mapping[str, pa.DataType], request: ReadRequest
    ) -> tuple[dict[str, pa.DataType], Collection[str] | None]:
        """Type by column, and the names that objects of JSON may have; None: any."""
        options, where = plan.options, plan.where
        if not plan.files:
            saved = plan.choice.ledger.schema if plan.choice is not None else None
            found = {field.name: field.type for field in saved} if saved is not None else {}
            return {name: declared.get(name, type_) for name, type_ in found.items()}, None
        if plan.format in file_formats.KEYED:
            asked = {*(request.columns or ()), *filter(None, [request.cursor])} - {*options.added_columns}
            if options.undeclared != "read":
                return dict(declared), declared if options.undeclared == "refuse" else None
            if request.columns is not None and asked <= declared.keys():
                # What is asked for is declared: no need to look for further keys first.
                return dict(declared), None
            keys = dict.fromkeys([*declared, *(key for file in plan.files for key in self._found_keys(plan, file))])
            if not keys:
                raise SourceError(f"{where}: the files hold no object, so no columns are known\n  declare 'columns'")
            return {name: declared.get(name, pa.string()) for name in keys}, keys
        found = {}
        for file in plan.files if options.differing_columns == "fill" else plan.files[:1]:
            with closing(plan.content(file)) as content:
                for name, type_ in file_formats.found_columns(content, plan.format, options).items():
                    found.setdefault(name, type_)
        if options.undeclared == "refuse" and (more := [name for name in found if name not in declared]):
            raise SourceError(
                f"{where}: column '{more[0]}' is not declared\n{known('columns', more[0], declared)}\n"
                "  declare its type under 'columns', or set 'undeclared' to read or ignore"
            )
        if options.undeclared == "ignore":
            found = {name: type_ for name, type_ in found.items() if name in declared}
        return {name: declared.get(name, type_) for name, type_ in found.items()}, None

    def _found_keys(self, plan: _Plan, file: StoredFile) -> tuple[str, ...]:
        """Keys of all objects of a file; as this takes reading it, it is done once for the same file."""
        key = (file, plan.options.encoding, plan.options.records_at)
        if (keys := self._keys.get(key)) is None:
            with closing(plan.content(file)) as content:
                keys = tuple(file_formats.found_columns(content, plan.format, plan.options))
            self._keys[key] = keys
        return keys

    def _rows(self, plan: _Plan, request: ReadRequest, schema: pa.Schema) -> Batches:
        """The rows of all files, and then what is to be remembered of them."""
        needed = {*schema.names, *filter(None, [request.cursor])}
        wanted = file_formats.Wanted(
            types={name: type_ for name, type_ in plan.types.items() if name in needed} or _any(plan.types),
            known=plan.known,
            check=lambda names, where: _check_same(names, plan, where),
            batch_rows=request.batch_rows,
        )
        choice, bad_rows = plan.choice, 0
        for file in plan.files:
            with closing(plan.content(file)) as content:
                if choice is not None and not choice.wants(content, fresh=functools.partial(plan.content, file)):
                    continue
                bad = BadRows(plan.options)
                for batch in file_formats.rows(content, plan.format, plan.options, wanted, bad=bad):
                    yield _with_added(batch, file, plan)
                digest = content.digest() if choice is not None else ""
                content.check_unchanged()
                if choice is not None:
                    choice.ledger.add(file, digest)
                bad_rows += bad.count
        if choice is not None:
            choice.ledger.describe(pa.schema([*plan.types.items()]))
            if plan.options.forget_gone:
                choice.ledger.keep_only(plan.listed)
            plan.notes.extend(choice.notes())
        if bad_rows:
            plan.notes.append(f"rows left out, for they have more or fewer values than there are columns: {bad_rows:,}")
        self._state = choice.ledger.state() if choice is not None else None
        self._notes = tuple(plan.notes)


def _choice(request: ReadRequest, options: FileOptions, where: str) -> Choice | None:
    """By what files are loaded once; None where nothing is remembered: in mode full, and with a cursor."""
    if request.cursor is not None or request.mode is LoadMode.FULL:
        return None
    if request.mode is None:
        # No load reads, so that nothing is left out; what was read is remembered all the same.
        return Choice(Ledger(None, where=where), options, reload=True, everything=True)
    replaced = options.replaced or ("reload" if request.mode is LoadMode.INCREMENTAL else "refuse")
    return Choice(Ledger(request.state, where=where), options, reload=replaced == "reload")


def _within(files: list[StoredFile], request: ReadRequest, options: FileOptions, where: str) -> list[StoredFile]:
    """The files that can hold rows within the bounds, where the cursor is a column of the files' own kind."""
    if request.cursor is None or request.cursor not in options.added_columns:
        return files
    values: dict[StoredFile, str | dt.datetime | None] = {
        file: file.name if request.cursor == options.file_column else file.modified for file in files
    }
    type_ = pa.string() if request.cursor == options.file_column else _MODIFIED
    since = since_scalar(request, type_, where=where)
    until = until_scalar(request, type_, where=where)
    lowest, highest = (bound.as_py() if bound is not None else None for bound in (since, until))
    inside = [
        file
        for file, value in values.items()
        if value is None or ((lowest is None or value >= lowest) and (highest is None or value <= highest))
    ]
    # One file at least tells the columns.
    return inside or files[:1]


def _selected(schema: pa.Schema, request: ReadRequest) -> pa.Schema:
    if request.columns is None:
        return schema
    return pa.schema([schema.field(name) for name in request.columns])


def _any(types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    return dict([*types.items()][:1])


def _with_added(batch: pa.RecordBatch, file: StoredFile, plan: _Plan) -> pa.RecordBatch:
    options = plan.options
    if options.file_column:
        values = pa.repeat(pa.scalar(file.name, pa.string()), batch.num_rows)
        batch = batch.append_column(options.file_column, values)
    if options.modified_column:
        if file.modified is None:
            raise SourceError(
                f"{plan.where}: the storage does not say when '{file.name}' was written\n  remove 'modified_column'"
            )
        values = pa.repeat(pa.scalar(file.modified, _MODIFIED), batch.num_rows)
        batch = batch.append_column(options.modified_column, values)
    return batch


def _check_same(names: Collection[str], plan: _Plan, where: str) -> None:
    """Raise SourceError unless the file has the columns of the first one, in any order."""
    if plan.options.differing_columns == "refuse":
        for name in plan.types:
            if name not in names:
                raise SourceError(
                    f"{where}: column '{name}' is missing, which '{plan.files[0].name}' has\n"
                    f"{known('columns', name, names)}"
                )
    if plan.options.undeclared == "ignore":
        return
    for name in names:
        if name not in plan.types:
            raise SourceError(
                f"{where}: column '{name}' is new, '{plan.files[0].name}' has none of that name\n"
                f"{known('columns', name, plan.types)}\n"
                "  give files of another shape a table of their own, or set 'differing_columns: fill'"
            )
