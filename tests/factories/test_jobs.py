"""Schedules skip or queue, catch up or not; what is paused is not started; a large location has several sensors."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from platform_core.factories.jobs import MISSED, MOST_CONDITIONS, build_automation_sensors, build_schedule
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import CatchUp, LocationSpec, Overlap, ScheduleSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

ENVIRONMENT = EnvironmentSpec(name="test", lake={"root": "lake"}, secrets={"type": "none"}, schedules=True)
ACTIVE, WAITING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED
DONE, FAILED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture
def instance(stored: dg.DagsterInstance) -> dg.DagsterInstance:
    """Without runs; an instance in memory has no reference, which a schedule's context needs."""
    stored.wipe()
    return stored


def run(instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus) -> None:
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("crm"), "repository"), job)
    create_run_for_test(instance, job_name=job, status=status, remote_job_origin=origin)


def schedule(*, overlap: Overlap = Overlap.QUEUE, catch_up: CatchUp = CatchUp.ONE) -> dg.ScheduleDefinition:
    spec = ScheduleSpec(cron="0 6 * * *", timezone="Europe/Amsterdam", overlap=overlap, catch_up=catch_up)
    workstream = WorkstreamSpec(name="crm", owners=("team:crm",), schedule=spec)
    (built,) = build_schedule(workstream, running=True)
    return built


def starts(built: dg.ScheduleDefinition, instance: dg.DagsterInstance, *, late: dt.timedelta = dt.timedelta(0)) -> bool:
    due = dt.datetime.now(dt.UTC) - late
    with dg.build_schedule_context(instance, scheduled_execution_time=due) as context:
        data = built.evaluate_tick(context)
    assert (not data.run_requests) == bool(data.skip_message)
    return bool(data.run_requests)


@pytest.mark.parametrize(
    ("overlap", "before", "started"),
    [
        (Overlap.QUEUE, [], True),
        (Overlap.QUEUE, [DONE, FAILED], True),
        (Overlap.QUEUE, [ACTIVE], True),
        (Overlap.QUEUE, [ACTIVE, WAITING], False),
        (Overlap.SKIP, [], True),
        (Overlap.SKIP, [DONE, FAILED], True),
        (Overlap.SKIP, [ACTIVE], False),
        (Overlap.SKIP, [WAITING], False),
    ],
)
def test_a_schedule_whose_previous_run_is_active_skips_or_queues_one(
    instance: dg.DagsterInstance, overlap: Overlap, before: list[dg.DagsterRunStatus], started: bool
) -> None:
    """FAULTS C16"""
    for status in before:
        run(instance, "crm", status)
    run(instance, "finance", ACTIVE)
    assert starts(schedule(overlap=overlap), instance) is started


@pytest.mark.parametrize(("catch_up", "started"), [(CatchUp.ONE, True), (CatchUp.NONE, False)])
def test_a_time_that_passed_during_downtime_is_caught_up_or_not(
    instance: dg.DagsterInstance, catch_up: CatchUp, started: bool
) -> None:
    assert starts(schedule(catch_up=catch_up), instance, late=2 * MISSED) is started


def test_a_slow_daemon_is_no_downtime(instance: dg.DagsterInstance) -> None:
    assert starts(schedule(catch_up=CatchUp.NONE), instance, late=MISSED / 2)


def test_a_schedule_goes_by_its_time_zone() -> None:
    assert schedule().execution_timezone == "Europe/Amsterdam"


def sensors(assets: int) -> list[dg.AutomationConditionSensorDefinition]:
    keys = [dg.AssetKey(["crm", "gold", f"t{number}"]) for number in range(assets)]
    manifest = Manifest(location=LocationSpec(name="crm"), root=Path("crm"))
    return build_automation_sensors(manifest, ENVIRONMENT, dict.fromkeys(keys, 0), metadata={})


def test_a_small_location_has_one_sensor() -> None:
    assert [sensor.name for sensor in sensors(MOST_CONDITIONS)] == ["crm_automation"]


def test_no_sensor_of_a_large_location_has_more_conditions_than_dagster_takes() -> None:
    built = sensors(2 * MOST_CONDITIONS + 1)
    assert [sensor.name for sensor in built] == ["crm_automation", "crm_automation_2", "crm_automation_3"]
    assets = [dg.AssetSpec(["crm", "gold", f"t{number}"]) for number in range(2 * MOST_CONDITIONS + 1)]
    shares = [sensor.asset_selection.resolve(dg.Definitions(assets).resolve_asset_graph()) for sensor in built]
    assert [len(share) for share in shares] == [MOST_CONDITIONS, MOST_CONDITIONS, 1]
