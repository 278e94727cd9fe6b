"""What a notebook and the run that executes it say to each other, without a kernel."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core import notebook_step
from platform_core.errors import StepError, StorageError
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.inputs import open_inputs
from platform_core.operations.notebook import NotebookStep
from platform_core.operations.notebook_server import Given, StepServer
from platform_core.operations.notebook_wire import ADDRESS_VARIABLE
from platform_core.operations.platform import Platform
from platform_core.operations.run_options import RunOptions, Window
from platform_core.operations.step_context import LastSuccess, StepContext
from platform_core.specs.processing import ProcessingSpec, WriteMode

NAME = "mobility.silver.forecast"
NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
PERSON = "ada@example.org"


def batch(number: int, *ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "_batch_id": pa.array([number] * len(ids), pa.int64())})


@dataclass
class Run:
    """A step that runs, and its notebook."""

    context: StepContext
    server: StepServer
    step: Callable[[], NotebookStep]

    def given(self) -> Given:
        found = self.server.result(ended=lambda: False)
        assert found is not None
        return found


@pytest.fixture
def begin(platform: Platform, put: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Begin the step; `options` is what the run asks for."""
    put("bronze.rides", batch(1, 1, 2), batch=1)
    put("bronze.rides", batch(2, 3), batch=2, mode=WriteMode.APPEND)
    spec = ProcessingSpec(
        workstream="mobility",
        layer="silver",
        name="forecast",
        kind="notebook",
        notebook="forecast.ipynb",
        depends_on=("bronze.rides",),
        variables={"horizon": 14},
    )
    servers: list[StepServer] = []

    def begin_step(*, last: LastSuccess | None = None, options: RunOptions | None = None) -> Run:
        on = replace(platform, run=options or RunOptions())
        inputs = open_inputs(spec.inputs, platform=on).readers
        context = StepContext(spec, inputs=inputs, platform=on, last=last)
        server = StepServer(context, name=NAME)
        servers.append(server.__enter__())
        monkeypatch.setenv(ADDRESS_VARIABLE, server.address)

        def step() -> NotebookStep:
            made = notebook_step(NAME)
            assert isinstance(made, NotebookStep)
            return made

        return Run(context, server, step)

    yield begin_step
    for server in servers:
        server.__exit__(None, None, None)


def test_a_notebook_has_what_a_python_step_has(begin: Callable[..., Run]) -> None:
    run = begin(last=LastSuccess(started_at=NOON, read_batches={"mobility.bronze.rides": 1}))
    step = run.step()
    assert (step.last_success, dict(step.variables), step.full_refresh) == (NOON, {"horizon": 14}, False)
    table, theirs = step.inputs["bronze.rides"], run.context.inputs["bronze.rides"]
    assert (table.version, table.batch, table.schema) == (theirs.version, theirs.batch, theirs.schema)
    assert sorted(table.arrow()["id"].to_pylist()) == [1, 2, 3]
    assert step.inputs["mobility.bronze.rides"].newer_than(1).read_all()["id"].to_pylist() == [3]
    assert step.changed_rows("bronze.rides").read_all()["id"].to_pylist() == [3]


def test_two_tables_can_be_read_side_by_side(begin: Callable[..., Run]) -> None:
    table = begin().step().inputs["bronze.rides"]
    one, other = table.reader(), table.reader()
    assert [one.read_next_batch().num_rows > 0, other.read_next_batch().num_rows > 0] == [True, True]
    assert one.read_all().num_rows + other.read_all().num_rows < 6


def test_figures_and_files_end_up_at_the_step(begin: Callable[..., Run], platform: Platform) -> None:
    run = begin()
    step = run.step()
    step.add_figure("seen", 3)
    assert step.write_file("a.txt", b"x" * 100_000) == f"{platform.lake.root}/mobility/files/forecast/a.txt"
    assert run.context.figures == {"seen": 3}
    assert Path(platform.lake.root, "mobility/files/forecast/a.txt").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda step: step.inputs["bronze.ride"], "did you mean 'bronze.rides'"),
        (lambda step: step.changed_rows("bronze.other"), "no input of this step"),
        (lambda step: step.add_figure("long", "x" * 501), "longer than 500"),
        (lambda step: step.write_file("../up", b""), "is no file name"),
        (lambda step: step.result({"id": [1]}), "returned dict"),
    ],
)
def test_what_a_step_refuses_a_notebook_is_told(begin: Callable[..., Run], ask: Any, said: str) -> None:
    with pytest.raises(StepError, match=said):
        ask(begin().step())


