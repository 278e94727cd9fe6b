"""Time reading what changed since the last run beside reading all: `python -m benchmarks.changed_rows [--rows N]`.

The table is as a load leaves it: ten files, one row in a hundred written by the second batch. `newest`: they are the
last rows, so that one file holds them all, as with orders or events; `everywhere`: each file holds some. Each kind is
read by turns, and the rows are counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILES = 10
CHANGED = {
    "newest": "i >= {rows} - {rows} // 100",
    "everywhere": "i % 100 = 3",
}
COLUMNS = """
  i AS id, (i * 7919) % 100003 AS customer_id, ['new', 'paid', 'sent', 'done'][1 + i % 4] AS status,
  'user' || i || '@example.com' AS email, 'city ' || i % 500 AS city, ((i % 1000000) / 100)::DECIMAL(12, 2) AS amount,
  (i % 100)::INTEGER AS quantity, i / 7.0::DOUBLE AS ratio, i % 3 = 0 AS paid,
  DATE '2020-01-01' + (i % 1500)::INTEGER AS ordered_on, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS _modified_at,
  true AS _is_current, CASE WHEN {changed} THEN 2 ELSE 1 END::BIGINT AS _batch_id, 'v1:' || md5(i::VARCHAR) AS _row_hash
"""


def make_table(folder: Path, *, rows: int, changed: str) -> str:
    """A Delta table of :data:`FILES` files at ``folder``; its URI."""
    import duckdb
    from deltalake import write_deltalake

    uri = str(folder)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    share = rows // FILES
    columns = COLUMNS.format(changed=changed.format(rows=rows))
    for number in range(FILES):
        part = connection.sql(f"SELECT {columns} FROM range({number * share}, {(number + 1) * share}) t(i)")
        write_deltalake(uri, part.to_arrow_reader(200_000), mode="append")
    connection.close()
    return uri


def readings(uri: str) -> dict[str, Callable[[], int]]:
    """How a step reads the table: rows by kind of reading."""
    from platform_core.lake.delta import DeltaTableReader
    from platform_core.operations.step_context import InputTable
    from platform_core.specs.table import TableRef

    def open_() -> InputTable:
        reader = DeltaTableReader.open(uri, storage_options={})
        assert reader is not None
        return InputTable(TableRef("bench", "bronze", "orders"), reader, lambda: _no_connection())

    def count(stream: Any) -> int:
        return sum(batch.num_rows for batch in stream)

    return {"all": lambda: count(open_().reader()), "changed": lambda: count(open_().newer_than(1))}


def _no_connection() -> Any:
    raise AssertionError("no relation is asked for")


def measure(uri: str, *, rows: int, turns: int) -> dict[str, float]:
    """Median seconds by kind of reading, and how many times faster the second is."""
    kinds = readings(uri)
    wanted = {"all": rows, "changed": rows // 100}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(turns):
        for name, read in kinds.items():
            begun = time.perf_counter()
            found = read()
            seconds[name].append(time.perf_counter() - begun)
            assert found == wanted[name], (name, found)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "times": medians["all"] / medians["changed"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changed in CHANGED.items():
            uri = make_table(Path(folder, name), rows=options.rows, changed=changed)
            found[name] = measure(uri, rows=options.rows, turns=options.turns)
    print(json.dumps({"rows": options.rows, **found}, indent=2))


if __name__ == "__main__":
    main()
