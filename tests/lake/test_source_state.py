"""What a source remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.errors import StorageError
from platform_core.faults import armed
from platform_core.lake.source_state import read_state, remove_state, remove_states, write_state


def test_a_state_is_kept_by_batch(tmp_path: Path) -> None:
    folder = str(tmp_path / "states")
    assert read_state(folder, 1, storage_options={}) is None
    write_state(folder, 1, b"one", storage_options={})
    write_state(folder, 2, b"two", storage_options={})
    assert read_state(folder, 1, storage_options={}) == b"one"
    remove_states(folder, but=2, storage_options={})
    assert [path.name for path in Path(folder).iterdir()] == ["000000000002"]
    remove_state(folder, 2, storage_options={})
    remove_state(folder, 2, storage_options={})
    assert read_state(folder, 2, storage_options={}) is None


def test_a_full_disk_leaves_no_torn_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "states")

    def full(self: Path, content: bytes) -> int:
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="000000000001: cannot be written"):
        write_state(folder, 1, b"one", storage_options={})
    assert read_state(folder, 1, storage_options={}) is None


def test_the_point_before_it_is_named(tmp_path: Path) -> None:
    with armed("state-write:enospc"), pytest.raises(StorageError, match="No space left"):
        write_state(str(tmp_path), 1, b"one", storage_options={})
