from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import PluginError, RefreshError, StorageError
from platform_core.operations import refresh as operation
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import refresh
from platform_core.plugins.interfaces import Dashboard, RefreshRequest, RefreshResult
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.refresh import RefreshSpec

DAILY = pa.table({"day": [dt.date(2026, 1, 1), dt.date(2026, 1, 2)], "rides": [10, 20]})
CHART = {"title": "Rides", "table": "gold.daily", "x": "day", "y": "rides"}


class Options(Model):
    """Options of the dashboard below."""

    fail: str = ""


class Recorder(Dashboard):
    """A dashboard that keeps what it was asked, at the outer gateway."""

    Options = Options
    asked: list[RefreshRequest]

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        self.asked.append(request)
        if self.options.fail == "value":
            raise ValueError("could not convert 'Jane Doe'")
        if self.options.fail == "storage":
            raise StorageError("the lake is away")
        return RefreshResult(url="https://dashboards.example/1", figures={"tiles": 3})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RefreshRequest]:
    Recorder.asked = []

    def found(kind: str, name: str) -> type[Dashboard]:
        assert (kind, name) == ("dashboard", "recorder")
        return Recorder

    monkeypatch.setattr(operation, "plugin", found)
    return Recorder.asked


def spec(**changes: Any) -> RefreshSpec:
    values = {"workstream": "mobility", "name": "ridership", "type": "recorder", "shows": ["gold.daily"]}
    return RefreshSpec(**(values | changes))


def run(spec: RefreshSpec, platform: Platform, connection: ConnectionSpec | None = None) -> operation.RefreshOutcome:
    return refresh(spec, connection=connection, root=Path(), platform=platform)


def test_a_page_is_made_from_the_lake_and_lies_beside_it(platform: Platform, put) -> None:
    put("gold.daily", DAILY)
    outcome = run(spec(type="page", title="Ridership", options={"charts": [CHART]}), platform)
    page = Path(platform.lake.root) / "mobility" / "dashboard" / "ridership" / "index.html"
    assert outcome.url == page.resolve().as_uri()
    assert "<h1>Ridership</h1>" in page.read_text()
    assert outcome.figures["charts"] == 1
    assert outcome.seconds > 0


