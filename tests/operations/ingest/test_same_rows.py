"""Loads that read the very rows that the load before them read: bronze is not looked into."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable

from platform_core.errors import SourceError
from platform_core.faults import FaultPoint, recorded
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.operations import masking, table_lease, transfer
from platform_core.operations.load_result import LoadResult
from platform_core.operations.reload import Reload
from platform_core.secrets.files import FileSecrets, create_masking_key

ROWS = pa.table({"id": [1, 2, 3], "at": [10, 20, 30], "name": ["a", "b", None]})
MASKED = {"name": {"mask": "hash", "domain": "text"}}
SHOWN = {"name": {"mask": "partial", "keep_first": 1}}
INCREMENTAL: dict[str, Any] = {"mode": "incremental", "key": ("id",), "cursor": "at"}


def looked(load: Callable[[], LoadResult]) -> tuple[bool, LoadResult]:
    """Whether a load looked into bronze, and what it did."""
    with recorded() as points:
        result = load()
    return FaultPoint.BRONZE_READ in points, result


@pytest.mark.parametrize("columns", [{}, MASKED])
def test_rows_that_were_read_before_change_nothing(loads: Any, columns: dict[str, Any]) -> None:
    loads.load(ROWS, columns=columns)
    before = loads.rows()
    found, result = looked(lambda: loads.load(ROWS, columns=columns))
    assert not found
    assert (result.rows_read, result.unchanged, result.committed, result.version) == (3, 3, False, 0)
    assert loads.rows() == before
    assert [row.status for row in loads.log] == ["succeeded", "succeeded"]


def test_rows_that_are_known_again_are_not_masked(loads: Any) -> None:
    loads.load(ROWS, columns=MASKED)
    with recorded() as points:
        loads.load(columns=MASKED)
    assert FaultPoint.MASK_BATCH not in points


@pytest.mark.parametrize(
    "columns", [SHOWN, {"name": {"mask": "team", "domain": "text"}}], ids=["no key", "a mask of a team's own"]
)
def test_masks_without_a_key_or_of_a_team_s_own_are_asked_again(
    loads: Any, columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Team(KeyedHashMask):
        """Stands in a package of the team's, which has releases of its own."""

    found: Callable[..., Any] = masking.plugin
    monkeypatch.setattr(masking, "plugin", lambda kind, name: Team if name == "team" else found(kind, name))
    loads.load(ROWS, columns=columns)
    with recorded() as points:
        result = loads.load(columns=columns)
    assert FaultPoint.MASK_BATCH in points
    assert FaultPoint.BRONZE_READ not in points
    assert result.unchanged == 3


def test_the_digest_of_rows_that_are_not_masked_has_a_key(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    digested = transfer.content_of
    monkeypatch.setattr(
        transfer, "content_of", lambda *given, key: (keys.append(bytes(key)), digested(*given, key=key))[1]
    )
    loads.load(ROWS, columns=MASKED)
    loads.load(ROWS, columns={})
    assert [len(key) for key in keys] == [32, 0]


def test_another_masking_key_compares(loads: Any, tmp_path: Path) -> None:
    loads.load(ROWS, columns=MASKED)
    before = loads.rows()
    (tmp_path / "secrets" / "crm" / "masking_key").unlink()
    create_masking_key(tmp_path / "secrets", "crm")
    other = loads.with_platform(secrets=FileSecrets(FileSecrets.Options(path=str(tmp_path / "secrets"))))
    found, result = looked(lambda: other.load(columns=MASKED))
    assert found
    assert result.updated == 2
    assert [row["name"] for row in loads.rows()[:2]] != [row["name"] for row in before[:2]]


def test_a_table_that_is_as_it_was_is_not_opened(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads.load(ROWS)
    opened = []
    opening = table_lease.open_table
    monkeypatch.setattr(
        table_lease, "open_table", lambda *given, **options: (opened.append(given), opening(*given, **options))[1]
    )
    columns = [loads.load().schema for _ in range(3)]
    assert len(opened) == 1, "the load after a commit finds out the columns"
    assert columns == [loads.load(reload=Reload()).schema] * 3
    loads.load(ROWS.slice(1))
    assert len(opened) == 3


def test_it_stays_so_load_after_load(loads: Any) -> None:
    loads.load(ROWS)
    assert not any(looked(loads.load)[0] for _ in range(3))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS.slice(0, 2), (0, 0, 1)),
        (pa.table({"id": [1, 2, 3], "at": [10, 20, 30], "name": ["a", "b", "c"]}), (0, 1, 0)),
        (pa.table({"id": [1, 2, 3], "at": [10, 20, 30], "name": ["a", "b", ""]}), (0, 1, 0)),
        (pa.concat_tables([ROWS, pa.table({"id": [4], "at": [1], "name": ["d"]})]), (1, 0, 0)),
        (ROWS.take([2, 0, 1]), (0, 0, 0)),
    ],
)
def test_any_other_rows_are_compared(loads: Any, rows: pa.Table, expected: tuple[int, int, int]) -> None:
    loads.load(ROWS)
    found, result = looked(lambda: loads.load(rows))
    assert found
    assert (result.inserted, result.updated, result.deleted) == expected


def test_rows_that_come_back_are_compared(loads: Any) -> None:
    loads.load(ROWS)
    loads.load(ROWS.slice(0, 2))
    found, result = looked(lambda: loads.load(ROWS))
    assert found
    assert result.updated == 1


def test_a_source_without_rows_is_known_again(loads: Any) -> None:
    loads.load(ROWS.slice(0, 0))
    assert not looked(loads.load)[0]
    assert loads.load(ROWS).inserted == 3


