"""FAULTS C15: a dbt build that ends halfway leaves no dashboard that shows a half.

All models of a project are built by one step; a killed one is told like one that fails.
"""

from collections.abc import Iterator

import dagster as dg
import pytest

from platform_core.factories.automation import PROCESSING, REFRESH
from platform_core.factories.readiness import unfit
from platform_core.factories.standing import Standing

MODELS = ("staging", "orders", "totals")
BOARD = dg.AssetKey("board")
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


class Shop:
    """A source, a dbt project of three models, and a dashboard of two of them in another location."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.ends_before: str | None = None
        self.models = dg.Definitions(assets=[self._source(), self._build()])
        self.boards = dg.Definitions(assets=[*(dg.AssetSpec(name) for name in MODELS), self._board()])

    def _source(self) -> dg.AssetsDefinition:
        @dg.asset
        def source() -> None:
            """Loaded."""

        return source

    def _build(self) -> dg.AssetsDefinition:
        specs = [
            dg.AssetSpec(name, deps=["source"], skippable=True, automation_condition=PROCESSING) for name in MODELS
        ]

        @dg.multi_asset(name="dbt_build", specs=specs, can_subset=True)
        def build(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
            for name in MODELS:
                if name == self.ends_before:
                    raise RuntimeError(name)
                if dg.AssetKey(name) in context.selected_asset_keys:
                    yield dg.MaterializeResult(asset_key=name)

        return build

    def _board(self) -> dg.AssetsDefinition:
        @dg.asset(deps=["orders", "totals"], automation_condition=REFRESH)
        def board() -> None:
            """Refreshed."""

        return board

    def run(self, *names: str, ends_before: str | None = None) -> bool:
        """Run assets in one run; whether it succeeded."""
        self.ends_before = ends_before
        definitions = self.boards if "board" in names else self.models
        job = definitions.resolve_implicit_global_asset_job_def()
        selected = job.get_subset(asset_selection={dg.AssetKey(name) for name in names})
        return selected.execute_in_process(instance=self.instance, raise_on_error=False).success

    def asks_for_the_board(self) -> bool:
        result = dg.evaluate_automation_conditions(self.boards, self.instance)
        return result.get_num_requested(BOARD) > 0

    def unfit(self) -> set[str]:
        """Models that nothing may read now."""
        standing = Standing(self.instance)
        return {name for name in MODELS if unfit(dg.AssetKey(name), standing=standing)}


@pytest.fixture
def shop() -> Iterator[Shop]:
    with dg.DagsterInstance.ephemeral() as instance:
        found = Shop(instance)
        assert found.run("source", *MODELS)
        assert found.run("board")
        assert not found.asks_for_the_board()
        yield found


@pytest.mark.parametrize("ends_before", MODELS)
def test_c15_no_model_of_a_build_that_ended_halfway_is_read(shop: Shop, ends_before: str) -> None:
    assert not shop.run("source", *MODELS, ends_before=ends_before)
    assert shop.unfit() == {*MODELS}
    assert not shop.asks_for_the_board()


def test_c15_run_again_from_failure_the_build_is_whole_and_the_dashboard_follows_once(shop: Shop) -> None:
    assert not shop.run("source", *MODELS, ends_before="totals")
    assert shop.run(*MODELS)
    assert not shop.unfit()
    assert shop.asks_for_the_board()
    assert shop.run("board")
    assert not shop.asks_for_the_board()


def test_c15_a_model_that_is_built_alone_after_it_does_not_mend_the_others(shop: Shop) -> None:
    assert not shop.run("source", *MODELS, ends_before="orders")
    assert shop.run("totals")
    assert shop.unfit() == {"staging", "orders"}
    assert not shop.asks_for_the_board()
