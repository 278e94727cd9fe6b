"""Every name that the platform gives to something in Dagster, in one place."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from platform_core.errors import Place
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, ColumnSpec, IngestionSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.table import TableRef

ISOLATED_TAG = "edp/isolated"
CONNECTION_TAG = "edp/connection"
ENGINE_TAG = "edp/engine"
TIMEOUT_TAG = "edp/timeout"
PRIORITY_TAG = "dagster/priority"

ENGINE, SPARK = "engine", "spark"
"""Values of :data:`ENGINE_TAG`, and pools: the engine of an environment, and where its steps of kind spark run."""
WORKSTREAM_TAG = "edp/workstream"
PAUSED_TAG = "edp/paused"
SERIAL_TAG = "edp/serial"
COMMIT_TAG = "edp/git_commit"

_UNSAFE = re.compile(r"[^A-Za-z0-9_]+")
_TECHNICAL_DESCRIPTIONS = dict(
    zip(
        TECHNICAL_COLUMNS,
        (
            "The row is in the source now.",
            "The row was in the source, and is gone.",
            "When the row was last inserted or changed here, UTC.",
            "The load that last touched the row.",
            "Hash over the source's columns.",
        ),
        strict=True,
    )
)


def asset_key(ref: TableRef) -> dg.AssetKey:
    """``[workstream, layer, name]``."""
    return dg.AssetKey(list(ref))


def table_ref(key: dg.AssetKey) -> TableRef | None:
    """The table that an asset key stands for; None for keys of another shape."""
    return TableRef(*key.path) if len(key.path) == 3 else None


def source_key(spec: IngestionSpec) -> dg.AssetKey:
    """``[workstream, source, <connection>__<object>]``: what a bronze table is read from."""
    return dg.AssetKey([spec.workstream, "source", f"{spec.source}__{_UNSAFE.sub('_', spec.object).strip('_')}"])


def op_name(ref: TableRef) -> str:
    """Name of the step in runs and logs."""
    return "__".join(ref)


def group_name(workstream: str, layer: str) -> str:
    """Group in the UI, one per workstream and layer; the UI nests groups at `/`."""
    return f"{workstream}/{layer}"


def job_name(workstream: str) -> str:
    """The job that runs a workstream's whole graph."""
    return workstream


def schedule_name(workstream: str) -> str:
    """The schedule of a workstream's job."""
    return f"{workstream}_schedule"


def sensor_name(location: str, *, part: int = 1, priority: int = 0) -> str:
    """A sensor that evaluates a location's automation conditions.

    A large location has several, counted from 1; so has one whose assets are not all of one priority.
    """
    name = f"{location}_automation"
    if priority:
        name += f"_priority_{'minus_' if priority < 0 else ''}{abs(priority)}"
    return name if part == 1 else f"{name}_{part}"


def metadata_key(location: str) -> dg.AssetKey:
    """What stands for the metadata that a location runs on; no table has a key of two parts."""
    return dg.AssetKey(["control", location])


def metadata_sensor_name(location: str) -> str:
    """The sensor that compares a location's metadata with what is applied."""
    return f"{location}_metadata"


def metadata_tags(*, serial: int | None, git_commit: str | None) -> dict[str, str]:
    """Tags of every run: which metadata it runs on.

    Args:
        serial: of the apply; None: it comes from control files.
        git_commit: None: the control files are not in git.
    """
    found = {} if serial is None else {SERIAL_TAG: str(serial)}
    return found if git_commit is None else {**found, COMMIT_TAG: git_commit}


def connection_tag(connection: ConnectionSpec) -> str:
    """Value of :data:`CONNECTION_TAG` on steps that read from a connection."""
    return f"{connection.workstream}.{connection.name}"


def owners(declared: tuple[str, ...], workstream: WorkstreamSpec) -> list[str]:
    """The declared owners, else the workstream's."""
    return list(declared or workstream.owners)


def code_reference(place: Place | None) -> dict[str, Any]:
    """Metadata that links an asset to the line of YAML that declares it."""
    if place is None:
        return {}
    reference = dg.LocalFileCodeReference(file_path=str(place.file.absolute()), line_number=place.line or 1)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def tags(workstream: str, declared: Mapping[str, str], *, paused: bool = False) -> dict[str, str]:
    """Tags of an asset."""
    return {WORKSTREAM_TAG: workstream, **declared, **({PAUSED_TAG: "true"} if paused else {})}


