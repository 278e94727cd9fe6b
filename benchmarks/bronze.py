"""Time applying to bronze beside its floor and beside a delta-rs merge: `python -m benchmarks.bronze [--rows N ...]`.

Each turn is a process of its own on a fresh copy of the table, so that its peak memory counts and nothing is warm but
the file cache. Every result is checked against the snapshot that was applied.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OWN = """
  i AS id, (i * 7919) % 100003 AS customer_id, ['new', 'paid', 'sent', 'done'][1 + i % 4] AS status,
  'user' || i || '@example.com' AS email, 'city ' || i % 500 AS city, ((i % 1000000) / 100)::DECIMAL(12, 2) AS amount,
  ((i % 210000) / 100)::DECIMAL(12, 2) AS tax, (i % 100 + {changed})::INTEGER AS quantity, i / 7.0::DOUBLE AS ratio,
  i % 3 = 0 AS paid, DATE '2020-01-01' + (i % 1500)::INTEGER AS ordered_on,
  TIMESTAMP '2024-01-01' + to_microseconds(i * 1500) AS updated_at
"""
ROWS = {
    # 1 % changed, 0.1 % gone, 1 % new, evenly.
    "first": "SELECT {columns} FROM range(0, {rows}) t(i)",
    "second": "SELECT {columns} FROM range(0, {rows} + {rows} // 100) t(i) WHERE i % 1000 <> 7",
    # A tenth of the rows, the newest, one in a hundred of them changed.
    "recent": "SELECT {columns} FROM range({rows} - {rows} // 10, {rows}) t(i)",
}
CHANGED = {"first": "0", "second": "(i % 100 = 3)::INTEGER", "recent": "(i % 100 = 3)::INTEGER"}
WORK = {
    "full": ("second", "full"),
    "nothing changed": ("first", "full"),
    "recent tenth, incremental": ("recent", "incremental"),
}


def load_of(folder: Path, landed: str, *, mode: str, batch: int) -> Any:
    """A landed snapshot as a load of the table in ``folder``."""
    import pyarrow.parquet as pq

    from platform_core.plugins.interfaces import BronzeLoad
    from platform_core.specs.ingestion import LoadMode
    from platform_core.specs.table import TableRef

    manifest = json.loads((folder / landed / "_manifest.json").read_text())
    names = [file["name"] for file in manifest["files"]]
    schema = pq.read_schema(folder / landed / names[0]).remove_metadata()
    return BronzeLoad(
        table=TableRef("bench", "bronze", "orders"),
        uri=str(folder / "table"),
        storage_options={},
        files=tuple(str(folder / landed / name) for name in names),
        schema=schema,
        batch_id=batch,
        mode=LoadMode(mode),
        key=("id",),
        sequence_by=None,
        deleted_flag=None,
        max_delete_ratio=1.0,
        modified_at=dt.datetime(2026, 1, batch, tzinfo=dt.UTC),
    )


def opened(folder: Path) -> Any:
    from platform_core.lake.session import open_session

    return open_session(memory_limit="600MB", spill=folder / "spill", threads=2)


def land(folder: Path, name: str, rows: int) -> None:
    """Write one snapshot as a load would."""
    import duckdb

    from platform_core.lake.landing import LandingWriter
    from platform_core.lake.row_hash import HASH_FIELD, with_hash

    sql = ROWS[name].format(columns=OWN.format(changed=CHANGED[name]), rows=rows)
    with duckdb.connect() as connection:
        reader = connection.sql(sql).to_arrow_reader(65_536)
        schema = reader.schema.append(HASH_FIELD)
        with LandingWriter(str(folder / name), storage_options={}, schema=schema, batch_id=1, mode="full") as writer:
            for batch in reader:
                writer.write(with_hash(batch))
            writer.complete()


def prepare(folder: Path, rows: int) -> None:
    """The landed snapshots, and the table as the first one left it."""
    from platform_core.lake import bronze

    for name in ROWS:
        land(folder, name, rows)
    bronze.apply(load_of(folder, "first", mode="full", batch=1), session=opened(folder))


def ours(folder: Path, work: str) -> None:
    from platform_core.lake import bronze

    landed, mode = WORK[work]
    bronze.apply(load_of(folder, landed, mode=mode, batch=2), session=opened(folder))


def merge(folder: Path, work: str) -> None:
    """The same comparison; then what changed goes through a delta-rs MERGE."""
    from deltalake import DeltaTable

    load = load_of(folder, WORK[work][0], mode="full", batch=2)
    table = DeltaTable(load.uri)
    names = [name for name in load.schema.names if name != "_row_hash"]
    own = ", ".join(names)
    sql = f"""
    WITH changes AS MATERIALIZED (
      SELECT new.file_index nf, new.file_row_number nr, old.file_index f, old.file_row_number r
      FROM read_parquet($new) new FULL JOIN read_parquet($old) old ON new.id = old.id
      WHERE new._row_hash IS DISTINCT FROM old._row_hash)
    SELECT {own}, true _is_current, false _is_deleted, $at::TIMESTAMPTZ _modified_at, 2::BIGINT _batch_id, _row_hash
    FROM read_parquet($new) new JOIN changes ON nf = file_index AND nr = file_row_number
    UNION ALL
    SELECT {own}, false, true, $at::TIMESTAMPTZ, 2::BIGINT, _row_hash
    FROM read_parquet($old) old JOIN changes ON f = file_index AND r = file_row_number WHERE nf IS NULL
    """
    values = {"new": list(load.files), "old": table.file_uris(), "at": load.modified_at}
    with opened(folder).cursor() as connection:
        rows = connection.sql(sql, params=values).to_arrow_reader(65_536)
        (
            table.merge(rows, predicate="s.id = t.id", source_alias="s", target_alias="t")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )


def floor(folder: Path, work: str) -> None:
    """Only what must happen: compare keys and hashes, and write every file again."""
    from deltalake import DeltaTable

    load = load_of(folder, WORK[work][0], mode="full", batch=2)
    values = {"new": list(load.files), "old": DeltaTable(load.uri).file_uris()}
    with opened(folder).cursor() as connection:
        connection.execute(
            "SELECT count(*) FROM (SELECT id, hash(_row_hash) h FROM read_parquet($new)) new "
            "FULL JOIN (SELECT id, hash(_row_hash) h FROM read_parquet($old)) old ON new.id = old.id "
            "WHERE new.h IS DISTINCT FROM old.h",
            values,
        ).fetchall()
        connection.execute(
            f"COPY (FROM read_parquet($old)) TO '{folder}/floor' "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, FILE_SIZE_BYTES '128MB')",
            {"old": values["old"]},
        ).fetchall()


CONTESTANTS = {"ours": ours, "delta-rs merge": merge, "floor": floor}


def check(folder: Path, work: str) -> None:
    """The current rows are those of the snapshot."""
    from deltalake import DeltaTable

    landed, mode = WORK[work]
    load = load_of(folder, landed, mode=mode, batch=2)
    values = {"new": list(load.files), "old": DeltaTable(load.uri).file_uris()}
    with opened(folder).cursor() as connection:
        ((missing, changed, extra, doubled),) = connection.execute(
            "SELECT count(*) FILTER (old.id IS NULL), count(*) FILTER (new._row_hash <> old._row_hash), "
            "count(*) FILTER (new.id IS NULL), count(old.id) - count(DISTINCT old.id) "
            "FROM read_parquet($new) new FULL JOIN (FROM read_parquet($old) WHERE _is_current) old USING (id)",
            values,
        ).fetchall()
    assert (missing, changed, doubled) == (0, 0, 0), (missing, changed, doubled)
    assert mode == "incremental" or extra == 0, extra


def one(folder: Path, contestant: str, work: str) -> None:
    # A worker has these loaded long before it loads.
    import duckdb  # noqa: F401

    import platform_core.lake.bronze  # noqa: F401

    began, used = time.perf_counter(), time.process_time()
    CONTESTANTS[contestant](folder, work)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps([seconds, processor, peak]))


def in_a_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.bronze", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def large(rows: int, *, repeat: int, contestants: list[str], folder: Path) -> None:
    if not (folder / "table").exists():
        in_a_process("--prepare", str(folder), "--rows", str(rows))
    print(f"\n{rows:,} rows of 12 columns, median of {repeat}\n")
    print("| work | | s | processor s | peak MB |\n|---|---|---|---|---|")
    for work in WORK:
        took: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contestants}
        for _ in range(repeat):
            for name in contestants if work == "full" else ["ours"]:
                if name != "floor":
                    shutil.rmtree(folder / "kept", ignore_errors=True)
                    shutil.copytree(folder / "table", folder / "kept")
                seconds, processor, peak = json.loads(in_a_process("--one", str(folder), name, work))
                took[name].append((seconds, processor, peak))
                if name == "floor":
                    shutil.rmtree(folder / "floor")
                    continue
                in_a_process("--check", str(folder), name, work)
                shutil.rmtree(folder / "table")
                (folder / "kept").rename(folder / "table")
        for name, turns in took.items():
            if turns:
                seconds, processor = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
                peak = max(turn[2] for turn in turns)
                print(f"| {work} | {name} | {seconds:.2f} | {processor:.2f} | {peak:.0f} |", flush=True)


def small(tables: int, rows: int, threads: int, turns: int) -> None:
    """Milliseconds of an apply that changes nothing, many small tables side by side."""
    import pyarrow.parquet as pq

    from platform_core.lake import bronze
    from platform_core.lake.delta import open_table

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = opened(folder)
        land(folder, "first", rows)
        loads = []
        for i in range(tables):
            load = replace(load_of(folder, "first", mode="full", batch=1), uri=str(folder / f"table{i}"))
            bronze.apply(load, session=session)
            loads.append(replace(load, batch_id=2, held_batch=1))
        in_memory = pq.read_table(loads[0].files[0])
        held = [replace(load, rows=in_memory, files=(), land=tuple) for load in loads]
        begun = [replace(load, handle=open_table(load.uri, storage_options={})) for load in held]
        for label, batch in {"landed": loads, "in memory": held, "in memory, table open": begun}.items():
            with ThreadPoolExecutor(threads) as pool:
                best = []
                for _ in range(turns):
                    began = time.perf_counter()
                    outcomes = list(pool.map(lambda load: bronze.apply(load, session=session), batch))
                    best.append((time.perf_counter() - began) / tables * 1000)
                assert not any(outcome.committed for outcome in outcomes)
            each = ", ".join(f"{value:.2f}" for value in best)
            print(f"{tables} tables of {rows} rows, {threads} threads, {label}: {min(best):.2f} ms each ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=list(CONTESTANTS), nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--keep", type=Path, help="folder that keeps what is prepared for the next time")
    parser.add_argument("--no-small", action="store_true", help="leave out the small tables")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--check", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(Path(arguments.prepare), arguments.rows[0])
    elif arguments.one:
        one(Path(arguments.one[0]), *arguments.one[1:])
    elif arguments.check:
        check(Path(arguments.check[0]), arguments.check[2])
    else:
        if not arguments.no_small:
            small(200, 1_000, 4, 5)
        for rows in arguments.rows:
            with tempfile.TemporaryDirectory() as scratch:
                folder = (arguments.keep or Path(scratch)) / str(rows)
                folder.mkdir(parents=True, exist_ok=True)
                large(rows, repeat=arguments.repeat, contestants=arguments.only, folder=folder)


if __name__ == "__main__":
    main()
