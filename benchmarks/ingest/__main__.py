"""Time whole loads beside other people's tools, each result checked: `python -m benchmarks.ingest [--quick|--large]`.

Without an option: one million rows, all contenders. Each command renews its own part of benchmarks/results/ingest.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ingest import campaign, ours, peers, record, report
from benchmarks.ingest.campaign import CONTENDERS, OURS, TOLD, Campaign
from benchmarks.ingest.measuring import measured
from benchmarks.ingest.source import Source, running_source

GROWTH = (10_000, 100_000, 1_000_000, 10_000_000)
_ROOM_BYTES_A_ROW = 1_200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 rows: minutes, to see that everything works")
    parser.add_argument("--large", action="store_true", help="10,000,000 rows; dlt by its fastest configuration only")
    parser.add_argument("--rows", type=int, help="any other size, our side only unless --only names others")
    parser.add_argument("--growth", action="store_true", help="our side over 10 thousand to 10 million rows")
    parser.add_argument("--small-tables", action="store_true", help="200 tables of 1,000 rows, in and without Dagster")
    parser.add_argument("--tables", type=int, default=200, help="how many small tables")
    parser.add_argument("--only", action="append", choices=CONTENDERS, help="this contender; may be given again")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the dependency group 'benchmarks'"
    )
    parser.add_argument("--scratch", type=Path, help="folder for what is written; default: the system's")
    parser.add_argument("--render", action="store_true", help="write the report anew from what was measured")
    arguments = parser.parse_args()
    # A server and gigabytes are to be cleared away, also where somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    if arguments.render:
        pass
    elif arguments.small_tables:
        small_tables(arguments)
    elif arguments.growth:
        growth(arguments)
    else:
        one_size(arguments)
    report.REPORT.write_text(report.render())
    print(f"written: {report.REPORT.name}, {record.STORE.name}")


def one_size(arguments: argparse.Namespace) -> None:
    rows = arguments.rows or (100_000 if arguments.quick else 10_000_000 if arguments.large else 1_000_000)
    begun = os.getloadavg()[0]

    def keep(taken: dict[str, Any]) -> None:
        record.write(f"rows {rows}", {**_part(arguments, begun), "taken": taken})

    own = [OURS, TOLD]
    few = own if arguments.rows else [*own, *_best_known()] if arguments.large else campaign.worth_trying(rows)
    contenders = arguments.only or few
    with (
        scratch(arguments, rows=rows) as folder,
        running_source(rows, live=TOLD in contenders) as (source, password),
    ):
        campaign.run(
            _campaign(arguments, source, password, folder, keep),
            contenders,
            repeat=arguments.repeat,
            all_dlt=not (arguments.only or arguments.large),
        )


def growth(arguments: argparse.Namespace) -> None:
    begun = os.getloadavg()[0]
    sizes: dict[str, Any] = {}
    for rows in GROWTH:

        def keep(taken: dict[str, Any], rows: int = rows) -> None:
            sizes[str(rows)] = {"taken": taken}
            record.write("growth", {**_part(arguments, begun), "sizes": sizes})

        with scratch(arguments, rows=rows) as folder, running_source(rows, days=("day1", "day2")) as (source, password):
            turns = _campaign(arguments, source, password, folder, keep)
            for contender in arguments.only or [OURS]:
                if turns.first(contender):
                    turns.turn(contender, "second")


def _campaign(
    arguments: argparse.Namespace, source: Source, password: str, folder: Path, keep: Callable[[dict[str, Any]], None]
) -> Campaign:
    return Campaign(source=source, password=password, folder=folder, peer_python=arguments.peer_python, keep=keep)


def small_tables(arguments: argparse.Namespace, *, rows: int = 1_000) -> None:
    tables = arguments.tables
    begun = os.getloadavg()[0]
    with (
        scratch(arguments, rows=rows * tables) as folder,
        running_source(rows, days=("day1",), small_tables=tables) as (source, password),
    ):
        secrets = ours.variables(password) | {"PGPASSWORD": password}
        asked: dict[str, Any] = {
            "tables": tables,
            "rows": rows,
            "repeat": arguments.repeat,
            "source": {name: value for name, value in asdict(source).items() if name != "expected"},
        }
        found: dict[str, Any] = {}
        for name in ("alone", "in Dagster"):
            work = {**asked, "contender": f"small {name}", "folder": str(folder / name.replace(" ", "_"))}
            Path(work["folder"]).mkdir()
            taken = measured(work, python=sys.executable, secrets=secrets)
            print(f"{name}: {taken.ended or taken.figures}", file=sys.stderr)
            found["dagster" if name == "in Dagster" else name] = taken.as_json()
        found["peers"] = {}
        backend = peers.BACKENDS[0]
        for strategy in ("replace", "cdc"):
            work = {
                **asked,
                "contender": "dlt small",
                "folder": str(folder / f"dlt_{strategy}"),
                "options": {"backend": backend, "strategy": strategy},
            }
            turns = found["peers"].setdefault(campaign.dlt_name(backend, strategy), {})
            for title in ("first load", "nothing changed"):
                taken = measured(work, python=arguments.peer_python, secrets=secrets)
                print(f"dlt {strategy}, {title}: {taken.ended or taken.seconds}", file=sys.stderr)
                turns[title] = taken.as_json()
        record.write("small", {**_part(arguments, begun), "tables": tables, "rows": rows, **found})


@contextmanager
def scratch(arguments: argparse.Namespace, *, rows: int) -> Iterator[Path]:
    """A folder that is removed at the end; refused where the disk could not hold what comes."""
    parent = arguments.scratch or Path(tempfile.gettempdir())
    needed = rows * _ROOM_BYTES_A_ROW
    free = shutil.disk_usage(parent).free
    if free < needed:
        sys.exit(f"{rows:,} rows need about {needed / 1e9:.0f} GB in {parent}, and {free / 1e9:.0f} GB are free")
    with tempfile.TemporaryDirectory(prefix="bench-ingest-", dir=parent) as name:
        yield Path(name)


def _best_known() -> list[str]:
    """dlt's fastest right configuration at one million rows, where that was measured."""
    part = record.read().get("rows 1000000")
    best = None if part is None else report.best_peer(part, "second")
    return [best or campaign.dlt_name(*campaign.BEST)]


@functools.cache
def _machine(peer_python: str) -> str:
    return record.machine(peer_python)


def _part(arguments: argparse.Namespace, begun: float) -> dict[str, Any]:
    # Folders of this machine say nothing.
    places = {str(arguments.peer_python), str(arguments.scratch), "--peer-python", "--scratch"}
    given = [part for part in sys.argv[1:] if part not in places]
    return {
        "command": shlex.join(["python", "-m", "benchmarks.ingest", *given]),
        "machine": _machine(arguments.peer_python),
        "load": [begun, os.getloadavg()[0]],
    }


if __name__ == "__main__":
    main()
