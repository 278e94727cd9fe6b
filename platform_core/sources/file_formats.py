"""What each format of files knows: its columns, and its rows as Arrow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources import delimited, excel, json_documents, json_lines, json_values, parquet_files
from platform_core.sources.file_content import FileContent
from platform_core.sources.file_options import FileOptions
from platform_core.sources.storage import StoredFile
from platform_core.sources.streaming import Batches

_EXTENSIONS = {
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json",
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"), "excel"),
}
KEYED = frozenset({"json", "jsonl"})
"""Formats whose objects name their own columns, so that all must be read to know them."""


def format_of(files: Sequence[StoredFile], options: FileOptions, *, where: str) -> str:
    """The format as declared, or by the extensions.

    Raises:
        SourceError: the extensions tell none, or several.
    """
    if options.format:
        return options.format
    formats = {_EXTENSIONS.get(file.extension): file.name for file in reversed(files)}
    if len(formats) == 1 and (format_ := next(iter(formats))):
        return format_
    if None in formats:
        raise SourceError(
            f"{where}: the extension of '{formats[None]}' tells no format\n"
            "  set 'format' in the table's options: csv, json, jsonl, parquet or excel; "
            f"known extensions: {', '.join(_EXTENSIONS)}"
        )
    raise SourceError(
        f"{where}: the files have different formats: {', '.join(sorted(formats.values()))}\n"
        "  give each format a table of its own"
    )


def found_columns(content: FileContent, format_: str, options: FileOptions) -> dict[str, pa.DataType]:
    """Column and type of what a file holds; text where the format knows no types.

    CSV and Parquet are read for their header only, JSON and Excel to their end.
    """
    if format_ == "parquet":
        with closing(content.random()) as file:
            return {field.name: field.type for field in parquet_files.schema(file, where=content.where)}
    if format_ == "csv":
        with closing(content.text(quoted=True)) as stream:
            names = delimited.names(stream, options, where=content.where)
    elif format_ == "excel":
        names = _sheet(content, options).names
    else:
        with closing(content.text()) as stream:
            names = json_values.keys(_RECORDS[format_](stream, options, where=content.where))
    return dict.fromkeys(names, pa.string())


@dataclass(frozen=True)
class Wanted:
    """What is read of each file.

    Args:
        types: Arrow type by column, in order; a column that a file lacks is null.
        known: the names that a file of a keyed format may have; None: any.
        check: raises SourceError where a file's columns are not what they should be: names and place.
        batch_rows: most rows of one batch.
    """

    types: Mapping[str, pa.DataType]
    known: Collection[str] | None
    check: Callable[[Collection[str], str], None]
    batch_rows: int


def rows(
    content: FileContent, format_: str, options: FileOptions, wanted: Wanted, *, bad: delimited.BadRows
) -> Batches:
    """The rows of a file, with exactly the wanted columns."""
    where = content.where
    if format_ in KEYED:
        with closing(content.text()) as stream:
            yield from json_values.batches(
                _RECORDS[format_](stream, options, where=where),
                wanted.types,
                known=wanted.known,
                batch_rows=wanted.batch_rows,
                what="line" if format_ == "jsonl" else "record",
                where=where,
            )
        return
    if format_ == "excel":
        sheet = _sheet(content, options)
        types = _present(sheet.names, wanted, where)
        batches = excel.batches(sheet, types, batch_rows=wanted.batch_rows, where=where)
        yield from _filled(batches, wanted.types)
    elif format_ == "csv":
        with closing(content.text(quoted=True)) as stream:
            types = _present(delimited.names(stream, options, where=where), wanted, where)
            yield from _filled(delimited.batches(stream, options, types, bad=bad, where=where), wanted.types)
    else:
        with closing(content.random()) as file:
            found = parquet_files.schema(file, where=where)
            types = _present(found.names, wanted, where)
            yield from _filled(
                parquet_files.batches(
                    file,
                    types,
                    declared={name: type_ for name, type_ in types.items() if name in options.columns},
                    batch_rows=wanted.batch_rows,
                    limits=content.limits,
                    where=where,
                ),
                wanted.types,
            )


def _present(names: Collection[str], wanted: Wanted, where: str) -> dict[str, pa.DataType]:
    wanted.check(names, where)
    present = {name: type_ for name, type_ in wanted.types.items() if name in names}
    # Without any column the number of rows would be lost.
    return present or {next(iter(names)): pa.string()}


def _filled(batches: Iterator[pa.RecordBatch], types: Mapping[str, pa.DataType]) -> Batches:
    schema = pa.schema([*types.items()])
    for batch in batches:
        if batch.schema.equals(schema):
            yield batch
        else:
            arrays = [
                batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows, type_)
                for name, type_ in types.items()
            ]
            yield pa.record_batch(arrays, schema=schema)


def _sheet(content: FileContent, options: FileOptions) -> excel.Sheet:
    workbook = content.whole(largest_mb=options.largest_document_mb, option="largest_document_mb")
    return excel.read_sheet(workbook, options, where=content.where)


_RECORDS = {"json": json_documents.records, "jsonl": json_lines.records}
