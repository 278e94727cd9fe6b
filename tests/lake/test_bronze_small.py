"""A small batch in memory is landed only where something is written, and is told apart without a query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import LoadError
from platform_core.lake import bronze, unchanged
from platform_core.lake.session import Session


def people(*rows: tuple[int | None, str | None], gone: list[bool | None] | None = None) -> pa.Table:
    ids = pa.array([row[0] for row in rows], pa.int64())
    table = pa.table({"id": ids, "name": pa.array([row[1] for row in rows], pa.string())})
    return table if gone is None else table.append_column("gone", pa.array(gone, pa.bool_()))


@pytest.fixture
def no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be asked of the engine."""

    def asked(self: Any) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(Session, "cursor", asked)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_what_changes_nothing_is_neither_landed_nor_asked_of_the_engine(
    riders: Any, mode: str, request: pytest.FixtureRequest
) -> None:
    rows = people((1, "a"), (2, None))
    riders.load(rows, mode)
    request.getfixturevalue("no_query")
    outcome = riders.load(rows if mode == "full" else rows.slice(1), mode, held=True)
    assert (outcome.committed, outcome.unchanged, outcome.version) == (False, 2 if mode == "full" else 1, 0)
    assert riders.landings == [1]


def test_what_changes_something_is_landed_once_before_it_is_written(riders: Any) -> None:
    riders.load(people((1, "a"), (2, "b")), held=True)
    seen: list[int] = []
    load = riders.landed(people((1, "x")), held=True)
    land = load.land

    def watched() -> tuple[str, ...]:
        seen.append(len(riders.files()))
        return land()

    outcome = bronze.apply(replace(load, land=watched), session=riders.session)
    assert (outcome.updated, outcome.deleted) == (1, 1)
    assert seen == [2]
    assert riders.landings == [1, 2]


def test_a_batch_of_late_rows_alone_is_not_landed(riders: Any) -> None:
    at = pa.array([5], pa.int64())
    riders.load(people((1, "a")).append_column("at", at), "incremental", sequence_by="at")
    late = people((1, "b")).append_column("at", pa.array([4], pa.int64()))
    assert riders.load(late, "incremental", sequence_by="at", held=True).late == 1
    assert riders.landings == [1]


def test_a_batch_that_is_refused_is_not_landed(riders: Any) -> None:
    with pytest.raises(LoadError, match="1 rows have a null key"):
        riders.load(people((None, "a")), held=True)
    assert riders.landings == []


@pytest.mark.parametrize(
    ("first", "then", "mode"),
    [
        ([(1, "a"), (2, "b")], [(1, "a")], "full"),
        ([(1, "a")], [(1, "a"), (2, "b")], "full"),
        ([(1, "a")], [(2, "b")], "incremental"),
        ([(1, "a"), (2, "b")], [(1, "b"), (2, "a")], "full"),
        ([(1, None)], [(1, "")], "full"),
    ],
)
def test_every_kind_of_change_is_seen(riders: Any, first: list[Any], then: list[Any], mode: str) -> None:
    riders.load(people(*first), mode)
    assert riders.load(people(*then), mode, held=True).committed


def test_rows_that_are_gone_count_as_unchanged_only_while_bronze_says_the_same(riders: Any) -> None:
    rows = people((1, "a"), (2, "b"), gone=[False, True])
    for mode in ("full", "incremental"):
        riders.load(rows, mode, deleted_flag="gone")
        outcome = riders.load(rows, mode, deleted_flag="gone", held=True)
        assert (outcome.committed, outcome.unchanged) == (False, 2)
    assert riders.load(people((1, "a"), gone=[False]), deleted_flag="gone", held=True).committed is False
    assert riders.load(people((2, "b"), gone=[True]), deleted_flag="gone", held=True).deleted == 1
    assert riders.load(rows, deleted_flag="gone", held=True).updated == 1


def test_a_large_table_is_compared_by_the_engine_with_the_same_result(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "MOST_BYTES", 10)
    rows = people((1, "a"), (2, "b"))
    riders.load(rows, held=True)
    outcome = riders.load(rows, held=True)
    assert (outcome.committed, outcome.unchanged) == (False, 2)
    assert riders.landings == [1]
