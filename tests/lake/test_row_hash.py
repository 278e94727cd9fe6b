"""The hash of a row."""

from __future__ import annotations

import struct
from typing import Any

import polars as pl
import polars_hash  # noqa: F401 - registers the namespace `nchash`
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.lake.row_hash import row_hashes, with_hash

SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("s", pa.string()),
        ("b", pa.binary()),
        ("f", pa.float64()),
        ("t", pa.bool_()),
        ("l", pa.list_(pa.string())),
    ]
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.sampled_from([0, 1, 2**40]),
            "s": st.none() | st.sampled_from(["", "a", "ab", "b", "\x00"]),
            "b": st.none() | st.sampled_from([b"", b"a", b"ab"]),
            "f": st.none() | st.sampled_from([0.0, 1.5, float("inf")]),
            "t": st.none() | st.booleans(),
            "l": st.none() | st.lists(st.none() | st.sampled_from(["", "a"]), max_size=2),
        }
    ),
    max_size=12,
)


def hashes(values: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> list[bytes]:
    return row_hashes(pa.RecordBatch.from_pylist(values, schema=schema)).to_pylist()


def xxh3(content: bytes) -> bytes:
    digest = pl.DataFrame({"value": [content]}).select(
        pl.col("value").nchash.xxh3_128(return_binary=True, byte_order="big")
    )
    return digest.item()


def test_the_algorithm_is_the_published_one() -> None:
    assert xxh3(b"").hex() == "99aa06d3014798d86001c324468d497f"


def test_the_form_is_as_documented() -> None:
    # A change here changes every row hash of every table: it needs a new HASH_VERSION.
    tags = {"b": 4, "f": 6, "l": 5, "n": 1, "s": 3, "t": 7}
    numbers = (int.from_bytes(xxh3(bytes([tag]) + name.encode())[:8], "little") for name, tag in tags.items())
    form = b"".join(
        [
            struct.pack("<Q", sum(numbers) % 2**64),
            xxh3(b"ab"),
            struct.pack("<d", 1.5),
            xxh3(b'["a", null]'),
            struct.pack("<q", -7),
            xxh3("é".encode()),
            struct.pack("<q", 1),
        ]
    )
    found = hashes([{"n": -7, "s": "é", "b": b"ab", "f": 1.5, "t": True, "l": ["a", None]}, {}])
    assert found == [xxh3(form), xxh3(bytes(8))]


@given(rows)
def test_a_column_that_is_null_in_a_row_does_not_count_there(values: list[dict[str, Any]]) -> None:
    added = [(pa.field("a", pa.decimal128(9, 2))), *SCHEMA, pa.field("z", pa.list_(pa.int64()))]
    assert hashes(values, pa.schema(added)) == hashes(values)


def test_a_value_counts_for_the_column_it_stands_in() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.int32())])
    found = hashes([{"a": 1}, {"b": 1}, {"c": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}], schema)
    assert len(set(found)) == 6


@given(rows)
def test_two_rows_have_one_hash_exactly_if_they_are_equal(values: list[dict[str, Any]]) -> None:
    found = hashes(values)
    for i, left in enumerate(values):
        for j, right in enumerate(values):
            assert (found[i] == found[j]) == (left == right)


@given(rows, st.integers(0, 5))
def test_neither_a_slice_nor_the_order_of_columns_changes_a_hash(values: list[dict[str, Any]], start: int) -> None:
    batch = pa.RecordBatch.from_pylist(values, schema=SCHEMA)
    expected = row_hashes(batch).to_pylist()[start:]
    assert row_hashes(batch.slice(start)).to_pylist() == expected
    assert row_hashes(batch.select(SCHEMA.names[::-1]).slice(start)).to_pylist() == expected


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (pa.array([1], pa.int32()), pa.array([1], pa.int64()), True),
        (pa.array([1.5], pa.float32()), pa.array([1.5], pa.float64()), True),
        (pa.array([0.0]), pa.array([-0.0]), True),
        (pa.array([1]), pa.array([1.0]), False),
        (pa.array(["a"]), pa.array([b"a"]), False),
        (pa.array([None], pa.string()), pa.array([""]), False),
        (pa.array([0]), pa.array([None], pa.int64()), False),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC")), False),
    ],
)
def test_types_count_but_a_wider_number_does_not(left: pa.Array, right: pa.Array, equal: bool) -> None:
    pair = [row_hashes(pa.RecordBatch.from_arrays([values], names=["v"]))[0] for values in (left, right)]
    assert (pair[0] == pair[1]) == equal


def test_what_lies_under_a_null_does_not_count() -> None:
    dirty = pa.Array.from_buffers(pa.int64(), 1, [pa.py_buffer(b"\x00"), pa.py_buffer((7).to_bytes(8, "little"))])
    assert dirty.null_count == 1
    clean = pa.array([None], pa.int64())
    pair = [row_hashes(pa.RecordBatch.from_arrays([values], names=["v"]))[0] for values in (dirty, clean)]
    assert pair[0] == pair[1]


def test_the_hash_is_sixteen_bytes_in_a_last_column() -> None:
    batch = with_hash(pa.RecordBatch.from_pydict({"a": [1, 2]}))
    assert batch.schema.names == ["a", "_row_hash"]
    assert {len(value) for value in batch["_row_hash"].to_pylist()} == {16}
    assert row_hashes(pa.RecordBatch.from_pydict({"a": pa.array([], pa.string())})).to_pylist() == []
