"""JSON without loss: numbers keep every digit, a doubled key or NaN is refused, and every value has a text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.streaming import Batches
from platform_core.sources.types import UnfitError, convert, unfit

_BATCH_CHARACTERS = 16 << 20


class Number(str):
    """A number as it is written, so that no digit is lost."""

    __slots__ = ()


class FaultError(ValueError):
    """JSON that Python reads but that loses something; the text holds no value."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise FaultError("an object has the same key twice")
    return row


def _refuse_constant(_: str) -> NoReturn:
    raise FaultError("NaN and Infinity are not JSON")


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
)


def _texts(values: list[object]) -> pa.Array:
    if not {*map(type, values)} <= {str, Number, type(None)}:
        values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return pa.array(values, pa.string())


def _json(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(key)}:{_json(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Record:
    """One object of a file.

    Args:
        number: line or position, counted from 1.
        size: length of its text, as a measure of the memory that it takes.
    """

    number: int
    row: dict[str, Any]
    size: int


def keys(records: Iterator[Record]) -> list[str]:
    """All keys that the objects have, in the order in which they first come."""
    found: dict[str, None] = {}
    for record in records:
        found.update(dict.fromkeys(record.row))
    return list(found)


def batches(
    records: Iterator[Record],
    types: Mapping[str, pa.DataType],
    *,
    known: Collection[str] | None,
    batch_rows: int,
    what: str,
    where: str,
) -> Batches:
    """The objects as batches, only the columns named in ``types``; a key that an object lacks is null.

    Args:
        known: the keys that an object may have; None: any, and others than those of ``types`` are left out.
        what: what records are counted as, for messages: line or record.
    """
    allowed = None if known is None else {*known}
    gathered: list[Record] = []
    size = 0
    for record in records:
        if allowed is not None and not record.row.keys() <= allowed:
            # Keys may be data, so that the message does not name them.
            raise SourceError(
                f"{where}, {what} {record.number:,}: has a key that was neither declared nor there before\n"
                "  if the file is not being written, declare its key under 'columns', or set 'undeclared: ignore'"
            )
        gathered.append(record)
        size += record.size
        if len(gathered) == batch_rows or size >= _BATCH_CHARACTERS:
            yield _batch(gathered, types, what=what, where=where)
            gathered, size = [], 0
    if gathered:
        yield _batch(gathered, types, what=what, where=where)


def _batch(records: Sequence[Record], types: Mapping[str, pa.DataType], *, what: str, where: str) -> pa.RecordBatch:
    first, last = records[0].number, records[-1].number
    arrays = []
    for name, type_ in types.items():
        try:
            arrays.append(convert(_texts([record.row.get(name) for record in records]), type_))
        except UnfitError as error:
            raise unfit(where, column=name, type_=type_, count=error.count, rows=(first, last)) from None
        except UnicodeEncodeError:
            raise SourceError(
                f"{where}: of {what}s {first:,} to {last:,}, one holds half a surrogate pair in '{name}'"
            ) from None
    return pa.record_batch(arrays, names=list(types))
