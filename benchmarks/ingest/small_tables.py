"""Many small tables: load after load in one process, and all of them in one Dagster run beside as many empty assets."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from benchmarks.ingest import ours
from benchmarks.instance_file import write_instance_file

ROOT = Path(__file__).parents[2]
THREADS = 4
AT_ONCE = 8
"""Steps of a Dagster run at a time, for our assets and the empty ones."""

_ENVIRONMENT = """name: bench
lake: {{root: lake}}
secrets: {{type: environment}}
engine: {{type: local, options: {{memory_limit: {memory}, spill: "${{env.state}}/spill"}}}}
max_concurrent: {at_once}
"""
LOCATION = """location: bench
workstreams:
  - name: bench
    description: Many small tables.
    owners: [team:bench]
"""
CONNECTION = """connections:
  - name: shop
    type: postgres
    host: {host}
    port: {port}
    user: {user}
    database: {database}
    password: {{secret: bench/password}}
"""
TABLE = """  - object: public.{name}
    mode: full
    key: [id]
    columns:
      email: {{mask: hash, domain: email}}
      name: {{mask: partial, keep_first: 1}}
"""


def names(tables: int) -> list[str]:
    return [f"table_{number:03}" for number in range(tables)]


def alone(work: dict[str, Any]) -> dict[str, Any]:
    """Load all tables one by one, then again with nothing changed; then so from a few threads."""
    from platform_core.operations.ingest import ingest
    from platform_core.operations.reload import Reload

    template = ours.declared("day1", mode="full")
    specs = [template.model_copy(update={"object": f"public.{name}", "table": name}) for name in names(work["tables"])]
    connection = ours.connection(work["source"])
    platform = ours.opened(Path(work["folder"]))

    def load(spec: Any, reload: Reload | None = None) -> Any:
        return ingest(spec, connection=connection, platform=platform, reload=reload)

    began = time.perf_counter()
    first = [load(spec) for spec in specs]
    first_seconds = time.perf_counter() - began
    walls, results, compared = [], [], []
    used = {"known": 0.0, "compared": 0.0}
    for _ in range(work["repeat"]):
        before = time.process_time()
        for spec in specs:
            began = time.perf_counter()
            results.append(load(spec))
            walls.append(time.perf_counter() - began)
        used["known"] += time.process_time() - before
        before = time.process_time()
        # A reload looks into bronze whatever the load before it read.
        compared += [load(spec, Reload()) for spec in specs]
        used["compared"] += time.process_time() - before
    together = []
    for _ in range(work["repeat"]):
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            results += pool.map(load, specs)
        together.append((time.perf_counter() - began) / len(specs))
    assert all(result.inserted == work["rows"] for result in first)
    assert not any(result.committed for result in (*results, *compared))
    by_itself = results[: len(walls)]
    return {
        "phases": {
            phase: statistics.median(result.seconds[phase] for result in by_itself) for phase in by_itself[0].seconds
        },
        "figures": {
            "first": first_seconds / len(specs),
            "wall": statistics.median(walls),
            "engine": statistics.median(_engine(result) for result in by_itself),
            "engine_compared": statistics.median(_engine(result) for result in compared),
            "processor": used["known"] / len(walls),
            "processor_compared": used["compared"] / len(compared),
            "slowest_twentieth": statistics.quantiles(walls, n=20)[-1],
            "together": statistics.median(together),
        },
    }


def _engine(result: Any) -> float:
    """Seconds of all phases but the wait for the source."""
    return float(sum(result.seconds.values()) - result.seconds["extract"])


def prepared() -> None:
    """Import what a run's process has imported before its first step."""
    import dagster  # noqa: F401

    import platform_core.definitions  # noqa: F401

    ours.prepared()


def location_job(control: str) -> Any:
    """The job of the location with all tables; importable, as a run rebuilds it."""
    from platform_core import build_definitions

    return build_definitions(Path(control)).resolve_job_def("bench")


def in_dagster(work: dict[str, Any]) -> dict[str, Any]:
    """Run the job over all tables: the first time, with nothing changed, with a hundredth changed; and empty assets."""
    import dagster as dg

    from benchmarks.executor.graphs import independent_assets

    folder, tables = Path(work["folder"]), work["tables"]
    control = _written(folder, work)
    loading = dg.build_reconstructable_job(
        __name__, location_job.__name__, (str(control),), reconstructor_working_directory=str(ROOT)
    )
    empty = dg.build_reconstructable_job(
        independent_assets.__module__,
        independent_assets.__name__,
        cast(Any, (tables, 0, f"threaded {AT_ONCE}")),
        reconstructor_working_directory=str(ROOT),
    )
    took: dict[str, list[float]] = {"first": [], "nothing": [], "empty": [], "changed": []}

    def run(kind: str, job: Any) -> list[int]:
        with _instance(folder) as instance:
            began = time.perf_counter()
            result = dg.execute_job(job, instance=instance)
            took[kind].append((time.perf_counter() - began) / tables)
        assert result.success
        events = result.get_asset_materialization_events()
        assert len(events) == tables, len(events)
        stored = [event.materialization.metadata for event in events]
        return [
            sum(int(cast(int, one[f"edp/{name}"].value)) for name in ("inserted", "updated", "deleted"))
            for one in stored
            if "edp/read" in one
        ]

    for job in (loading, empty):
        job.get_definition()
    assert run("first", loading) == [work["rows"]] * tables
    for _ in range(work["repeat"]):
        run("empty", empty)
        assert run("nothing", loading) == [0] * tables
    _change(work)
    assert run("changed", loading) == [work["rows"] // 100] * tables
    return {"figures": took}


@contextmanager
def _instance(folder: Path) -> Iterator[Any]:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        yield instance


def _written(folder: Path, work: dict[str, Any]) -> Path:
    control = folder / "bench" / "control"
    (control / "ingestion").mkdir(parents=True)
    home = folder / "home"
    (home / "environments").mkdir(parents=True)
    write_instance_file(home)
    (home / "environments" / "bench.yaml").write_text(_ENVIRONMENT.format(memory=ours.MEMORY_LIMIT, at_once=AT_ONCE))
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (control / "location.yaml").write_text(LOCATION)
    (control / "connections.yaml").write_text(CONNECTION.format(**work["source"]))
    tables = "".join(TABLE.format(name=name) for name in names(work["tables"]))
    (control / "ingestion" / "shop.yaml").write_text("source: shop\ntables:\n" + tables)
    os.environ.update(
        EDP_PROJECT=str(folder),
        EDP_STATE=str(folder / "state"),
        EDP_DAGSTER_STATE=str(folder / "state" / "dagster"),
        DAGSTER_HOME=str(home),
        EDP_ENVIRONMENT="bench",
        PYTHONPATH=str(ROOT),
    )
    return control


def _change(work: dict[str, Any]) -> None:
    from adbc_driver_postgresql import dbapi

    source = work["source"]
    target = f"host={source['host']} port={source['port']} user={source['user']} dbname={source['database']}"
    with closing(dbapi.connect(target, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
        for name in names(work["tables"]):
            cursor.execute(f"UPDATE public.{name} SET quantity = quantity + 1 WHERE id % 100 = 3")