def op_tags(
    *,
    isolated: bool,
    connection: ConnectionSpec | None = None,
    engine: str = ENGINE,
    priority: int = 0,
    timeout: dt.timedelta | None = None,
) -> dict[str, str]:
    """Tags of a step, read by the executor."""
    result = {ISOLATED_TAG: "true"} if isolated else {}
    if connection is not None:
        result[CONNECTION_TAG] = connection_tag(connection)
    if _limited(connection) is None:
        result[ENGINE_TAG] = engine
    if timeout is not None:
        result[TIMEOUT_TAG] = f"{timeout.total_seconds():g}"
    return result | priority_tags(priority)


def priority_tags(priority: int) -> dict[str, str]:
    """Tags of a step, or of a run, that say before which others it goes; without one it has priority 0."""
    return {PRIORITY_TAG: str(priority)} if priority else {}


def pool(connection: ConnectionSpec | None = None, *, engine: str = ENGINE) -> str:
    """The pool in which a step waits with the steps of all runs.

    It is that of its connection if that has a limit, else the engine's: Dagster lets a step be in one pool.
    """
    limited = _limited(connection)
    return f"edp/{engine}" if limited is None else _pool_of(limited)


def pool_limits(connections: Iterable[ConnectionSpec], *, engines: Mapping[str, int | None]) -> dict[str, int | None]:
    """The limit of each pool; None: it has none.

    Args:
        connections: all of a location, so that a limit ends that is no longer declared.
        engines: steps that may use each engine at a time.
    """
    return {
        **{f"edp/{engine}": limit for engine, limit in engines.items()},
        **{_pool_of(connection): connection.max_concurrent for connection in connections},
    }


def concurrency_limits(
    connections: Iterable[ConnectionSpec], *, engines: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """Limits for the executor within a run: so many steps of one connection, or on the engine, at a time.

    Pools hold the same limits for all runs, but ask a database for each step and are asked every second; a run that
    keeps the limits by itself finds room there at once.
    """
    limits = [
        *((CONNECTION_TAG, connection_tag(connection), connection.max_concurrent) for connection in connections),
        *((ENGINE_TAG, engine, limit) for engine, limit in engines.items()),
    ]
    return [{"key": key, "value": value, "limit": limit} for key, value, limit in limits if limit is not None]


def _pool_of(connection: ConnectionSpec) -> str:
    return f"edp/connection/{connection_tag(connection)}"


def _limited(connection: ConnectionSpec | None) -> ConnectionSpec | None:
    return None if connection is None or connection.max_concurrent is None else connection


def declared_columns(columns: Mapping[str, ColumnSpec]) -> dict[str, Any]:
    """Column schema as far as it is declared, for an asset that was never built."""
    if not columns:
        return {}
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[_column(name, "unknown", columns) for name in columns],
        )
    }


def built_columns(schema: pa.Schema, columns: Mapping[str, ColumnSpec]) -> dg.TableSchema:
    """Column schema of a table as built, with what was declared about its columns."""
    return dg.TableSchema(columns=[_column(field.name, str(field.type), columns) for field in schema])


def column_lineage(origins: Mapping[str, Iterable[tuple[dg.AssetKey, str]]]) -> dg.TableColumnLineage:
    """Which columns of which assets each column is made from."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in made_from]
            for column, made_from in origins.items()
        }
    )


def deferred(tables: Iterable[TableRef]) -> dg.MetadataValue[Any]:
    """Tables that a personal environment read from the shared ones."""
    return dg.MetadataValue.json([str(table) for table in tables])


def _column(name: str, type_: str, columns: Mapping[str, ColumnSpec]) -> dg.TableColumn:
    declared = columns.get(name)
    if declared is None:
        return dg.TableColumn(name, type_, description=_TECHNICAL_DESCRIPTIONS.get(name))
    column_tags = {"personal": ""} if declared.personal or declared.masking else {}
    if declared.masking:
        column_tags["mask"] = declared.masking.mask
    return dg.TableColumn(name, type_, description=declared.description or None, tags=column_tags)
