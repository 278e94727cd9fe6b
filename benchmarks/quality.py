"""Time fifty expectations in one pass beside one query each: `python -m benchmarks.quality [--rows N] [--write]`.

One table of 1 million rows and twelve columns on this machine's disk, read by turns. Both sides evaluate the same
expectations and must count the same failing rows. Bytes are those that the process asked the system for, whether
they came from the disk or from memory.
"""

from __future__ import annotations

import argparse
import os
import platform as machine
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from platform_core.lake.delta import write
from platform_core.operations.platform import Platform, open_platform
from platform_core.operations.quality import QualityResult, evaluate
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "quality.md"
TABLE = TableRef("shop", "silver", "orders")
TURNS = 3


@dataclass(frozen=True)
class Measured:
    """One turn of one side."""

    seconds: float
    processor: float
    bytes: int
    queries: int
    failing: tuple[int | None, ...]


def table(rows: int) -> pa.Table:
    """Rows made by formula; a few of them fail."""
    import numpy as np

    at = np.arange(rows, dtype=np.int64)
    columns: dict[str, Any] = {
        "order_id": at,
        "customer_id": at % 5_000,
        "status": pa.array(np.array(["open", "paid", "sent", "lost"])[(at % 400 == 0) * 3 + at % 3 * (at % 400 != 0)]),
        "email": pa.array([f"user{number % 50_000}@example.com" for number in range(rows)]),
    }
    columns |= {f"amount_{number}": (at * (number + 7) % 100_003) / 100.0 for number in range(7)}
    columns["_is_current"] = at % 1_000 != 0
    return pa.table(columns)


def expectations() -> list[dict[str, Any]]:
    """Fifty expectations of single rows, of the kinds that people declare most."""
    names = [f"amount_{number}" for number in range(7)]
    found: list[dict[str, Any]] = [
        {"not_null": name} for name in ("order_id", "customer_id", "status", "email", *names)
    ]
    found += [{"column": name, "range": {"min": 0, "max": 900 + at}} for at, name in enumerate(names)]
    found += [{"column": "status", "accepted_values": ["open", "paid", "sent"]}]
    found += [{"column": "email", "matches": "[a-z0-9]+@[a-z]+[.]com"}]
    found += [{"name": f"pair_{at}", "sql": f"{name} + order_id >= 0"} for at, name in enumerate(names)]
    while len(found) < 50:
        at = len(found)
        name = names[at % 7]
        found.append({"name": f"part_{at}", "column": name, "range": {"min": 0}, "where": f"customer_id % 50 = {at}"})
    return found


def spec(*declared: dict[str, Any]) -> ProcessingSpec:
    """A step whose table is expected to be so."""
    workstream, layer, name = TABLE
    return ProcessingSpec(
        workstream=workstream, layer=layer, name=name, kind="sql", sql="orders.sql", expectations=declared
    )


def bytes_so_far() -> int:
    """Bytes that this process has asked the system for."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def measured(platform: Platform, *sets: list[dict[str, Any]]) -> Measured:
    """Evaluate each set by itself, one after the other."""
    before, clock, processor = bytes_so_far(), time.perf_counter(), time.process_time()
    results: list[QualityResult] = [evaluate(spec(*each), platform=platform, keep=False) for each in sets]
    return Measured(
        seconds=time.perf_counter() - clock,
        processor=time.process_time() - processor,
        bytes=bytes_so_far() - before,
        queries=sum(result.queries for result in results),
        failing=tuple(each.failing for result in results for each in result.results),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = EnvironmentSpec(name="bench", lake={"root": str(root / "lake")}, secrets={"type": "environment"})
        platform = open_platform(environment, state=root)
        uri = platform.lake.table(TABLE)
        rows = table(options.rows).to_reader()
        write(rows, table=TABLE, uri=uri, storage_options={}, mode=WriteMode.OVERWRITE)
        declared = expectations()
        sides = {"one pass": [declared], "one query each": [[each] for each in declared]}
        measured(platform, declared[:1])
        turns: dict[str, list[Measured]] = {name: [] for name in sides}
        for turn in range(TURNS):
            for name in sorted(sides, reverse=turn % 2 == 1):
                turns[name].append(measured(platform, *sides[name]))
        unique = [measured(platform, [{"unique": "order_id"}]) for _ in range(TURNS)]
    assert len({each.failing for found in turns.values() for each in found}) == 1
    shown = report(turns, unique, rows=options.rows)
    print(shown)
    if options.write:
        RESULTS.write_text(shown)


def report(turns: dict[str, list[Measured]], unique: list[Measured], *, rows: int) -> str:
    """The figures as a table."""
    lines = [
        "# Expectations in one pass",
        "",
        f"`python -m benchmarks.quality`, {rows:,} rows, {os.cpu_count()} cores, Python {machine.python_version()}; "
        f"medians of {TURNS} turns. Written by the command.",
        "",
        "| | expectations | queries | seconds | processor seconds | MB read |",
        "|---|---|---|---|---|---|",
    ]
    told = {"one pass": 50, "one query each": 50}
    for name, found in {**turns, "unique, a query of its own": unique}.items():
        seconds = statistics.median(each.seconds for each in found)
        read = statistics.median(each.bytes for each in found) / 1e6
        used = statistics.median(each.processor for each in found)
        figures = f"{found[0].queries} | {seconds:.2f} | {used:.2f} | {read:,.0f}"
        lines.append(f"| {name} | {told.get(name, 1)} | {figures} |")
    names = ("one pass", "one query each")
    one, many = (statistics.median(each.processor for each in turns[name]) for name in names)
    lines += ["", f"One pass takes {one / many:.0%} of the processor's time; both count the same failing rows.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
