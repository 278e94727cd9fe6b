"""Time the control database: `python -m benchmarks.control [--postgres <url> --password-file <file>] [--count N]`.

A pair is what every load pays: begin takes the lease and writes the row, finish completes the row and gives it back.
Without `--postgres` only SQLite is timed; the floor beside it is the same statements without SQLAlchemy.
"""

import argparse
import logging
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from platform_core.control.loads import Loads, open_loads
from platform_core.secrets.files import FileOptions, FileSecrets
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import ControlSpec
from platform_core.specs.table import TableRef

FIGURES = {
    "rows_read": 1000,
    "inserted": 0,
    "updated": 0,
    "deleted": 0,
    "unchanged": 1000,
    "late": 0,
    "bytes_landed": 40_000,
    "bytes_written": 0,
    "version": 7,
    "committed": False,
    "seconds": {"extract": 0.01, "mask": 0.0, "land": 0.002, "apply": 0.003},
}
QUIET = logging.getLogger("benchmark")


def pair(loads: Loads, number: int, *, confirm: bool) -> float:
    began = time.perf_counter()
    ticket = loads.begin(
        TableRef("benchmark", "bronze", f"table_{number % 200}"),
        mode="full",
        above=0,
        run_id="benchmark",
        wait=timedelta(0),
        log=QUIET,
        cancelled=lambda: False,
    )
    with ticket:
        if confirm:
            ticket.confirm()
        ticket.finish(status="succeeded", figures=FIGURES)
    return time.perf_counter() - began


def measure(name: str, loads: Loads, *, count: int) -> None:
    pair(loads, 0, confirm=True)
    for confirm in (False, True):
        taken = [pair(loads, number, confirm=confirm) for number in range(count)]
        what = "begin + confirm + finish" if confirm else "begin + finish"
        show(f"{name}: {what}, 1 thread", taken)
    with ThreadPoolExecutor(8) as threads:
        began = time.perf_counter()
        taken = list(threads.map(lambda number: pair(loads, number, confirm=False), range(count)))
        wall = (time.perf_counter() - began) / count * 1000
    show(f"{name}: begin + finish, 8 threads", taken, f"{wall:.2f} ms of wall clock a pair")


def show(name: str, taken: list[float], more: str = "") -> None:
    middle, worst = statistics.median(taken) * 1000, sorted(taken)[int(len(taken) * 0.99)] * 1000
    print(f"{name:<52} median {middle:6.2f} ms  99 % {worst:6.2f} ms  {more}")


def floor(file: Path, *, count: int) -> list[float]:
    """The same work with bare statements."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE leases (name TEXT PRIMARY KEY, epoch BIGINT, held BOOLEAN)")
    connection.execute("CREATE TABLE loads (name TEXT, batch_id BIGINT, status TEXT, PRIMARY KEY (name, batch_id))")
    execute: Callable[..., sqlite3.Cursor] = connection.execute
    taken = []
    for number in range(count):
        began, name = time.perf_counter(), f"table_{number % 200}"
        execute("BEGIN IMMEDIATE")
        found = execute("SELECT epoch, held FROM leases WHERE name = ?", (name,)).fetchone()
        epoch = (found[0] if found else 0) + 1
        execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (name, epoch, True))
        execute("INSERT INTO loads VALUES (?, ?, ?)", (name, epoch, "running"))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        execute("UPDATE loads SET status = ? WHERE name = ? AND batch_id = ?", ("succeeded", name, epoch))
        execute("UPDATE leases SET held = ? WHERE name = ? AND epoch = ?", (False, name, epoch))
        execute("COMMIT")
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--postgres", help="postgresql+psycopg://<user>@<host>:<port>/<database>")
    parser.add_argument("--password-file", type=Path, help="a file <folder>/<workstream>/<name>, readable by you alone")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        show("SQLite: bare statements, 1 thread", floor(state / "floor.db", count=chosen.count))
        nothing = FileSecrets(FileOptions(path=str(state)))
        measure("SQLite", open_loads(ControlSpec(), state=state, secrets=nothing), count=chosen.count)
        if chosen.postgres:
            control = ControlSpec(url=chosen.postgres)
            secrets = nothing
            if file := chosen.password_file:
                secrets = FileSecrets(FileOptions(path=str(file.parents[1])))
                control = ControlSpec(url=chosen.postgres, password=SecretRef(secret=f"{file.parent.name}/{file.name}"))
            measure("PostgreSQL", open_loads(control, state=state, secrets=secrets), count=chosen.count)


if __name__ == "__main__":
    main()
