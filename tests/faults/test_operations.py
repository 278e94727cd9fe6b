"""FAULTS A6, A13 to A16, C1: full disks, cancelled loads, little memory, old backups, and upkeep beside loads."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.errors import ControlError, PlatformError, StorageError
from platform_core.faults import armed
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.upkeep import keep_up
from platform_core.specs.upkeep import Operation, UpkeepSpec
from tests.faults.campaign import Campaign, Strike
from tests.faults.forks import PROJECT, forking
from tests.faults.judging import Faults, Yard, judge
from tests.faults.loading import Job, open_platform_in
from tests.faults.scenarios import SCENARIOS
from tests.faults.wide import Wide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NONE = dict.fromkeys(Faults().counts(), 0)


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int = 3) -> Iterator[Path]:
    """A file system of a few megabytes at a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Wide]:
    """A table of a hundred kilobyte rows."""
    made = Wide(tmp_path)
    yield made
    made.platform.loads.close()


@pytest.mark.services
@pytest.mark.parametrize("place", ["landing", "bronze"])
def test_a6_a_full_disk_leaves_the_last_version_readable_and_no_file_behind(wide: Wide, place: str) -> None:
    disk = getattr(wide, place)
    with small_disk(disk.parent):
        wide.load(100)
        version = wide.version()
        with pytest.raises(StorageError, match=r"(?i)no space left"):
            wide.load(9_000, seed=1)
        assert (wide.version(), wide.rows(), wide.leaked()) == (version, 100, [])
        assert wide.platform.loads.recent()[0].status == "failed"
        wide.load(200, seed=1)
        assert wide.rows() == 200


@pytest.mark.services
def test_a6_with_a_full_control_database_nothing_is_loaded(wide: Wide) -> None:
    with small_disk(wide.control):
        wide.load(100)
        _fill(wide.control)
        with pytest.raises(ControlError):
            # What the database has set aside for its log lasts for some loads.
            for seed in range(1, 50):
                version = wide.version()
                wide.load(100, seed=seed)
        assert (wide.version(), wide.leaked()) == (version, [])
        (wide.control / "filler").unlink()
        wide.load(120, seed=1)
        assert wide.rows() == 120


@pytest.mark.parametrize("point", ["landing-write-tmp", "landing-fsync", "manifest-write", "landing-rename"])
def test_a7_what_the_disk_does_not_confirm_is_not_acknowledged(wide: Wide, point: str) -> None:
    wide.load(100)
    with armed(f"{point}:eio"), pytest.raises(StorageError, match=r"Input/output error|EIO"):
        wide.load(100, seed=1)
    assert (wide.version(), wide.leaked(), wide.platform.loads.recent()[0].status) == (0, [], "failed")
    wide.load(100, seed=1)
    assert wide.version() == 1


def test_a7_an_error_right_before_the_commit_leaves_nothing(wide: Wide) -> None:
    wide.load(100)
    with armed("bronze-before-commit:eio"), pytest.raises(PlatformError):
        wide.load(100, seed=1)
    assert (wide.version(), wide.leaked(), wide.platform.loads.recent()[0].status) == (0, [], "failed")


def test_a14_the_memory_of_a_load_does_not_grow_with_its_rows(tmp_path: Path) -> None:
    peaks = {}
    for rows in (100_000, 500_000):
        answer = _apart(tmp_path / str(rows), rows)
        assert answer["error"] is None
        peaks[rows] = answer["peak"]
    assert peaks[500_000] - peaks[100_000] < 200, f"peaks in MB by rows of a kilobyte: {peaks}"


