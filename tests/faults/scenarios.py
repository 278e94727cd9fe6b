"""Tables that are loaded day by day while something fails: their source, their declaration, and what must come out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.faults import FaultPoint
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import ColumnSpec, DetectDeletes, IngestionSpec, LoadMode, MaskingRule
from platform_core.specs.table import TableRef

MIDNIGHT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BATCH_ROWS = 15
RIDERS = TableRef("crm", "bronze", "riders")
ROWS = 60


class DayOptions(Model):
    """Which table is handed out, and the file that says which day it is."""

    scenario: str
    calendar: str


class DaySource(Source):
    """Hands out the rows that a scenario's source holds today, a few at a time.

    Today is what a file says: a load that goes on after others begins anew with what the source holds by then.
    """

    Options = DayOptions

    def schema(self, request: ReadRequest) -> pa.Schema:
        return self._rows().schema

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        rows = self._wanted(request)
        if request.cursor is not None and request.since is not None:
            column = rows[request.cursor]
            rows = rows.filter(pc.greater_equal(column, pa.scalar(request.since, column.type)))
        if request.columns is not None:
            rows = rows.select(request.columns)

        def batches() -> Iterator[pa.RecordBatch]:
            # A load that finds nothing new lands an empty batch, as a source with empty pages would.
            yield from rows.to_batches(max_chunksize=BATCH_ROWS) or [pa.RecordBatch.from_pylist([], schema=rows.schema)]

        return pa.RecordBatchReader.from_batches(rows.schema, batches())

    def _wanted(self, request: ReadRequest) -> pa.Table:
        return self._rows()

    def _rows(self) -> pa.Table:
        return SCENARIOS[self.options.scenario].rows(read_day(self.options.calendar))


class RememberingSource(DaySource):
    """Knows by itself how many of its rows it has handed out."""

    keeps_state = True

    def _wanted(self, request: ReadRequest) -> pa.Table:
        if request.mode is not LoadMode.APPEND:
            return self._rows()
        return self._rows().slice(int(request.state or b"0"))

    def state(self) -> bytes:
        return str(self._rows().num_rows).encode()


SOURCES: dict[str, type[Source]] = {"days": DaySource, "remembering days": RememberingSource}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A table and the days of its source.

    Args:
        source: a name in `SOURCES`.
        declared: fields of the declaration.
        rows: what the source holds on a day, counted from 0.
        beyond: points that its loads cannot reach, and why.
    """

    name: str
    source: str
    declared: dict[str, Any]
    rows: Callable[[int], pa.Table]
    beyond: dict[FaultPoint, str]

    @property
    def spec(self) -> IngestionSpec:
        mask = MaskingRule(mask="hash", options={"domain": "identifier"})
        return IngestionSpec(
            workstream="crm",
            source="days",
            object="riders",
            table="riders",
            columns={"secret": ColumnSpec(masking=mask)},
            **self.declared,
        )

    def connection(self, calendar: Path) -> ConnectionSpec:
        options = {"scenario": self.name, "calendar": str(calendar)}
        return ConnectionSpec(name="days", workstream="crm", type=self.source, options=options)

    @property
    def cursor(self) -> str | None:
        return self.declared.get("cursor")

    def alive(self, day: int) -> dict[int, str]:
        """Key and name of the rows that must be current in bronze once the day is loaded."""
        rows = self.rows(day).to_pylist()
        return {row["id"]: row["name"] for row in rows if not row.get("gone")}


def _table(rows: list[dict[str, Any]], *names: str) -> pa.Table:
    types = {"id": pa.int64(), "at": pa.int64(), "name": pa.string(), "gone": pa.bool_(), "secret": pa.string()}
    fields = pa.schema([(name, types[name]) for name in (*names, "secret")])
    return pa.Table.from_pylist([{**row, "secret": f"person {row['id']}"} for row in rows], schema=fields)


def _full(day: int) -> pa.Table:
    """Day 1 loses rows 3 to 5, which come back on day 2; the days after change, lose and bring others."""
    gone = {0: range(0), 1: range(3, 6)}.get(day, range(50, 58))
    changed = range(10 * (day - 1), 10 * day) if day >= 2 else range(0)
    ids = range(ROWS + 10 * max(day - 1, 0))
    rows = [
        {"id": id_, "name": f"name {id_}" + (f" of day {day}" if id_ in changed else "")}
        for id_ in ids
        if id_ not in gone
    ]
    return _table(rows, "id", "name")


def _incremental(day: int) -> pa.Table:
    """Day 2 flags some rows gone, loses others without a word, and brings a tie with the highest cursor value."""
    rows = {id_: {"id": id_, "at": 1_000 + id_, "name": f"name {id_}", "gone": False} for id_ in range(ROWS)}
    if day >= 1:
        rows[3] |= {"at": 1_500, "gone": True}
    if day >= 2:
        for id_ in range(10):
            rows[id_] |= {"at": 2_000 + id_, "name": f"name {id_} anew", "gone": False}
        for id_ in range(10, 15):
            rows[id_] |= {"at": 2_000 + id_, "gone": True}
        for id_ in range(50, 55):
            del rows[id_]
        rows |= {id_: {"id": id_, "at": 2_000, "name": f"name {id_}", "gone": False} for id_ in range(60, 80)}
        rows[80] = {"id": 80, "at": 1_500, "name": "tie", "gone": False}
    if day >= 3:
        for id_ in range(5, 25):
            rows[id_] |= {"at": 3_000 + id_, "name": f"name {id_} of day 3", "gone": id_ == 7}
        del rows[30]
    return _table([*rows.values()], "id", "at", "name", "gone")


def _append(day: int) -> pa.Table:
    rows = [{"id": id_, "at": 1_000 + id_, "name": f"name {id_}"} for id_ in range(30 * (day + 1))]
    return _table(rows, "id", "at", "name")


_NO_STATE = "this table is read whole each time, and nothing is remembered of its source"
_NO_HISTORY = "an append never changes a row, so it has no history"

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="full",
            source="days",
            declared={"mode": "full", "key": ("id",), "snapshot_history": True},
            rows=_full,
            beyond={FaultPoint.STATE_WRITE: _NO_STATE},
        ),
        Scenario(
            name="incremental",
            source="remembering days",
            declared={
                "mode": "incremental",
                "key": ("id",),
                "cursor": "at",
                "lookback": dt.timedelta(seconds=100),
                "deleted_flag": "gone",
                "detect_deletes": DetectDeletes(every=dt.timedelta(hours=1)),
                "snapshot_history": True,
            },
            rows=_incremental,
            beyond={},
        ),
        Scenario(
            name="append",
            source="remembering days",
            declared={"mode": "append", "cursor": "at"},
            rows=_append,
            beyond={FaultPoint.HISTORY_COMMIT: _NO_HISTORY},
        ),
        Scenario(
            name="append by state",
            source="remembering days",
            declared={"mode": "append"},
            rows=_append,
            beyond={FaultPoint.HISTORY_COMMIT: _NO_HISTORY},
        ),
    )
}


def read_day(calendar: str | Path) -> int:
    """Which day it is."""
    return int(Path(calendar).read_text())


def write_day(calendar: Path, day: int) -> None:
    """Let a day begin."""
    calendar.parent.mkdir(parents=True, exist_ok=True)
    written = calendar.with_suffix(".tmp")
    written.write_text(str(day))
    written.replace(calendar)


def started_at(day: int) -> dt.datetime:
    """When the load of a day is said to begin."""
    return MIDNIGHT + dt.timedelta(days=day)
