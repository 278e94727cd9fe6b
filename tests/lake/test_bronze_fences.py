"""A batch is committed once, and only by the load that may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import LoadError, Overtaken
from platform_core.lake import bronze, commit
from platform_core.lake.delta import batch_of, fence


def people(*rows: tuple[int, str]) -> pa.Table:
    names = pa.array([row[1] for row in rows], pa.string())
    return pa.table({"id": pa.array([row[0] for row in rows], pa.int64()), "name": names})


def apply(riders: Any, load: Any) -> Any:
    return bronze.apply(load, session=riders.session)


@pytest.mark.parametrize("held", [True, False])
def test_a_load_whose_extract_began_before_another_load_is_refused(riders: Any, held: bool) -> None:
    mine = riders.landed(people((1, "a")), batch_id=2, held_batch=0, held=held)
    riders.load(people((1, "b")), batch_id=1)
    with pytest.raises(Overtaken, match="holds batch 1, 0 when the extract began; batch 2 was not applied"):
        apply(riders, mine)
    assert [row["name"] for row in riders.rows()] == ["b"]
    assert riders.load(people((1, "c")), held_batch=1).updated == 1


def test_a12_a_batch_that_is_replayed_does_nothing_and_an_older_one_is_refused(riders: Any) -> None:
    older = riders.landed(people((1, "old")), batch_id=3)
    load = riders.landed(people((1, "new")), batch_id=7, held_batch=0)
    assert apply(riders, load).committed
    for _ in range(3):
        assert apply(riders, load).committed is False
    with pytest.raises(Overtaken, match="it holds batch 7; batch 3 was not applied"):
        apply(riders, older)
    assert (riders.table.version(), riders.rows()[0]["name"]) == (0, "new")


def test_a_fenced_batch_cannot_be_committed_and_the_next_one_can(riders: Any) -> None:
    riders.load(people((1, "a")))
    zombie = riders.landed(people((1, "zombie")), batch_id=5, held_batch=1)
    fence(riders.uri, storage_options={}, epoch=5)
    with pytest.raises(Overtaken, match="batch 5 may no longer be committed: another load took over"):
        apply(riders, zombie)
    assert riders.load(people((1, "b")), batch_id=6, held_batch=1).updated == 1


def test_c2_a_fence_that_comes_while_a_load_compares_keeps_it_from_its_commit(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    riders.load(people((1, "a")))
    zombie = riders.landed(people((1, "zombie")), batch_id=5, held_batch=1)
    before = riders.files()
    committing = commit.NewFiles.commit

    def fenced(self: Any, *arguments: Any, **options: Any) -> Any:
        fence(riders.uri, storage_options={}, epoch=5)
        return committing(self, *arguments, **options)

    monkeypatch.setattr(commit.NewFiles, "commit", fenced)
    with pytest.raises(Overtaken, match="fenced up to 5"):
        apply(riders, zombie)
    assert {name for name in riders.files() - before if not name.startswith("_delta_log")} == set()
    assert riders.rows()[0]["name"] == "a"


def test_an_append_is_not_applied_after_somebody_elses_batch(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")), "append")
    theirs = riders.landed(people((2, "b")), "append", batch_id=2)
    mine = riders.landed(people((2, "b")), "append", batch_id=3)
    committing, calls = commit.NewFiles.commit, []

    def overtaken(self: Any, *arguments: Any, **options: Any) -> Any:
        if not calls:
            calls.append(1)
            apply(riders, theirs)
        return committing(self, *arguments, **options)

    monkeypatch.setattr(commit.NewFiles, "commit", overtaken)
    with pytest.raises(Overtaken, match="it holds batch 2, 1 when the extract began"):
        apply(riders, mine)
    assert [row["id"] for row in riders.rows()] == [1, 2]


def test_a_batch_without_changes_is_committed_where_that_is_asked_for(riders: Any) -> None:
    riders.load(people((1, "a")))
    for held in (False, True):
        outcome = riders.load(people((1, "a")), commit_always=True, held=held)
        assert (outcome.committed, outcome.unchanged, outcome.written_bytes) == (True, 1, 0)
    assert batch_of(riders.table) == 3
    assert riders.rows()[0]["_batch_id"] == 1
    assert riders.load(people(), "append", commit_always=True).committed
    assert riders.load(people(), "append").committed is False


def test_a_commit_without_files_whose_afterwork_failed_counts_as_committed(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    riders.load(people((1, "a")))
    committing = commit.NewFiles._commit

    def fails_afterwards(self: Any, *arguments: Any, **options: Any) -> None:
        committing(self, *arguments, **options)
        raise OSError(5, "the checkpoint could not be written")

    monkeypatch.setattr(commit.NewFiles, "_commit", fails_afterwards)
    assert riders.load(people((1, "a")), commit_always=True).committed
    assert batch_of(riders.table) == 2


def raced(work: Callable[[int], Any], count: int) -> list[Any]:
    """What each of some threads returned or raised, all let go at once."""
    gate = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(i: int) -> None:
        gate.wait()
        try:
            results[i] = work(i)
        except LoadError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("mode", ["full", "append"])
def test_c1_of_two_loads_at_once_exactly_one_commits_a_hundred_times(riders: Any, mode: str) -> None:
    rounds, committed = 50, []
    for i in range(rounds):
        held = batch_of(riders.table)
        loads = [
            riders.landed(
                people((i, f"round {i}"), (1000 + j, f"round {i}")), mode, batch_id=held + 1 + j, held_batch=held
            )
            for j in range(2)
        ]
        results = raced(lambda j, loads=loads: apply(riders, loads[j]), 2)
        won = [j for j in range(2) if not isinstance(results[j], Exception)]
        assert [type(results[1 - j]) for j in won] == [Overtaken]
        assert results[won[0]].committed
        committed.append(loads[won[0]].batch_id)
        assert batch_of(riders.table) == committed[-1]
    rows = riders.rows()
    assert riders.table.version() == rounds - 1
    if mode == "append":
        assert sorted(row["_batch_id"] for row in rows) == sorted([*committed, *committed])
        assert {row["id"] for row in rows if row["id"] < 1000} == set(range(rounds))
    else:
        assert len({row["id"] for row in rows}) == len(rows)
        assert sorted(row["id"] for row in rows if row["id"] < 1000) == list(range(rounds))
        assert [row["id"] for row in rows if row["_is_current"] and row["id"] < 1000] == [rounds - 1]


def test_c1_two_first_loads_at_once_make_one_table(riders: Any) -> None:
    loads = [riders.landed(people((j, "x")), batch_id=1 + j, held_batch=0) for j in range(2)]
    results = raced(lambda j: apply(riders, loads[j]), 2)
    assert sorted(type(result).__name__ for result in results) == ["BronzeOutcome", "Overtaken"]
    assert len(riders.rows()) == 1
    files = {name for name in riders.files() if name.endswith(".parquet")}
    assert len(files) == 1


def test_another_batch_of_equal_id_is_taken_for_the_same(riders: Any) -> None:
    load = riders.landed(people((1, "a")), batch_id=4)
    assert apply(riders, load).committed
    assert apply(riders, replace(load, held_batch=0)).committed is False
