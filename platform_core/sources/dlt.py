"""Streams a resource of any dlt source, without dlt's pipelines, files and configuration."""

from __future__ import annotations

import base64
import datetime as dt
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import pyarrow as pa

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import Cursor, ReadRequest, Secret, Source
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.dlt_options import DltObjectOptions, DltOptions
from platform_core.sources.dlt_process import DltProcess
from platform_core.sources.naming import check_columns
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.specs.base import SecretRef
from platform_core.specs.ingestion import LoadMode

_NOTHING_KEPT = b"{}"


class DltSource(Source):
    """Resources of one dlt source: a team's own, a verified one, or one of dlt's."""

    Options = DltOptions
    ObjectOptions = DltObjectOptions
    kind = "dlt"
    keeps_state = True

    def __init__(self, options: DltOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()
        self._state: bytes | None = None

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns: declared ones, those the resource tells, and those of its first rows."""
        with closing(self._process(request, rows=False)) as process:
            return _selected(_checked(process.schema(), request), request)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows; the resource runs in a process of its own, which begins at once.

        Without a cursor, modes ``incremental`` and ``append`` go by dlt's own state, as the last load left it.
        """
        where = _where(request)
        self._state = None
        with ExitStack() as opening:
            process = opening.enter_context(closing(self._process(request, rows=True)))
            columns = _checked(process.schema(), request)
            schema = _selected(columns, request)
            within = CursorRange.of(request, {field.name: field.type for field in columns}, where=where)
            batches: Batches = shaped(
                within.only(self._remembering(process, request)), schema=schema, batch_rows=request.batch_rows
            )
            stream = Stream(batches, resources=opening.pop_all(), where=where, interrupt=process.stop)
        return self._streams.reader(schema, stream)

    def state(self) -> bytes | None:
        """What dlt keeps between loads, as JSON."""
        return self._state

    def close(self) -> None:
        """End the processes of unfinished reads."""
        self._streams.close()

    def _process(self, request: ReadRequest, *, rows: bool) -> DltProcess:
        if importlib.util.find_spec("dlt") is None:
            raise PluginError(
                "the source dlt needs the package dlt\n  install it: pip install 'edp-platform-core[dlt]'"
            )
        options, where = _options(request), _where(request)
        kept = request.state if _leaves_out(request) else None
        asked = {
            "where": where,
            "source": self.options.source,
            "object": request.object,
            "arguments": self._revealed(self.options.arguments),
            "config": self._revealed(self.options.config),
            "columns": options.columns,
            "table_name": options.table_name,
            "undeclared": options.undeclared,
            "sample_rows": options.sample_rows,
            "wanted": None
            if request.columns is None
            else [*dict.fromkeys([*request.columns, *filter(None, [request.cursor])])],
            "cursor": request.cursor,
            "since": None if request.since is None else _typed(request.since),
            "state": None if kept is None else base64.b64encode(kept).decode(),
            "rows": rows,
        }
        return DltProcess(asked, where=where)

    def _remembering(self, process: DltProcess, request: ReadRequest) -> Iterator[pa.RecordBatch]:
        """The rows; once all are read, what dlt keeps is what the next load is to know."""
        yield from process.batches()
        state = process.state()
        second = request.mode is LoadMode.APPEND and _leaves_out(request) and request.state is not None
        if second and state == _NOTHING_KEPT:
            raise SourceError(
                f"{_where(request)}: the resource keeps nothing between loads, so every row would be there twice\n"
                "  declare 'cursor', a column that grows from row to row, or use mode full with a key"
            )
        self._state = state

    def _revealed(self, value: Any) -> Any:
        if isinstance(value, SecretRef):
            return self.secret(value.secret).reveal().decode()
        if isinstance(value, Mapping):
            return {key: self._revealed(part) for key, part in value.items()}
        return [self._revealed(part) for part in value] if isinstance(value, list) else value


def _typed(value: Cursor) -> tuple[str, int | float | str]:
    """A cursor value with its type, for JSON."""
    if isinstance(value, dt.date):
        return ("datetime" if isinstance(value, dt.datetime) else "date"), value.isoformat()
    return "plain", value


def _where(request: ReadRequest) -> str:
    return f"dlt resource '{request.object}'"


def _options(request: ReadRequest) -> DltObjectOptions:
    return request.options if isinstance(request.options, DltObjectOptions) else DltObjectOptions()


def _leaves_out(request: ReadRequest) -> bool:
    """Whether what was read before is left out."""
    return request.mode in (LoadMode.INCREMENTAL, LoadMode.APPEND) and request.cursor is None


def _checked(columns: pa.Schema, request: ReadRequest) -> pa.Schema:
    check_columns([*(request.columns or ()), *filter(None, [request.cursor])], columns.names, where=_where(request))
    return columns


def _selected(columns: pa.Schema, request: ReadRequest) -> pa.Schema:
    names = columns.names if request.columns is None else request.columns
    return pa.schema([columns.field(name) for name in names])
