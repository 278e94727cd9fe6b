"""What each write mode promises: one commit, safe to repeat, and made anew or backfilled when a run asks for it."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import SchemaError, StepError
from platform_core.lake.delta import DeltaTableReader, open_table
from platform_core.operations.platform import Platform
from platform_core.operations.process import LastSuccess, StepContext, StepResult, process
from platform_core.operations.run_options import RunOptions, Window
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef

MODES: dict[str, dict[str, Any]] = {
    "overwrite": {},
    "append": {},
    "merge": {"key": ("id",)},
    "partition": {"partition_by": ("day",)},
}
KINDS = ("sql", "python")
MADE = TableRef("mobility", "silver", "made")
JANUARY = Window(start=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), end=dt.datetime(2026, 1, 3, tzinfo=dt.UTC))
SOURCE = "bronze.rides"


def rides(*rows: tuple[int, int, int], batch: int = 1) -> pa.Table:
    """Rows of (id, day of January, amount)."""
    return pa.table(
        {
            "id": pa.array([id for id, _, _ in rows], pa.int64()),
            "day": pa.array([dt.date(2026, 1, day) for _, day, _ in rows], pa.date32()),
            "amount": pa.array([amount for _, _, amount in rows], pa.int64()),
            "_batch_id": pa.array([batch] * len(rows), pa.int64()),
        }
    )


class Step:
    """One step of any kind and mode over ``bronze.rides``, and what its table holds."""

    def __init__(self, platform: Platform, root: Path) -> None:
        self.platform = platform
        self.root = root
        self.body: Callable[[StepContext], Any] = lambda context: (
            context.inputs[SOURCE].relation().select("id, day, amount")
        )

    def spec(self, mode: str, *, sql: str | None = None, **fields: Any) -> ProcessingSpec:
        kind: dict[str, Any] = {"kind": "python", "function": "write_modes_step:step", "depends_on": (SOURCE,)}
        if sql is not None:
            (self.root / "step.sql").write_text(sql)
            kind = {"kind": "sql", "sql": "step.sql"}
        named = {"workstream": MADE.workstream, "layer": MADE.layer, "name": MADE.name, "write": mode}
        return ProcessingSpec(**named | MODES[mode] | kind | fields)

    def run(
        self, spec: ProcessingSpec, *, last: LastSuccess | None = None, options: RunOptions | None = None
    ) -> StepResult:
        platform = replace(self.platform, run=options or RunOptions())
        return process(spec, root=self.root, platform=platform, last=last)

    def of(self, kind: str, mode: str) -> ProcessingSpec:
        return self.spec(mode, sql=f"select id, day, amount from {SOURCE}" if kind == "sql" else None)

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        reader = DeltaTableReader.open(self.platform.lake.table(MADE), storage_options={})
        assert reader is not None
        found = reader.read(columns=("id", "day", "amount")).read_all().to_pylist()
        return sorted((row["id"], row["day"].day, row["amount"]) for row in found)

    @property
    def version(self) -> int:
        table = open_table(self.platform.lake.table(MADE), storage_options={})
        return -1 if table is None else table.version()


@pytest.fixture
def step(platform: Platform, tmp_path: Path) -> Iterator[Step]:
    made = Step(platform, tmp_path)
    module = ModuleType("write_modes_step")
    module.step = lambda context: made.body(context)  # type: ignore[attr-defined]
    sys.modules["write_modes_step"] = module
    yield made
    del sys.modules["write_modes_step"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("overwrite", [(2, 2, 21), (3, 2, 30)]),
        ("append", [(1, 1, 10), (2, 2, 20), (2, 2, 21), (3, 2, 30)]),
        ("merge", [(1, 1, 10), (2, 2, 21), (3, 2, 30)]),
        ("partition", [(1, 1, 10), (2, 2, 21), (3, 2, 30)]),
    ],
)
def test_each_mode_meets_what_the_table_holds_in_one_commit(
    step: Step, put: Any, kind: str, mode: str, expected: list[Any]
) -> None:
    put(SOURCE, rides((1, 1, 10), (2, 2, 20)))
    step.run(step.of(kind, mode))
    put(SOURCE, rides((2, 2, 21), (3, 2, 30)))
    result = step.run(step.of(kind, mode))
    assert step.rows == expected
    assert (result.version, result.committed, result.partitions) == (1, True, 1 if mode == "partition" else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moved", [False, True], ids=["same inputs", "newer inputs"])
@pytest.mark.parametrize("mode", MODES)
def test_a_retry_of_a_run_that_died_after_its_commit_doubles_nothing(
    step: Step, put: Any, kind: str, mode: str, moved: bool
) -> None:
    put(SOURCE, rides((1, 1, 10)))
    run = RunOptions(run="4711")
    step.run(step.of(kind, mode), options=run)
    if moved:
        put(SOURCE, rides((2, 1, 20), batch=2), mode=WriteMode.APPEND, batch=2)
    step.run(step.of(kind, mode), options=run)
    seen = [id for id, _, _ in step.rows]
    assert sorted({*seen}) == seen


def test_a_retry_that_finds_its_rows_appended_leaves_newer_ones_to_the_next_run(step: Step, put: Any) -> None:
    put(SOURCE, rides((1, 1, 10), batch=1), batch=1)
    step.body = lambda context: context.changed_rows(SOURCE)
    spec, run = step.spec("append"), RunOptions(run="4711")
    first = step.run(spec, options=run)
    put(SOURCE, rides((2, 1, 20), batch=2), mode=WriteMode.APPEND, batch=2)
    again = step.run(spec, options=run)
    assert (again.committed, again.version) == (False, 0)
    assert again.success == LastSuccess(started_at=first.started_at, read_batches={"mobility.bronze.rides": 1})
    assert step.run(spec, last=again.success, options=RunOptions(run="4712")).rows == 1
    assert [id for id, _, _ in step.rows] == [1, 2]


def test_a_run_that_was_recorded_appends_again_when_a_person_runs_it_again(step: Step, put: Any) -> None:
    put(SOURCE, rides((1, 1, 10)))
    spec, run = step.spec("append"), RunOptions(run="4711")
    first = step.run(spec, options=run)
    put(SOURCE, rides((1, 1, 11)))
    assert step.run(spec, last=first.success, options=run).committed
    assert step.rows == [(1, 1, 10), (1, 1, 11)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "expected"), [("overwrite", []), ("append", [1]), ("merge", [1]), ("partition", [1])])
def test_a_result_without_rows_empties_a_table_only_where_it_replaces_it(
    step: Step, put: Any, kind: str, mode: str, expected: list[int]
) -> None:
    put(SOURCE, rides((1, 1, 10)))
    step.run(step.of(kind, mode))
    put(SOURCE, rides())
    assert step.run(step.of(kind, mode)).rows == 0
    assert [id for id, _, _ in step.rows] == expected


@pytest.mark.parametrize("mode", MODES)
def test_other_columns_are_taken_over_where_the_table_is_replaced_and_refused_elsewhere(
    step: Step, put: Any, mode: str
) -> None:
    put(SOURCE, rides((1, 1, 10)))
    step.run(step.spec(mode, sql=f"select id, day, amount from {SOURCE}"))
    put(SOURCE, rides((1, 1, 11)))
    wider = step.spec(mode, sql=f"select id, day, amount, amount * 2 as twice from {SOURCE}")
    if mode != "overwrite":
        with pytest.raises(SchemaError, match="added: twice"):
            step.run(wider)
        assert (step.version, step.rows) == (0, [(1, 1, 10)])
    result = step.run(wider, options=RunOptions(full_refresh=True))
    assert result.schema is not None and "twice" in result.schema.names
    assert (step.version, step.rows) == (1, [(1, 1, 11)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_full_refresh_makes_a_table_anew_in_one_commit(step: Step, put: Any, kind: str, mode: str) -> None:
    put(SOURCE, rides((1, 1, 10), (2, 2, 20)))
    step.run(step.of(kind, mode))
    put(SOURCE, rides((3, 3, 30)))
    anew = RunOptions(run="4711", full_refresh=True)
    for _ in range(2):
        step.run(step.of(kind, mode), options=anew)
        assert step.rows == [(3, 3, 30)]
    assert step.version == 2


def test_in_a_full_refresh_a_step_sees_every_row_and_no_last_success(step: Step, put: Any) -> None:
    put(SOURCE, rides((1, 1, 10), batch=1), batch=1)
    put(SOURCE, rides((2, 1, 20), batch=2), mode=WriteMode.APPEND, batch=2)
    seen: list[Any] = []

    def body(context: StepContext) -> pa.Table:
        changed = context.changed_rows(SOURCE).read_all()
        seen.append((context.full_refresh, context.last_success is None, changed.num_rows))
        return changed

    step.body = body
    spec = step.spec("merge")
    first = step.run(spec)
    last = LastSuccess(started_at=first.started_at, read_batches={"mobility.bronze.rides": 1})
    step.run(spec, last=last)
    again = step.run(spec, last=last, options=RunOptions(full_refresh=True))
    assert seen == [(False, True, 2), (False, False, 1), (True, True, 2)]
    assert again.success is not None and again.success.read_batches == {"mobility.bronze.rides": 2}


def test_after_a_full_refresh_an_append_goes_on_from_what_that_had_read(step: Step, put: Any) -> None:
    put(SOURCE, rides((1, 1, 10), batch=1), batch=1)
    step.body = lambda context: context.changed_rows(SOURCE)
    spec = step.spec("append")
    step.run(spec, options=RunOptions(run="4711", full_refresh=True))
    put(SOURCE, rides((2, 1, 20), batch=2), mode=WriteMode.APPEND, batch=2)
    step.run(spec)
    assert [id for id, _, _ in step.rows] == [1, 2]


RANGE = f"""
select id, day, amount from {SOURCE}
where ($window_start is null or day >= $window_start) and ($window_end is null or day < $window_end)
"""


def within(context: StepContext) -> Any:
    relation = context.inputs[SOURCE].relation().select("id, day, amount")
    if (window := context.window) is None:
        return relation
    return relation.filter(f"day >= '{window.start.date()}' and day < '{window.end.date()}'")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["merge", "partition"])
def test_a_backfill_makes_its_range_anew_and_leaves_the_rest(step: Step, put: Any, kind: str, mode: str) -> None:
    step.body = within
    spec = step.spec(mode, sql=RANGE if kind == "sql" else None)
    put(SOURCE, rides((1, 1, 10), (2, 2, 20), (3, 3, 30)))
    step.run(spec)
    put(SOURCE, rides((1, 1, 11), (2, 2, 21), (3, 3, 31)))
    step.run(spec, options=RunOptions(window=JANUARY))
    assert step.rows == [(1, 1, 11), (2, 2, 21), (3, 3, 30)]


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_backfill_what_changed_outside_of_it_has_still_changed(step: Step, put: Any, kind: str) -> None:
    step.body = within
    spec = step.spec("partition", sql=RANGE if kind == "sql" else None)
    put(SOURCE, rides((1, 1, 10), batch=1), batch=1)
    first = step.run(spec)
    put(SOURCE, rides((3, 3, 30), batch=2), mode=WriteMode.APPEND, batch=2)
    backfill = step.run(spec, last=first.success, options=RunOptions(window=JANUARY))
    assert backfill.read_batches == {"mobility.bronze.rides": 2}
    assert backfill.success == first.success
    assert step.run(spec, options=RunOptions(window=JANUARY)).success is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "harm"), [("overwrite", "keep that range alone"), ("append", "once more")])
def test_a_range_of_rows_is_refused_where_it_would_do_harm(
    step: Step, put: Any, kind: str, mode: str, harm: str
) -> None:
    def streamed(context: StepContext) -> Iterator[pa.RecordBatch]:
        yield from context.inputs[SOURCE].arrow().select(["id", "day", "amount"]).to_batches()
        assert context.window is not None

    step.body = within
    spec = step.spec(mode, sql=RANGE if kind == "sql" else None)
    put(SOURCE, rides((1, 1, 10), (3, 3, 30)))
    step.run(spec)
    put(SOURCE, rides((1, 1, 11)))
    for step.body in (within, streamed):
        with pytest.raises(
            StepError, match=f"(?s)write: {mode} would.*{harm}; nothing was written.*partition or merge"
        ):
            step.run(spec, options=RunOptions(window=JANUARY))
    assert (step.version, step.rows) == (0, [(1, 1, 10), (3, 3, 30)])


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_does_not_ask_for_the_range_runs_in_a_backfill_as_ever(step: Step, put: Any, mode: str) -> None:
    put(SOURCE, rides((1, 1, 10), batch=4), batch=4)
    result = step.run(step.spec(mode), options=RunOptions(window=JANUARY))
    assert step.rows == [(1, 1, 10)]
    assert result.success is not None and result.success.read_batches == {"mobility.bronze.rides": 4}


def test_changed_rows_of_a_steps_table_go_by_the_batch_ids_that_its_rows_keep(step: Step, put: Any) -> None:
    silver = "silver.rides"
    for number in range(1, 6):
        put(silver, rides((number, 1, 10), batch=number), mode=WriteMode.APPEND)
    # One more commit than batches: the table's own count is ahead.
    put(silver, rides(), mode=WriteMode.APPEND)
    spec = step.spec("merge").model_copy(update={"depends_on": (silver,)})
    step.body = lambda context: context.changed_rows(silver)
    first = step.run(spec)
    assert first.read_batches == {"mobility.silver.rides": 5}
    put(silver, rides((6, 1, 10), batch=6), mode=WriteMode.APPEND)
    assert step.run(spec, last=first.success).rows == 1
