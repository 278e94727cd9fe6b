"""JSON lines as Arrow: one object a line, every value as its JSON text unless a type is declared."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.file_options import FileOptions
from platform_core.sources.streaming import Batches
from platform_core.sources.text_stream import TextStream
from platform_core.sources.types import UnfitError, convert, unfit

_BOM = b"\xef\xbb\xbf"


class _Number(str):
    """A number as it is written, so that no digit is lost."""

    __slots__ = ()


def keys(stream: TextStream, options: FileOptions, *, where: str) -> list[str]:
    """All keys that the objects of a file have, in the order in which they first come."""
    found: dict[str, None] = {}
    for _, row in _objects(stream, options, where):
        found.update(dict.fromkeys(row))
    return list(found)


def batches(
    stream: TextStream,
    options: FileOptions,
    types: Mapping[str, pa.DataType],
    *,
    known: set[str] | None,
    batch_rows: int,
    where: str,
) -> Batches:
    """The rows of a file, only the columns named in ``types``; a key that a row lacks is null.

    Args:
        known: all keys that there were when the columns were gathered; None: they were not.
    """
    gathered: list[dict[str, Any]] = []
    first = line = 0
    for line, row in _objects(stream, options, where):
        if known is not None and not row.keys() <= known:
            raise SourceError(f"{where}, line {line:,}: has a key that was not there before; the file is being written")
        first = first or line
        gathered.append(row)
        if len(gathered) == batch_rows:
            yield _batch(gathered, types, (first, line), where)
            gathered, first = [], 0
    if gathered:
        yield _batch(gathered, types, (first, line), where)


def _batch(
    rows: list[dict[str, Any]], types: Mapping[str, pa.DataType], lines: tuple[int, int], where: str
) -> pa.RecordBatch:
    arrays = []
    for name, type_ in types.items():
        try:
            arrays.append(convert(_texts([row.get(name) for row in rows]), type_))
        except UnfitError as error:
            raise unfit(where, column=name, type_=type_, count=error.count, rows=lines) from None
        except UnicodeEncodeError:
            raise SourceError(
                f"{where}: of lines {lines[0]:,} to {lines[1]:,}, one holds half a surrogate pair in '{name}'"
            ) from None
    return pa.record_batch(arrays, names=list(types))


def _objects(stream: TextStream, options: FileOptions, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
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
            row = _DECODER.decode(line.decode().strip())
        except UnicodeDecodeError:
            raise SourceError(
                f"{where}, line {number:,}: is not {options.encoding}\n  set 'encoding' in the table's options"
            ) from None
        except (ValueError, RecursionError) as error:
            why = f": {error}" if isinstance(error, _FaultError) else ""
            raise SourceError(
                f"{where}, line {number:,}: is not JSON{why}\n  the file was cut off, or is no JSON lines file"
            ) from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}, line {number:,}: is not a JSON object {{…}}")
        yield number, row


class _FaultError(ValueError):
    """JSON that Python reads but that loses something; the text holds no value."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _FaultError("an object has the same key twice")
    return row


def _refuse_constant(_: str) -> NoReturn:
    raise _FaultError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
)


def _texts(values: list[object]) -> pa.Array:
    if not {*map(type, values)} <= {str, _Number, type(None)}:
        values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return pa.array(values, pa.string())


def _json(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(key)}:{_json(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return str(value) if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)
