"""What doctor says of the lake and of disks."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from platform_core.errors import StorageError
from platform_core.lake.paths import Lake
from platform_core.lake.probing import probe
from platform_core.operations.doctor_findings import Verdict
from tests.doctor.conftest import Project, chosen, failed, one

GIGABYTE = 1_000_000_000


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def test_a_lake_takes_a_probe_of_which_nothing_is_left(any_lake: Lake) -> None:
    if "://" not in any_lake.root:
        Path(any_lake.root).mkdir()
    found = probe(any_lake, now=now)
    assert found.stored_at is not None
    if "://" not in any_lake.root:
        assert list(Path(any_lake.root).iterdir()) == []


def test_a_probe_leaves_what_was_there(tmp_path: Path) -> None:
    kept = tmp_path / "_platform" / "manifests" / "pointer"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    probe(Lake(str(tmp_path)), now=now)
    assert [each.name for each in tmp_path.rglob("*")] == ["_platform", "manifests", "pointer"]


def test_a_lake_that_is_well_is_told_with_its_time(project: Project) -> None:
    found = one(project.findings(), "storage", "lake")
    assert found.verdict is Verdict.OK
    assert found.looked_at == str(project.settings.state / "lake")
    assert found.told.endswith(" ms)")


def test_a_lake_that_is_not_there_yet_is_a_warning_and_is_not_made(project: Project) -> None:
    (project.settings.state / "lake").rmdir()
    found = one(project.findings(), "storage", "lake")
    assert found.verdict is Verdict.WARNING
    assert "mount its disk" in found.advice
    assert not (project.settings.state / "lake").exists()


def test_a_file_in_the_place_of_the_lake_fails(project: Project) -> None:
    (project.settings.state / "lake").rmdir()
    project.write("state/lake", "")
    found = one(project.findings(), "storage", "lake")
    assert found.verdict is Verdict.FAILED
    assert "is a file" in found.told
    assert found.advice == "correct lake.root"


def test_a_folder_that_takes_no_files_fails_and_hides_nothing(project: Project) -> None:
    # No user may make a folder there, not even root.
    project.write_environment(lake="{root: 'file:///sys/kernel'}")
    findings = project.findings()
    found = one(findings, "storage", "lake")
    assert found.verdict is Verdict.FAILED
    assert "a file cannot be written" in found.told
    assert "PermissionError" in found.advice
    assert failed(findings) == ["storage: lake"]


def test_an_object_store_that_is_away_fails_within_the_limit(project: Project) -> None:
    options = "{account_name: a, account_key: YQ==, endpoint: 'http://127.0.0.1:1/a', allow_http: 'true'}"
    project.write_environment(lake=f"{{root: 'az://lake/root', storage_options: {options}}}")
    findings = project.findings(limit=60)
    assert failed(findings) == ["storage: lake"]
    assert "no answer" not in one(findings, "storage", "lake").told


def test_a_store_that_loses_one_of_two_commits_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deltalake import DeltaTable

    # As with a store that lets one writer put its file over that of another.
    monkeypatch.setattr(DeltaTable, "version", lambda self: 1)
    with pytest.raises(StorageError, match="of two commits one was lost"):
        probe(Lake(str(tmp_path)), now=now)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "whole", "verdict"),
    [
        (60 * GIGABYTE, 100 * GIGABYTE, Verdict.OK),
        (50 * GIGABYTE, 10_000 * GIGABYTE, Verdict.FAILED),
        (300 * GIGABYTE, 10_000 * GIGABYTE, Verdict.OK),
        (5 * GIGABYTE, 100 * GIGABYTE, Verdict.WARNING),
        (GIGABYTE // 3, GIGABYTE, Verdict.FAILED),
        (0, 100 * GIGABYTE, Verdict.FAILED),
        (0, 0, Verdict.OK),
    ],
)
def test_a_disk_is_judged_by_its_part_and_by_its_bytes(
    project: Project, free: int, whole: int, verdict: Verdict
) -> None:
    project.machine = replace(project.machine, space=lambda folder: (free, whole))
    [found] = chosen(project.findings(), "storage", "disk")
    assert found.verdict is verdict
    assert ("make room" in found.advice) is (verdict is not Verdict.OK)


def test_folders_on_one_disk_are_told_together(project: Project) -> None:
    [found] = chosen(project.findings(), "storage", "disk")
    assert found.told.endswith("for lake and state folder")


def test_a_clock_far_from_that_of_the_store_fails(project: Project) -> None:
    project.skew(90)
    found = one(project.findings(), "clock", "lake")
    assert found.verdict is Verdict.FAILED
    assert "seconds ahead of it" in found.told
    project.skew(-5)
    found = one(project.findings(), "clock", "lake")
    assert found.verdict is Verdict.WARNING
    assert "seconds behind it" in found.told
