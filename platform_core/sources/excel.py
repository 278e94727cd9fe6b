"""Sheets of Excel workbooks as Arrow: every cell as its text, exact, unless a type is declared."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import SourceError
from platform_core.settings import child_environment
from platform_core.sources import excel_process
from platform_core.sources.file_options import FileOptions
from platform_core.sources.streaming import Batches
from platform_core.sources.types import UnfitError, convert, unfit

_SECONDS = 900
_MIDNIGHT = " 00:00:00"
_FAULTS = frozenset({"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#ERROR!"})


class Sheet:
    """One sheet of one workbook, in memory.

    Args:
        names: its columns.
        cells: the rows below the header as texts, a column for each name.
        rows: number of each row in the sheet, from 1.
    """

    def __init__(self, names: list[str], cells: list[pa.Array], rows: list[int]) -> None:
        self.names = names
        self.cells = cells
        self.rows = rows


def read_sheet(workbook: bytes, options: FileOptions, *, where: str) -> Sheet:
    """One sheet of a workbook; rows without any value are left out.

    Raises:
        SourceError: it is no workbook, lacks the sheet, needs too much memory, or its header is not one.
    """
    table = _whole(workbook, options, where)
    first_row, last_row, first_column, last_column = options.cells()
    kept = [name for name in table.schema.names if first_column <= int(name) <= (last_column or 0)]
    end = table.num_rows if last_row is None else min(last_row + 1, table.num_rows)
    columns = [_with_nulls(table.column(name)[first_row:end], options) for name in kept]
    rows = [first_row + number for number, filled in enumerate(_filled(columns, max(end - first_row, 0))) if filled]
    header = None
    if options.header:
        header = options.header_row - 1 if options.header_row else next(iter(rows), None)
        if header is None or not first_row <= header < end:
            raise SourceError(f"{where}: sheet {options.sheet!r} has no row for a header\n  {_look_at()}")
        names = [column[header - first_row].as_py() for column in columns]
        # A column without a name and without a value is none: sheets often have such at their right edge.
        below = [number for number in rows if number > header]
        named = [
            index
            for index, column in enumerate(columns)
            if names[index] or column.take([row - first_row for row in below]).null_count < len(below)
        ]
        columns, names, rows = [columns[index] for index in named], [names[index] for index in named], below
    else:
        names = list(options.columns)
        if len(names) != len(columns):
            raise SourceError(
                f"{where}: sheet {options.sheet!r} has {len(columns)} columns where {len(names)} are declared\n"
                f"  {_look_at()}"
            )
    _check_names(names, options, where)
    taken = pa.array([row - first_row for row in rows], pa.int64())
    return Sheet(names, [column.take(taken) for column in columns], [row + 1 for row in rows])


def batches(sheet: Sheet, types: Mapping[str, pa.DataType], *, batch_rows: int, where: str) -> Batches:
    """The rows of a sheet, only the columns named in ``types``."""
    places = {name: index for index, name in enumerate(sheet.names)}
    for start in range(0, len(sheet.rows), batch_rows):
        numbers = sheet.rows[start : start + batch_rows]
        arrays = []
        for name, type_ in types.items():
            texts = sheet.cells[places[name]].slice(start, batch_rows)
            if faults := pc.sum(pc.is_in(texts, pa.array([*_FAULTS], texts.type))).as_py():
                raise SourceError(
                    f"{where}: of rows {numbers[0]:,} to {numbers[-1]:,}, {faults:,} hold an error such as #N/A in "
                    f"column '{name}'\n  correct the sheet, or list the error in 'null_values' of the table's options"
                )
            try:
                arrays.append(_converted(texts.cast(pa.string()), type_))
            except UnfitError as error:
                rows = (numbers[0], numbers[-1])
                raise unfit(where, column=name, type_=type_, count=error.count, rows=rows) from None
        yield pa.record_batch(arrays, names=list(types))


def _converted(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_date(type_):
        # A cell knows days as times at midnight only.
        midnight = pc.ends_with(texts, _MIDNIGHT)
        texts = pc.if_else(midnight, pc.utf8_slice_codeunits(texts, 0, -len(_MIDNIGHT)), texts)
    return convert(texts, type_)


def _whole(workbook: bytes, options: FileOptions, where: str) -> pa.RecordBatch:
    if importlib.util.find_spec("fastexcel") is None:
        raise SourceError(
            f"{where}: Excel workbooks need the package 'fastexcel', which is not installed\n"
            "  pip install 'edp-platform-core[excel]'"
        )
    asked = json.dumps({"sheet": options.sheet, "memory_mb": options.workbook_memory_mb}).encode()
    # -P: the program's own folder holds modules with names of packages.
    command = [sys.executable, "-P", str(Path(excel_process.__file__))]
    try:
        ended = subprocess.run(  # noqa: S603 - this very interpreter, with a file of this package
            command,
            input=asked + b"\n" + workbook,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment({"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}),
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f"{where}: reading the workbook took more than {_SECONDS} seconds") from None
    if ended.returncode:
        raise SourceError(
            f"{where}: the workbook cannot be read within {options.workbook_memory_mb:,} MB of memory, or is damaged "
            f"(the reading process ended with {ended.returncode})\n"
            "  a cell far outside the others makes a sheet huge; delete it, or set 'workbook_memory_mb'"
        )
    answer, _, stream = ended.stdout.partition(b"\n")
    _check_answer(json.loads(answer), options, where)
    with pa.ipc.open_stream(io.BytesIO(stream)) as reader:
        return reader.read_next_batch()


def _check_answer(answer: Mapping[str, Any], options: FileOptions, where: str) -> None:
    if answer.get("error") == "sheet":
        sheets = ", ".join(f"'{name}'" for name in answer["sheets"]) or "none"
        raise SourceError(f"{where}: has no sheet {options.sheet!r}\n  sheets: {sheets}")
    if answer:
        raise SourceError(f"{where}: is no Excel workbook, is encrypted, or was cut off ({answer['error']})")


def _with_nulls(column: pa.Array, options: FileOptions) -> pa.Array:
    nulls = pa.array(list(options.null_values), column.type)
    return pc.if_else(pc.is_in(column, nulls), pa.scalar(None, column.type), column)


def _filled(columns: list[pa.Array], rows: int) -> list[bool]:
    filled = pa.array([False] * rows)
    for column in columns:
        filled = pc.or_(filled, column.is_valid())
    values: list[bool] = filled.to_pylist()
    return values


def _check_names(names: list[str | None], options: FileOptions, where: str) -> None:
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled or not all(names):
        what = f"names column '{doubled[0]}' twice" if doubled else "has a column without a name"
        raise SourceError(f"{where}: the header of sheet {options.sheet!r} {what}\n  {_look_at()}")


def _look_at() -> str:
    return "correct the sheet, or 'sheet', 'header_row' and 'range' in the table's options"
