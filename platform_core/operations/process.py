"""Run one processing step: read its inputs as of now, make its rows, write them as one Delta commit."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from platform_core.errors import StepError
from platform_core.lake.delta import DeltaTableReader, Written, open_table, table_schema, write
from platform_core.lake.views import ViewReader
from platform_core.operations.column_lineage import Origin, column_lineage
from platform_core.operations.inputs import OpenInputs, is_table, open_inputs, shown_name
from platform_core.operations.platform import Platform
from platform_core.operations.run_options import Window
from platform_core.operations.step_body import begun
from platform_core.operations.step_context import Figure, InputTable, LastSuccess, StepContext, newest_batch
from platform_core.specs.processing import WINDOW_VARIABLES, ProcessingSpec, StepKind, WriteMode
from platform_core.specs.sql import SqlError, parameters, qualified, referenced_tables
from platform_core.specs.table import TableRef

__all__ = ["InputTable", "LastSuccess", "StepContext", "StepResult", "process"]

T = TypeVar("T")

_MADE_FROM = "made_from"
_RECENT_COMMITS = 100
_CLOCK = dt.timedelta(milliseconds=1)
"""A time that was recorded as a number may come back so much earlier or later."""

Readers = Mapping[TableRef, DeltaTableReader | ViewReader]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step did.

    Args:
        table: the table it makes.
        rows: rows that it wrote; 0 where it makes no table.
        inserted: rows that a merge added; None for other write modes.
        updated: rows that a merge replaced; None for other write modes.
        partitions: how many partitions were replaced; None for other write modes, and where the whole table was.
        version: Delta version after the step; None where it makes no table.
        committed: whether it made a commit.
        started_at: when it began, UTC: before its inputs were opened.
        seconds: how long it took.
        read_batches: highest batch id in what it read, by table in full; only tables that have batches.
        read_versions: Delta version that it read, by table in full.
        success: what the next run takes for the last success; None: that there was none. Of a backfill it is the one
            that was before.
        deferred: what it read from the shared tables, for want of the person's own.
        figures: numbers and short texts that the step added.
        schema: columns of its table; None where it makes none.
        written_bytes: size of the files that it added.
        column_lineage: columns that each column is made from, where the step's SQL tells.
        notebook: the executed copy of the step's notebook; None where it has none.
    """

    table: TableRef
    rows: int = 0
    inserted: int | None = None
    updated: int | None = None
    partitions: int | None = None
    version: int | None = None
    committed: bool = False
    started_at: dt.datetime
    seconds: float = 0.0
    read_batches: Mapping[str, int] = field(default_factory=dict)
    read_versions: Mapping[str, int] = field(default_factory=dict)
    success: LastSuccess | None = None
    deferred: tuple[TableRef, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    schema: pa.Schema | None = None
    written_bytes: int = 0
    column_lineage: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    notebook: Path | None = None


def process(spec: ProcessingSpec, *, root: Path, platform: Platform, last: LastSuccess | None) -> StepResult:
    """Run a step.

    All inputs are opened before the step runs, and are read as of that moment. The result is streamed into one
    commit: after an error, or when the run is cancelled, the table is as it was. Running it again is safe: overwrite,
    merge and partition give the same rows, and an append of what the table was already given is left out, as is one
    that this very run has made before it died.

    Args:
        spec: the step.
        root: folder that paths in it count from.
        platform: the environment, and what the run asks for: with a full refresh the result replaces the whole table,
            whatever the step's write mode.
        last: the last successful run of the step; None where there was none.

    Raises:
        StepError: the query or function failed; the text holds no row value.
        LoadError: merge keys are null or doubled, or another writer committed first.
        SchemaError: the columns do not fit the table.
        StorageError: the lake refused.
    """
    clock = time.monotonic()
    started_at = dt.datetime.now(dt.UTC)
    # What is wrong with a query is mended in its file, not where the step is declared.
    places = ", ".join(str(place) for place in (spec.place, spec.sql) if place)
    where = f"step {spec.ref}" + (f" ({places})" if places else "")
    sql = _query(spec, root=root, where=where) if spec.kind is StepKind.SQL else None
    opened = _open(_inputs(spec, sql), by_query=sql is not None, platform=platform, where=where)
    inputs = opened.readers
    result = StepResult(
        table=spec.ref,
        started_at=started_at,
        read_batches={
            shown_name(ref, table, platform.lake): batch
            for ref, table in inputs.items()
            if (batch := newest_batch(ref, table)) is not None
        },
        read_versions={shown_name(ref, table, platform.lake): table.version for ref, table in inputs.items()},
        deferred=opened.deferred,
    )
    result = replace(result, success=LastSuccess(started_at=started_at, read_batches=result.read_batches))
    run = platform.run
    if spec.write is WriteMode.APPEND and not run.full_refresh and (given := _given(spec, platform=platform)):
        if given.versions and given.versions == result.read_versions:
            platform.log.info("%s: nothing to append, its inputs are those of its last append", spec.ref)
            return _described(replace(result, seconds=time.monotonic() - clock), spec, platform=platform)
        if given.is_of(run.run, last=last):
            platform.log.info("%s: nothing to append, this run did so before it was interrupted", spec.ref)
            return _described(given.told_by(result, seconds=time.monotonic() - clock), spec, platform=platform)
        last = given.ahead_of(last)
    if sql is not None:
        if run.window is not None and {*WINDOW_VARIABLES} & {*parameters(sql)}:
            _refuse_part(spec, where=where)
            result = replace(result, success=last)
        variables = spec.variables | _window_variables(run.window)
        rows = _failing_at(
            where,
            lambda: platform.engine.select(sql, tables=inputs, variables=variables, cancelled=platform.cancelled),
        )
        result = _stored(rows, result, spec, platform=platform, where=where)
        result = replace(result, column_lineage=_lineage(sql, inputs))
    else:
        context = StepContext(spec, inputs=inputs, platform=platform, last=last)
        with closing(context), begun(spec, context, root=root, platform=platform, where=where) as body:
            if body.rows is None:
                _stop_if_cancelled(platform.cancelled, where=where)
            else:
                result = _stored(body.rows, result, spec, platform=platform, where=where, context=context)
            result = replace(result, notebook=body.notebook)
        # Read last: a function that is a generator adds its figures while its rows are written.
        result = replace(result, figures=context.figures, success=last if context.is_backfill else result.success)
    return replace(result, seconds=time.monotonic() - clock)


def _window_variables(window: Window | None) -> dict[str, dt.datetime | None]:
    bounds = (None, None) if window is None else (window.start, window.end)
    return dict(zip(WINDOW_VARIABLES, bounds, strict=True))


def _refuse_part(spec: ProcessingSpec, *, where: str) -> None:
    """Refuse the rows of a range where the table would not hold the others, or would hold these twice."""
    if spec.write in (WriteMode.PARTITION, WriteMode.MERGE):
        return
    harm = "add the rows of that range once more" if spec.write is WriteMode.APPEND else "keep that range alone"
    raise StepError(
        f"{where}: it asks for the range of a backfill, and write: {spec.write} would {harm}; nothing was written\n"
        "  declare write: partition or merge, or leave the step out of the backfill"
    )


def _query(spec: ProcessingSpec, *, root: Path, where: str) -> str:
    """The step's SELECT with all tables named in full."""
    folder = root.resolve()
    path = (folder / str(spec.sql)).resolve()
    if not path.is_relative_to(folder):
        raise StepError(f"{where}: {spec.sql} lies outside {folder}\n  keep SQL files in the location's package")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{where}: {path} cannot be read ({type(error).__name__})") from None
    try:
        return qualified(text, workstream=spec.workstream)
    except SqlError as error:
        raise StepError(f"{path}:{error.line}: {error.message}" if error.line else f"{path}: {error.message}") from None


def _inputs(spec: ProcessingSpec, sql: str | None) -> tuple[TableRef, ...]:
    return spec.inputs if sql is None else referenced_tables(sql, workstream=spec.workstream)


def _open(refs: tuple[TableRef, ...], *, by_query: bool, platform: Platform, where: str) -> OpenInputs:
    opened = open_inputs(refs, platform=platform)
    missing = [ref for ref in opened.missing if by_query or is_table(ref)]
    if missing:
        ref = missing[0]
        raise StepError(
            f"{where}: table {ref} does not exist yet\n  looked at: {platform.lake.places(ref)}\n  build {ref} first"
        )
    if opened.deferred:
        platform.log.info("%s: reads the shared %s", where, ", ".join(map(str, opened.deferred)))
    return opened


def _stored(
    rows: pa.RecordBatchReader,
    result: StepResult,
    spec: ProcessingSpec,
    *,
    platform: Platform,
    where: str,
    context: StepContext | None = None,
) -> StepResult:
    """Write what a step made; ``context`` is asked, once its rows have ended, whether they are those of a range."""
    made_from = {
        "run": platform.run.run,
        "started_at": result.started_at.isoformat(),
        "versions": dict(result.read_versions),
        "batches": dict(result.read_batches),
    }

    def whole() -> Iterator[pa.RecordBatch]:
        yield from _until_cancelled(rows, platform.cancelled, where=where)
        if context is not None and context.is_backfill:
            _refuse_part(spec, where=where)

    written: Written = write(
        pa.RecordBatchReader.from_batches(rows.schema, whole()),
        table=spec.ref,
        uri=platform.lake.table(spec.ref),
        storage_options=platform.lake.storage_options,
        mode=spec.write,
        key=spec.key,
        partition_by=spec.partition_by,
        anew=platform.run.full_refresh,
        metadata={_MADE_FROM: json.dumps(made_from)},
    )
    stored = replace(
        result,
        rows=written.rows,
        partitions=written.partitions,
        version=written.version,
        committed=written.committed,
        written_bytes=written.bytes,
    )
    return _described(stored, spec, platform=platform)


def _described(result: StepResult, spec: ProcessingSpec, *, platform: Platform) -> StepResult:
    """The result with what the table itself tells: version, columns, and what a merge changed."""
    uri, options = platform.lake.table(spec.ref), platform.lake.storage_options
    table = open_table(uri, storage_options=options, version=result.version)
    if table is None:
        return result
    inserted = updated = None
    if spec.write is WriteMode.MERGE and result.committed:
        commit: dict[str, Any] = table.history(1)[0]
        metrics = commit.get("operationMetrics", {})
        # The first write of a merge step finds no table, and so only adds; a full refresh adds all of its rows.
        inserted = int(metrics.get("num_target_rows_inserted", result.rows))
        updated = int(metrics.get("num_target_rows_updated", 0))
    return replace(result, version=table.version(), schema=table_schema(table), inserted=inserted, updated=updated)


def _until_cancelled(
    rows: pa.RecordBatchReader, cancelled: Callable[[], bool], *, where: str
) -> Iterator[pa.RecordBatch]:
    while True:
        _stop_if_cancelled(cancelled, where=where)
        batch = _failing_at(where, lambda: next(rows, None))
        if batch is None:
            # A step that polls may have ended its rows early: these are not all.
            _stop_if_cancelled(cancelled, where=where)
            return
        yield batch


def _stop_if_cancelled(cancelled: Callable[[], bool], *, where: str) -> None:
    if cancelled():
        raise StepError(f"{where}: cancelled; nothing was written")


def _failing_at(where: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except StepError as error:
        text = str(error)
        raise StepError(text if text.startswith(where) else f"{where}: {text}") from None


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What the table's newest append was made from, as its commit tells."""

    run: str | None
    started_at: dt.datetime
    versions: Mapping[str, int]
    batches: Mapping[str, int]

    def is_of(self, run: str | None, *, last: LastSuccess | None) -> bool:
        """Whether the same run made it, and died before that was recorded: it must not append once more."""
        return run is not None and run == self.run and (last is None or last.started_at < self.started_at - _CLOCK)

    def told_by(self, result: StepResult, *, seconds: float) -> StepResult:
        """The result of a run that finds its work done: what counts as read is what the append was made from."""
        success = LastSuccess(started_at=self.started_at, read_batches=self.batches)
        return replace(result, read_batches=self.batches, read_versions=self.versions, success=success, seconds=seconds)

    def ahead_of(self, last: LastSuccess | None) -> LastSuccess:
        """The later of both: a run that committed, and died before that was recorded, has read its batches too."""
        known = last.read_batches if last else {}
        batches = {name: max(known.get(name, 0), self.batches.get(name, 0)) for name in {*known, *self.batches}}
        return LastSuccess(
            started_at=max(last.started_at, self.started_at) if last else self.started_at, read_batches=batches
        )


def _given(spec: ProcessingSpec, *, platform: Platform) -> _Given | None:
    table = open_table(platform.lake.table(spec.ref), storage_options=platform.lake.storage_options)
    if table is None:
        return None
    for commit in table.history(_RECENT_COMMITS):
        if text := commit.get(f"edp.{_MADE_FROM}"):
            made_from = json.loads(text)
            return _Given(
                run=made_from.get("run"),
                started_at=dt.datetime.fromisoformat(made_from["started_at"]),
                versions=made_from["versions"],
                batches=made_from["batches"],
            )
    return None


def _lineage(sql: str, inputs: Readers) -> dict[str, tuple[Origin, ...]]:
    return column_lineage(sql, schemas={ref: tuple(table.schema.names) for ref, table in inputs.items()})
