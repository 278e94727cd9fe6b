"""Sources that know by themselves what they have read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import DeletesStopped, LoadError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import batch_sink
from platform_core.operations import extract
from platform_core.operations.reload import Reload
from platform_core.operations.replay import approve

ROWS = pa.table({"id": range(10), "name": [f"name {i}" for i in range(10)]})
APPEND: dict[str, Any] = {"mode": "append"}
UPSERT: dict[str, Any] = {"mode": "incremental", "key": ("id",)}


@pytest.fixture(params=["held", "landed"])
def ledger(loads: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads from a source that keeps state."""
    if request.param == "landed":
        monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)
    loads.source = "ledger"
    loads.spec = APPEND
    return loads


def states(loads: Any) -> dict[int, bytes]:
    folder = Path(loads.folder, "lake", "crm", "source_state", "riders")
    return {int(file.name): file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("spec", [APPEND, UPSERT])
def test_what_was_read_before_is_left_out(ledger: Any, source: Any, spec: dict[str, Any]) -> None:
    ledger.spec = spec
    ledger.load(ROWS.slice(0, 4))
    assert states(ledger) == {1: b"4"}
    result = ledger.load(ROWS)
    assert (result.rows_read, result.inserted) == (6, 6)
    assert states(ledger) == {2: b"10"}
    assert source.requests[-1].state == b"4"


def test_columns_are_asked_for_with_what_the_source_remembers(
    ledger: Any, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    schema = source.schema
    monkeypatch.setattr(source, "schema", lambda self, request: asked.append(request) or schema(self, request))
    ledger.spec = UPSERT | {"select": ("id", "name")}
    ledger.load(ROWS)
    extract._known_names.clear()
    ledger.load(ROWS)
    assert [(str(request.mode), request.state) for request in asked[:: len(asked) - 1]] == [
        ("incremental", None),
        ("incremental", b"10"),
    ]


def test_nothing_new_means_no_commit_and_no_new_state(ledger: Any) -> None:
    ledger.load(ROWS)
    result = ledger.load()
    assert (result.rows_read, result.committed) == (0, False)
    assert states(ledger) == {1: b"10"}


def test_a_state_that_moves_on_is_committed_although_no_row_changed(ledger: Any) -> None:
    ledger.spec = UPSERT
    ledger.load(ROWS)
    result = ledger.load(pa.concat_tables([ROWS, ROWS.slice(0, 1)]))
    assert (result.unchanged, result.committed) == (1, True)
    assert states(ledger) == {2: b"11"}


@pytest.mark.parametrize("point", ["state-write", "bronze-before-commit", "bronze-after-commit"])
def test_a11_after_a_crash_no_row_is_lost_or_doubled(ledger: Any, point: str) -> None:
    ledger.load(ROWS.slice(0, 4))
    with armed(f"{point}:raise"), pytest.raises(InjectedFault):
        ledger.load(ROWS)
    ledger.load(ROWS)
    assert sorted(row["id"] for row in ledger.rows()) == list(range(10))


def test_an_append_whose_state_is_lost_is_refused(ledger: Any) -> None:
    ledger.load(ROWS)
    Path(ledger.folder, "lake", "crm", "source_state", "riders", f"{1:012d}").unlink()
    with pytest.raises(LoadError, match="what the source remembers of batch 1 is lost"):
        ledger.load(ROWS)
    assert len(ledger.rows()) == 10


def test_an_incremental_table_whose_state_is_lost_is_read_again(ledger: Any) -> None:
    ledger.spec = UPSERT
    ledger.load(ROWS)
    Path(ledger.folder, "lake", "crm", "source_state", "riders", f"{1:012d}").unlink()
    result = ledger.load(ROWS)
    assert (result.rows_read, result.unchanged) == (10, 10)
    assert states(ledger) == {2: b"10"}


def test_a_full_load_reads_everything_and_keeps_no_state(ledger: Any) -> None:
    ledger.spec = {"mode": "full", "key": ("id",)}
    ledger.load(ROWS)
    assert ledger.load().rows_read == 10
    assert states(ledger) == {}


def test_a_reload_reads_everything_and_goes_on_from_there(ledger: Any, source: Any) -> None:
    ledger.spec = UPSERT
    ledger.load(ROWS)
    result = ledger.load(reload=Reload())
    assert (result.rows_read, result.unchanged) == (10, 10)
    assert source.requests[-1].state is None
    assert ledger.load().rows_read == 0


def test_the_state_goes_with_a_comparison_of_keys(ledger: Any) -> None:
    ledger.spec = UPSERT | {"detect_deletes": {"every": "1 day"}}
    ledger.load(ROWS)
    gone = ROWS.slice(1)
    source_rows = pa.concat_tables([gone, ROWS.slice(9)])
    result = ledger.load(source_rows)
    assert (result.keys.deleted, result.keys.batch_id) == (1, 3)
    assert states(ledger) == {3: b"10"}
    assert ledger.load().rows_read == 0


def test_the_state_of_a_stopped_batch_goes_with_its_approval(ledger: Any) -> None:
    ledger.spec = UPSERT | {"deleted_flag": "gone", "delete_floor": 0, "max_delete_ratio": 0}
    ledger.spec |= {"detect_deletes": {"every": "1 day"}}
    flagged = ROWS.append_column("gone", pa.array([False] * 10))
    ledger.load(flagged)
    with pytest.raises(DeletesStopped):
        ledger.load(flagged.slice(1))
    stopped = ledger.log[-1].batch_id
    result = approve(ledger.declared(), stopped, platform=ledger.platform, by="a.user", why="gone")
    assert result.deleted == 1
    assert list(states(ledger)) == [result.batch_id]
