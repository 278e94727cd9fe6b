"""Rows that an incremental source lost without saying so."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.errors import DeletesStopped
from platform_core.operations.key_comparison import is_due
from platform_core.operations.reload import Reload
from platform_core.operations.replay import approve
from platform_core.specs.environment import ControlSpec
from platform_core.specs.ingestion import IngestionSpec

DAILY: dict[str, Any] = {
    "mode": "incremental",
    "key": ("id",),
    "cursor": "at",
    "detect_deletes": {"every": "2 days"},
}


def rows(*ids: int, at: int = 100) -> pa.Table:
    return pa.table({"id": list(ids), "at": [at + i for i in ids], "name": [f"name {i}" for i in ids]})


def test_keys_are_compared_when_they_are_due(loads: Any, source: Any) -> None:
    loads.spec = DAILY
    assert loads.load(rows(1, 2, 3)).keys is None
    assert loads.load(rows(1, 3)).keys is None
    result = loads.load(rows(1, 3, 4))
    assert (result.inserted, result.deleted) == (1, 0)
    assert (result.keys.deleted, result.keys.keys_only, result.keys.rows_read) == (1, True, 3)
    assert loads.state() == [(1, True, 2), (2, False, 4), (3, True, 2), (4, True, 4)]
    assert source.requests[-1].columns == ("id",)
    assert (source.requests[-1].since, source.requests[-1].mode) == (None, "full")
    assert source.closed == 3, "the keys are read in the session of the load"
    assert loads.load(rows(1, 4)).keys is None
    assert loads.load(rows(1, 4)).keys.deleted == 1


def test_the_time_of_the_comparison_is_in_the_log_under_its_own_row(loads: Any) -> None:
    loads.spec = DAILY
    loads.load(rows(1, 2))
    loads.load(rows(1, 2))
    loads.load(rows(1))
    assert [(row.mode, row.status) for row in loads.log] == [
        ("incremental", "succeeded"),
        ("incremental", "succeeded"),
        ("incremental", "succeeded"),
        ("keys", "succeeded"),
    ]
    assert [row.figures["keys_compared_at"][:10] for row in loads.log] == ["2026-01-02"] * 3 + ["2026-01-04"]


def test_a_lost_control_database_makes_the_comparison_due(loads: Any, tmp_path: Any) -> None:
    loads.spec = DAILY
    loads.load(rows(1, 2))
    fresh = open_loads(ControlSpec(), state=tmp_path / "fresh", secrets=loads.platform.secrets)
    assert loads.with_platform(loads=fresh).load(rows(1)).keys.deleted == 1


def test_a_daily_comparison_is_not_put_off_by_a_load_that_begins_a_second_early() -> None:
    spec = IngestionSpec(workstream="crm", source="erp", object="riders", table="riders", **DAILY)
    last = dt.datetime(2026, 1, 1, 6, tzinfo=dt.UTC)
    assert is_due(spec, last, now=last + dt.timedelta(days=2, seconds=-1))
    assert not is_due(spec, last, now=last + dt.timedelta(days=1))
    assert is_due(spec, None, now=last)


def test_masked_keys_are_compared_masked(loads: Any) -> None:
    loads.spec = DAILY | {"columns": {"id": {"mask": "hash", "domain": "identifier"}}}
    loads.load(rows(1, 2, 3))
    loads.load(rows(1, 2, 3))
    assert loads.load(rows(1, 3)).keys.deleted == 1
    assert sorted(row["_is_current"] for row in loads.rows()) == [False, True, True]


def test_b2_too_many_missing_keys_stop_the_load_and_can_be_approved(loads: Any) -> None:
    loads.spec = DAILY
    loads.load(rows(*range(40)))
    loads.load(rows(*range(40)))
    with pytest.raises(DeletesStopped, match=r"(?s)36 of 40 .*edp ingest approve crm\.riders@4") as caught:
        loads.load(rows(*range(4)))
    assert caught.value.deletes == 36
    assert [(row.mode, row.status) for row in loads.log[-2:]] == [("incremental", "succeeded"), ("keys", "stopped")]
    result = approve(loads.declared(), 4, platform=loads.platform, by="a.user", why="closed")
    assert (result.deleted, result.keys_only) == (36, True)


def test_a_comparison_that_the_next_load_lets_through_is_logged_as_one(loads: Any) -> None:
    loads.spec = DAILY
    loads.load(rows(*range(40)))
    with pytest.raises(DeletesStopped):
        loads.load(rows(*range(4)), reload=Reload(detect_deletes=True))
    loads.platform.loads.approve(loads.declared().ref, 3, by="a.user", why="closed")
    assert loads.load(rows(*range(4))).approved.deleted == 36
    logged = [(row.mode, row.status) for row in loads.log[2:5]]
    assert logged == [("keys", "stopped"), ("keys", "succeeded"), ("incremental", "succeeded")]


def test_a_reload_compares_keys_on_demand(loads: Any) -> None:
    loads.spec = {"mode": "incremental", "key": ("id",), "cursor": "at"}
    loads.load(rows(1, 2, 3))
    assert loads.load(rows(1, 3), reload=Reload()).keys is None
    result = loads.load(reload=Reload(detect_deletes=True))
    assert (result.keys.deleted, [row["_is_current"] for row in loads.rows()]) == (1, [True, False, True])


def test_a_key_under_the_sources_own_name_is_asked_for_by_that_name(loads: Any, source: Any) -> None:
    loads.spec = {"mode": "incremental", "key": ("rider_id",), "cursor": "changed_at"}
    loads.spec |= {"detect_deletes": {"every": "1 day"}}
    named = rows(1, 2).rename_columns(["RiderID", "ChangedAt", "Name"])
    loads.load(named)
    result = loads.load(named.slice(0, 1))
    assert source.requests[-1].columns == ("RiderID",)
    assert result.keys.deleted == 1
