"""Two dbt projects in one graph: what they build, what they read of each other, and what they refuse to build on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from tests.dbt.conftest import BOARD, SALES, Teams

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]

REVENUE, SHARE = dg.AssetKey(["shop", "gold", "revenue"]), dg.AssetKey(["finance", "gold", "share"])
ORDERS = dg.AssetKey(["shop", "silver", "orders"])


class Graph:
    """Both projects, the load of a table that they read, and their first run."""

    def __init__(self, teams: Teams) -> None:
        self.teams = teams
        self.load_fails = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            self.sales, self.board = teams.assets(SALES, BOARD)
        self.orders = self._load()
        self.first = teams.run(self.orders, self.sales, self.board)

    def _load(self) -> dg.AssetsDefinition:
        def load() -> None:
            if self.load_fails:
                raise dg.Failure("the source broke off")

        return dg.asset(key=ORDERS)(load)


@pytest.fixture(scope="module")
def graph(teams: Teams) -> Graph:
    return Graph(teams)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def built(result: dg.ExecuteInProcessResult) -> set[str]:
    found = (event.asset_key for event in result.get_asset_materialization_events())
    return {key.to_user_string() for key in found if key is not None}


def why_it_failed(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.error is not None
    return failure.error.to_string()


def test_a_project_reads_the_published_marts_of_another_in_the_same_run(graph: Graph) -> None:
    assert graph.first.success
    assert graph.teams.rows("gold.revenue") == [{"customer": "Ada", "total": 60.0}, {"customer": "Bo", "total": 120.0}]
    assert [row["share"] for row in graph.teams.rows("finance.gold.share")] == [
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    ]
    assert graph.board.specs_by_key[SHARE].deps == [dg.AssetDep(REVENUE)]


def test_each_project_has_its_owner(graph: Graph) -> None:
    assert list(graph.sales.specs_by_key[REVENUE].owners) == ["team:sales"]
    assert list(graph.board.specs_by_key[SHARE].owners) == ["team:board"]


def test_seeds_and_snapshots_are_assets_and_published_where_they_lie_below_the_folder(graph: Graph) -> None:
    assert {"shop/staging/rates", "shop/gold/customer_history"} <= built(graph.first)
    assert graph.teams.version("staging.rates") is None
    history = graph.teams.rows("gold.customer_history")
    assert [(row["name"], row["dbt_valid_to"]) for row in history] == [("Ada", None), ("Bo", None)]


def test_a_unit_test_is_a_blocking_check_of_its_model(graph: Graph) -> None:
    check = checks(graph.first)["revenue_adds_up"]
    assert (check.asset_key, check.passed, check.blocking) == (REVENUE, True, True)


@pytest.mark.parametrize("name", ["totals_are_round", "few_small_totals"])
def test_a_warning_fails_its_check_and_stops_nothing(graph: Graph, name: str) -> None:
    check = checks(graph.first)[name]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "shop/gold/revenue" in built(graph.first)


def test_a_project_is_not_built_on_a_load_that_failed(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph.teams.version("gold.revenue")
    graph.load_fails = True
    try:
        assert not graph.teams.run(graph.orders).success
    finally:
        graph.load_fails = False
    # By hand, the load is not part of the run: nothing but the body could refuse.
    monkeypatch.setattr("platform_core.factories.dbt.build", _never)
    result = graph.teams.run(graph.sales)
    assert not result.success
    assert "shop.silver.orders: was not rebuilt by run" in why_it_failed(result)
    assert graph.teams.version("gold.revenue") == before
    # What reads other tables only may be built: here it gets as far as dbt.
    allowed = graph.teams.run(graph.sales, selection=[dg.AssetKey(["shop", "gold", "customer_history"])])
    assert "dbt would have run" in why_it_failed(allowed)
    assert graph.teams.run(graph.orders).success


def _never(*_: Any, **__: Any) -> None:
    raise dg.Failure("dbt would have run")


@pytest.fixture
def edited(teams: Teams) -> Any:
    """Replace a part of one of the sales models for one test."""
    kept: dict[Any, str] = {}

    def edit(model: str, old: str, new: str) -> None:
        file = teams.root / "sales" / "models" / "marts" / f"{model}.sql"
        kept[file] = file.read_text()
        assert old in kept[file]
        file.write_text(kept[file].replace(old, new))

    yield edit
    for file, text in kept.items():
        file.write_text(text)


def test_a_unit_test_that_fails_keeps_its_model_and_what_reads_it_from_being_built(
    graph: Graph, edited: Callable[[str, str, str], None]
) -> None:
    before = graph.teams.version("gold.revenue")
    edited("revenue", "o.amount * r.rate", "o.amount + r.rate")
    result = graph.teams.run(graph.orders, graph.sales, graph.board)
    check = checks(result)["revenue_adds_up"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    made = built(result)
    assert {"shop/gold/wide", "shop/staging/rates"} <= made
    assert not {"shop/gold/revenue", "shop/gold/top", "finance/gold/share"} & made
    assert graph.teams.version("gold.revenue") == before
    # Another location's project, started by hand, is refused as well.
    result = graph.teams.run(graph.board)
    assert "shop.gold.revenue: " in why_it_failed(result)
    assert "was not built: what it reads is not fit to be read" in why_it_failed(result)
