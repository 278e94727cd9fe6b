"""Every kind of expectation, value by value, against plain Python."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.specs.table import TableRef
from tests.quality import oracle
from tests.quality.worlds import World

PATTERN = "[a-zé]{1,3}"
ACCEPTED = ["", "a", "é", "ab"]
TARGET = TableRef("shop", "silver", "known")

texts = st.sampled_from(
    ["", "a", "A", "é", "é", "ab", "abc", "abcd", "ß", "日本", " ", "a\nb", "null", "'", '"']
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4)
numbers = st.sampled_from([0.0, -0.0, 1.0, 0.5, -1.0, math.nan, math.inf, -math.inf]) | st.floats(width=64)
rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | texts,
            "number": st.none() | numbers,
            "whole": st.none() | st.integers(-3, 3),
            "_is_current": st.booleans(),
        }
    ),
    max_size=12,
)
SCHEMA = pa.schema(
    [
        ("at", pa.int64()),
        ("text", pa.string()),
        ("number", pa.float64()),
        ("whole", pa.int64()),
        ("_is_current", pa.bool_()),
    ]
)
EXPECTATIONS: list[dict[str, Any]] = [
    {"not_null": "text", "name": "a"},
    {"not_null": ["text", "number"], "name": "b"},
    {"unique": "number", "name": "c"},
    {"unique": ["text", "whole"], "name": "d"},
    {"column": "text", "accepted_values": ACCEPTED, "name": "e"},
    {"column": "number", "range": {"min": -1, "max": 0.5}, "name": "f"},
    {"column": "text", "matches": PATTERN, "name": "g"},
    {"column": "number", "references": {"table": "silver.known", "column": "value"}, "name": "h"},
    {"sql": "whole > 0", "name": "i"},
    {"column": "text", "accepted_values": ACCEPTED, "where": "whole > 0", "name": "j"},
    {"column": "whole", "accepted_values": [1, 2], "name": "k"},
    {"unique": "text", "where": "whole < 0", "name": "l"},
]


def judged(rows: list[dict[str, Any]], values: list[Any]) -> dict[str, tuple[int, list[int]]]:
    def where(holds: Any) -> list[dict[str, Any]]:
        return [row for row in rows if row["whole"] is not None and holds(row["whole"])]

    positive, negative = where(lambda whole: whole > 0), where(lambda whole: whole < 0)
    found = {
        "a": oracle.not_null(rows, ["text"]),
        "b": oracle.not_null(rows, ["text", "number"]),
        "c": oracle.unique(rows, ["number"]),
        "d": oracle.unique(rows, ["text", "whole"]),
        "e": oracle.accepted(rows, "text", ACCEPTED),
        "f": oracle.within(rows, "number", -1, 0.5),
        "g": oracle.matching(rows, "text", PATTERN),
        "h": oracle.known(rows, "number", values),
        "i": (len(rows), oracle.each(rows, "whole", lambda whole: whole > 0)[1]),
        "k": oracle.accepted(rows, "whole", [1, 2]),
    }
    places = {name: (checked, [rows[at]["at"] for at in failing]) for name, (checked, failing) in found.items()}
    checked, failing = oracle.accepted(positive, "text", ACCEPTED)
    places["j"] = (checked, [positive[at]["at"] for at in failing])
    checked, failing = oracle.unique(negative, ["text"])
    places["l"] = (checked, [negative[at]["at"] for at in failing])
    return places


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows_of, st.lists(st.none() | numbers, max_size=4))
def test_counts_and_rows_set_aside_are_those_of_plain_python(rows: list[dict[str, Any]], values: list[Any]) -> None:
    numbered = [{"at": at, **row} for at, row in enumerate(rows)]
    wanted = judged([row for row in numbered if row["_is_current"]], values)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.put(pa.Table.from_pylist(numbered, schema=SCHEMA))
        world.put(pa.table({"value": pa.array(values, pa.float64())}), table=TARGET)
        result = world.evaluate(*({**each, "quarantine": True} for each in EXPECTATIONS))
        counted = {each.check: (each.checked, each.failing) for each in result.results}
        assert [each.message for each in result.results if "could not" in each.message] == []
        assert counted == {name: (checked, len(failing)) for name, (checked, failing) in wanted.items()}
        assert {each.check: each.passed for each in result.results} == {
            name: not failing for name, (_, failing) in wanted.items()
        }
        failed: dict[int, list[str]] = {}
        for name, (_, failing) in wanted.items():
            for at in failing:
                failed.setdefault(at, []).append(name)
        shown = (
            {}
            if result.quarantined is None
            else {row["at"]: row["_failed_expectations"].split(", ") for row in world.set_aside()}
        )
        assert shown == {at: sorted(names) for at, names in failed.items()}
