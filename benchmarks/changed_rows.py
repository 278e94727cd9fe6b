"""Time reading what changed since the last run beside reading all: `python -m benchmarks.changed_rows [--rows N]`.

The table is made by loads as the platform makes them, into files of the sizes that they choose. One row in a hundred
has changed since the step last read it: the newest (`newest`: orders, events), or one in each hundred, so that every
file held some (`everywhere`: customers, stock); `deleted`: beside them one in a thousand has gone from the source;
`behind`: the changes came in five loads, and the step read before the first. Both ways to read are timed by turns, and
their rows counted.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = """
  i AS id, (i * 7919) % 100003 AS customer_id, ['new', 'paid', 'sent', 'done'][1 + i % 4] AS status,
  'user' || i || '@example.com' AS email, 'city ' || i % 500 AS city, ((i % 1000000) / 100)::DECIMAL(12, 2) AS amount,
  ((i % 210000) / 100)::DECIMAL(12, 2) AS tax, (i % 100 + {changed})::INTEGER AS quantity, i / 7.0::DOUBLE AS ratio,
  i % 3 = 0 AS paid, DATE '2020-01-01' + (i % 1500)::INTEGER AS ordered_on,
  TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_microseconds(i * 1500) AS updated_at
"""


@dataclass(frozen=True)
class Load:
    """One load: which rows it brings, and in which mode."""

    mode: str
    rows: str
    changed: str = "1"


FIRST = Load("full", "SELECT {columns} FROM range(0, {rows}) t(i)", changed="0")
SPREAD = "SELECT {columns} FROM range(0, {rows}) t(i) WHERE i % 500 = "
LOADS = {
    "newest": [Load("incremental", "SELECT {columns} FROM range({rows} - {rows} // 100, {rows}) t(i)")],
    "everywhere": [Load("incremental", "SELECT {columns} FROM range(0, {rows}) t(i) WHERE i % 100 = 3")],
    "deleted": [
        Load(
            "full", "SELECT {columns} FROM range(0, {rows}) t(i) WHERE i % 1000 <> 7", changed="(i % 100 = 3)::INTEGER"
        )
    ],
    "behind": [Load("incremental", SPREAD + str(each)) for each in (3, 103, 203, 303, 403)],
}
CHANGED = {"newest": 100, "everywhere": 100, "behind": 100, "deleted": 1000 / 11}
"""One row in so many has changed."""


def apply_all(folder: Path, loads: list[Load], *, first: int, rows: int) -> None:
    """Apply loads to the bronze table below a folder, batch ids counted from ``first``."""
    from platform_core.lake import bronze
    from platform_core.lake.session import open_session

    session = open_session(memory_limit="600MB", spill=folder / "spill", threads=2)
    for batch, load in enumerate(loads, start=first):
        landed = _landed(folder, load, batch=batch, rows=rows)
        began = time.perf_counter()
        bronze.apply(landed, session=session)
        print(f"batch {batch} applied in {time.perf_counter() - began:.1f} s", flush=True)
        shutil.rmtree(folder / "landing")
    session.close()


def _landed(folder: Path, load: Load, *, batch: int, rows: int) -> Any:
    import duckdb

    from platform_core.lake.landing import LandingWriter
    from platform_core.lake.row_hash import HASH_FIELD, with_hash
    from platform_core.plugins.interfaces import BronzeLoad
    from platform_core.specs.ingestion import LoadMode
    from platform_core.specs.table import TableRef

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        text = load.rows.format(columns=COLUMNS.format(changed=load.changed), rows=rows)
        reader = connection.sql(text).to_arrow_reader(65_536)
        schema = reader.schema.append(HASH_FIELD)
        uri = str(folder / "landing" / str(batch))
        with LandingWriter(uri, storage_options={}, schema=schema, batch_id=batch, mode=load.mode) as writer:
            for part in reader:
                writer.write(with_hash(part))
            files = writer.complete().file_uris
    return BronzeLoad(
        table=TableRef("bench", "bronze", "orders"),
        uri=str(folder / "table"),
        storage_options={},
        files=files,
        schema=schema,
        batch_id=batch,
        mode=LoadMode(load.mode),
        key=("id",),
        sequence_by=None,
        deleted_flag=None,
        max_delete_ratio=1.0,
        modified_at=dt.datetime(2026, 1, batch, tzinfo=dt.UTC),
    )


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


def measure(uri: str, *, rows: int, share: float, turns: int) -> dict[str, float]:
    """Median seconds by kind of reading, and how many times faster the second is."""
    kinds = readings(uri)
    wanted = {"all": rows, "changed": round(rows / share)}
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
    parser.add_argument("--only", nargs="*", choices=list(LOADS), default=list(LOADS))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder, "begun")
        begun.mkdir()
        apply_all(begun, [FIRST], first=1, rows=options.rows)
        for name in options.only:
            place = Path(folder, name)
            shutil.copytree(begun, place)
            apply_all(place, LOADS[name], first=2, rows=options.rows)
            uri = str(place / "table")
            found[name] = measure(uri, rows=options.rows, share=CHANGED[name], turns=options.turns)
            print(name, json.dumps(found[name]), flush=True)
            shutil.rmtree(place)
    print(json.dumps({"rows": options.rows, **found}, indent=2))


if __name__ == "__main__":
    main()
