"""What a dashboard is shown is one state of its tables, which is recorded, and what moved meanwhile is said."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.refresh_log import RefreshLog, RefreshRow
from platform_core.errors import ControlError, InputsError, RefreshError
from platform_core.lake.views import make_view
from platform_core.operations import refresh as operation
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import RefreshOutcome, refresh
from platform_core.plugins.interfaces import Dashboard, NoOptions, RefreshRequest, RefreshResult
from platform_core.specs.ddl import CreateView, Stamp
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef

BOARD = TableRef("mobility", "dashboard", "ridership")
ROWS = pa.table({"id": [1, 2]})


class Scripted(Dashboard):
    """A dashboard that does what a test says, at the outer gateway."""

    Options = NoOptions
    act: Callable[[RefreshRequest], None]

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        type(self).act(request)
        return RefreshResult(url="https://dashboards.example/1", figures={"tiles": 3})


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    Scripted.act = staticmethod(lambda request: None)
    monkeypatch.setattr(operation, "plugin", lambda kind, name: Scripted)
    return Scripted


def run(platform: Platform, **more: Any) -> RefreshOutcome:
    spec = RefreshSpec(
        workstream="mobility",
        name="ridership",
        type="scripted",
        shows=("bronze.rides", "gold.daily"),
        timeout=more.pop("timeout", None),
    )
    return refresh(spec, connection=None, root=Path(), platform=platform, **more)


def recorded(platform: Platform) -> RefreshRow:
    return platform.loads.refresh_log().recent(BOARD)[0]


@pytest.fixture
def tables(platform: Platform, put) -> Iterator[None]:
    put("bronze.rides", ROWS, batch=41)
    put("gold.daily", ROWS)
    put("gold.daily", ROWS)
    yield
    platform.loads.close()


@pytest.mark.usefixtures("tables")
def test_versions_batches_and_times_of_what_is_shown_are_recorded(platform: Platform) -> None:
    before = dt.datetime.now(dt.UTC)
    outcome = run(platform, run_id="run-7")
    row = recorded(platform)
    assert {name: (shown.version, shown.batch) for name, shown in row.cut.items()} == {
        "mobility.bronze.rides": (0, 41),
        "mobility.gold.daily": (1, 2),
    }
    assert row.cut == outcome.cut
    assert row.as_of == outcome.as_of == max(shown.made_at for shown in row.cut.values() if shown.made_at)
    assert row.as_of <= before <= row.started_at <= row.ended_at
    assert (row.status, row.run_id, row.url, row.figures) == (
        "succeeded",
        "run-7",
        "https://dashboards.example/1",
        {"tiles": 3},
    )


@pytest.mark.usefixtures("tables")
def test_a_table_that_moves_while_the_refresh_runs_is_said_and_not_in_the_cut(
    platform: Platform, put, scripted: type[Scripted]
) -> None:
    scripted.act = staticmethod(lambda request: put("gold.daily", ROWS.slice(0, 1)))
    outcome = run(platform)
    assert outcome.versions["mobility.gold.daily"] == 1
    assert outcome.moved == recorded(platform).moved == ("mobility.gold.daily",)


@pytest.mark.usefixtures("tables")
def test_a_table_that_is_built_between_the_judgement_and_the_opening_is_judged_again(
    platform: Platform, put, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = iter([1, 2, 2])
    opened = operation.open_inputs
    shown: list[int] = []

    def overtaken(refs: Any, *, platform: Platform) -> Any:
        found = opened(refs, platform=platform)
        if len(shown) < 1:
            put("gold.daily", ROWS)
        shown.append(found.readers[TableRef("mobility", "gold", "daily")].version)
        return found

    monkeypatch.setattr(operation, "open_inputs", overtaken)
    assert run(platform, judge=lambda: next(built)).versions["mobility.gold.daily"] == 2
    assert shown[:2] == [1, 2]


@pytest.mark.usefixtures("tables")
def test_tables_that_never_rest_are_refused(platform: Platform, scripted: type[Scripted]) -> None:
    asked: list[RefreshRequest] = []
    scripted.act = staticmethod(asked.append)
    built = iter(range(100))
    with pytest.raises(InputsError, match="built anew 5 times while it was being opened"):
        run(platform, judge=lambda: next(built))
    assert asked == []
    assert platform.loads.refresh_log().recent(BOARD) == []


@pytest.mark.usefixtures("tables")
def test_a_failed_attempt_is_recorded_with_its_cut_and_the_error(platform: Platform, scripted: type[Scripted]) -> None:
    def fail(request: RefreshRequest) -> None:
        raise RefreshError(f"{request.name}: the service refuses")

    scripted.act = staticmethod(fail)
    with pytest.raises(RefreshError, match="the service refuses"):
        run(platform)
    row = recorded(platform)
    assert row.status == "failed"
    assert "the service refuses" in (row.error or "")
    assert row.cut["mobility.bronze.rides"].batch == 41


@pytest.mark.usefixtures("tables")
def test_what_a_plug_in_remembers_outlives_an_attempt_that_failed(platform: Platform, scripted: type[Scripted]) -> None:
    known: list[Any] = []

    def fail(request: RefreshRequest) -> None:
        known.append(request.remembered)
        request.remember({"ids": ["first"]})
        raise RefreshError("no answer")

    scripted.act = staticmethod(fail)
    for _ in range(2):
        with pytest.raises(RefreshError):
            run(platform)
    assert known == [{}, {"ids": ["first"]}]


@pytest.mark.usefixtures("tables")
def test_a_log_that_is_away_is_said_and_keeps_no_dashboard_from_being_refreshed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise ControlError("control database: it is away")

    for name in ("record", "remember", "remembered"):
        monkeypatch.setattr(RefreshLog, name, away)
    assert run(platform).url == "https://dashboards.example/1"
    assert "the refresh is not in the log of refreshes" in caplog.text


@pytest.mark.usefixtures("tables")
def test_a_plug_in_is_given_a_little_less_than_the_limit_of_its_step(
    platform: Platform, scripted: type[Scripted]
) -> None:
    given: list[dt.timedelta | None] = []
    scripted.act = staticmethod(lambda request: given.append(request.timeout))
    for limit in ("2 hours", "60 seconds", None):
        run(platform, timeout=limit)
    assert given == [dt.timedelta(hours=2, seconds=-30), dt.timedelta(seconds=54), None]


@pytest.mark.usefixtures("tables")
def test_a_refresh_is_told_what_it_shows(
    platform: Platform, scripted: type[Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[RefreshRequest] = []
    scripted.act = staticmethod(asked.append)
    with caplog.at_level(logging.INFO):
        outcome = run(platform)
    assert asked[0].cut == outcome.cut


@pytest.mark.usefixtures("tables")
def test_of_a_view_the_tables_below_it_are_in_the_cut(platform: Platform, put, scripted: type[Scripted]) -> None:
    view, below = TableRef("mobility", "gold", "some"), TableRef("mobility", "gold", "daily")
    change = CreateView(table=view, sql='SELECT * FROM "mobility"."gold"."daily"', reads=(below,))
    stamp = Stamp(workstream="mobility", number=1, statement=1, digest="0" * 64)
    make_view(change, uri=platform.lake.table(view), storage_options={}, stamp=stamp)
    scripted.act = staticmethod(lambda request: put("gold.daily", ROWS))
    spec = RefreshSpec(workstream="mobility", name="ridership", type="scripted", shows=("gold.some",))
    outcome = refresh(spec, connection=None, root=Path(), platform=platform)
    assert outcome.versions["mobility.gold.daily"] == 1
    assert set(outcome.moved) == {"mobility.gold.some", "mobility.gold.daily"}
