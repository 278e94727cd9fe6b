"""Full loads whose source tells what changed: bronze is as if everything had been read."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from platform_core.errors import DeletesStopped, LoadError, StorageError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import attempt, batch_sink, upkeep
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.reload import Reload
from platform_core.operations.replay import approve, replay
from platform_core.plugins.interfaces import Changes, ReadRequest
from platform_core.secrets.files import create_masking_key
from tests.operations.ingest import conftest

FULL: dict[str, Any] = {"mode": "full", "key": ("id",), "delete_floor": 1_000}
TOLD = FULL | {"detect_changes": {"by": "source", "read_all_every": "100 days"}}
ROWS = pa.table({"id": range(20), "name": [f"name {i}" for i in range(20)]})


class Telling(conftest.RowsSource):
    """Tells rows that it has handed out before from others, by their digests."""

    tells_changes = True
    blind: ClassVar[bool] = False
    lies: ClassVar[frozenset[int]] = frozenset()
    """Keys of rows that it takes for unchanged, whatever they are."""
    _state: bytes | None = None

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        if request.tracked:
            self._state = self._digests()
        return super().read(request)

    def read_changes(self, request: ReadRequest) -> Changes | None:
        conftest.RowsSource.requests.append(request)
        if self.blind:
            return None
        table, before = self._table(), set(json.loads(request.state or b"[]"))
        same = [_digest(row) in before or row["id"] in self.lies for row in table.to_pylist()]
        changed = table.filter(pa.array([not told for told in same], pa.bool_()))
        self._state = self._digests() if changed.num_rows else request.state
        others = table.filter(pa.array(same, pa.bool_())).select(request.key)
        return Changes(changed=_reader(changed), unchanged=_reader(others))

    def state(self) -> bytes | None:
        return self._state

    def _digests(self) -> bytes:
        return json.dumps(sorted({_digest(row) for row in self._table().to_pylist()})).encode()


def _digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]


def _reader(table: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=7)))


@pytest.fixture(params=["held", "landed"])
def telling(loads: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads from a source that tells what changed."""
    if request.param == "landed":
        monkeypatch.setattr(batch_sink, "HELD_BYTES", 0)
    monkeypatch.setitem(conftest.SOURCES, "telling", Telling)
    monkeypatch.setattr(Telling, "blind", False)
    monkeypatch.setattr(Telling, "lies", frozenset())
    loads.source = "telling"
    loads.spec = TOLD
    return loads


def counts(result: Any) -> tuple[int, int, int, int, int | None]:
    return result.inserted, result.updated, result.deleted, result.unchanged, result.told_unchanged


def states(loads: Any) -> list[int]:
    folder = Path(loads.folder, "lake", "crm", "source_state", "riders")
    return sorted(int(file.name) for file in folder.iterdir()) if folder.exists() else []


def changed(table: pa.Table, at: int, name: str) -> pa.Table:
    return pa.Table.from_pylist(
        [row | ({"name": name} if row["id"] == at else {}) for row in table.to_pylist()], schema=table.schema
    )


def test_only_what_changed_is_read_and_what_is_gone_is_flagged(telling: Any) -> None:
    first = telling.load(ROWS)
    assert counts(first) == (20, 0, 0, 0, None)
    new = pa.table({"id": [77], "name": ["new"]})
    second = telling.load(pa.concat_tables([changed(ROWS, 3, "other").slice(1), new]))
    assert counts(second) == (1, 1, 1, 18, 18)
    assert second.rows_read == 20
    rows = {row["id"]: row for row in telling.rows()}
    assert (rows[3]["name"], rows[77]["name"], rows[0]["_is_deleted"]) == ("other", "new", True)
    assert rows[5]["_modified_at"].day == 2


def test_what_the_source_tells_unchanged_keeps_its_values(telling: Any) -> None:
    telling.load(ROWS)
    telling.load(changed(ROWS, 3, "other"))
    names = {row["id"]: row["name"] for row in telling.rows()}
    assert names == {i: "other" if i == 3 else f"name {i}" for i in range(20)}


def test_nothing_changed_means_no_commit_and_no_new_state(telling: Any) -> None:
    telling.load(ROWS)
    result = telling.load()
    assert counts(result) == (0, 0, 0, 20, 20)
    assert not result.committed
    assert states(telling) == [1]
    assert telling.batches == [1]


def test_a_row_that_returns_is_current_again(telling: Any) -> None:
    telling.load(ROWS)
    telling.load(ROWS.slice(1))
    telling.load(ROWS)
    assert all(row["_is_current"] for row in telling.rows())


