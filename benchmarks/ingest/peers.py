"""The other side: dlt and straight delta-rs, each doing the same work as far as it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

BACKENDS = ("connectorx", "connectorx stream", "pyarrow", "sqlalchemy")
STRATEGIES = ("replace", "cdc", "upsert")
"""What dlt offers for Delta tables: all rows anew; a merge that removes what the source lacks; one that does not."""

_STREAM_ROWS = 200_000


def address(source: dict[str, Any], *, driver: str = "") -> str:
    """The database's URL; the password comes from the environment and goes nowhere but into the driver."""
    password = quote(os.environ["PGPASSWORD"], safe="")
    return f"postgresql{driver}://{source['user']}:{password}@{source['host']}:{source['port']}/{source['database']}"


def prepared_dlt() -> None:
    """Import what a worker that loads has imported long before."""

    # The first pipeline of a process imports most of dlt.
    import sqlalchemy  # noqa: F401


def warmed(work: dict[str, Any]) -> None:
    """Load a few rows, as a process that has loaded before: dlt imports much only then."""
    prepared_dlt()
    dlt_load({**work, "day": "warm", "folder": f"{work['folder']}-warm"})


def pipeline(folder: str) -> Any:
    import dlt

    os.environ["LOAD__DELETE_COMPLETED_JOBS"] = "true"
    return dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.filesystem(bucket_url=f"{folder}/lake"),
        dataset_name="bench",
    )


def backend_options(backend: str) -> dict[str, Any]:
    """How a backend is asked for."""
    name, _, stream = backend.partition(" ")
    options: dict[str, Any] = {"backend": name}
    if stream:
        options |= {"chunk_size": _STREAM_ROWS, "backend_kwargs": {"return_type": "arrow_stream"}}
    elif name != "sqlalchemy":
        options["chunk_size"] = 100_000
    return options


def disposition(strategy: str) -> Any:
    return strategy if strategy == "replace" else {"disposition": "merge", "strategy": strategy}


def dlt_load(work: dict[str, Any]) -> dict[str, Any]:
    """One load by dlt; the incremental one goes on from the highest cursor of the load before it."""
    import dlt
    from dlt.sources.sql_database import sql_table

    strategy, backend = work["options"]["strategy"], work["options"]["backend"]
    # The cursor has to be known from the first load on.
    incremental: Any = dlt.sources.incremental("updated_at") if work["options"].get("incremental") else None
    table = sql_table(
        credentials=address(work["source"], driver="+psycopg2"),
        schema=work["day"],
        table="orders",
        incremental=incremental,
        reflection_level="full_with_precision",
        **backend_options(backend),
    )
    table.apply_hints(write_disposition=disposition(strategy), primary_key="id", table_format="delta")
    told = pipeline(work["folder"]).run(table)
    told.raise_on_failed_jobs()
    steps = {step.step: (step.finished_at - step.started_at).total_seconds() for step in told.pipeline.last_trace.steps}
    return {"phases": {name: seconds for name, seconds in steps.items() if name != "run"}}


def dlt_small(work: dict[str, Any]) -> dict[str, Any]:
    """One load by dlt of many small tables."""
    from dlt.sources.sql_database import sql_database

    names = [f"table_{number:03}" for number in range(work["tables"])]
    tables = sql_database(
        credentials=address(work["source"], driver="+psycopg2"),
        schema="public",
        table_names=names,
        reflection_level="full_with_precision",
        **backend_options(work["options"]["backend"]),
    )
    for resource in tables.resources.values():
        resource.apply_hints(
            write_disposition=disposition(work["options"]["strategy"]), primary_key="id", table_format="delta"
        )
    pipeline(work["folder"]).run(tables).raise_on_failed_jobs()
    return {}


def prepared_delta() -> None:
    """Import what a worker that loads has imported long before."""
    import pyarrow  # noqa: F401


def delta_merge(work: dict[str, Any]) -> dict[str, Any]:
    """Read by connectorx and MERGE all of it with delta-rs: only changed rows are updated, lacking ones flagged."""
    import connectorx
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    from benchmarks.ingest.source import COLUMNS

    uri = f"{work['folder']}/lake/bench/orders"
    reader = connectorx.read_sql(
        address(work["source"]),
        f"SELECT {', '.join(COLUMNS)} FROM {work['day']}.orders",
        protocol="binary",
        return_type="arrow_stream",
        batch_size=65_536,
    )
    flags = {"_is_current": True, "_is_deleted": False}
    schema = reader.schema
    for name in flags:
        schema = schema.append(pa.field(name, pa.bool_()))

    def flagged() -> Any:
        for batch in reader:
            columns = [*batch.columns, *(pa.repeat(value, batch.num_rows) for value in flags.values())]
            yield pa.record_batch(columns, schema=schema)

    rows = pa.RecordBatchReader.from_batches(schema, flagged())
    if not Path(uri).exists():
        write_deltalake(uri, rows)
        return {}
    differs = " OR ".join(f"(t.{name} IS DISTINCT FROM s.{name})" for name in (*COLUMNS, "_is_current") if name != "id")
    told = (
        DeltaTable(uri)
        .merge(rows, predicate="s.id = t.id", source_alias="s", target_alias="t")
        .when_matched_update_all(predicate=differs)
        .when_not_matched_insert_all()
        .when_not_matched_by_source_update({"_is_current": "false", "_is_deleted": "true"}, predicate="t._is_current")
        .execute()
    )
    return {"figures": {name: told[name] for name in told if name.startswith("num_target_rows")}}
