"""Rows with bad keys are set aside with their reason; the others are loaded."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import DeletesStopped, LoadError, SchemaError, StorageError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import bronze
from platform_core.specs.ingestion import OnBadKey

SET_ASIDE = {"on_bad_key": OnBadKey.QUARANTINE}


def rows(*values: tuple[Any, str | None, int | None]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([value[0] for value in values], pa.int64()),
            "name": pa.array([value[1] for value in values], pa.string()),
            "at": pa.array([value[2] for value in values], pa.int64()),
        }
    )


def set_aside(riders: Any, batch: int) -> list[tuple[Any, Any, str]]:
    return sorted(((row["id"], row["name"], row["_reason"]) for row in riders.quarantined(batch)), key=str)


def current(riders: Any) -> list[tuple[Any, Any]]:
    return [(row["id"], row["name"]) for row in riders.rows() if row["_is_current"]]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("first", [True, False])
def test_b8_null_and_doubled_keys_are_set_aside_with_counts(riders: Any, mode: str, first: bool, held: bool) -> None:
    if not first:
        riders.load(rows((1, "a", 1)))
    batch = 1 if first else 2
    outcome = riders.load(
        rows((None, "n", 1), (2, "b", 1), (3, "c", 1), (3, "d", 1), (1, "a", 1)), mode, held=held, **SET_ASIDE
    )
    assert (outcome.quarantined, outcome.inserted, outcome.unchanged) == (3, 2 if first else 1, 0 if first else 1)
    assert set_aside(riders, batch) == [(3, "c", "doubled_key"), (3, "d", "doubled_key"), (None, "n", "null_key")]
    assert current(riders) == [(1, "a"), (2, "b")]
    assert riders.landings == ([1] if first else [1, 2])


def test_b7_of_doubled_keys_the_newest_is_loaded_whatever_their_order(riders: Any) -> None:
    batch = [(1, "old", 1), (1, "new", 9), (1, "none", None), (2, "x", 5), (2, "y", 5)]
    winners = []
    for order in (batch, batch[::-1]):
        outcome = riders.load(rows(*order), winner_by="at", **SET_ASIDE)
        assert outcome.quarantined == 3
        winners.append(current(riders))
    assert winners[0] == winners[1]
    assert winners[0][0] == (1, "new")
    assert outcome.committed is False
    assert len(riders.quarantined(1)) == len(riders.quarantined(2)) == 3


def test_of_equal_rows_exactly_one_is_loaded(riders: Any) -> None:
    outcome = riders.load(rows((1, "a", 1), (1, "a", 1), (1, "a", 1)), winner_by="at", **SET_ASIDE)
    assert (outcome.inserted, outcome.quarantined) == (1, 2)


def test_a_row_whose_key_is_doubled_in_the_batch_is_never_counted_as_vanished(riders: Any) -> None:
    riders.load(rows((1, "a", 1), (2, "b", 1), (3, "c", 1)))
    outcome = riders.load(rows((1, "x", 1), (1, "y", 1), (2, "b", 1)), **SET_ASIDE)
    assert (outcome.quarantined, outcome.deleted, outcome.unchanged) == (2, 1, 1)
    assert current(riders) == [(1, "a"), (2, "b")]


def test_equal_rows_that_bronze_has_already_are_found_doubled(riders: Any) -> None:
    riders.load(rows((1, "a", 1), (2, "b", 1)))
    for held in (False, True):
        with pytest.raises(LoadError, match="0 rows have a null key and 1 rows a key that another row"):
            riders.load(rows((1, "a", 1), (1, "a", 1), (2, "b", 1)), held=held)
        outcome = riders.load(rows((1, "a", 1), (1, "a", 1), (2, "b", 1)), held=held, **SET_ASIDE)
        assert (outcome.quarantined, outcome.committed) == (2, False)


def test_doubles_beside_a_row_that_vanished_are_found(riders: Any) -> None:
    # As many rows of the batch as of bronze, and one of bronze gone: counts alone would look right.
    riders.load(rows((1, "a", 1), (2, "b", 1)))
    with pytest.raises(LoadError, match="1 rows a key that another row"):
        riders.load(rows((1, "a", 1), (1, "a", 1)))


def test_an_engine_without_a_quarantine_refuses(riders: Any) -> None:
    with pytest.raises(LoadError, match="1 rows have a null key"):
        riders.load(rows((None, "a", 1)), quarantine_uri=None, **SET_ASIDE)


def test_a_load_that_is_stopped_for_its_deletes_sets_nothing_aside(riders: Any) -> None:
    riders.load(rows(*((i, "a", 1) for i in range(30))))
    with pytest.raises(DeletesStopped) as caught:
        riders.load(rows((None, "n", 1)), max_delete_ratio=0.5, held=True, **SET_ASIDE)
    assert (caught.value.deletes, caught.value.current) == (30, 30)
    assert riders.quarantined(2) == []
    assert riders.landings == [1, 2]


@pytest.mark.parametrize("action", ["raise", "enospc"])
def test_a_failed_attempt_leaves_nothing_set_aside(riders: Any, action: str) -> None:
    load = riders.landed(rows((None, "n", 1), (1, "a", 1)), **SET_ASIDE)
    with armed(f"bronze-before-commit:{action}"), pytest.raises((InjectedFault, StorageError)):
        bronze.apply(load, session=riders.session)
    assert riders.quarantined(1) == []
    assert bronze.apply(load, session=riders.session).quarantined == 1
    assert len(riders.quarantined(1)) == 1


def test_what_is_set_aside_is_plain_parquet_with_all_columns_as_they_landed(riders: Any) -> None:
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    riders.key = ("id", "n")
    table = pa.table({"id": ["a", "b"], "n": pa.array([1.5, None]), "day": pa.array([day, day]), "list": [[1], None]})
    riders.load(table, **SET_ASIDE)
    assert riders.quarantined(1) == [{"id": "b", "n": None, "day": day, "list": None, "_reason": "null_key"}]
    assert [Path(file).suffix for file in (riders.quarantine / f"{1:012d}").iterdir()] == [".parquet"]


def test_a_source_column_with_the_name_of_the_reason_is_refused(riders: Any) -> None:
    table = rows((1, "a", 1)).rename_columns(["id", "_Reason", "at"])
    with pytest.raises(SchemaError, match="the source has a column _reason"):
        riders.load(table, **SET_ASIDE)
    assert riders.load(table).inserted == 1