def test_any_series_of_changes_leaves_what_reading_everything_leaves(telling: Any) -> None:
    twin = conftest.Loads(telling.folder, telling.platform, spec=FULL | {"snapshot_history": True}, table="twin")
    chance = random.Random(4)
    rows = {i: f"name {i}" for i in range(30)}
    for _ in range(12):
        for _ in range(chance.randrange(6)):
            key, act = chance.randrange(40), chance.random()
            if act < 0.3:
                rows.pop(key, None)
            else:
                rows[key] = f"name {chance.randrange(5)}"
        table = pa.table({"id": list(rows), "name": list(rows.values())}, schema=ROWS.schema)
        first = telling.load(table, snapshot_history=True)
        second = twin.load(table)
        assert counts(first)[:4] == counts(second)[:4]
        assert without_batch(telling, "riders") == without_batch(telling, "twin")
        assert without_batch(telling, "riders_history") == without_batch(telling, "twin_history")
    assert sum(row.figures.get("told_unchanged", 0) for row in telling.log) > 100


def without_batch(loads: Any, name: str) -> list[dict[str, Any]]:
    reader = DeltaTableReader.open(str(loads.folder / "lake" / "crm" / "bronze" / name), storage_options={})
    assert reader is not None
    rows = reader.read().read_all().drop_columns(["_batch_id"]).to_pylist()
    return sorted(rows, key=lambda row: str(row))


def test_everything_is_read_again_now_and_then(telling: Any) -> None:
    telling.spec = FULL | {"detect_changes": {"by": "source", "read_all_every": "3 days"}}
    read = [telling.load(ROWS if day == 0 else None).told_unchanged for day in range(6)]
    assert read == [None, 20, 20, None, 20, 20]


def test_everything_is_read_again_under_other_terms(telling: Any) -> None:
    telling.load(ROWS)
    masked = telling.load(columns={"name": {"mask": "hash", "domain": "identifier"}})
    assert counts(masked) == (0, 20, 0, 0, None)
    again = telling.load(columns={"name": {"mask": "hash", "domain": "identifier"}})
    assert counts(again) == (0, 0, 0, 20, 20)


def test_everything_is_read_again_with_another_masking_key(telling: Any) -> None:
    columns = {"name": {"mask": "hash", "domain": "identifier"}}
    telling.load(ROWS, columns=columns)
    secrets = telling.folder / "other secrets"
    create_masking_key(secrets, "crm")
    store = type(telling.platform.secrets)
    rotated = telling.with_platform(secrets=store(store.Options(path=str(secrets))))
    rotated.day = telling.day
    assert counts(rotated.load(columns=columns)) == (0, 20, 0, 0, None)


def test_what_has_no_effect_on_rows_may_change(telling: Any) -> None:
    telling.load(ROWS)
    assert telling.load(description="other words", owners=("team:crm",)).told_unchanged == 20


def test_a_new_column_is_read_of_every_row(telling: Any) -> None:
    telling.load(ROWS)
    wider = ROWS.append_column("town", pa.array(["x"] * 20))
    result = telling.load(wider)
    assert counts(result) == (0, 20, 0, 0, None)
    assert {row["town"] for row in telling.rows()} == {"x"}


def test_a_reload_reads_everything(telling: Any) -> None:
    telling.load(ROWS)
    assert telling.load(reload=Reload()).told_unchanged is None
    assert telling.load().told_unchanged == 20


