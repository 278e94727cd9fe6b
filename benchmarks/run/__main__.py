"""Run many small tables end to end under three executors: `python -m benchmarks.run [--write]`.

Each table is ingested from PostgreSQL with masks, a SQL step makes a table of it, and one dashboard shows all of these.
A contender is a process of its own that runs everything twice: the first time, and with nothing new at the source. What
came of it is compared with the source both times. Dagster's multiprocess executor, which starts a process for each
step, runs a smaller share, beside the others on the same share.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.ingest import ours
from benchmarks.ingest.measuring import ROOT, Taken, measured
from benchmarks.ingest.record import machine
from benchmarks.ingest.source import running_source
from benchmarks.run.worker import TURNS

RESULTS = ROOT / "benchmarks" / "results" / "run.md"
ROWS = 1_000
THREADED, IN_PROCESS, MULTIPROCESS = "threaded 8", "in process", "multiprocess 2"
TITLES = {
    THREADED: "threaded, 8 at once (ours)",
    IN_PROCESS: "in process (Dagster's)",
    MULTIPROCESS: "multiprocess, 2 at once (Dagster's)",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--tables", type=int, default=200, help="how many tables")
    parser.add_argument("--share", type=int, default=10, help="how many of them multiprocess runs; 0: all")
    parser.add_argument("--repeat", type=int, default=2, help="turns of each contender but multiprocess, which has one")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    # A server is to be ended, also where somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parts = []
    for part in report(tables=arguments.tables, share=arguments.share or arguments.tables, repeat=arguments.repeat):
        print(part, flush=True)
        parts.append(part)
        if arguments.write:
            # Part by part: the last of them takes longest.
            RESULTS.write_text("\n".join(parts))


def report(*, tables: int, share: int, repeat: int) -> Iterator[str]:
    """The parts of the report, each when it is measured."""
    with running_source(ROWS, days=("day1",), small_tables=tables) as (source, password):
        asked = {"rows": ROWS, "source": {name: value for name, value in asdict(source).items() if name != "expected"}}
        secrets = ours.variables(password) | {"PGPASSWORD": password}

        def taken(executor: str, count: int) -> Taken:
            with tempfile.TemporaryDirectory(prefix="bench-run-", ignore_cleanup_errors=True) as folder:
                work = {**asked, "executor": executor, "tables": count, "folder": folder}
                found = measured(work, python=sys.executable, secrets=secrets, worker="benchmarks.run.worker")
            print(f"{executor}, {count}: {found.ended or found.figures}", file=sys.stderr)
            return found

        yield (
            "# Small tables end to end\n\n"
            f"`{' '.join(['python -m benchmarks.run', *sys.argv[1:]])}`; {machine(sys.executable)}; PostgreSQL on the "
            f"same machine; load {os.getloadavg()[0]:.1f} at the start. Contenders take turns.\n\n"
            f"Each table has {ROWS:,} rows and 12 columns, two of them masked. A run ingests every table, makes "
            "another of each by a SQL step, and one dashboard of all of them. Seconds are medians of whole runs, "
            "planning and events included, imports and the start of the run's own process left out; processor seconds "
            "and MB are those of the whole process tree, PostgreSQL left out, MB the peak of resident memory. Every "
            "result is compared with the source.\n"
        )
        contenders = [THREADED, IN_PROCESS]
        if share == tables:
            contenders.append(MULTIPROCESS)
        yield _table(tables, _in_turns(contenders, tables, repeat=repeat, taken=taken))
        if share != tables:
            yield _table(
                share,
                _in_turns([THREADED, IN_PROCESS, MULTIPROCESS], share, repeat=repeat, taken=taken),
                share_of=tables,
            )
        yield f"Load {os.getloadavg()[0]:.1f} at the end.\n"


def _in_turns(contenders: list[str], count: int, *, repeat: int, taken: Any) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {name: [] for name in contenders}
    for turn in range(repeat):
        for name in contenders if turn % 2 == 0 else reversed(contenders):
            if name != MULTIPROCESS or turn == 0:
                found[name].append(taken(name, count))
    return found


def _table(count: int, found: dict[str, list[Taken]], *, share_of: int | None = None) -> str:
    title = f"## {count} tables: {2 * count + 1} steps\n"
    lines = [title]
    if share_of is not None:
        lines.append(
            f"A process for each step takes seconds of a processor, so that multiprocess runs {count} of the "
            f"{share_of} tables, and the others do so beside it.\n"
        )
    lines += [
        "| | run | wall s | all | ms a step | ratio | processor s | ratio | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first: dict[str, tuple[float, float]] = {}
    for name, takes in found.items():
        if ended := next((each.ended for each in takes if each.ended), ""):
            lines.append(f"| {TITLES[name]} | | **{ended}** | | | | | | |")
            continue
        peak = max(each.megabytes for each in takes)
        for turn in TURNS:
            walls = [each.figures[turn]["seconds"] for each in takes]
            wall = statistics.median(walls)
            processor = statistics.median(each.figures[turn]["processor"] for each in takes)
            best = first.setdefault(turn, (wall, processor))
            lines.append(
                f"| {TITLES[name]} | {turn} | {wall:.1f} | {', '.join(f'{each:.1f}' for each in walls)} |"
                f" {wall / (2 * count + 1) * 1000:.0f} | {wall / best[0]:.2f} × | {processor:.1f} |"
                f" {processor / best[1]:.2f} × | {peak:.0f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
