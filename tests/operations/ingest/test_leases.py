"""One load of a table at a time: leases, fences, and what the load log says."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from platform_core.control.heartbeat import HEARTBEAT
from platform_core.control.loads import Loads, open_loads
from platform_core.errors import ControlError, LeaseError, Overtaken, SourceError
from platform_core.faults import FaultPoint, recorded
from platform_core.lake import batch_sink
from platform_core.lake.delta import APPLICATION, batch_of, fence_of, open_table
from platform_core.operations.reload import Reload
from platform_core.specs.environment import ControlSpec
from platform_core.specs.table import TableRef

RIDERS = TableRef("crm", "bronze", "riders")
PEOPLE = pa.table({"id": [1, 2, 3], "at": [100, 200, 300], "name": ["a", "b", "c"]})
INCREMENTAL: dict[str, Any] = {"mode": "incremental", "key": ("id",), "cursor": "at"}


class Silent:
    """Leases whose holders give no sign of life, as if their process had ended."""

    def __init__(self, loads: Loads) -> None:
        self.loads = loads

    def begin(self, table: TableRef, **options: Any) -> Any:
        ticket = self.loads.begin(table, **options)
        HEARTBEAT.drop(ticket._lease.token, ticket._beat)
        return ticket

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loads, name)


def renamed(name: str, id_: int = 1) -> pa.Table:
    names = [name if found == id_ else old for found, old in zip((1, 2, 3), ("a", "b", "c"), strict=True)]
    return PEOPLE.set_column(2, "name", pa.array(names))


def test_the_load_log_has_every_figure_of_a_load(loads: Any) -> None:
    loads.spec = INCREMENTAL
    result = loads.load(PEOPLE)
    (row,) = loads.log
    assert (row.table, row.batch_id, row.mode, row.status, row.pid) == (
        RIDERS,
        1,
        "incremental",
        "succeeded",
        os.getpid(),
    )
    expected = {
        "rows_read": 3,
        "inserted": 3,
        "updated": 0,
        "deleted": 0,
        "unchanged": 0,
        "late": 0,
        "quarantined": 0,
        "bytes_landed": result.bytes_landed,
        "bytes_written": result.bytes_written,
        "watermark_to": "300",
        "version": 0,
        "committed": True,
    }
    assert {name: row.figures[name] for name in expected} == expected
    assert set(row.figures["seconds"]) == {"lease", "extract", "mask", "hash", "land", "apply"}
    loads.load()
    assert (loads.log[-1].figures["watermark_from"], loads.log[-1].figures["committed"]) == ("300", False)


def test_a_failed_load_is_logged_without_row_values(loads: Any, source: Any) -> None:
    source.fail_after = ValueError("could not parse 'Anna Vermeulen'")
    with pytest.raises(SourceError):
        loads.load(PEOPLE)
    assert loads.log[-1].status == "failed"
    assert "cannot be read" in loads.log[-1].error
    assert "Anna" not in loads.log[-1].error


def test_the_batch_id_is_the_epoch_of_the_lease(loads: Any) -> None:
    assert [loads.load(PEOPLE).batch_id, loads.load().batch_id, loads.load(renamed("x")).batch_id] == [1, 2, 3]
    assert batch_of(open_table(str(loads.bronze), storage_options={})) == 3


def test_c1_a_table_that_somebody_loads_is_waited_for_and_then_refused(loads: Any) -> None:
    short = loads.platform.environment.model_copy(update={"control": ControlSpec(lease=dt.timedelta(seconds=0.3))})
    other = loads.with_platform(environment=short)
    with loads.platform.loads.begin(
        RIDERS,
        mode="full",
        above=0,
        run_id=None,
        wait=dt.timedelta(0),
        log=loads.platform.log,
        cancelled=lambda: False,
    ) as ticket:
        with pytest.raises(LeaseError, match=r"crm\.bronze\.riders: is being loaded by process"):
            other.load(PEOPLE)
        ticket.finish(status="succeeded", figures={})
    assert other.load(PEOPLE).batch_id == 2


def test_c8_without_the_control_database_nothing_is_loaded(loads: Any, source: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "control.db").mkdir()
    nowhere = open_loads(ControlSpec(), state=broken, secrets=loads.platform.secrets)
    with pytest.raises(ControlError):
        loads.with_platform(loads=nowhere).load(PEOPLE)
    assert source.requests == []
    assert not (loads.folder / "lake").exists()


def test_batch_ids_go_on_after_the_control_database_was_lost(loads: Any, tmp_path: Path) -> None:
    for name in ("x", "y", "z"):
        loads.load(renamed(name))
    fresh = open_loads(ControlSpec(), state=tmp_path / "fresh", secrets=loads.platform.secrets)
    after = loads.with_platform(loads=fresh)
    assert after.load(PEOPLE).batch_id == 4
    assert [row["name"] for row in loads.rows()] == ["a", "b", "c"]


def test_ids_below_a_fence_are_left_behind_after_the_control_database_was_lost(loads: Any, tmp_path: Path) -> None:
    loads.load(PEOPLE)
    loads.platform.engine.fence(str(loads.bronze), storage_options={}, epoch=40)
    fresh = open_loads(ControlSpec(), state=tmp_path / "fresh", secrets=loads.platform.secrets)
    assert loads.with_platform(loads=fresh).load(renamed("x")).batch_id == 41


def test_who_takes_over_fences_the_table_first(loads: Any, caplog: pytest.LogCaptureFixture) -> None:
    loads.load(PEOPLE)
    orphan = Silent(loads.platform.loads).begin(
        RIDERS,
        mode="full",
        above=1,
        run_id=None,
        wait=dt.timedelta(0),
        log=loads.platform.log,
        cancelled=lambda: False,
    )
    result = loads.load(renamed("x"))
    assert (orphan.batch_id, result.batch_id, result.updated) == (2, 3, 1)
    assert fence_of(open_table(str(loads.bronze), storage_options={})) == 2
    assert [(row.status, row.taken_over) for row in loads.log] == [
        ("succeeded", False),
        ("crashed", False),
        ("succeeded", True),
    ]
    assert "taking over from" in caplog.text


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_c2_a_load_that_was_taken_over_begins_anew_from_the_source(loads: Any, source: Any, mode: str) -> None:
    """It read rows that are older than what its successor has committed meanwhile."""
    loads.spec = INCREMENTAL if mode == "incremental" else {"mode": "full", "key": ("id",)}
    loads.load(PEOPLE)
    paused = loads.with_platform(loads=Silent(loads.platform.loads))
    source.meanwhile = lambda: loads.load(renamed("newer", 3))
    result = paused.load(renamed("older", 3))
    assert (result.batch_id, result.committed) == (4, False)
    assert len(source.requests) == 4
    assert [row["name"] for row in loads.rows()] == ["a", "b", "newer"]
    assert [row.status for row in loads.log] == ["succeeded", "failed", "succeeded", "succeeded"]


def test_c2_a_load_that_is_overtaken_again_and_again_gives_up(loads: Any, source: Any) -> None:
    loads.load(PEOPLE)
    names = iter("vwxyz")

    def overtake() -> None:
        loads.load(renamed(next(names)))
        source.meanwhile = overtake

    source.meanwhile = overtake
    with pytest.raises(Overtaken):
        loads.with_platform(loads=Silent(loads.platform.loads)).load(renamed("mine"))
    assert loads.rows()[0]["name"] == "x"
    assert [row.status for row in loads.log].count("failed") == 3


def test_c2_a_landed_batch_is_not_committed_once_the_lease_is_lost(
    loads: Any, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)
    loads.load(PEOPLE)
    paused = loads.with_platform(loads=Silent(loads.platform.loads))
    source.meanwhile = lambda: loads.load(renamed("newer"))
    with pytest.raises(LeaseError, match="the lease of batch 2 was lost"):
        paused.load(renamed("older"))
    assert loads.rows()[0]["name"] == "newer"
    assert loads.batches == [1, 3]


def test_a_load_without_changes_asks_for_nothing_at_its_end(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads.load(PEOPLE)

    def asked(self: object) -> None:
        raise AssertionError("nothing is committed, so no lease need be confirmed")

    monkeypatch.setattr("platform_core.control.loads.Ticket.confirm", asked)
    assert loads.load().committed is False
    with pytest.raises(AssertionError, match="nothing is committed"):
        loads.load(renamed("x"))
    assert DeltaTable(loads.bronze).transaction_version(APPLICATION) == 1


def test_every_point_of_a_load_is_reached(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads.source = "ledger"
    loads.spec = {
        "mode": "incremental",
        "key": ("id",),
        "snapshot_history": True,
        "columns": {"name": {"mask": "full"}},
    }
    many = pa.concat_tables([PEOPLE] * 3).set_column(0, "id", pa.array(range(9)))
    with recorded() as reached:
        loads.load(many)
        monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)
        loads.load(reload=Reload())
    assert set(FaultPoint) - reached == set()
