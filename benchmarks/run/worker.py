"""Runs the project twice in one process, checks what came of it, and writes down what it took: `... <answer file>`."""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from benchmarks.ingest.measuring import own_peak
from benchmarks.run.project import DASHBOARD, ROOT, WORKSTREAM, job, names, write_project

TURNS = ("first", "nothing changed")


def run_twice(work: dict[str, Any]) -> dict[str, Any]:
    """Build everything, then once more with nothing new at the source.

    Returns:
        Seconds and processor seconds of each, and the peak memory of this process alone.
    """
    import dagster as dg

    folder, tables = Path(work["folder"]), work["tables"]
    control = write_project(folder, tables=tables, source=work["source"])
    reconstructable = dg.build_reconstructable_job(
        job.__module__,
        job.__name__,
        cast(Any, (str(control), work["executor"])),
        reconstructor_working_directory=str(ROOT),
    )
    # A run's process has imported and built all this before its first step.
    reconstructable.get_definition()
    expected = _expected(work)
    figures: dict[str, Any] = {}
    for turn in TURNS:
        with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
            began, used = time.perf_counter(), _processor()
            result = dg.execute_job(reconstructable, instance=instance)
            figures[turn] = {"seconds": time.perf_counter() - began, "processor": _processor() - used}
            stored = result.get_asset_materialization_events()
        assert result.success
        assert len(stored) == 2 * tables + 1, len(stored)
        inserted = sum(
            cast(int, event.materialization.metadata["edp/inserted"].value)
            for event in stored
            if "edp/inserted" in event.materialization.metadata
        )
        assert inserted == (work["rows"] * tables if turn == TURNS[0] else 0), inserted
        _check(folder, expected)
    return {
        "seconds": sum(taken["seconds"] for taken in figures.values()),
        "processor": sum(taken["processor"] for taken in figures.values()),
        "megabytes": own_peak(),
        "figures": figures,
    }


def _expected(work: dict[str, Any]) -> dict[str, list[tuple[str, int, int]]]:
    """What each step has to make, told by the source itself."""
    from adbc_driver_postgresql import dbapi

    source = work["source"]
    target = f"host={source['host']} port={source['port']} user={source['user']} dbname={source['database']}"
    with closing(dbapi.connect(target)) as connection, closing(connection.cursor()) as cursor:
        found = {}
        for name in names(work["tables"]):
            cursor.execute(f"SELECT status, count(*)::bigint, sum(quantity)::bigint FROM public.{name} GROUP BY status")
            found[name] = sorted(cursor.fetchall())
    return found


def _check(folder: Path, expected: dict[str, list[tuple[str, int, int]]]) -> None:
    """Every step's table is what the source says, and the dashboard shows it."""
    import pyarrow as pa
    from deltalake import DeltaTable

    lake = folder / "state" / "lake" / WORKSTREAM
    for name, rows in expected.items():
        table = pa.table(DeltaTable(lake / "gold" / name).scan())
        made = sorted((row["status"], int(row["orders"]), int(row["items"])) for row in table.to_pylist())
        assert made == rows, (name, made, rows)
    pages = list((lake / "dashboard" / DASHBOARD).rglob("*.html"))
    assert pages, "there is no page"
    shown = sum(orders for _, orders, _ in next(iter(expected.values())))
    assert f"{shown:,}" in pages[0].read_text(), "the page does not show the orders"


def _processor() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    answer = run_twice(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
