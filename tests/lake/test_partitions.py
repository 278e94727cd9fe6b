"""A write that replaces partitions replaces these alone, whatever their values and wherever their rows lie."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.errors import LoadError, SchemaError
from platform_core.lake import partitions
from platform_core.lake.delta import DeltaTableReader, open_table, write
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

TABLE = TableRef("demo", "gold", "daily")
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "date": (pa.date32(), [dt.date(1, 1, 1), dt.date(2026, 1, 31), dt.date(9999, 12, 31), None]),
    "text": (pa.string(), ["it's", 'a "b"', "b\\c", "a\nb", "é" * 40, "z" * 31, "z" * 32, "z" * 300, "", None]),
    "integer": (pa.int64(), [-(2**63), 2**63 - 1, 0, -5, None]),
    "small integer": (pa.int8(), [-128, 127, None]),
    "boolean": (pa.bool_(), [True, False, None]),
    "decimal": (pa.decimal128(38, 3), [Decimal("9" * 35 + ".999"), Decimal("-0.001"), None]),
    "time": (
        pa.timestamp("us", "UTC"),
        [dt.datetime(2026, 1, 1, microsecond=micro, tzinfo=dt.UTC) for micro in (1, 1001, 1999)] + [None],
    ),
    "time without zone": (
        pa.timestamp("us"),
        [dt.datetime(2026, 1, 1, microsecond=1001), dt.datetime(1960, 1, 1, microsecond=1999), None],
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    return {"table": TABLE, "uri": str(tmp_path / "lake" / "daily"), "storage_options": {}}


def put(place: dict[str, Any], rows: pa.Table, mode: str = "partition", **options: Any) -> Any:
    given = {"partition_by": ("part",), "key": ("x",)} | options
    return write(rows.to_reader(), mode=WriteMode(mode), **place, **given)


def held(place: dict[str, Any]) -> list[tuple[Any, ...]]:
    reader = DeltaTableReader.open(place["uri"], storage_options={})
    assert reader is not None
    return sorted((tuple(row.values()) for row in reader.read().read_all().to_pylist()), key=str)


def versions(place: dict[str, Any]) -> int:
    table = open_table(place["uri"], storage_options={})
    return -1 if table is None else table.version()


def parts(type_: pa.DataType, values: list[Any], numbers: list[int]) -> pa.Table:
    return pa.table({"part": pa.array(values, type_), "x": pa.array(numbers, pa.int64())})


@pytest.mark.parametrize("together", [True, False], ids=["in one file", "in a file each"])
@pytest.mark.parametrize("kind", VALUES)
def test_a_partition_is_found_by_any_value(place: dict[str, Any], kind: str, together: bool) -> None:
    type_, values = VALUES[kind]
    if together:
        put(place, parts(type_, values, list(range(len(values)))))
    else:
        for number, value in enumerate(values):
            put(place, parts(type_, [value], [number]), "append")
    for number, value in enumerate(values):
        put(place, parts(type_, [value], [100 + number]))
        expected = [100 + at if at <= number else at for at in range(len(values))]
        assert sorted(row[1] for row in held(place)) == sorted(expected), value


def test_one_commit_replaces_several_partitions_and_leaves_the_others(place: dict[str, Any]) -> None:
    put(place, parts(pa.int64(), [1, 1, 2, 3, None], [1, 2, 3, 4, 5]))
    written = put(place, parts(pa.int64(), [1, None, None, 7], [10, 50, 51, 70]))
    assert (written.version, written.rows, written.partitions, written.committed) == (1, 4, 3, True)
    assert held(place) == sorted([(1, 10), (2, 3), (3, 4), (7, 70), (None, 50), (None, 51)], key=str)


def test_writing_the_same_result_again_changes_nothing(place: dict[str, Any]) -> None:
    put(place, parts(pa.int64(), [1, 2], [1, 2]))
    for _ in range(2):
        put(place, parts(pa.int64(), [2, 2], [5, 6]))
        assert held(place) == [(1, 1), (2, 5), (2, 6)]


def test_a_result_without_rows_touches_no_partition(place: dict[str, Any]) -> None:
    empty = parts(pa.int64(), [], [])
    assert put(place, empty).version == 0
    put(place, parts(pa.int64(), [1], [1]))
    written = put(place, empty)
    assert (written.committed, written.version, written.partitions) == (False, 1, 0)
    assert held(place) == [(1, 1)]


def test_files_of_other_partitions_are_not_written_again(place: dict[str, Any]) -> None:
    for day in (1, 2, 3):
        put(place, parts(pa.int64(), [day], [day]))
    before = set(DeltaTable(place["uri"]).file_uris())
    put(place, parts(pa.int64(), [2], [20]))
    assert len(before & set(DeltaTable(place["uri"]).file_uris())) == 2


def test_a_table_of_partitions_is_plain_files_to_every_reader(place: dict[str, Any]) -> None:
    for day in (1, 2, 2):
        put(place, parts(pa.int64(), [day], [day]))
    reader = DeltaTableReader.open(place["uri"], storage_options={})
    assert reader is not None
    assert reader.plain_files is not None and len(reader.plain_files) == 2


def test_a_table_that_a_migration_laid_out_in_folders_is_written_too(place: dict[str, Any]) -> None:
    write_deltalake(place["uri"], parts(pa.int64(), [1, 2, None], [1, 2, 3]), partition_by=["part"])
    put(place, parts(pa.int64(), [2, None], [20, 30]))
    assert held(place) == sorted([(1, 1), (2, 20), (None, 30)], key=str)
    assert DeltaTable(place["uri"]).metadata().partition_columns == ["part"]


def test_any_sequence_of_writes_equals_plain_python(place: dict[str, Any]) -> None:
    chance = random.Random(7)
    expected: dict[tuple[Any, Any], list[int]] = {}
    schema = pa.schema([("day", pa.date32()), ("shop", pa.string()), ("x", pa.int64())])
    days, shops = [dt.date(2026, 1, 1), dt.date(2026, 1, 2), None], ["a", "b'", "", None]
    for turn in range(25):
        touched = {
            (chance.choice(days), chance.choice(shops)): chance.randint(1, 3) for _ in range(chance.randint(0, 4))
        }
        rows: list[dict[str, Any]] = [
            {"day": day, "shop": shop, "x": turn * 10 + number}
            for (day, shop), count in touched.items()
            for number in range(count)
        ]
        put(place, pa.Table.from_pylist(rows, schema=schema), partition_by=("day", "shop"))
        expected |= {part: [row["x"] for row in rows if (row["day"], row["shop"]) == part] for part in touched}
        wanted = [(*part, x) for part, numbers in expected.items() for x in numbers]
        assert held(place) == sorted(wanted, key=str), turn


def test_hundreds_of_partitions_are_one_condition(place: dict[str, Any]) -> None:
    put(place, parts(pa.int64(), list(range(600)), [0] * 600))
    written = put(place, parts(pa.int64(), list(range(0, 600, 2)), [1] * 300))
    assert written.partitions == 300
    assert sum(row[1] for row in held(place)) == 300 and len(held(place)) == 600


def test_a_condition_of_many_combinations_is_not_deep() -> None:
    pairs = pa.table({"a": pa.array(range(1000), pa.int64()), "b": pa.array([str(i) for i in range(1000)])})
    found = partitions.touched(pairs, of="t", columns=("a", "b"))
    depth = deepest = 0
    for character in found.condition:
        depth += {"(": 1, ")": -1}.get(character, 0)
        deepest = max(deepest, depth)
    assert found.number == 1000
    assert deepest < 16


def test_combinations_of_columns_are_told_apart(place: dict[str, Any]) -> None:
    pairs = pa.table({"a": list(range(8)) * 2, "b": ["x"] * 8 + ["y"] * 8, "n": [0] * 16})
    put(place, pairs, partition_by=("a", "b"))
    diagonal = pa.table({"a": list(range(8)), "b": ["x", "y"] * 4, "n": [1] * 8})
    assert put(place, diagonal, partition_by=("a", "b")).partitions == 8
    assert [row for row in held(place) if row[2]] == [(i, "xy"[i % 2], 1) for i in range(8)]
    assert len(held(place)) == 16


def test_too_many_partitions_are_refused_and_a_rebuild_is_not(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOST_PARTITIONS", 2)
    put(place, parts(pa.int64(), [1, 2, 3], [1, 2, 3]))
    with pytest.raises(LoadError, match=r"(?s)has rows of 3 partitions.*at most 2; nothing was written.*full refresh"):
        put(place, parts(pa.int64(), [1, 2, 3], [4, 5, 6]))
    assert versions(place) == 0
    assert put(place, parts(pa.int64(), [1, 2, 3], [4, 5, 6]), anew=True).version == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pa.table({"x": pa.array([1], pa.int64())}), "no partition column part"),
        (pa.table({"part": [1.5], "x": [1]}), "column 'part' of type double cannot be a partition"),
        (pa.table({"part": [[1]], "x": [1]}), "cannot be a partition"),
        (pa.table({"part": [b"a"], "x": [1]}), "column 'part' of type binary cannot be a partition"),
    ],
)
def test_columns_that_make_no_partitions_are_refused(place: dict[str, Any], rows: pa.Table, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        put(place, rows)
    assert versions(place) == -1


@pytest.mark.parametrize("mode", ["append", "merge", "partition"])
def test_other_columns_are_refused_with_what_differs(place: dict[str, Any], mode: str) -> None:
    put(place, parts(pa.int64(), [1], [1]))
    with pytest.raises(SchemaError, match="added: more"):
        put(place, parts(pa.int64(), [1], [2]).append_column("more", pa.array([1])), mode)
    assert held(place) == [(1, 1)]


@pytest.mark.parametrize("mode", ["overwrite", "append", "merge", "partition"])
def test_a_table_is_made_anew_in_one_commit_and_in_other_columns(place: dict[str, Any], mode: str) -> None:
    put(place, parts(pa.int64(), [1, 2], [1, 2]), mode)
    before = DeltaTableReader.open(place["uri"], storage_options={})
    written = put(place, pa.table({"part": [5], "x": [6], "more": ["a"]}), mode, anew=True)
    assert (written.version, written.rows, written.partitions) == (1, 1, None)
    assert held(place) == [(5, 6, "a")]
    assert before is not None and before.read().read_all().num_rows == 2
    assert put(place, pa.table({"part": [5], "x": [6], "more": ["a"]}).slice(1), mode, anew=True).version == 2
    assert held(place) == []


def test_doubled_keys_stop_a_merge_that_is_made_anew(place: dict[str, Any]) -> None:
    put(place, parts(pa.int64(), [1], [1]), "merge")
    with pytest.raises(LoadError, match="1 rows with a key that another row has"):
        put(place, parts(pa.int64(), [1, 2], [1, 1]), "merge", anew=True)
    assert held(place) == [(1, 1)]


def test_a_promise_of_the_table_stops_the_write_without_a_value(place: dict[str, Any]) -> None:
    put(place, parts(pa.string(), ["ada@example.org"], [1]))
    DeltaTable(place["uri"]).alter.add_constraint({"small": "x < 5"})
    with pytest.raises(LoadError, match="CHECK constraint") as caught:
        put(place, parts(pa.string(), ["ada@example.org"], [7]))
    assert "ada" not in str(caught.value)
    assert held(place) == [("ada@example.org", 1)]


def test_a_writer_that_commits_in_between_stops_the_write(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from platform_core.lake import delta

    put(place, parts(pa.int64(), [1], [1]))
    replacing = delta._replace_partitions

    def late(*arguments: Any) -> None:
        put(place, parts(pa.int64(), [1], [2]), "append")
        replacing(*arguments)

    monkeypatch.setattr(delta, "_replace_partitions", late)
    with pytest.raises(LoadError, match="another writer committed first"):
        put(place, parts(pa.int64(), [1], [3]))
    assert held(place) == [(1, 1), (1, 2)]
