"""How one masking key follows another where secrets are files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from platform_core.errors import SecretError, SecretMissing
from platform_core.secrets.files import (
    FileSecrets,
    create_masking_key,
    retire_masking_key,
    rotate_masking_key,
)
from platform_core.secrets.masking_keys import MASKING_KEY, PREVIOUS_MASKING_KEY
from tests.conftest import PROJECT
from tests.forked import run_forked


def key(folder: Path, name: str = MASKING_KEY) -> bytes:
    return FileSecrets(FileSecrets.Options(path=str(folder))).get(f"crm/{name}").reveal()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_masking_key(tmp_path, "crm")
    return tmp_path


def test_f11_a_new_key_takes_the_place_and_the_old_one_is_kept(folder: Path) -> None:
    before = key(folder)
    rotate_masking_key(folder, "crm")
    assert key(folder, PREVIOUS_MASKING_KEY) == before
    assert key(folder) != before
    assert len(bytes.fromhex(key(folder).decode())) == 32
    assert sorted(path.name for path in (folder / "crm").iterdir()) == [MASKING_KEY, PREVIOUS_MASKING_KEY]
    assert {path.stat().st_mode & 0o777 for path in (folder / "crm").iterdir()} == {0o600}


def test_f11_a_key_that_is_kept_still_is_never_lost_to_a_second_rotation(folder: Path) -> None:
    first = key(folder)
    rotate_masking_key(folder, "crm")
    second = key(folder)
    with pytest.raises(SecretError, match=r"previous masking key of 'crm' is still kept.*\n.*edp keys retire crm"):
        rotate_masking_key(folder, "crm")
    assert (key(folder, PREVIOUS_MASKING_KEY), key(folder)) == (first, second)


def test_f11_a_retired_key_is_gone_and_the_current_one_stays(folder: Path) -> None:
    rotate_masking_key(folder, "crm")
    current = key(folder)
    assert retire_masking_key(folder, "crm")
    with pytest.raises(SecretMissing):
        key(folder, PREVIOUS_MASKING_KEY)
    assert key(folder) == current
    assert not retire_masking_key(folder, "crm")


def test_nothing_is_rotated_where_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(SecretMissing, match="'crm/masking_key' is missing"):
        rotate_masking_key(tmp_path, "crm")


def test_a_rotation_that_was_cut_off_goes_on_where_it_ended(folder: Path) -> None:
    before = key(folder)
    (folder / "crm" / PREVIOUS_MASKING_KEY).hardlink_to(folder / "crm" / MASKING_KEY)
    with pytest.raises(SecretError, match="was cut off\n  run `edp keys rotate crm` again"):
        retire_masking_key(folder, "crm")
    assert key(folder) == before
    rotate_masking_key(folder, "crm")
    assert key(folder, PREVIOUS_MASKING_KEY) == before
    assert key(folder) != before


def test_of_several_rotations_at_a_time_one_happens(folder: Path) -> None:
    before = key(folder)
    refused: list[SecretError] = []

    def rotate() -> None:
        try:
            rotate_masking_key(folder, "crm")
        except SecretError as error:
            refused.append(error)

    threads = [threading.Thread(target=rotate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert key(folder, PREVIOUS_MASKING_KEY) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from platform_core.secrets import files

count = 0

def trace(frame, event, argument):
    global count
    if frame.f_code.co_filename == files.__file__:
        count += 1
        if count == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

sys.settrace(trace)
files.rotate_masking_key(Path(sys.argv[1]), "crm")
"""


def test_f6_no_moment_at_which_a_rotation_is_killed_loses_a_key(tmp_path: Path) -> None:
    killed = 0
    for moment in range(1, 200, 17):
        folder = tmp_path / str(moment)
        create_masking_key(folder, "crm")
        before = key(folder)
        done = run_forked([str(folder), str(moment)], env=os.environ, cwd=PROJECT, timeout=60, code=KILLED)
        killed += done.returncode == -9
        assert before in (key(folder), key(folder, PREVIOUS_MASKING_KEY) if key(folder) != before else before)
        if done.returncode != 0:
            if key(folder) == before:
                rotate_masking_key(folder, "crm")
            assert key(folder, PREVIOUS_MASKING_KEY) == before
            assert len(bytes.fromhex(key(folder).decode())) == 32
    assert killed >= 4
