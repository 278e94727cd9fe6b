"""Time each source beside the fastest way out of the same system: `python -m benchmarks.extract [--write]`.

All in turns on one machine, so that the ratios mean something where the seconds do not. Every reading is done by a
process of its own, whose peak memory is counted whole: interpreter, libraries and data.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from platform_core.plugins.interfaces import Source
    from tests.services.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "extract.md"
COLUMNS = (
    ("id", "bigint", "INTEGER", "integer"),
    ("customer_id", "bigint", "INTEGER", "integer"),
    ("status", "text", "TEXT", "text"),
    ("email", "text", "TEXT", "text"),
    ("city", "text", "TEXT", "text"),
    ("amount", "numeric(12,2)", "NUMERIC(12,2)", "decimal(12,2)"),
    ("tax", "numeric(12,2)", "NUMERIC(12,2)", "decimal(12,2)"),
    ("quantity", "integer", "INTEGER", "integer"),
    ("ratio", "double precision", "REAL", "float"),
    ("paid", "boolean", "BOOLEAN", "boolean"),
    ("ordered_on", "date", "DATE", "date"),
    ("updated_at", "timestamp", "TIMESTAMP", "timestamp"),
)
ROWS_SQL = """
SELECT n, n % 100000, (ARRAY['new','paid','sent','done'])[1 + n % 4], 'user' || n || '@example.com',
    'city ' || n % 500, (n % 1000000) / 100.0, (n % 210000) / 100.0, n % 100, n / 7.0, n % 3 = 0,
    date '2020-01-01' + (n % 1500)::int, timestamp '2024-01-01' + n * interval '1.5 seconds'
