"""Finds, binds and drains one dlt resource within its own process."""

from __future__ import annotations

import base64
import datetime as dt
import importlib
import inspect
from collections.abc import Callable
from typing import Any, BinaryIO

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.json import json
from dlt.common.pipeline import StateInjectableContext
from dlt.common.runtime.run_context import RunContext
from dlt.extract import DltResource, DltSource
from dlt.extract.hints import HintsMeta
from dlt.extract.incremental import Incremental, IncrementalResourceWrapper
from dlt.extract.items import TableNameMeta

from platform_core.errors import SourceError
from platform_core.sources.dlt_frames import Kind, write_frame
from platform_core.sources.dlt_rows import Rows
from platform_core.sources.dlt_values import hinted_type
from platform_core.sources.naming import known
from platform_core.sources.types import parse_type

_NOWHERE = "/nonexistent"


class QuietContext(RunContext):
    """dlt's surroundings: given values in place of files and variables, no telemetry, no folders."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(_NOWHERE)
        self._global_dir = _NOWHERE
        self._values = values

    def initial_providers(self) -> list[ConfigProvider]:
        return [CustomLoaderDocProvider("connection", lambda: self._values, supports_secrets=True)]

    def initialize_runtime(self, runtime_config: RuntimeConfiguration | None = None) -> None:
        # dlt's log could quote rows, and nobody reads it here.
        super().initialize_runtime(RuntimeConfiguration(dlthub_telemetry=False, log_level="CRITICAL"))


def run(asked: dict[str, Any], out: BinaryIO) -> None:
    """Tell the columns, the rows and the state of the resource that is asked for."""
    where = asked["where"]
    Container()[PluggableRunContext] = PluggableRunContext(QuietContext(asked["config"]))
    resource = find(asked["source"], asked["object"], asked["arguments"], where=where)
    state = _state_of(asked, resource)
    resource.add_filter(_of_table(resource, asked["table_name"], where))
    declared = _hints(resource) | {name: parse_type(text) for name, text in asked["columns"].items()}
    with Container().injectable_context(StateInjectableContext(state=state)):
        rows = Rows(
            iter(resource),
            declared=declared,
            wanted=asked["wanted"],
            undeclared=asked["undeclared"],
            sample_rows=asked["sample_rows"],
            where=where,
        )
        write_frame(out, Kind.SCHEMA, rows.schema.serialize().to_pybytes())
        for batch in rows.batches() if asked["rows"] else ():
            write_frame(out, Kind.ROWS, _packed(batch))
    write_frame(out, Kind.DONE, json.typed_dumpb(state.get("sources") or {}))


def find(path: str, name: str, arguments: dict[str, Any], *, where: str) -> DltResource:
    """The named resource of what ``module:function`` gives.

    Raises:
        SourceError: there is none of that name, or the function gives something else.
    """
    module, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SourceError(f"{where}: module {module} has no '{attribute}'\n  correct the connection's 'source'")
        found = getattr(found, part)
    if callable(found) and not isinstance(found, DltSource) and (arguments or not isinstance(found, DltResource)):
        found = found(**arguments)
    if isinstance(found, DltSource):
        resources: dict[str, DltResource] = dict(found.resources)
    elif isinstance(found, DltResource):
        resources = {found.name: found}
    elif isinstance(found, (list, tuple)) and found and all(isinstance(each, DltResource) for each in found):
        resources = {each.name: each for each in found}
    elif hasattr(found, "__iter__") and not isinstance(found, (str, bytes, dict)):
        resources = {name: dlt.resource(found, name=name)}
    else:
        raise SourceError(f"{where}: {path} gives neither a dlt source or resource, nor rows")
    if name not in resources:
        raise SourceError(f"{where}: {path} has no resource '{name}'\n{known('resources', name, resources)}")
    return resources[name]


def _hints(resource: DltResource) -> dict[str, pa.DataType]:
    """Types that the resource itself tells; those that depend on a row tell nothing beforehand."""
    if resource.has_dynamic_table_name or resource.has_other_dynamic_hints:
        return {}
    columns = resource.compute_table_schema().get("columns", {})
    types = {name: hinted_type(hint) for name, hint in columns.items()}
    return {name: type_ for name, type_ in types.items() if type_ is not None}


def _state_of(asked: dict[str, Any], resource: DltResource) -> Any:
    """dlt's state as it is to begin: what was kept, or the lowest cursor value wanted, or nothing."""
    if asked["state"] is not None:
        return {"sources": json.typed_loadb(base64.b64decode(asked["state"]))}
    incremental = _incremental(resource)
    if asked["since"] is None or incremental is None or incremental.cursor_path != asked["cursor"]:
        return {}
    since = _comparable(_cursor_value(*asked["since"]), incremental.initial_value)
    kept = {"initial_value": since, "last_value": since, "start_value": since, "unique_hashes": []}
    key = resource._get_config_section_context().source_state_key
    return {"sources": {key: {"resources": {resource.name: {"incremental": {incremental.cursor_path: kept}}}}}}


def _incremental(resource: DltResource) -> Incremental[Any] | None:
    """The incremental cursor that a resource declares, by hint or as an argument's default."""
    wrapper = resource.incremental
    if wrapper is None or wrapper.incremental is not None:
        return None if wrapper is None else wrapper.incremental
    generating: Any = resource._pipe.gen
    function = inspect.unwrap(generating)
    argument = IncrementalResourceWrapper.get_incremental_arg(inspect.signature(function))
    return argument.default if argument is not None and isinstance(argument.default, Incremental) else None


def _cursor_value(kind: str, value: Any) -> Any:
    """A cursor value from its JSON."""
    if kind == "datetime":
        return dt.datetime.fromisoformat(value)
    return dt.date.fromisoformat(value) if kind == "date" else value


def _comparable(since: Any, initial: Any) -> Any:
    """A cursor value of the kind that the resource compares its rows with; lower rather than higher.

    Texts of times differ in fractions and zones, which do not sort as the times do: two days earlier no text of a
    wanted row sorts below.
    """
    if isinstance(initial, str) and isinstance(since, dt.date):
        early = since - dt.timedelta(days=2) if since.year > 1 else since
        return f"{early.year:04}-{early.month:02}-{early.day:02}T00:00:00Z"
    if isinstance(initial, dt.datetime) and isinstance(since, dt.datetime):
        if initial.tzinfo is None and since.tzinfo is not None:
            return since.astimezone(dt.UTC).replace(tzinfo=None)
        if initial.tzinfo is not None and since.tzinfo is None:
            return since.replace(tzinfo=dt.UTC)
    return since


def _of_table(resource: DltResource, wanted: str | None, where: str) -> Callable[[Any, Any], bool]:
    """Whether a row belongs to the table that is read; rows of several tables are not mixed."""
    by_row = resource.table_name if callable(resource.table_name) else None
    own = resource.name if by_row is not None else str(resource.table_name)

    def is_wanted(item: Any, meta: Any) -> bool:
        table = own
        if isinstance(meta, TableNameMeta):
            table = meta.table_name
        elif isinstance(meta, HintsMeta) and isinstance(meta.hints.get("table_name"), str):
            table = str(meta.hints["table_name"])
        elif by_row is not None:
            table = str(by_row(item))
        if wanted is None and table != own:
            raise SourceError(
                f"{where}: the resource gives rows of several tables\n"
                "  name one of them under the table's options: table_name"
            )
        return table == (wanted or own)

    return is_wanted


def _packed(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content
