"""JSON lines as Arrow: one object a line, every value as its JSON text unless a type is declared."""

from __future__ import annotations

import io
from collections.abc import Iterator

from platform_core.errors import SourceError
from platform_core.sources.file_options import FileOptions
from platform_core.sources.json_values import DECODER, FaultError, Record
from platform_core.sources.text_stream import TextStream

_BOM = b"\xef\xbb\xbf"


def records(stream: TextStream, options: FileOptions, *, where: str) -> Iterator[Record]:
    """The objects of a file, one by one.

    Raises:
        SourceError: a line is no JSON object, loses something as one, or is too long; the message says which line.
    """
    limit = options.largest_row_mb << 20
    lines = io.BufferedReader(stream, 1 << 20)
    number = 0
    while line := lines.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise SourceError(
                f"{where}, line {number:,}: is longer than {options.largest_row_mb} MB\n"
                "  set 'largest_row_mb' in the table's options, and check that each object stands on a line of its own"
            )
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.isspace() or not line:
            continue
        try:
            row = DECODER.decode(line.decode().strip())
        except UnicodeDecodeError:
            raise SourceError(
                f"{where}, line {number:,}: is not {options.encoding}\n  set 'encoding' in the table's options"
            ) from None
        except (ValueError, RecursionError) as error:
            why = f": {error}" if isinstance(error, FaultError) else ""
            raise SourceError(
                f"{where}, line {number:,}: is not JSON{why}\n  the file was cut off, or is no JSON lines file"
            ) from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}, line {number:,}: is not a JSON object {{…}}")
        yield Record(number, row, len(line))
