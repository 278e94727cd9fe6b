"""A load that would flag too many rows deleted: stopped, and let through once by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import DeletesStopped, LoadError, StorageError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import batch_sink
from platform_core.operations.replay import approve
from platform_core.specs.table import TableRef

RIDERS = TableRef("crm", "bronze", "riders")
MANY = pa.table({"id": range(40), "name": [f"name {i}" for i in range(40)]})
FEW = MANY.slice(0, 4)


@pytest.fixture(params=["held", "landed"], autouse=True)
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "landed":
        monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)


@pytest.fixture
def stopped(loads: Any) -> Any:
    """A table of forty rows, and a load of four of them that was stopped."""
    loads.load(MANY)
    with pytest.raises(DeletesStopped):
        loads.load(FEW)
    return loads


def let_through(loads: Any, batch: int = 2, **changes: Any) -> Any:
    return approve(
        loads.declared(**changes), batch, platform=loads.platform, by="a.user", why="the shop in Delft was closed"
    )


def current(loads: Any) -> int:
    return sum(row["_is_current"] for row in loads.rows())


def test_b2_a_load_that_would_flag_most_rows_deleted_says_how_many_and_how_to_let_it_pass(loads: Any) -> None:
    loads.load(MANY)
    with pytest.raises(DeletesStopped) as caught:
        loads.load(FEW)
    assert (caught.value.deletes, caught.value.current) == (36, 40)
    assert str(caught.value) == (
        "crm.bronze.riders: this load would flag 36 of 40 current rows deleted (90%, allowed 50%); nothing was "
        "applied, and the batch stays in the landing\n"
        "  if the source really lost them, let this one load through:\n"
        '    edp ingest approve crm.riders@2 --why "..."\n'
        "  if not, mend the source and load again"
    )
    assert current(loads) == 40
    assert loads.batches == [1, 2]
    row = loads.log[-1]
    assert (row.status, row.batch_id) == ("stopped", 2)
    assert (row.figures["deletes"], row.figures["current"], row.figures["ratio"]) == (36, 40, 0.9)


def test_b2_an_empty_source_deletes_nothing(loads: Any) -> None:
    loads.load(MANY)
    with pytest.raises(DeletesStopped):
        loads.load(MANY.slice(0, 0))
    assert current(loads) == 40


def test_few_deletes_are_let_through_whatever_their_share(loads: Any) -> None:
    loads.load(FEW)
    assert loads.load(FEW.slice(0, 1)).deleted == 3


def test_an_approved_batch_is_applied_once_and_exactly(stopped: Any, source: Any) -> None:
    reads = len(source.requests)
    result = let_through(stopped)
    assert (result.deleted, result.landed_batch, result.batch_id) == (36, 2, 3)
    assert current(stopped) == 4
    assert len(source.requests) == reads
    with pytest.raises(LoadError, match="batch 2 cannot be approved: bronze holds batch 3 now"):
        let_through(stopped)


def test_the_next_load_uses_an_approval_first_and_then_loads(stopped: Any) -> None:
    stopped.platform.loads.approve(RIDERS, 2, by="a.user", why="closed")
    result = stopped.load(MANY.slice(0, 5))
    assert result.approved.deleted == 36
    assert (result.updated, result.deleted, result.unchanged) == (1, 0, 4)
    assert [(row.batch_id, row.status) for row in stopped.log[-2:]] == [(3, "succeeded"), (4, "succeeded")]
    assert stopped.platform.loads.approval(RIDERS) is None


def test_an_approval_outlasts_a_crash_before_it_was_used(stopped: Any) -> None:
    with armed("bronze-before-commit:raise"), pytest.raises(InjectedFault):
        let_through(stopped)
    assert current(stopped) == 40
    assert let_through(stopped).deleted == 36


def test_an_approval_is_not_used_twice_after_a_crash_behind_the_commit(stopped: Any) -> None:
    with armed("bronze-after-commit:raise"), pytest.raises(InjectedFault):
        let_through(stopped)
    assert current(stopped) == 4
    result = stopped.load(MANY)
    assert (result.approved, result.updated) == (None, 36)
    assert current(stopped) == 40


def test_a_batch_that_was_not_stopped_cannot_be_approved(stopped: Any) -> None:
    with pytest.raises(LoadError, match="batch 7 cannot be approved: nothing is landed at"):
        let_through(stopped, 7)
    with pytest.raises(LoadError, match="batch 1 cannot be approved"):
        let_through(stopped, 1)


def test_bronze_that_was_loaded_since_ends_the_chance(stopped: Any) -> None:
    stopped.load(MANY.set_column(1, "name", pa.array(["changed"] * 40)))
    with pytest.raises(LoadError, match="batch 2 cannot be approved"):
        let_through(stopped)
    assert current(stopped) == 40


def test_a_later_load_makes_the_stopped_landing_superfluous(stopped: Any) -> None:
    assert stopped.load(MANY).committed is False
    assert stopped.batches == [1]
    with pytest.raises(LoadError, match="it was not stopped, or a later load replaced it"):
        let_through(stopped)


def test_a_stopped_landing_stays_while_loads_are_stopped(stopped: Any) -> None:
    with pytest.raises(DeletesStopped):
        stopped.load(FEW)
    assert stopped.batches == [1, 2, 3]
    assert let_through(stopped, 3).deleted == 36


def test_every_stopped_landing_goes_with_the_load_that_succeeds(stopped: Any) -> None:
    with pytest.raises(DeletesStopped):
        stopped.load(FEW)
    stopped.load(MANY)
    assert stopped.batches == [1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a9_a_landing_that_was_changed_is_not_applied(stopped: Any, damage: str) -> None:
    (part,) = Path(stopped.landing, f"{2:012d}").glob("part-*")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        part.unlink()
    else:
        part.write_bytes(content if damage == "flipped" else content[:-1])
    with pytest.raises(StorageError, match="not what was landed"):
        let_through(stopped)
    assert current(stopped) == 40


def test_an_approval_of_a_table_that_is_loaded_otherwise_by_now_ends(stopped: Any) -> None:
    with pytest.raises(LoadError, match="it was loaded full, and the table is declared incremental now"):
        let_through(stopped, mode="incremental", cursor="id")
