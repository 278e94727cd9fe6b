"""The door through which a test arms a process that it does not start itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from platform_core import faults
from platform_core.faults import FaultPoint, InjectedFault, counted, disarm, reach
from platform_core.settings import arm_fault
from tests.faults.deployed import FILES
from tests.scenarios.workspaces import Workspace


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_armed", None)


def test_a_process_is_armed_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_TEST", "1")
    monkeypatch.setenv("PLATFORM_FAULT", "bronze-read:raise:2")
    arm_fault()
    reach(FaultPoint.BRONZE_READ)
    with pytest.raises(InjectedFault, match="bronze-read"):
        reach(FaultPoint.BRONZE_READ)
    reach(FaultPoint.BRONZE_READ)
    disarm()


@pytest.mark.parametrize("said", [None, "0", "yes"])
def test_outside_of_tests_the_environment_arms_nothing(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    monkeypatch.setenv("PLATFORM_FAULT", "bronze-read:raise")
    if said is None:
        monkeypatch.delenv("PLATFORM_TEST", raising=False)
    else:
        monkeypatch.setenv("PLATFORM_TEST", said)
    arm_fault()
    assert faults._armed is None


@pytest.mark.parametrize("fault", ["nowhere:kill", "bronze-read:dance", "bronze-read", "bronze-read:kill:1:2:3"])
def test_a_fault_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("PLATFORM_TEST", "1")
    monkeypatch.setenv("PLATFORM_FAULT", fault)
    with pytest.raises(ValueError, match=r"nowhere|dance|expected|unpack"):
        arm_fault()


def test_points_are_counted_as_often_as_they_are_reached() -> None:
    with counted() as reached:
        for _ in range(3):
            reach(FaultPoint.EXTRACT_MID)
        reach(FaultPoint.EXTRACT_LAST)
    reach(FaultPoint.EXTRACT_LAST)
    assert reached == {FaultPoint.EXTRACT_MID: 3, FaultPoint.EXTRACT_LAST: 1}


@pytest.mark.slow
def test_edp_and_the_steps_that_it_runs_meet_the_fault(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path, FILES)
    workspace.sql("state/shop.db", "CREATE TABLE riders (id INTEGER PRIMARY KEY, name TEXT)")
    assert workspace.edp("setup").returncode == 0
    run = ("run", "threads.bronze.riders")
    killed = workspace.edp(*run, PLATFORM_TEST="1", PLATFORM_FAULT="lease-acquired:kill")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    spared = workspace.edp(*run, PLATFORM_FAULT="lease-acquired:kill")
    assert spared.returncode == 0, spared.stdout + spared.stderr
