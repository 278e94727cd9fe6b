"""CSV files as Arrow: every value is text unless a type is declared, and a malformed file stops the read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
from pyarrow import csv

from platform_core.errors import SourceError
from platform_core.sources.file_options import FileOptions
from platform_core.sources.streaming import Batches
from platform_core.sources.text_stream import TextStream
from platform_core.sources.types import UnfitError, convert, unfit

_ROW = re.compile(r"Row #(\d+)")
_COLUMN = re.compile(r"CSV column #(\d+)")


def names(stream: TextStream, options: FileOptions, *, where: str) -> list[str]:
    """The columns of a file, by its header or, without one, as declared.

    Raises:
        SourceError: the file has no header, or one with empty or doubled names.
    """
    start = stream.peek()
    if not start:
        raise SourceError(
            f"{where}: the file is empty, without even a header\n"
            "  a table without rows has a header; an empty file is one that was cut off"
        )
    if not options.header:
        return list(options.columns)
    try:
        found = _open(pa.BufferReader(start), options, {}, None, where=where).schema.names
    except UnicodeDecodeError:
        raise SourceError(
            f"{where}: the header is not {options.encoding}\n  set 'encoding' in the table's options"
        ) from None
    doubled = sorted({name for name in found if found.count(name) > 1})
    if doubled or "" in found:
        what = f"names column '{doubled[0]}' twice" if doubled else "has a column without a name"
        raise SourceError(f"{where}: the header {what}\n  correct the header, or check 'delimiter' and 'header'")
    return list(found)


class BadRows:
    """Rows of one file with more or fewer values than there are columns."""

    def __init__(self, options: FileOptions) -> None:
        self._most = options.most_bad_rows if options.on_bad_row == "skip" else 0
        self.count = 0

    def met(self, _: csv.InvalidRow) -> str:
        """What pyarrow is to do with a further one."""
        self.count += 1
        return "skip" if self.count <= self._most else "error"

    @property
    def too_many(self) -> bool:
        """Whether there were more than may be left out, where any may be."""
        return 0 < self._most < self.count


def batches(
    stream: TextStream, options: FileOptions, types: Mapping[str, pa.DataType], *, bad: BadRows, where: str
) -> Batches:
    """The rows of a file, only the columns named in ``types``, in that order.

    Args:
        bad: counts the rows that are left out.
    """
    reader = _open(stream, options, types, bad, where=where)
    read = 0
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, ValueError) as error:
            raise _malformed(error, options, list(types), bad, where) from None
        arrays = []
        for name, type_ in types.items():
            try:
                arrays.append(convert(batch.column(name), type_))
            except UnfitError as error:
                rows = (read + 1, read + batch.num_rows)
                raise unfit(where, column=name, type_=type_, count=error.count, rows=rows) from None
        yield pa.record_batch(arrays, names=list(types))
        read += batch.num_rows


def _open(
    source: pa.NativeFile | TextStream,
    options: FileOptions,
    types: Mapping[str, pa.DataType],
    bad: BadRows | None,
    *,
    where: str,
) -> csv.CSVStreamingReader:
    try:
        return csv.open_csv(
            source,
            read_options=csv.ReadOptions(
                use_threads=False,
                block_size=options.largest_row_mb << 20,
                column_names=None if options.header else list(options.columns),
            ),
            parse_options=csv.ParseOptions(
                delimiter=options.delimiter,
                quote_char=options.quote or False,
                newlines_in_values=options.quote is not None,
                invalid_row_handler=bad.met if bad else lambda _: "skip",
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(types, pa.string()),
                check_utf8=bad is not None,
                include_columns=list(types) or None,
                null_values=list(options.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, ValueError) as error:
        raise _malformed(error, options, list(types), bad, where) from None


def _malformed(
    error: Exception, options: FileOptions, selected: list[str], bad: BadRows | None, where: str
) -> SourceError:
    """What is wrong with a file, by place only: the parser's own text quotes the row."""
    if bad is not None and bad.too_many:
        return SourceError(
            f"{where}: more than {options.most_bad_rows:,} rows have more or fewer values than columns\n"
            "  correct the file, check 'delimiter' and 'quote', or set 'most_bad_rows' in the table's options"
        )
    text = str(error)
    row, column = _ROW.search(text), _COLUMN.search(text)
    place = f", row {int(row[1]):,}" if row else ""
    counts = re.search(r"Expected (\d+) columns, got (\d+)", text)
    if counts:
        return SourceError(
            f"{where}{place} (the header counts as a row): has {counts[2]} values instead of {counts[1]}\n"
            "  correct the file, or check 'delimiter' and 'quote' in the table's options"
        )
    if "UTF8" in text:
        name = f", column '{selected[int(column[1])]}'" if column and int(column[1]) < len(selected) else ""
        return SourceError(f"{where}{place}{name}: is not {options.encoding}\n  set 'encoding' in the table's options")
    if "straddling" in text:
        return SourceError(
            f"{where}: a row is larger than {options.largest_row_mb} MB\n"
            "  set 'largest_row_mb' in the table's options; if no row is that large, a quote is not closed"
        )
    return SourceError(f"{where}{place}: cannot be read as CSV ({type(error).__name__})")
