"""Reads one sheet of a workbook in a process of its own, which a hostile workbook may end without harm.

Run as a program: the workbook comes by standard input after a line of JSON, ``{"sheet": …, "memory_mb": …}``. To
standard output go a line of JSON and, where that names no error, an Arrow stream of texts, a column for each of the
sheet's named by its number from 0, and a row for each row from the sheet's first.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from typing import Any, BinaryIO

_CPU_SECONDS = 600
_ERRORS = {
    "Div0": "#DIV/0!",
    "NA": "#N/A",
    "Name": "#NAME?",
    "Null": "#NULL!",
    "Num": "#NUM!",
    "Ref": "#REF!",
    "Value": "#VALUE!",
}


def main(given: BinaryIO, out: BinaryIO) -> None:
    """Answer one request."""
    asked = json.loads(given.readline())
    memory = asked["memory_mb"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    # A core dump would hold the rows.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer, table = _read(given.read(), asked["sheet"])
    out.write(json.dumps(answer).encode() + b"\n")
    if table is not None:
        import pyarrow as pa

        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_batch(table)
    out.flush()


def _read(content: bytes, sheet: str | int) -> tuple[dict[str, Any], Any]:
    import fastexcel

    try:
        workbook = fastexcel.read_excel(content)
        names = workbook.sheet_names
        wanted = sheet - 1 if isinstance(sheet, int) else sheet
        if wanted not in names and wanted not in range(len(names)):
            return {"error": "sheet", "sheets": names}, None
        return {}, _texts(workbook, wanted)
    except fastexcel.FastExcelError as error:
        return {"error": type(error).__name__}, None


def _texts(workbook: Any, sheet: str | int) -> Any:
    import pyarrow as pa

    loaded = workbook.load_sheet(sheet, header_row=None, skip_rows=0, dtypes="string")
    if not loaded.width or not loaded.height:
        return pa.record_batch([], names=[])
    texts, faults = loaded.to_arrow_with_errors()
    exact = workbook.load_sheet(sheet, header_row=None, skip_rows=0, dtypes="float").to_arrow_with_errors()[0]
    columns = [_column(texts.column(number), exact.column(number)) for number in range(texts.num_columns)]
    for fault in faults.errors if faults else ():
        row, column = fault.offset_position
        # Only the error's own name is taken from the text, which holds cells that do not fit otherwise.
        code = fault.detail.partition("Error(")[2].partition(")")[0]
        columns[column][row] = _ERRORS.get(code, "#ERROR!")
    numbers = [info.absolute_index for info in loaded.available_columns()]
    return pa.record_batch(
        [pa.array(values, pa.large_string()) for values in columns], names=[str(number) for number in numbers]
    )


def _column(texts: Any, numbers: Any) -> list[str | None]:
    """The texts, with every digit of the numbers: as texts these come rounded."""
    values: list[str | None] = texts.to_pylist()
    for index, number in enumerate(numbers.to_pylist()):
        text = values[index]
        if number is None or text is None or math.isnan(number):
            continue
        # A cell that is no number (a boolean, a date, a text) stays as it is.
        with contextlib.suppress(ValueError):
            if float(text) != number:
                values[index] = repr(number)
    return values


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
