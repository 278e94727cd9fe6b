"""A load that overlaps a step at any moment loses nothing: each row is handled by one of the step's runs."""

from __future__ import annotations

import datetime as dt
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.factories.success import last_success, success_metadata
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.process import StepContext, StepResult, process
from platform_core.operations.run_options import RunOptions
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef
from tests.operations.conftest import platform_at, put_into

MOMENTS = (
    "before the step begins",
    "before it opens its inputs",
    "after it has opened its inputs",
    "between two of its batches",
    "after its commit, before that is recorded",
    "after it is recorded",
)
MADE = TableRef("mobility", "silver", "made")
MODULE = "interleaved_step"


class Interleaved:
    """A table, a step that handles its changed rows, and what happens while the step runs."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, mode: WriteMode) -> None:
        self.root = root
        self.instance = instance
        # The instance is shared, as making one costs more than a test; each test has a key of its own.
        self.key = dg.AssetKey([*MADE, root.name])
        self.platform = platform_at(root)
        self.meanwhile: Callable[[str], None] = lambda _: None
        self.spec = ProcessingSpec(
            workstream="mobility",
            layer="silver",
            name="made",
            kind="python",
            function=f"{MODULE}:step",
            depends_on=("bronze.rides",),
            write=mode,
            key=("id",) if mode is WriteMode.MERGE else (),
            partition_by=("odd",) if mode is WriteMode.PARTITION else (),
        )
        self.load(1, first=1)

    def load(self, batch: int, *, first: int) -> None:
        """Commit two rows as one batch."""
        rows = pa.table(
            {"id": pa.array([first, first + 1], pa.int64()), "_batch_id": pa.array([batch] * 2, pa.int64())}
        )
        put_into(self.platform, "bronze.rides", rows, mode=WriteMode.APPEND, batch=batch)

    def step(self, context: StepContext) -> Iterator[pa.RecordBatch]:
        self.meanwhile("after it has opened its inputs")
        changed = context.changed_rows("bronze.rides").read_all().select(["id"])
        if self.spec.write is WriteMode.PARTITION:
            # Whole partitions: each of those in which a row has changed. Every load brings rows of both.
            parts = {id % 2 for id in changed["id"].to_pylist()}
            all_ids = context.inputs["bronze.rides"].arrow()["id"].to_pylist()
            changed = pa.table({"id": pa.array([id for id in all_ids if id % 2 in parts], pa.int64())})
        odd = pa.array([id % 2 for id in changed["id"].to_pylist()], pa.int64())
        made = changed.append_column("odd", odd).combine_chunks()
        yield pa.RecordBatch.from_pylist([], made.schema)
        for batch in made.to_batches(max_chunksize=1):
            self.meanwhile("between two of its batches")
            yield batch

    def run(self, *, recorded: bool = True, options: RunOptions | None = None) -> StepResult:
        """Run the step; unrecorded, its process dies after the commit."""
        self.meanwhile("before the step begins")
        last = last_success(self.instance, self.key)
        self.meanwhile("before it opens its inputs")
        platform = replace(self.platform, run=options or RunOptions())
        result = process(self.spec, root=self.root, platform=platform, last=last)
        self.meanwhile("after its commit, before that is recorded")
        if recorded:
            self.record(result)
        self.meanwhile("after it is recorded")
        return result

    def record(self, result: StepResult) -> None:
        event = dg.AssetMaterialization(self.key, metadata=success_metadata(result))
        self.instance.report_runless_asset_event(event)

    def ids(self, name: str) -> list[int]:
        uri = self.platform.lake.table(TableRef.parse(name, workstream="mobility"))
        reader = DeltaTableReader.open(uri, storage_options={})
        return [] if reader is None else sorted(reader.read().read_all()["id"].to_pylist())


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(params=[WriteMode.MERGE, WriteMode.APPEND, WriteMode.PARTITION], ids=str)
def interleaved(tmp_path: Path, instance: dg.DagsterInstance, request: pytest.FixtureRequest) -> Iterator[Interleaved]:
    made = Interleaved(tmp_path, instance, request.param)
    module = ModuleType(MODULE)
    module.step = made.step  # type: ignore[attr-defined]
    sys.modules[MODULE] = module
    yield made
    del sys.modules[MODULE]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "died before it was recorded"])
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(MOMENTS, 2)))
def test_no_row_is_lost_or_doubled_wherever_loads_commit(
    interleaved: Interleaved, one: str, other: str, recorded: bool
) -> None:
    waiting = [(one, 2, 3), (other, 3, 5)]

    def meanwhile(moment: str) -> None:
        while waiting and waiting[0][0] == moment:
            _, batch, first = waiting.pop(0)
            interleaved.load(batch, first=first)

    interleaved.meanwhile = meanwhile
    interleaved.run(recorded=recorded)
    assert not waiting
    interleaved.run()
    assert interleaved.ids("bronze.rides") == [1, 2, 3, 4, 5, 6]
    assert interleaved.ids("silver.made") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "died before it was recorded"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_refresh_loses_and_doubles_nothing_wherever_a_load_commits(
    interleaved: Interleaved, moment: str, recorded: bool
) -> None:
    interleaved.run()
    interleaved.load(2, first=3)
    waiting = [(moment, 3, 5)]

    def meanwhile(now: str) -> None:
        if waiting and waiting[0][0] == now:
            _, batch, first = waiting.pop()
            interleaved.load(batch, first=first)

    interleaved.meanwhile = meanwhile
    interleaved.run(recorded=recorded, options=RunOptions(run="anew", full_refresh=True))
    assert not waiting
    assert {1, 2, 3, 4} <= {*interleaved.ids("silver.made")}
    interleaved.run()
    assert interleaved.ids("silver.made") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("moment", MOMENTS[4:])
def test_a_retry_of_the_run_that_died_before_it_was_recorded_doubles_nothing(
    interleaved: Interleaved, moment: str
) -> None:
    first = RunOptions(run="first")

    def meanwhile(now: str) -> None:
        if now == moment:
            interleaved.meanwhile = lambda _: None
            interleaved.load(2, first=3)

    interleaved.meanwhile = meanwhile
    interleaved.run(recorded=False, options=first)
    interleaved.run(options=first)
    made = interleaved.ids("silver.made")
    assert sorted({*made}) == made
    interleaved.run()
    assert interleaved.ids("silver.made") == [1, 2, 3, 4]


def test_the_last_success_began_before_its_inputs_were_opened(interleaved: Interleaved) -> None:
    moments: dict[str, dt.datetime] = {}

    def note(moment: str) -> None:
        moments.setdefault(moment, dt.datetime.now(dt.UTC))

    interleaved.meanwhile = note
    interleaved.run()
    last = last_success(interleaved.instance, interleaved.key)
    assert last is not None
    assert moments["before it opens its inputs"] <= last.started_at <= moments["after it has opened its inputs"]


def test_a_run_that_was_not_recorded_is_no_success(interleaved: Interleaved) -> None:
    interleaved.run()
    first = last_success(interleaved.instance, interleaved.key)
    interleaved.load(2, first=3)
    interleaved.run(recorded=False)
    assert last_success(interleaved.instance, interleaved.key) == first
    assert first is not None and first.read_batches == {"mobility.bronze.rides": 1}
