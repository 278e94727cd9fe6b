"""What a step may declare about how it writes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from platform_core.specs.processing import ProcessingSpec


def step(**fields: Any) -> ProcessingSpec:
    given = {"workstream": "sales", "layer": "gold", "name": "daily", "kind": "sql", "sql": "sql/daily.sql"}
    return ProcessingSpec(**given | fields)


def test_partition_names_the_columns_of_its_partitions() -> None:
    assert step(write="partition", partition_by=["day", "shop"]).partition_by == ("day", "shop")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"write": "partition"}, "write: partition needs 'partition_by'"),
        ({"write": "partition", "partition_by": ["day", "day"]}, "names a column twice"),
        ({"partition_by": ["day"]}, "belongs to write: partition, not to write: overwrite"),
        ({"write": "merge", "key": ["id"], "partition_by": ["day"]}, "not to write: merge; to say what a row is"),
        ({"write": "merge"}, "write: merge needs 'key'"),
        ({"variables": {"window_start": "2026-01-01"}}, "variable 'window_start' is the platform's own"),
        (
            {"kind": "external", "layer": "external", "sql": None, "partition_by": ["day"]},
            "external has no 'partition_by'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        step(**fields)
