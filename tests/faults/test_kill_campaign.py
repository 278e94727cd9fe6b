"""FAULTS A1, A3, C2: loads that are killed or paused at every named moment leave nothing wrong behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.faults import FaultPoint
from platform_core.lake.landing import MANIFEST
from tests.faults.campaign import NOT_PAUSED, Campaign, Strike
from tests.faults.judging import Faults, Yard, judge, judge_wreck
from tests.faults.loading import Job
from tests.faults.scenarios import SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLED = ["full", "incremental", "append"]
PAUSED = [
    ("full", FaultPoint.EXTRACT_LAST),
    ("full", FaultPoint.BRONZE_BEFORE_COMMIT),
    ("incremental", FaultPoint.LANDING_RENAME),
    ("incremental", FaultPoint.BRONZE_BEFORE_COMMIT),
    ("incremental", FaultPoint.HISTORY_COMMIT),
    ("append", FaultPoint.BRONZE_READ),
    ("append", FaultPoint.BRONZE_BEFORE_COMMIT),
    ("append by state", FaultPoint.BRONZE_AFTER_COMMIT),
]
NONE = dict.fromkeys(Faults().counts(), 0)


def _first_of(campaign: Campaign, scenario: str, point: FaultPoint) -> Strike:
    return next(strike for strike in campaign.sample() if (strike.scenario, strike.point) == (scenario, point))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a1_every_point_is_reached_or_listed_with_the_reason(campaign: Campaign, scenario: str) -> None:
    reached = {strike.point for strike in campaign.sample() if strike.scenario == scenario}
    assert set(FaultPoint) - reached == set(SCENARIOS[scenario].beyond)


@pytest.mark.parametrize("scenario", KILLED)
def test_a1_after_a_kill_at_any_point_a_rerun_gives_what_no_kill_would_have(campaign: Campaign, scenario: str) -> None:
    hit = set()
    for strike in campaign.sample():
        if strike.scenario == scenario:
            campaign.kill(strike)
            hit.add(strike.point)
    assert hit == set(FaultPoint) - set(SCENARIOS[scenario].beyond)
    assert campaign.figures.faults.counts() == NONE, "\n".join(campaign.figures.faults.where)


def test_a1_after_a_kill_at_a_random_time_a_rerun_gives_what_no_kill_would_have(campaign: Campaign) -> None:
    before = campaign.figures.kills
    while campaign.figures.kills < before + 4:
        campaign.kill(campaign.random_strike())
    assert campaign.figures.faults.counts() == NONE, "\n".join(campaign.figures.faults.where)


@pytest.mark.parametrize(("scenario", "point"), PAUSED)
def test_c2_a3_a_paused_load_commits_nothing_once_another_has_taken_over(
    campaign: Campaign, scenario: str, point: FaultPoint
) -> None:
    assert point not in NOT_PAUSED
    campaign.pause(_first_of(campaign, scenario, point))
    assert campaign.figures.faults.counts() == NONE, "\n".join(campaign.figures.faults.where)


# The campaign proves nothing unless its judge sees what is wrong.


@pytest.fixture
def yard(campaign: Campaign, tmp_path: Path) -> Any:
    """A table that was loaded on three days."""
    with campaign._yard(Strike("full", False, True, None)) as yard:
        campaign.forks.done(Job(folder=str(yard.folder), scenario="full", days=[2]))
        yield yard


def _judged(campaign: Campaign, yard: Yard) -> dict[str, int]:
    strike = Strike("full", False, True, None)
    faults = Faults()
    judge_wreck(yard, faults)
    judge(yard, faults, day=2, twin=campaign._twin(strike, 2), baseline=campaign._baseline(strike))
    return {name: number for name, number in faults.counts().items() if number}


def test_the_judge_finds_nothing_wrong_with_an_undisturbed_table(campaign: Campaign, yard: Yard) -> None:
    assert _judged(campaign, yard) == {}


def test_the_judge_sees_lost_rows(campaign: Campaign, yard: Yard) -> None:
    DeltaTable(yard.bronze).delete("id in (1, 2)")
    assert _judged(campaign, yard) == {"lost": 2, "different": 1}


def test_the_judge_sees_a_lost_change(campaign: Campaign, yard: Yard) -> None:
    DeltaTable(yard.bronze).update(predicate="id = 12", new_values={"name": "old"})
    assert _judged(campaign, yard) == {"lost": 1, "different": 1}


def test_the_judge_sees_rows_that_are_flagged_deleted_and_are_not(campaign: Campaign, yard: Yard) -> None:
    DeltaTable(yard.bronze).update(predicate="id = 7", updates={"_is_current": "false", "_is_deleted": "true"})
    assert _judged(campaign, yard) == {"falsely_deleted": 1, "different": 1}


def test_the_judge_sees_rows_that_are_there_twice(campaign: Campaign, yard: Yard) -> None:
    write_deltalake(yard.bronze, DeltaTable(yard.bronze).to_pyarrow_table().slice(0, 3), mode="append")
    assert _judged(campaign, yard) == {"duplicated": 3, "different": 1}


def test_the_judge_sees_a_landing_that_is_torn_and_accepted(
    campaign: Campaign, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (*_, batch) = sorted(yard.landing.iterdir())
    (part,) = batch.glob("*.parquet")
    with part.open("r+b") as file:
        file.truncate(100)
    assert (batch / MANIFEST).exists()
    assert _judged(campaign, yard) == {}, "it is refused"
    monkeypatch.setattr("tests.faults.judging.read_batch", lambda uri, **_: uri)
    assert _judged(campaign, yard) == {"torn_accepted": 1}


def test_the_judge_sees_a_load_of_which_the_log_does_not_tell_the_end(campaign: Campaign, yard: Yard) -> None:
    end = campaign.forks.start(Job(folder=str(yard.folder), scenario="full", days=[2], fault="extract-last:kill"))
    assert end.killed
    assert _judged(campaign, yard) == {"untold": 1}