def test_an_error_of_an_engine_is_told_without_its_text(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: DeltaTableReader, **_: Any) -> pa.RecordBatchReader:
        raise ValueError(PERSON)

    run = begin()
    monkeypatch.setattr(DeltaTableReader, "read", fails)
    with pytest.raises(StepError) as caught:
        run.step().inputs["bronze.rides"].arrow()
    assert PERSON not in str(caught.value)


def test_a_backfill_is_one_only_where_the_notebook_asks_for_its_range(begin: Callable[..., Run]) -> None:
    window = Window(start=NOON, end=NOON + dt.timedelta(days=1))
    run = begin(options=RunOptions(window=window))
    step = run.step()
    assert not run.context.is_backfill
    assert step.window == (window.start, window.end)
    assert run.context.is_backfill


def test_rows_arrive_as_they_are_handed_over(begin: Callable[..., Run]) -> None:
    run = begin()
    step = run.step()
    went_on = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        # The first batch is taken before there is a second: nothing waits for all of them.
        assert went_on.wait(30)
        yield pa.record_batch({"id": [2]})

    thread = threading.Thread(target=step.result, args=(batches(),))
    thread.start()
    given = run.given()
    assert given.reader.read_next_batch().to_pydict() == {"id": [1]}
    went_on.set()
    assert given.reader.read_all().to_pydict() == {"id": [2]}
    given.drained.set()
    thread.join(30)
    assert not thread.is_alive()


def test_rows_that_break_off_are_never_taken_for_all(begin: Callable[..., Run]) -> None:
    run = begin()
    step = run.step()

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        raise ValueError(PERSON)

    def hand_over() -> None:
        # A notebook may go on after that, and end well.
        with suppress(ValueError):
            step.result(batches())

    thread = threading.Thread(target=hand_over)
    thread.start()
    given = run.given()
    with pytest.raises(StepError, match="rows broke off before their end\n  ValueError") as caught:
        given.reader.read_all()
    assert PERSON not in str(caught.value)
    given.drained.set()
    thread.join(30)


def test_a_table_that_cannot_be_read_to_its_end_is_an_error_in_the_notebook(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = pa.schema([("id", pa.int64())])

    def half(self: DeltaTableReader, **_: Any) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"id": [1]}, schema=schema)
            raise StorageError("bronze.rides cannot be read")

        return pa.RecordBatchReader.from_batches(schema, batches())

    run = begin()
    step = run.step()
    monkeypatch.setattr(DeltaTableReader, "read", half)
    with pytest.raises(StepError, match=r"broke off before their end\n  bronze\.rides cannot be read"):
        step.inputs["bronze.rides"].arrow()


def test_rows_are_handed_over_once(begin: Callable[..., Run]) -> None:
    run = begin()
    step = run.step()
    thread = threading.Thread(target=step.result, args=(pa.table({"id": [1]}),))
    thread.start()
    given = run.given()
    given.reader.read_all()
    given.drained.set()
    thread.join(30)
    with pytest.raises(StepError, match="hands over its rows once"):
        step.result(pa.table({"id": [2]}))


def test_a_notebook_that_ends_without_rows_made_no_table(begin: Callable[..., Run]) -> None:
    run = begin()
    run.step()
    assert run.server.result(ended=lambda: True) is None


def test_a_notebook_of_another_step_is_refused(begin: Callable[..., Run]) -> None:
    begin()
    with pytest.raises(StepError, match=r"is run as step mobility\.silver\.forecast, and asks for mobility\.gold\.x"):
        notebook_step("mobility.gold.x")


def test_whoever_waits_when_the_run_ends_is_let_go(begin: Callable[..., Run]) -> None:
    run = begin()
    step = run.step()
    table = step.inputs["bronze.rides"].reader()
    table.read_next_batch()
    run.server.__exit__(None, None, None)
    with pytest.raises(StepError, match="the run of this notebook has ended"):
        step.changed_rows("bronze.rides")
    table.close()


def test_nobody_else_can_reach_the_socket(begin: Callable[..., Run]) -> None:
    folder = Path(begin().server.address).parent
    assert folder.stat().st_mode & 0o077 == 0


def test_what_nobody_understands_ends_that_connection_and_no_other(begin: Callable[..., Run]) -> None:
    import socket

    run = begin()
    with socket.socket(socket.AF_UNIX) as strange:
        strange.connect(run.server.address)
        strange.sendall(b"not json\n")
        strange.settimeout(30)
        assert strange.recv(1) == b""
    assert run.step().inputs["bronze.rides"].arrow().num_rows == 3