def test_a_source_that_cannot_tell_is_read_whole(telling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    telling.load(ROWS)
    monkeypatch.setattr(Telling, "blind", True)
    assert counts(telling.load(changed(ROWS, 3, "other"))) == (0, 1, 0, 19, None)
    monkeypatch.setattr(Telling, "blind", False)
    assert telling.load().told_unchanged == 20


@pytest.mark.parametrize("without", [ROWS.slice(1), ROWS.slice(0, 0)])
def test_rows_that_bronze_lacks_are_never_taken_for_unchanged(
    telling: Any, without: pa.Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telling.load(without)
    monkeypatch.setattr(Telling, "lies", frozenset({0}))
    result = telling.load(ROWS)
    assert result.told_unchanged is None
    assert [row["name"] for row in telling.rows() if row["id"] == 0] == ["name 0"]
    assert "1 rows are said to be unchanged" in caplog.text
    assert [row.status for row in telling.log] == ["succeeded", "succeeded"]


def test_rows_that_bronze_holds_as_deleted_are_never_taken_for_unchanged(
    telling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling.load(ROWS)
    telling.load(ROWS.slice(1))
    monkeypatch.setattr(Telling, "lies", frozenset({0}))
    assert telling.load(changed(ROWS, 5, "other")).told_unchanged is None
    assert all(row["_is_current"] for row in telling.rows())


def test_bad_keys_are_set_aside_with_all_their_values(telling: Any) -> None:
    telling.spec = TOLD | {"on_bad_key": "quarantine"}
    telling.load(ROWS)
    doubled = pa.concat_tables([ROWS, changed(ROWS, 3, "twin").slice(3, 1)])
    result = telling.load(doubled)
    assert (result.quarantined, result.told_unchanged) == (2, None)
    folder = telling.folder / "lake" / "crm" / "quarantine" / "riders" / f"{result.batch_id:012d}"
    names = {name for file in folder.iterdir() for name in pa.parquet.read_table(file)["name"].to_pylist()}
    assert names == {"name 3", "twin"}


def test_a_row_that_was_set_aside_is_read_once_its_key_is_its_own(telling: Any) -> None:
    telling.spec = TOLD | {"on_bad_key": "quarantine"}
    telling.load(ROWS)
    row = changed(ROWS, 3, "newer")
    telling.load(pa.concat_tables([row, changed(ROWS, 3, "twin").slice(3, 1)]))
    assert {each["id"]: each["name"] for each in telling.rows()}[3] == "name 3"
    assert counts(telling.load(row)) == (0, 1, 0, 19, None)
    assert {each["id"]: each["name"] for each in telling.rows()}[3] == "newer"
    assert telling.load().told_unchanged == 20


def test_a_key_may_be_masked(telling: Any) -> None:
    telling.spec = TOLD | {"key": ("name",), "columns": {"name": {"mask": "hash", "domain": "identifier"}}}
    telling.load(ROWS)
    result = telling.load(ROWS.slice(1))
    assert counts(result) == (0, 0, 1, 19, 19)


def test_a_load_that_is_stopped_for_its_deletes_goes_on_from_its_approval(telling: Any) -> None:
    telling.spec = TOLD | {"delete_floor": 0}
    telling.load(ROWS)
    few = changed(ROWS, 19, "other").slice(15)
    with pytest.raises(DeletesStopped, match="15 of 20"):
        telling.load(few)
    approve(telling.declared(), 2, platform=telling.platform, by="anna", why="they are gone")
    rows = {row["id"]: row for row in telling.rows()}
    assert (rows[19]["name"], rows[0]["_is_deleted"], rows[15]["name"]) == ("other", True, "name 15")
    assert counts(telling.load()) == (0, 0, 0, 5, 5)


@pytest.mark.parametrize("point", ["state-write", "extract-last", "bronze-before-commit", "bronze-after-commit"])
def test_a11_after_a_crash_bronze_is_what_the_source_is(telling: Any, point: str) -> None:
    telling.load(ROWS)
    now = pa.concat_tables([changed(ROWS, 3, "other").slice(1), pa.table({"id": [77], "name": ["new"]})])
    with armed(f"{point}:raise"), pytest.raises(InjectedFault):
        telling.load(now)
    telling.load()
    current = {row["id"]: row["name"] for row in telling.rows() if row["_is_current"]}
    assert current == dict(zip(now["id"].to_pylist(), now["name"].to_pylist(), strict=True))
    assert telling.load().told_unchanged == 20


def test_changes_are_replayed_only_after_the_batch_that_they_were_read_after(telling: Any) -> None:
    telling.load(ROWS)
    saved = shutil.copytree(telling.bronze, telling.folder / "saved")
    telling.load(changed(ROWS, 3, "other"))
    telling.load(changed(ROWS, 4, "another"))
    kept = telling.batches
    assert kept[-1] == 3
    shutil.rmtree(telling.bronze)
    saved.rename(telling.bronze)
    with pytest.raises(LoadError, match="was read after batch 2, but bronze holds batch 1"):
        replay(telling.declared(), 3, platform=telling.platform)
    replay(telling.declared(), 2, platform=telling.platform)
    replay(telling.declared(), 3, platform=telling.platform)
    assert {row["id"]: row["name"] for row in telling.rows()}[4] == "another"


def test_a_table_that_somebody_else_changed_is_compared_with_all_rows(telling: Any) -> None:
    telling.load(ROWS)
    telling.load(changed(ROWS, 3, "other"))
    DeltaTable(str(telling.bronze)).restore(0)
    result = telling.load()
    assert counts(result) == (0, 1, 0, 19, None)
    assert {row["id"]: row["name"] for row in telling.rows()}[3] == "other"


def test_upkeep_changes_no_row(telling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    telling.load(ROWS.slice(5))
    loaded = telling.load(ROWS).version
    assert upkeep.compact(str(telling.bronze), storage_options={}, target_bytes=1 << 20, small_files=1)
    telling.platform.engine.fence(str(telling.bronze), storage_options={}, epoch=2)
    assert DeltaTable(str(telling.bronze)).version() == loaded + 2
    assert telling.load().told_unchanged == 20


def test_a_damaged_memory_is_told(telling: Any) -> None:
    telling.load(ROWS)
    file = Path(telling.folder, "lake", "crm", "source_state", "riders", f"{1:012d}")
    file.write_bytes(b"{}")
    with pytest.raises(StorageError, match="what the source remembers is damaged"):
        telling.load()


def test_a_clock_that_was_set_back_reads_everything(telling: Any) -> None:
    telling.day = 50
    telling.load(ROWS)
    telling.day = 0
    assert telling.load().told_unchanged is None
