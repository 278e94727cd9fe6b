"""What the log says of a load, and how a person lets a stopped one pass."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from platform_core.control.loads import Loads
from platform_core.errors import DeletesStopped, LoadError
from platform_core.faults import FaultPoint, InjectedFault, armed, recorded
from platform_core.specs.table import TableRef
from tests.control_database.conftest import ORDERS, Begin, Place

RIDES = TableRef("mobility", "bronze", "rides")
FIGURES: dict[str, Any] = {
    "rows_read": 2**40,
    "inserted": 1,
    "updated": 2,
    "deleted": 3,
    "unchanged": 4,
    "late": 5,
    "quarantined": 6,
    "bytes_landed": 7,
    "bytes_written": 8,
    "watermark_from": "2026-01-01T00:00:00+00:00",
    "watermark_to": "2026-01-02T00:00:00+00:00",
    "version": 9,
    "committed": True,
    "seconds": {"extract": 0.25, "apply": 1.5},
}


def load(loads: Loads, begin: Begin, status: str, **more: Any) -> int:
    with begin(loads, above=more.pop("above", 0)) as ticket:
        figures = {"deletes": 60, "current": 100} if status == "stopped" else FIGURES
        ticket.finish(status=status, figures=figures, **more)
        return ticket.batch_id


def test_a_load_that_runs_is_in_the_log(place: Place, begin: Begin) -> None:
    loads = place.loads()
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    with begin(loads, mode="incremental", run_id="run-7") as ticket:
        [row] = loads.recent()
        assert (row.table, row.batch_id, row.mode, row.run_id) == (ORDERS, 1, "incremental", "run-7")
        assert (row.status, row.finished_at, row.error, dict(row.figures)) == ("running", None, None, {})
        assert before < row.started_at < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5)
        ticket.finish(status="succeeded", figures=FIGURES)


def test_every_figure_of_a_load_is_kept(place: Place, begin: Begin) -> None:
    loads = place.loads()
    load(loads, begin, "succeeded")
    [row] = loads.recent()
    assert (row.status, row.error) == ("succeeded", None)
    assert row.finished_at is not None
    assert dict(row.figures) == FIGURES


def test_figures_without_a_column_are_kept_as_json_has_them(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads) as ticket:
        ticket.finish(
            status="succeeded",
            figures={
                "files": 3,
                "widened": ("a", "b"),
                "as_of": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                "day": dt.date(2026, 1, 1),
                "ratio": Decimal("0.10"),
                "by_file": {"x": 1},
                "odd": object(),
                "watermark_to": dt.date(2026, 1, 2),
                "rows_read": None,
            },
        )
    assert dict(loads.recent()[0].figures) == {
        "files": 3,
        "widened": ["a", "b"],
        "as_of": "2026-01-01T00:00:00+00:00",
        "day": "2026-01-01",
        "ratio": "0.10",
        "by_file": {"x": 1},
        "odd": "object",
        "watermark_to": "2026-01-02",
    }


def test_the_newest_loads_come_first_of_one_table_or_all(place: Place, begin: Begin) -> None:
    loads = place.loads()
    for _ in range(3):
        load(loads, begin, "succeeded")
    with begin(loads, RIDES) as ticket:
        ticket.finish(status="succeeded", figures={})
    assert [(row.table, row.batch_id) for row in loads.recent(limit=2)] == [(RIDES, 1), (ORDERS, 3)]
    assert [row.batch_id for row in loads.recent(table=ORDERS)] == [3, 2, 1]


def test_an_error_is_logged_without_the_text_of_a_driver(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with pytest.raises(ValueError, match="secret"), begin(loads):
        raise ValueError("could not convert 'secret' to int")
    [row] = loads.recent()
    assert (row.status, row.error) == ("failed", "ValueError (its text is withheld: it may hold row values)")
    assert row.finished_at is not None


def test_an_error_of_our_own_is_logged_as_it_is(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with pytest.raises(DeletesStopped), begin(loads):
        raise DeletesStopped("crm.bronze.orders: 60 of 100 would go", deletes=60, current=100)
    assert loads.recent()[0].error == "crm.bronze.orders: 60 of 100 would go"


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_load_that_was_told_to_stop_is_cancelled_and_not_failed(place: Place, begin: Begin, cancelled: bool) -> None:
    loads = place.loads()
    with pytest.raises((LoadError, KeyboardInterrupt)), begin(loads, cancelled=lambda: cancelled):
        raise LoadError("cancelled") if cancelled else KeyboardInterrupt
    assert loads.recent()[0].status == "cancelled"


def test_a_load_that_leaves_without_a_result_is_an_error(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with pytest.raises(RuntimeError, match=r"batch 1 ended without Ticket.finish\(\)"), begin(loads):
        pass
    assert loads.recent()[0].status == "failed"


def test_an_error_after_the_finish_does_not_change_the_log(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with pytest.raises(KeyError), begin(loads) as ticket:
        ticket.finish(status="succeeded", figures=FIGURES)
        raise KeyError("x")
    assert loads.recent()[0].status == "succeeded"


def test_the_named_moments_are_reached(place: Place, begin: Begin) -> None:
    with recorded() as reached:
        load(place.loads(), begin, "succeeded")
    assert reached == {FaultPoint.LEASE_ACQUIRED, FaultPoint.AUDIT_COMMIT, FaultPoint.LEASE_RELEASE}


@pytest.mark.parametrize("point", ["audit-commit", "lease-release"])
def test_an_end_that_fails_to_be_written_is_written_as_it_was(place: Place, begin: Begin, point: str) -> None:
    loads = place.loads()
    with armed(f"{point}:raise"), pytest.raises(InjectedFault):
        load(loads, begin, "succeeded")
    [row] = loads.recent()
    assert (row.status, dict(row.figures)) == ("succeeded", FIGURES)
    assert load(loads, begin, "succeeded") == 2


def test_an_error_right_after_the_lease_was_taken_gives_it_back(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with armed("lease-acquired:raise"), pytest.raises(InjectedFault):
        begin(loads)
    with begin(loads) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (2, False)
        ticket.finish(status="succeeded", figures={})


def test_a_table_that_was_never_stopped_has_neither_stop_nor_approval(place: Place, begin: Begin) -> None:
    loads = place.loads()
    load(loads, begin, "succeeded")
    assert loads.stopped(ORDERS) is None
    assert loads.approval(ORDERS) is None


def test_an_approved_stop_lets_one_load_pass(place: Place, begin: Begin) -> None:
    loads = place.loads()
    load(loads, begin, "succeeded")
    batch = load(loads, begin, "stopped", above=1)
    stopped = loads.stopped(ORDERS)
    assert stopped is not None
    assert (stopped.batch_id, stopped.deletes, stopped.current) == (batch, 60, 100)
    loads.approve(ORDERS, batch, by="an.owner@example.com", why="the shop was closed")
    with begin(loads, above=1) as ticket:
        approval = loads.approval(ORDERS)
        assert approval is not None
        assert (approval.batch_id, approval.by, approval.why) == (
            batch,
            "an.owner@example.com",
            "the shop was closed",
        )
        ticket.finish(status="succeeded", figures=FIGURES, used_approval=approval.batch_id)
    assert loads.approval(ORDERS) is None


def test_an_approval_is_for_one_table(place: Place, begin: Begin) -> None:
    loads = place.loads()
    loads.approve(ORDERS, load(loads, begin, "stopped"), by="a", why="b")
    assert loads.approval(RIDES) is None


def test_a_failed_load_leaves_the_approval_for_the_next(place: Place, begin: Begin) -> None:
    loads = place.loads()
    batch = load(loads, begin, "stopped")
    loads.approve(ORDERS, batch, by="a", why="b")
    with pytest.raises(KeyError), begin(loads):
        raise KeyError("x")
    approval = loads.approval(ORDERS)
    assert approval is not None
    assert approval.batch_id == batch


def test_an_approval_ends_when_bronze_has_a_newer_batch_though_no_load_said_that_it_used_it(
    place: Place, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = place.loads()
    batch = load(loads, begin, "stopped")
    loads.approve(ORDERS, batch, by="a", why="b")
    with begin(loads, above=batch + 1) as ticket:
        assert loads.approval(ORDERS) is None
        ticket.finish(status="succeeded", figures={})
    assert "an unused approval has ended" in caplog.text


def test_what_was_not_stopped_cannot_be_approved(place: Place, begin: Begin) -> None:
    loads = place.loads()
    batch = load(loads, begin, "succeeded")
    with pytest.raises(LoadError, match="batch 1 cannot be approved: it is succeeded, not stopped"):
        loads.approve(ORDERS, batch, by="a", why="b")
    with pytest.raises(LoadError, match="there is no such batch"):
        loads.approve(ORDERS, 77, by="a", why="b")


def test_a_batch_is_approved_once(place: Place, begin: Begin) -> None:
    loads = place.loads()
    batch = load(loads, begin, "stopped")
    loads.approve(ORDERS, batch, by="ann", why="b")
    with pytest.raises(LoadError, match=r"batch 1 was approved already, by ann at 20.* UTC\n"):
        loads.approve(ORDERS, batch, by="bob", why="b")
    load(loads, begin, "succeeded", used_approval=batch)
    with pytest.raises(LoadError, match="and batch 2 has used it"):
        loads.approve(ORDERS, batch, by="bob", why="b")


@pytest.mark.parametrize(("by", "why"), [("", "b"), ("a", " ")])
def test_an_approval_needs_a_name_and_a_reason(place: Place, begin: Begin, by: str, why: str) -> None:
    loads = place.loads()
    batch = load(loads, begin, "stopped")
    with pytest.raises(LoadError, match="without a name and a reason"):
        loads.approve(ORDERS, batch, by=by, why=why)


def test_an_approval_that_another_load_used_is_said_so(
    place: Place, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = place.loads()
    batch = load(loads, begin, "stopped")
    loads.approve(ORDERS, batch, by="a", why="b")
    load(loads, begin, "succeeded", used_approval=batch)
    load(loads, begin, "succeeded", used_approval=batch)
    assert f"the approval of batch {batch} was not there any more" in caplog.text
