"""Streams CSV, Parquet and JSON lines files from a folder or any fsspec URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret, Source
from platform_core.sources import delimited, json_lines, parquet_files
from platform_core.sources.file_options import FileOptions, FilesOptions
from platform_core.sources.naming import check_columns, known
from platform_core.sources.storage import Storage, StoredFile
from platform_core.sources.streaming import Batches, Stream, Streams, from_cursor, shaped, since_scalar
from platform_core.sources.text_stream import TextStream
from platform_core.sources.types import parse_type

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class _Plan:
    """What one read goes through.

    Args:
        types: Arrow type by column of the files.
        complete: whether ``types`` names every column that the files have.
    """

    storage: Storage
    files: tuple[StoredFile, ...]
    format: str
    options: FileOptions
    types: Mapping[str, pa.DataType]
    complete: bool
    where: str

    @property
    def schema(self) -> pa.Schema:
        fields = list(self.types.items())
        if self.options.file_column:
            fields.append((self.options.file_column, pa.string()))
        return pa.schema(fields)


class FilesSource(Source):
    """Files below one root; an object is a glob, and all files that match are one table."""

    Options = FilesOptions
    ObjectOptions = FileOptions
    kind = "file"

    def __init__(self, options: FilesOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()
        self._keys: dict[tuple[tuple[StoredFile, ...], str], tuple[str, ...]] = {}

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns of the first file by name; of JSON lines, the keys of all files."""
        schema = self._plan(request).schema
        return _selected(schema, request)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows, file by file in the order of their names."""
        plan = self._plan(request)
        schema = _selected(plan.schema, request)
        needed = {*schema.names, *filter(None, [request.cursor])}
        batches: Iterator[pa.RecordBatch] = _rows(plan, needed, request.batch_rows)
        if request.since is not None:
            if request.cursor is None:
                raise ValueError("since needs cursor")
            since = since_scalar(request, plan.schema.field(request.cursor).type, where=plan.where)
            batches = from_cursor(batches, cursor=request.cursor, since=since)
        shaped_batches = shaped(batches, schema=schema, batch_rows=request.batch_rows)
        return self._streams.reader(schema, Stream(shaped_batches, resources=ExitStack(), where=plan.where))

    def close(self) -> None:
        """Close the files of unfinished reads."""
        self._streams.close()

    def _plan(self, request: ReadRequest) -> _Plan:
        where = f"files '{request.object}'"
        options = request.options if isinstance(request.options, FileOptions) else FileOptions()
        storage = Storage(self.options.root, self.options.storage_options, secret=self.secret)
        files = tuple(storage.list(request.object, where=where))
        format_ = _format(files, options, where)
        if options.delimiter == "," and all(file.extension == ".tsv" for file in files):
            options = options.model_copy(update={"delimiter": "\t"})
        declared = {name: parse_type(text) for name, text in options.columns.items()}
        types, complete = self._types(storage, files, format_, options, declared, request, where)
        names = [*types, *filter(None, [options.file_column])]
        if options.file_column in types:
            raise SourceError(
                f"{where}: the files have a column '{options.file_column}' of their own: rename file_column"
            )
        check_columns([*(request.columns or ()), *declared, *filter(None, [request.cursor])], names, where=where)
        return _Plan(storage, files, format_, options, types, complete, where)

    def _types(
        self,
        storage: Storage,
        files: tuple[StoredFile, ...],
        format_: str,
        options: FileOptions,
        declared: Mapping[str, pa.DataType],
        request: ReadRequest,
        where: str,
    ) -> tuple[dict[str, pa.DataType], bool]:
        """Type by column, and whether these are all columns of the files."""
        first = files[0]
        if format_ == "parquet":
            with closing(storage.open(first, where=where)) as file:
                found = parquet_files.schema(file, where=_file(where, first))
            return {field.name: declared.get(field.name, field.type) for field in found}, True
        if format_ == "csv":
            with closing(_text(storage, first, format_, options, where)) as stream:
                names = delimited.names(stream, options, where=_file(where, first))
            return {name: declared.get(name, pa.string()) for name in names}, True
        asked = {*(request.columns or ()), *filter(None, [request.cursor])} - {options.file_column}
        if request.columns is not None and asked <= declared.keys():
            # What is asked for is declared: no need to look for further keys first.
            return dict(declared), False
        keys = dict.fromkeys([*declared, *self._json_keys(storage, files, options, where)])
        if not keys:
            raise SourceError(f"{where}: the files hold no object, so no columns are known\n  declare 'columns'")
        return {name: declared.get(name, pa.string()) for name in keys}, True

    def _json_keys(
        self, storage: Storage, files: tuple[StoredFile, ...], options: FileOptions, where: str
    ) -> tuple[str, ...]:
        """Keys of all objects of all files; as this takes reading them, it is done once for the same files."""
        same = (files, options.encoding)
        if same not in self._keys:
            keys: dict[str, None] = {}
            for file in files:
                with closing(_text(storage, file, "jsonl", options, where)) as stream:
                    keys.update(dict.fromkeys(json_lines.keys(stream, options, where=_file(where, file))))
            self._keys[same] = tuple(keys)
        return self._keys[same]


def _selected(schema: pa.Schema, request: ReadRequest) -> pa.Schema:
    if request.columns is None:
        return schema
    return pa.schema([schema.field(name) for name in request.columns])


def _format(files: tuple[StoredFile, ...], options: FileOptions, where: str) -> str:
    if options.format:
        return options.format
    formats = {_FORMATS.get(file.extension): file.name for file in reversed(files)}
    if len(formats) == 1 and (format_ := next(iter(formats))):
        return format_
    if None in formats:
        raise SourceError(
            f"{where}: the extension of '{formats[None]}' tells no format\n"
            f"  set 'format' in the table's options: csv, parquet or jsonl; known extensions: {', '.join(_FORMATS)}"
        )
    raise SourceError(
        f"{where}: the files have different formats: {', '.join(sorted(formats.values()))}\n"
        "  give each format a table of its own"
    )


def _rows(plan: _Plan, needed: set[str], batch_rows: int) -> Batches:
    types = {name: type_ for name, type_ in plan.types.items() if name in needed}
    for file in plan.files:
        for batch in _file_rows(plan, file, types, batch_rows):
            if plan.options.file_column:
                values = pa.repeat(pa.scalar(file.name, pa.string()), batch.num_rows)
                batch = batch.append_column(plan.options.file_column, values)
            yield batch
        plan.storage.check_unchanged(file, where=plan.where)


def _file_rows(plan: _Plan, file: StoredFile, types: Mapping[str, pa.DataType], batch_rows: int) -> Batches:
    where = _file(plan.where, file)
    if plan.format == "parquet":
        declared = {name: type_ for name, type_ in types.items() if name in plan.options.columns}
        with closing(plan.storage.open(file, where=plan.where)) as opened:
            _check_same(parquet_files.schema(opened, where=where).names, plan, where)
            yield from parquet_files.batches(opened, types, declared=declared, batch_rows=batch_rows, where=where)
        return
    with closing(_text(plan.storage, file, plan.format, plan.options, plan.where)) as stream:
        if plan.format == "csv":
            _check_same(delimited.names(stream, plan.options, where=where), plan, where)
            yield from delimited.batches(stream, plan.options, types, where=where)
        else:
            known_keys = {*plan.types} if plan.complete else None
            yield from json_lines.batches(
                stream, plan.options, types, known=known_keys, batch_rows=batch_rows, where=where
            )


def _check_same(names: list[str], plan: _Plan, where: str) -> None:
    """Raise SourceError unless the file has the columns of the first one, in any order."""
    for name in plan.types:
        if name not in names:
            raise SourceError(
                f"{where}: column '{name}' is missing, which '{plan.files[0].name}' has\n"
                f"{known('columns', name, names)}"
            )
    for name in names:
        if name not in plan.types:
            raise SourceError(
                f"{where}: column '{name}' is new, '{plan.files[0].name}' has none of that name\n"
                f"{known('columns', name, plan.types)}\n  give files of another shape a table of their own"
            )


def _text(storage: Storage, file: StoredFile, format_: str, options: FileOptions, where: str) -> TextStream:
    quote = options.quote if format_ == "csv" else None
    return TextStream(storage.open(file, where=where), encoding=options.encoding, quote=quote, where=_file(where, file))


def _file(where: str, file: StoredFile) -> str:
    return f"{where}: file '{file.name}'"
