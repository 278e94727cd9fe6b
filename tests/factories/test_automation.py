"""A dashboard is requested when every input is newer than its last attempt, and not otherwise."""

from collections.abc import Iterator

import dagster as dg
import pytest

from platform_core.factories.automation import PROCESSING, REFRESH

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


class Switch:
    """What the assets of one test do: fail, or not."""

    def __init__(self) -> None:
        self.broken: set[str] = set()


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def definitions(switch: Switch) -> dg.Definitions:
    def body(name: str) -> None:
        if name in switch.broken:
            raise RuntimeError(name)

    @dg.asset
    def left() -> None:
        body("left")

    @dg.asset
    def right() -> None:
        body("right")

    @dg.asset(deps=[left, right], automation_condition=PROCESSING)
    def joined() -> None:
        body("joined")

    @dg.asset(deps=[left, right], automation_condition=REFRESH)
    def dashboard() -> None:
        body("dashboard")

    return dg.Definitions(assets=[left, right, joined, dashboard])


class World:
    """Builds assets and asks what is requested, tick by tick."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.definitions = definitions
        self.instance = instance
        self.cursor: dg.AutomationConditionCursor | None = None  # type: ignore[name-defined]

    def build(self, *names: str) -> None:
        self.definitions.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={dg.AssetKey(name) for name in names}
        ).execute_in_process(instance=self.instance, raise_on_error=False)

    def requested(self) -> set[str]:
        result = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        names = ("left", "right", "joined", "dashboard")
        return {name for name in names if result.get_num_requested(dg.AssetKey(name))}


@pytest.fixture
def world(definitions: dg.Definitions) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(definitions, instance)


def test_nothing_is_requested_before_every_input_exists(world: World) -> None:
    world.requested()
    world.build("left")
    assert world.requested() == set()


def test_step_and_dashboard_are_requested_once_every_input_is_there(world: World) -> None:
    world.requested()
    world.build("left", "right")
    assert world.requested() == {"joined", "dashboard"}


def test_one_newer_input_requests_the_step_but_not_the_dashboard(world: World) -> None:
    world.requested()
    world.build("left", "right")
    world.requested()
    world.build("joined", "dashboard")
    world.requested()
    world.build("left")
    assert world.requested() == {"joined"}


def test_nothing_is_requested_after_an_input_has_failed(world: World, switch: Switch) -> None:
    world.requested()
    world.build("left", "right")
    switch.broken = {"right"}
    world.build("left", "right")
    assert world.requested() == set()


def test_a_failed_dashboard_is_not_requested_again_before_its_inputs_are_newer(world: World, switch: Switch) -> None:
    world.requested()
    world.build("left", "right")
    world.requested()
    switch.broken = {"dashboard"}
    world.build("joined", "dashboard")
    assert world.requested() == set()
    assert world.requested() == set()
    switch.broken = set()
    world.build("left", "right")
    assert "dashboard" in world.requested()


def test_inputs_built_between_the_end_of_a_refresh_and_the_next_tick_are_not_lost(world: World) -> None:
    world.requested()
    world.build("left", "right")
    world.requested()
    world.build("dashboard")
    world.build("left", "right")
    assert "dashboard" in world.requested()
