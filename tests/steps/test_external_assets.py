"""Assets that other systems own, and the steps that depend on them, in Dagster: the one rule of readiness."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.errors import InputsError, SourceError
from platform_core.factories import external as factory
from platform_core.factories.automation import Looked
from platform_core.factories.external import build_external_asset
from platform_core.factories.processing import build_processing_asset
from platform_core.factories.resource import PLATFORM
from platform_core.factories.standing import Standing
from platform_core.operations.external_asset import Seen
from platform_core.operations.platform import Platform
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec

TARIFFS = dg.AssetKey(["mobility", "external", "tariffs"])
PRICES = dg.AssetKey(["mobility", "silver", "prices"])
MODULE = "external_prices"
CHANGED_AT = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


class Opened:
    """Stands where the resource would read settings."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def open(self, context: dg.AssetExecutionContext) -> Platform:
        return replace(self.platform, log=context.log)


@dataclass
class World:
    """A location with one external asset and one step that depends on it, and another location with the step alone."""

    manifest: Manifest
    platform: Platform
    instance: dg.DagsterInstance
    version: str = "v1"
    changed_at: dt.datetime | None = None
    gone: bool = False
    runs: list[tuple[str, ...]] = field(default_factory=list)
    cursor: dg.AutomationConditionCursor | None = None

    def look(self, spec: ProcessingSpec, **_: Any) -> Seen:
        """Stands where the connection would be asked."""
        if self.gone:
            raise SourceError(f"external {spec.ref}: status 404")
        return Seen(asset=spec.ref, version=self.version, changed_at=self.changed_at)

    def definitions(self, *, both: bool = True) -> dg.Definitions:
        tariffs, prices = self.manifest.steps
        made = [build_external_asset(tariffs, manifest=self.manifest)] if both else [dg.AssetSpec(TARIFFS)]
        return dg.Definitions(
            assets=[*made, build_processing_asset(prices, manifest=self.manifest)],
            resources={PLATFORM: Opened(self.platform)},
        )

    def run(self, *keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
        job = self.definitions().resolve_implicit_global_asset_job_def()
        selected = job.get_subset(asset_selection=set(keys))
        return selected.execute_in_process(instance=self.instance, raise_on_error=False)

    def requested(self, *, both: bool = True) -> bool:
        """Whether the step is asked for now."""
        chosen = dg.AssetSelection.assets(PRICES)
        result = dg.evaluate_automation_conditions(self.definitions(both=both), self.instance, asset_selection=chosen)
        return bool(result.get_num_requested(PRICES))

    def built(self) -> int:
        return len(self.instance.fetch_materializations(PRICES, limit=100).records)


@pytest.fixture
def world(platform: Platform, package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    module = ModuleType(MODULE)
    module.step = lambda context: pa.table({"inputs": [",".join(context.inputs)]})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    declared = {"workstream": "mobility", "owners": ("team:mobility",)}
    manifest = Manifest(
        root=package,
        location=LocationSpec(name="mobility", workstreams=(WorkstreamSpec(name="mobility", owners=("team:m",)),)),
        connections=(ConnectionSpec(workstream="mobility", name="theirs", type="rest"),),
        steps=(
            ProcessingSpec(
                **declared,
                layer="external",
                name="tariffs",
                kind="external",
                source="theirs",
                object="tariffs",
                fresh="1 day",
                every="10 minutes",
            ),
            ProcessingSpec(
                **declared,
                layer="silver",
                name="prices",
                kind="python",
                function=f"{MODULE}:step",
                depends_on=("external.tariffs",),
            ),
        ),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(manifest=manifest, platform=platform, instance=instance)
        monkeypatch.setattr(factory, "look", made.look)
        yield made


def errors(result: dg.ExecuteInProcessResult) -> str:
    """Every failure of a run, with what caused it."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None:
                texts.append(f"{error.cls_name}: {error.message}")
                error = error.cause
    return "\n".join(texts)


def test_it_is_observed_and_never_built(world: World) -> None:
    node = world.definitions().get_repository_def().asset_graph.get(TARIFFS)
    assert (node.is_observable, node.is_materializable, node.is_executable) == (True, False, True)
    assert world.run(TARIFFS).success
    (look,) = world.instance.fetch_observations(TARIFFS, limit=10).records
    assert look.asset_observation is not None
    assert look.asset_observation.data_version == "v1"
    assert not world.instance.fetch_materializations(TARIFFS, limit=1).records


def test_a_step_is_run_for_it_without_reading_it(world: World, rows: Any) -> None:
    assert world.run(TARIFFS, PRICES).success
    # There is no such table: the step's own code knows where the tariffs are.
    assert rows("silver.prices").to_pydict() == {"inputs": [""]}


def test_a_table_of_the_lake_is_an_input_like_any_other(world: World, put: Any, rows: Any) -> None:
    put("external.tariffs", pa.table({"id": [1]}))
    assert world.run(TARIFFS, PRICES).success
    assert rows("silver.prices").to_pydict() == {"inputs": ["external.tariffs"]}


@pytest.mark.parametrize("both", [True, False], ids=["of its location", "of another location"])
def test_a_step_is_asked_for_when_it_has_changed_and_not_for_a_look(world: World, both: bool) -> None:
    assert not world.requested(both=both)
    world.run(TARIFFS)
    assert world.requested(both=both)
    world.run(PRICES)
    for _ in range(3):
        world.run(TARIFFS)
        assert not world.requested(both=both)
    world.version = "v2"
    world.run(TARIFFS)
    world.run(TARIFFS)
    assert world.requested(both=both)
    world.run(PRICES)
    assert not world.requested(both=both)


def test_an_older_version_that_comes_back_is_news(world: World) -> None:
    world.run(TARIFFS, PRICES)
    for version in ("v2", "v1"):
        world.version = version
        world.run(TARIFFS)
    assert world.requested()


@pytest.mark.parametrize("wrong", ["gone", "old"])
def test_nothing_is_made_from_what_could_not_be_looked_at_or_is_too_old(world: World, wrong: str) -> None:
    world.run(TARIFFS, PRICES)
    world.version = "v2"
    world.run(TARIFFS)
    world.gone, world.changed_at = wrong == "gone", CHANGED_AT if wrong == "old" else None
    assert not world.run(TARIFFS).success
    assert not world.requested()
    refused = world.run(PRICES)
    assert not refused.success
    assert InputsError.__name__ in errors(refused)
    assert "mobility.external.tariffs: was not rebuilt by run" in errors(refused)
    assert world.built() == 1

    world.gone, world.changed_at = False, None
    world.run(TARIFFS)
    assert world.requested()
    assert world.run(PRICES).success
    assert not world.requested()


def test_in_one_run_a_look_that_fails_keeps_the_step_from_running(world: World) -> None:
    world.gone = True
    result = world.run(TARIFFS, PRICES)
    assert not result.success
    assert world.built() == 0
    assert "status 404" in errors(result)


def test_a_step_that_failed_is_not_asked_for_again_until_something_changes(world: World) -> None:
    world.run(TARIFFS)
    sys.modules[MODULE].step = lambda context: 1 / 0  # type: ignore[attr-defined]
    assert not world.run(PRICES).success
    assert not world.requested()
    world.run(TARIFFS)
    assert not world.requested()
    world.version = "v2"
    world.run(TARIFFS)
    assert world.requested()


def test_what_says_no_time_is_as_old_as_its_version_has_been_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(TARIFFS)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=25)

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr(factory.dt, "datetime", Later)
    assert "was first seen like this" in errors(world.run(TARIFFS))
    world.version = "v2"
    assert world.run(TARIFFS).success


def test_another_system_can_tell_by_itself_that_it_has_changed(world: World) -> None:
    world.run(TARIFFS, PRICES)
    world.instance.report_runless_asset_event(dg.AssetObservation(TARIFFS, tags={"dagster/data_version": "v2"}))
    assert world.requested()
    world.run(PRICES)
    assert not world.requested()


def test_a_look_points_to_the_first_that_told_its_version(world: World) -> None:
    for _ in range(3):
        world.run(TARIFFS)
    looks = world.instance.fetch_observations(TARIFFS, limit=10).records
    built = Standing(world.instance).built(TARIFFS)
    assert built is not None
    assert built.position == looks[-1].storage_id < looks[0].storage_id


def test_it_is_looked_at_once_in_each_span_of_time(world: World) -> None:
    begin = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
    cursor, asked = None, []
    for minute in (0, 1, 9, 10, 11, 47, 50):
        result = dg.evaluate_automation_conditions(
            world.definitions(),
            world.instance,
            asset_selection=dg.AssetSelection.assets(TARIFFS),
            evaluation_time=begin + dt.timedelta(minutes=minute),
            cursor=cursor,
        )
        cursor = result.cursor
        asked += [minute] * result.get_num_requested(TARIFFS)
    # The first tick knows of none before it; what 20 to 40 would have been is one look.
    assert asked == [0, 10, 47, 50]


def test_a_paused_one_is_looked_at_by_hand_only(world: World) -> None:
    tariffs = world.manifest.steps[0]
    keys = {"paused": True}, {"every": None}
    for update in keys:
        made = build_external_asset(tariffs.model_copy(update=update), manifest=world.manifest)
        assert made.automation_conditions_by_key == {}
    made = build_external_asset(tariffs, manifest=world.manifest)
    assert isinstance(made.automation_conditions_by_key[TARIFFS], Looked)