def test_tables_are_handed_over_under_their_declared_names(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    put("crm.gold.riders", pa.table({"riders": [5]}))
    outcome = run(spec(shows=["gold.daily", "crm.gold.riders"]), platform)
    (request,) = asked
    assert list(request.tables) == ["gold.daily", "crm.gold.riders"]
    assert request.tables["gold.daily"].read().read_all().sort_by("day").equals(DAILY)
    assert outcome.url == "https://dashboards.example/1"
    assert outcome.figures == {"tiles": 3}


def test_the_shown_version_of_each_table_is_recorded(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    put("gold.daily", DAILY)
    put("gold.hourly", DAILY)
    outcome = run(spec(shows=["gold.daily", "gold.hourly"]), platform)
    assert outcome.versions == {"mobility.gold.daily": 1, "mobility.gold.hourly": 0}


def test_as_of_is_when_the_newest_table_was_committed(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    between = dt.datetime.now(dt.UTC)
    put("gold.hourly", DAILY)
    after = dt.datetime.now(dt.UTC)
    outcome = run(spec(shows=["gold.daily", "gold.hourly"]), platform)
    assert between - dt.timedelta(milliseconds=1) <= outcome.as_of <= after
    assert asked[0].as_of == outcome.as_of
    assert outcome.started_at >= after


def test_a_commit_after_the_tables_were_opened_is_neither_shown_nor_dated(
    platform: Platform, put, asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("gold.daily", DAILY)
    before = dt.datetime.now(dt.UTC)
    made_at = operation._made_at

    def overtaken(table: Any, platform: Platform) -> Any:
        put("gold.daily", DAILY.slice(0, 1))
        return made_at(table, platform)

    monkeypatch.setattr(operation, "_made_at", overtaken)
    outcome = run(spec(), platform)
    assert outcome.versions == {"mobility.gold.daily": 0}
    assert outcome.as_of <= before
    assert asked[0].tables["gold.daily"].read().read_all().num_rows == 2


def test_rows_of_bronze_that_are_gone_are_not_shown(platform: Platform, put, asked) -> None:
    put("bronze.rides", pa.table({"ride": [1, 2, 3], "_is_current": [True, False, True]}))
    run(spec(shows=["bronze.rides"]), platform)
    reader = asked[0].tables["bronze.rides"]
    assert sorted(reader.read(columns=("ride",)).read_all().column("ride").to_pylist()) == [1, 3]
    assert reader.read().read_all().num_rows == 2
    assert reader.schema.names == ["ride", "_is_current"]


def test_missing_tables_are_all_named_with_what_to_run(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    with pytest.raises(RefreshError) as raised:
        run(spec(shows=["gold.daily", "gold.hourly", "crm.gold.riders"]), platform)
    text = str(raised.value)
    assert "table mobility.gold.hourly does not exist yet; looked at" in text
    assert text.endswith("build first: mobility.gold.hourly crm.gold.riders")
    assert asked == []


def test_a_title_is_made_from_the_name_where_none_is_declared(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    run(spec(name="daily_ridership"), platform)
    assert asked[0].title == "Daily ridership"


def test_progress_goes_to_the_log_with_the_dashboards_name(
    platform: Platform, put, caplog: pytest.LogCaptureFixture
) -> None:
    put("gold.daily", DAILY)
    with caplog.at_level(logging.INFO, logger="platform_core"):
        run(spec(type="page", options={"charts": [CHART]}), platform)
    assert "mobility.dashboard.ridership: chart 'Rides': 2 points" in caplog.messages


def test_a_cancelled_run_is_told_to_the_plugin(platform: Platform, put) -> None:
    put("gold.daily", DAILY)
    cancelled = replace(platform, cancelled=lambda: True)
    with pytest.raises(RefreshError, match=r"dashboard mobility\.dashboard\.ridership: cancelled"):
        run(spec(type="page", options={"charts": [CHART]}), cancelled)


def test_an_error_of_the_plugin_says_which_dashboard(platform: Platform, put) -> None:
    put("gold.daily", DAILY)
    with pytest.raises(RefreshError, match=r"dashboard mobility\.dashboard\.ridership: chart 'Rides': table gold"):
        run(spec(type="page", options={"charts": [CHART | {"y": "gone"}]}), platform)


def test_an_unexpected_error_of_a_plugin_shows_its_class_and_no_value(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    with pytest.raises(RefreshError, match=r"Recorder failed\n  .*ValueError") as raised:
        run(spec(options={"fail": "value"}), platform)
    assert "Jane" not in str(raised.value)


def test_other_errors_of_the_platform_pass_unchanged(platform: Platform, put, asked) -> None:
    put("gold.daily", DAILY)
    with pytest.raises(StorageError, match="the lake is away"):
        run(spec(options={"fail": "storage"}), platform)


def test_options_that_do_not_fit_are_named_without_their_values(platform: Platform, put) -> None:
    with pytest.raises(RefreshError, match=r"options do not fit\n  charts\.0\.mark: Input should be 'line'") as raised:
        run(spec(type="page", options={"charts": [CHART | {"mark": "Jane Doe"}]}), platform)
    assert "Jane" not in str(raised.value)


def test_a_dashboard_service_needs_its_connection(platform: Platform) -> None:
    options = {"workspace": "a-workspace", "dataset": "a-dataset"}
    with pytest.raises(RefreshError, match="type powerbi needs 'connection'"):
        run(spec(type="powerbi", options=options), platform)
    other = ConnectionSpec(name="rides", workstream="mobility", type="sqlite")
    with pytest.raises(RefreshError, match="connection 'rides' is of type sqlite, but powerbi is needed"):
        run(spec(type="powerbi", options=options), platform, other)


def test_an_unknown_type_is_an_error_with_the_known_ones(platform: Platform) -> None:
    with pytest.raises(PluginError, match="known dashboards: page, powerbi"):
        run(spec(type="pages"), platform)
