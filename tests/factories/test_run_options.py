"""A full refresh and a backfill are run configuration: asked for in the launchpad, by a command, and by retries."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.factories import resource
from platform_core.factories.processing import build_processing_asset
from platform_core.factories.resource import PLATFORM, PlatformResource
from platform_core.factories.success import last_success
from platform_core.operations.process import StepContext
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec
from tests.operations.conftest import platform_at, put_into

MADE = dg.AssetKey(["mobility", "silver", "made"])
MODULE = "run_options_step"


class World:
    """One step over a table with a batch, run as a job of Dagster's, and what it saw."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.platform = platform_at(root)
        self.seen: list[tuple[bool, str, int]] = []
        self.failing = False
        spec = ProcessingSpec(
            workstream="mobility",
            layer="silver",
            name="made",
            kind="python",
            function=f"{MODULE}:step",
            depends_on=("bronze.rides",),
            write="partition",
            partition_by=("id",),
        )
        location = LocationSpec(name="mobility", workstreams=(WorkstreamSpec(name="mobility", owners=("team:m",)),))
        asset = build_processing_asset(spec, manifest=Manifest(root=root, location=location, steps=(spec,)))
        definitions = dg.Definitions(
            assets=[asset],
            jobs=[dg.define_asset_job("mobility", dg.AssetSelection.all())],
            resources={PLATFORM: PlatformResource()},
        )
        self.job = definitions.resolve_job_def("mobility")
        rows = pa.table({"id": pa.array([1, 2], pa.int64()), "_batch_id": pa.array([1, 1], pa.int64())})
        put_into(self.platform, "bronze.rides", rows, batch=1)

    def step(self, context: StepContext) -> pa.Table:
        rows = context.changed_rows("bronze.rides").read_all()
        self.seen.append((context.full_refresh, str(context.window or ""), rows.num_rows))
        if self.failing:
            raise RuntimeError
        return rows

    def run(self, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        asked = {"resources": {PLATFORM: {"config": config}}} if config else {}
        return self.job.execute_in_process(run_config=asked, instance=self.instance, raise_on_error=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tmp_path, instance)
        module = ModuleType(MODULE)
        module.step = world.step  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, MODULE, module)
        monkeypatch.setattr(resource, "opened_platform", lambda: world.platform)
        yield world


def test_every_step_of_the_run_is_told_what_its_configuration_asks_for(world: World) -> None:
    for config in (None, None, {"full_refresh": True}, {"since": "2026-01-01", "until": "2026-02-01"}):
        assert world.run(config).success
    january = "2026-01-01T00:00:00+00:00 up to 2026-02-01T00:00:00+00:00"
    assert world.seen == [(False, "", 2), (False, "", 0), (True, "", 2), (False, january, 0)]


def test_a_backfill_is_no_last_success(world: World) -> None:
    world.run({"since": "2026-01-01"})
    assert last_success(world.instance, MADE) is None
    world.run()
    recorded = last_success(world.instance, MADE)
    assert recorded is not None and recorded.read_batches == {"mobility.bronze.rides": 1}
    world.run({"since": "2026-01-01"})
    assert last_success(world.instance, MADE) == recorded


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"full_refresh": True, "since": "2026-01-01"}, "full refresh and a range exclude each other"),
        ({"since": "monday"}, "run config: 'since' is no date or time"),
    ],
)
def test_a_configuration_without_sense_fails_the_step_before_it_begins(
    world: World, config: dict[str, Any], said: str
) -> None:
    result = world.run(config)
    assert not result.success
    assert any(said in str(event.step_failure_data.error) for event in result.get_step_failure_events())
    assert world.seen == []


def test_an_option_that_there_is_not_is_refused_by_the_launchpad(world: World) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match='unexpected config entry "full_refesh"'):
        dg.validate_run_config(world.job, {"resources": {PLATFORM: {"config": {"full_refesh": True}}}})


def test_a_run_and_its_retries_have_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "opened_platform", lambda: platform_at(tmp_path))

    def name(run_id: str, root_run_id: str | None) -> str | None:
        context: Any = SimpleNamespace(
            run=SimpleNamespace(run_id=run_id, root_run_id=root_run_id), log=logging.getLogger()
        )
        return PlatformResource().open(context).run.run

    assert [name("first", None), name("second", "first"), name("other", None)] == ["first", "first", "other"]