def test_a14_a_load_that_gets_no_memory_ends_cleanly(tmp_path: Path) -> None:
    answer = _apart(tmp_path, 200_000, limit=120)
    wide = Wide(tmp_path)
    assert (wide.rows(), wide.version()) == (10, 0)
    assert answer["error"] is not None, "the load was meant to find too little memory"
    wide.load(20)
    assert wide.rows() == 20
    wide.platform.loads.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a15_a_restore_of_control_and_lake_in_any_ages_converges(
    campaign: Campaign, tmp_path: Path, scenario: str
) -> None:
    kept = {}
    with campaign._yard(Strike(scenario, True, True, None)) as yard:
        for day in (1, 2):
            campaign.forks.done(_job(yard.folder, scenario, day))
            kept[day] = tmp_path / f"day {day}"
            shutil.copytree(yard.folder, kept[day])
    for control, lake in [(1, 1), (1, 2), (2, 1), (2, 2)]:
        folder = tmp_path / f"{control} and {lake}"
        shutil.copytree(kept[control], folder)
        shutil.rmtree(folder / "lake")
        shutil.copytree(kept[lake] / "lake", folder / "lake")
        campaign.forks.done(_job(folder, scenario, 3))
        faults = Faults()
        judge(Yard(folder, SCENARIOS[scenario]), faults, day=3, twin=None, baseline=0)
        assert faults.counts() == NONE, f"control of day {control}, lake of day {lake}: {faults}"


def test_a15_a_lost_control_database_loses_nothing(campaign: Campaign) -> None:
    with campaign._yard(Strike("incremental", False, True, None)) as yard:
        shutil.rmtree(yard.folder / "state")
        campaign.forks.done(_job(yard.folder, "incremental", 3))
        faults = Faults()
        judge(yard, faults, day=3, twin=None, baseline=0)
        assert faults.counts() == NONE, faults


def test_a16_upkeep_beside_loads_fails_no_load_and_no_reader(campaign: Campaign) -> None:
    with campaign._yard(Strike("incremental", False, True, None)) as yard:
        done, problems, reads = threading.Event(), [], []

        def keep() -> None:
            platform = open_platform_in(yard.folder)
            policies = [
                UpkeepSpec.model_validate({"workstream": "crm", "name": "policy", "operation": operation, **fields})
                for operation, fields in (
                    (Operation.COMPACT, {"small_files": 2}),
                    (Operation.VACUUM, {"retention": "1 day"}),
                )
            ]
            try:
                while not done.is_set():
                    for policy in policies:
                        keep_up(policy, platform=platform)
            except PlatformError as error:
                problems.append(error)
            finally:
                platform.loads.close()

        def read() -> None:
            while not done.is_set():
                try:
                    reader = DeltaTableReader.open(str(yard.bronze), storage_options={})
                    assert reader is not None
                    reads.append(reader.read().read_all().num_rows)
                except Exception as error:  # noqa: BLE001 - counted
                    problems.append(error)

        threads = [threading.Thread(target=keep), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        try:
            for day in (2, 3, 3):
                campaign.forks.done(_job(yard.folder, "incremental", day))
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert problems == []
        assert min(reads) >= 60
        faults = Faults()
        judge(yard, faults, day=3, twin=None, baseline=0)
        assert faults.counts() == NONE, faults


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_c1_two_processes_that_load_one_table_come_one_after_the_other(
    campaign: Campaign, tmp_path: Path, scenario: str
) -> None:
    with campaign._yard(Strike(scenario, False, True, None)) as yard, forking(tmp_path / "errors") as others:
        slow = Job(folder=str(yard.folder), scenario=scenario, days=[2], fault="bronze-before-commit:sleep:1:1")
        ends = {}

        def load_slowly() -> None:
            ends["first"] = campaign.forks.start(slow)

        first = threading.Thread(target=load_slowly)
        first.start()
        ends["second"] = others.start(_job(yard.folder, scenario, 2))
        first.join()
        assert {end.how for end in ends.values()} == {"exit"}
        faults = Faults()
        judge(yard, faults, day=2, twin=None, baseline=0)
        assert faults.counts() == NONE, faults
        assert {row.status for row in yard.log()} == {"succeeded"}
        assert yard.commits() == sorted(yard.commits())


def _job(folder: Path, scenario: str, day: int) -> Job:
    return Job(folder=str(folder), scenario=scenario, days=[day])


def _fill(disk: Path) -> None:
    """Leave no byte of a disk."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"0" * 4096)


def _apart(folder: Path, rows: int, *, limit: int | None = None) -> dict[str, object]:
    """Load in a process of its own: what it prints, or that native code aborted, as it does without memory."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.faults.wide", str(folder), str(rows), *([str(limit)] if limit else [])]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    if limit is not None and done.returncode == -signal.SIGABRT:
        return {"error": "aborted"}
    assert done.returncode == 0, done.stderr[-4_000:]
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
