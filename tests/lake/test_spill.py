"""Spill folders are private, and do not outlive their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from platform_core.lake.spill import PREFIX, remove_left_behind, spill_folder

HOLDS = """
import sys, time
from pathlib import Path
from platform_core.lake.spill import spill_folder
print(spill_folder(Path(sys.argv[1])), flush=True)
if len(sys.argv) > 2:
    time.sleep(60)
"""


def holder(parent: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLDS, str(parent), *more], stdout=subprocess.PIPE, text=True)


def test_a_process_has_one_folder_that_only_its_owner_may_read(tmp_path: Path) -> None:
    folder = spill_folder(tmp_path / "state")
    assert folder == spill_folder(tmp_path / "state")
    assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777) == (0o700, 0o700)


def test_a_process_that_ends_takes_its_folder_along(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        made, _ = process.communicate(timeout=60)
    assert made.strip().startswith(str(tmp_path / PREFIX))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with holder(tmp_path, "stay") as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (left / "rows.tmp").write_text("spilled")
        assert remove_left_behind(tmp_path) == 0
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert left.exists()
    mine = spill_folder(tmp_path)
    assert not left.exists()
    assert remove_left_behind(tmp_path) == 0
    assert mine.exists()


def test_a_folder_without_a_lock_is_left_until_it_is_old(tmp_path: Path) -> None:
    young, old = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old"
    young.mkdir()
    old.mkdir()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    (tmp_path / "other").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    assert remove_left_behind(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}link", f"{PREFIX}young", "other"]