FROM generate_series(1, {rows}) n
"""


def drained(source: Source, object_: str, options: Any = None, **more: Any) -> int:
    from platform_core.plugins.interfaces import NoOptions, ReadRequest

    with closing(source):
        request = ReadRequest(object=object_, options=options or NoOptions(), **more)
        return sum(batch.num_rows for batch in source.read(request))


def our_postgres(place: dict[str, str], **more: Any) -> int:
    from platform_core.plugins.interfaces import Secret
    from platform_core.sources.postgres import PostgresSource

    options = PostgresSource.Options(
        host=place["host"],
        port=place["port"],
        user=place["user"],
        database=place["database"],
        password={"secret": "x/y"},
    )
    return drained(
        PostgresSource(options, secret=lambda name: Secret(name, os.environ["PGPASSWORD"].encode())), "orders", **more
    )


def our_postgres_by_pages(place: dict[str, str]) -> int:
    return our_postgres(place, parallel=2)


def our_postgres_query(place: dict[str, str]) -> int:
    return our_postgres(place, query="SELECT * FROM orders")


def our_postgres_query_by_ranges(place: dict[str, str]) -> int:
    return our_postgres(place, query="SELECT * FROM orders", parallel=2, split_by="id")


def our_duckdb(place: dict[str, str]) -> int:
    from platform_core.plugins.testing import no_secrets
    from platform_core.sources.duckdb import DuckdbSource

    return drained(DuckdbSource(DuckdbSource.Options(path=place["duckdb"]), secret=no_secrets), "orders")


def plain_duckdb(place: dict[str, str]) -> int:
    import duckdb

    with closing(duckdb.connect(place["duckdb"], read_only=True)) as connection:
        return sum(batch.num_rows for batch in connection.sql("FROM orders").to_arrow_reader(65_536))


def target(place: dict[str, str]) -> str:
    return f"host={place['host']} port={place['port']} user={place['user']} dbname={place['database']}"


def plain_adbc_postgres(place: dict[str, str]) -> int:
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(target(place))) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT * FROM orders")
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def our_sqlite(place: dict[str, str]) -> int:
    from platform_core.plugins.testing import no_secrets
    from platform_core.sources.sqlite import SqliteSource

    return drained(SqliteSource(SqliteSource.Options(path=place["sqlite"]), secret=no_secrets), "orders")


def plain_adbc_sqlite(place: dict[str, str]) -> int:
    from adbc_driver_sqlite import dbapi

    with closing(dbapi.connect(place["sqlite"])) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT * FROM orders")
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def plain_sqlite(place: dict[str, str]) -> int:
    with closing(sqlite3.connect(place["sqlite"])) as connection:
        cursor = connection.execute("SELECT * FROM orders")
        return sum(len(rows) for rows in iter(lambda: cursor.fetchmany(65_536), []))


def our_csv(place: dict[str, str]) -> int:
    return our_files(place, "orders.csv")


def our_jsonl(place: dict[str, str]) -> int:
    return our_files(place, "orders.jsonl")


def our_parquet(place: dict[str, str]) -> int:
    return our_files(place, "orders.parquet")


def our_files(place: dict[str, str], name: str) -> int:
    from platform_core.plugins.testing import no_secrets
    from platform_core.sources.files import FilesSource

    options = FilesSource.ObjectOptions(columns={column: type_ for column, *_, type_ in COLUMNS})
    return drained(FilesSource(FilesSource.Options(root=place["folder"]), secret=no_secrets), name, options)


def plain_csv(place: dict[str, str]) -> int:
    from pyarrow import csv

    options = csv.ReadOptions(use_threads=False)
    with csv.open_csv(f"{place['folder']}/orders.csv", read_options=options) as reader:
        return sum(batch.num_rows for batch in reader)


def plain_parquet(place: dict[str, str]) -> int:
    from pyarrow import parquet

    with parquet.ParquetFile(f"{place['folder']}/orders.parquet") as file:
        return sum(batch.num_rows for batch in file.iter_batches())


READINGS: dict[str, tuple[str, Callable[[dict[str, str]], int] | None]] = {
    "COPY BINARY by psql, not decoded": ("PostgreSQL", None),
    "source postgres": ("PostgreSQL", our_postgres),
    "source postgres, 2 readers by pages": ("PostgreSQL", our_postgres_by_pages),
    "source postgres, a query": ("PostgreSQL", our_postgres_query),
    "source postgres, a query, 2 readers by ranges": ("PostgreSQL", our_postgres_query_by_ranges),
    "plain ADBC, numerics as text": ("PostgreSQL", plain_adbc_postgres),
    "sqlite3, rows as tuples": ("SQLite", plain_sqlite),
    "source sqlite": ("SQLite", our_sqlite),
    "plain ADBC, types guessed": ("SQLite", plain_adbc_sqlite),
    "duckdb, as Arrow": ("DuckDB", plain_duckdb),
    "source duckdb": ("DuckDB", our_duckdb),
    "pyarrow.csv, types guessed": ("CSV", plain_csv),
    "source files, types declared (CSV)": ("CSV", our_csv),
    "source files, types declared (JSON lines)": ("JSON lines", our_jsonl),
    "pyarrow.parquet": ("Parquet", plain_parquet),
    "source files (Parquet)": ("Parquet", our_parquet),
}


class Taken(NamedTuple):
    """What one reading took: wall and processor seconds of the reading process, and its peak megabytes."""

    wall: float
    processor: float
    megabytes: float


def children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def peak_megabytes(pid: int | str) -> float:
    """Most memory of a process so far; not `ru_maxrss`, which begins with what its parent had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def timed(name: str, place: dict[str, str], binaries: Path) -> Taken:
    """Do one reading in a process of its own."""
    _, reading = READINGS[name]
    if reading is None:
        copy: list[str | Path] = [binaries / "psql", target(place), "-qc", "COPY orders TO STDOUT (FORMAT binary)"]
        megabytes = 0.0
        used = children_seconds()
        began = time.perf_counter()
        process = subprocess.Popen(copy, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            megabytes = max(megabytes, peak_megabytes(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0
        return Taken(time.perf_counter() - began, children_seconds() - used, megabytes)
    command = [sys.executable, "-m", "benchmarks.extract", "--one", name, "--place", json.dumps(place)]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Taken(*json.loads(answer))


def one(name: str, place: dict[str, str]) -> None:
    # A worker has these loaded long before it reads; the driver alone takes half a second, for it loads polars.

    import platform_core.plugins.testing
    import platform_core.sources.duckdb
    import platform_core.sources.files
    import platform_core.sources.postgres
    import platform_core.sources.sqlite  # noqa: F401

    _, reading = READINGS[name]
    assert reading is not None
    used = time.process_time()
    began = time.perf_counter()
    rows = reading(place)
    taken = Taken(time.perf_counter() - began, time.process_time() - used, peak_megabytes("self"))
    assert rows == int(place["rows"]), f"{rows} rows"
    print(json.dumps(taken))


def filled(place: dict[str, str], server: PostgresServer) -> None:
    """The same rows in each system."""
    import duckdb
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi
    from pyarrow import csv, parquet

    from platform_core.sources.types import parse_type

    names = ", ".join(f"{name} {type_}" for name, type_, *_ in COLUMNS)
    server.execute(
        f"CREATE TABLE orders ({names})",
        "INSERT INTO orders " + ROWS_SQL.format(rows=place["rows"]),
        "VACUUM ANALYZE orders",
        database=place["database"],
    )
    with closing(dbapi.connect(target(place))) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT " + ", ".join(f"{name}::text" for name, *_ in COLUMNS) + " FROM orders ORDER BY id")
        texts = cursor.fetch_arrow_table()
    schema = pa.schema([(name, parse_type(type_)) for name, *_, type_ in COLUMNS])
    table = texts.cast(schema)
    folder = Path(place["folder"])
    parquet.write_table(table, folder / "orders.parquet")
    with closing(duckdb.connect(place["duckdb"])) as connection:
        connection.register("given", table)
        connection.execute("CREATE TABLE orders AS FROM given")
    csv.write_csv(texts, folder / "orders.csv", csv.WriteOptions(quoting_style="needed"))
    with (folder / "orders.jsonl").open("w") as out:
        for batch in texts.to_batches():
            out.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
    with closing(sqlite3.connect(place["sqlite"])) as connection:
        connection.execute(f"CREATE TABLE orders ({', '.join(f'{name} {type_}' for name, _, type_, _ in COLUMNS)})")
        marks = ", ".join("?" * len(COLUMNS))
        paid = schema.get_field_index("paid")
        texts = texts.set_column(paid, "paid", table.column("paid").cast(pa.int64()))
        for batch in texts.to_batches():
            values = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            connection.executemany(f"INSERT INTO orders VALUES ({marks})", values)
        connection.commit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--system", choices=sorted({system for system, _ in READINGS.values()}), help="only this one")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.place)
        return
    from tests.services.postgres import running_postgres

    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        os.environ["PGPASSWORD"] = server.password
        place = {
            "host": server.host,
            "port": str(server.port),
            "user": server.user,
            "database": server.create_database(),
            "folder": folder,
            "sqlite": str(Path(folder) / "orders.db"),
            "duckdb": str(Path(folder) / "orders.duckdb"),
            "rows": str(arguments.rows),
        }
        filled(place, server)
        chosen = [name for name, (system, _) in READINGS.items() if arguments.system in (None, system)]
        measured: dict[str, list[Taken]] = {name: [] for name in chosen}
        for turn in range(arguments.repeat):
            for name in chosen:
                measured[name].append(timed(name, place, server.binaries))
                print(f"{turn + 1}/{arguments.repeat} {name}: {measured[name][-1].wall:.2f} s", file=sys.stderr)
    report = table_of(measured, rows=arguments.rows, repeat=arguments.repeat)
    print(report)
    if arguments.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(report)


def table_of(measured: dict[str, list[Taken]], *, rows: int, repeat: int) -> str:
    lines = [
        "# Extraction",
        "",
        f"`python -m benchmarks.extract --rows {rows} --repeat {repeat}`: {rows:,} rows of {len(COLUMNS)} columns, "
        f"median of {repeat} turns, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end, "
        f"Python {platform.python_version()}.",
        "The share is of the first line of the same system. Processor seconds and peak MB are those of the whole "
        "reading process, not of the server.",
        "",
        "| system | reading | s | k rows/s | share | processor s | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    first: dict[str, float] = {}
    for name, turns in measured.items():
        system, _ = READINGS[name]
        seconds = statistics.median(turn.wall for turn in turns)
        processor = statistics.median(turn.processor for turn in turns)
        share = f"{first.setdefault(system, seconds) / seconds:.0%}"
        peak = max(turn.megabytes for turn in turns)
        lines.append(
            f"| {system} | {name} | {seconds:.2f} | {rows / seconds / 1000:,.0f} | {share} "
            f"| {processor:.2f} | {peak:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