def test_a_table_that_somebody_else_wrote_to_is_compared(loads: Any) -> None:
    loads.load(ROWS)
    DeltaTable(loads.bronze).delete("id = 2")
    found, result = looked(loads.load)
    assert found
    assert result.inserted == 1
    assert not looked(loads.load)[0]


def test_a_table_that_was_made_anew_with_as_many_versions_is_compared(loads: Any) -> None:
    loads.load(ROWS)
    kept = loads.folder / "kept"
    shutil.copytree(loads.bronze, kept)
    loads.load(ROWS.slice(0, 2))
    assert not looked(loads.load)[0]
    shutil.rmtree(loads.bronze)
    shutil.copytree(kept, loads.bronze)
    # Someone's own commit brings the restored table to the version that the last load had seen.
    table = DeltaTable(loads.bronze)
    table.create_write_transaction([], mode="append", schema=table.schema(), commit_properties=CommitProperties())
    found, result = looked(loads.load)
    assert found
    assert (result.version, result.deleted) == (2, 1)


def test_a_commit_while_the_source_was_read_is_seen(loads: Any, source: Any) -> None:
    loads.load(ROWS)
    source.meanwhile = lambda: DeltaTable(loads.bronze).delete("id = 2")
    found, result = looked(loads.load)
    assert found
    assert result.inserted == 1


def test_a_load_that_was_overtaken_while_it_read_begins_anew(loads: Any, source: Any) -> None:
    loads.load(ROWS)
    uri = str(loads.bronze)
    # As whoever takes over from a holder that seems dead does it.
    source.meanwhile = lambda: loads.platform.engine.fence(uri, storage_options={}, epoch=5)
    assert loads.load().batch_id > 5


def test_after_a_load_that_failed_rows_are_compared(loads: Any, source: Any) -> None:
    loads.load(ROWS)
    source.fail_after = SourceError("gone")
    with pytest.raises(SourceError):
        loads.load()
    source.fail_after = None
    assert looked(loads.load)[0]
    assert not looked(loads.load)[0]


@pytest.mark.parametrize("change", [{"columns": MASKED}, {"key": ("id", "at")}, {"deleted_flag": "at"}])
def test_another_declaration_is_compared(loads: Any, change: dict[str, Any]) -> None:
    loads.load(ROWS)
    assert looked(lambda: loads.load(**change))[0]


def test_another_option_of_a_mask_is_compared(loads: Any) -> None:
    loads.load(ROWS, columns=MASKED)
    case = {"name": {"mask": "hash", "domain": "identifier", "case_sensitive": True}}
    found, result = looked(lambda: loads.load(columns=case))
    assert found
    assert result.updated == 2


def test_another_release_compares(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads.load(ROWS)
    monkeypatch.setattr(transfer, "release", lambda: "next")
    assert looked(loads.load)[0]


def test_a_reload_compares(loads: Any) -> None:
    loads.load(ROWS)
    assert looked(lambda: loads.load(reload=Reload()))[0]
    assert not looked(loads.load)[0]


def test_rows_that_were_set_aside_are_set_aside_again(loads: Any) -> None:
    doubled = pa.table({"id": [1, 1, 2], "at": [10, 20, 30], "name": ["a", "b", "c"]})
    first = loads.load(doubled, on_bad_key="quarantine")
    found, result = looked(lambda: loads.load(doubled, on_bad_key="quarantine"))
    assert found
    assert result.quarantined == first.quarantined == 2


def test_the_rows_at_the_watermark_are_known_again(loads: Any) -> None:
    loads.load(ROWS, **INCREMENTAL)
    assert loads.load(**INCREMENTAL).rows_read == 1
    found, result = looked(lambda: loads.load(**INCREMENTAL))
    assert not found
    assert (result.rows_read, result.unchanged, result.watermark_to) == (1, 1, 30)


def test_late_rows_are_counted_again(loads: Any) -> None:
    incremental = INCREMENTAL | {"sequence_by": "version"}
    rows = pa.table({"id": [1], "at": [10], "version": [5]})
    loads.load(rows, **incremental)
    late = pa.table({"id": [1], "at": [10], "version": [4]})
    assert [loads.load(late, **incremental).late for _ in range(2)] == [1, 1]


def test_a_history_is_kept_complete(loads: Any) -> None:
    loads.load(ROWS, snapshot_history=True)
    assert looked(lambda: loads.load(snapshot_history=True))[0]


def test_the_same_events_twice_are_appended_twice(loads: Any) -> None:
    loads.source = "ledger"
    loads.spec = {"mode": "append"}
    twice = pa.table({"name": ["a", "a"]})
    loads.load(twice.slice(0, 1))
    loads.load(twice)
    assert len(loads.rows()) == 2


def test_an_append_without_news_is_known_again(loads: Any) -> None:
    append = {"mode": "append", "key": (), "cursor": "id"}
    loads.load(ROWS, **append)
    loads.load(**append)
    assert not looked(lambda: loads.load(**append))[0]
    assert loads.load(pa.concat_tables([ROWS, pa.table({"id": [4], "at": [1], "name": ["d"]})]), **append).inserted == 1


def test_what_the_next_load_is_told_is_no_figure(loads: Any) -> None:
    loads.load(ROWS)
    assert "seen" not in loads.log[0].figures


def test_a_batch_that_is_landed_as_it_comes_is_compared(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.batch_sink, "HELD_BYTES", 0)
    loads.load(ROWS)
    assert looked(loads.load)[0]


def test_nothing_is_left_in_the_landing(loads: Any) -> None:
    loads.load(ROWS)
    landed = sorted(Path(loads.landing).rglob("*"))
    loads.load()
    assert sorted(Path(loads.landing).rglob("*")) == landed
