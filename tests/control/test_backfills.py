"""A query that looks at the range of a backfill belongs to a step whose table can take a range."""

from __future__ import annotations

from typing import Any

import pytest

from platform_core.errors import ConfigError

QUERY = """\
select customer_id, amount from bronze.orders where $lowest < amount and updated_at >= $window_start
"""
STEP = """\
steps:
  - name: order_totals
    layer: silver
    kind: sql
    sql: sql/order_totals.sql
    variables: {{lowest: 10}}
    {write}
  - name: forecast
    layer: gold
    kind: python
    function: sales.steps:train
    depends_on: [silver.order_totals]
"""


@pytest.mark.parametrize("write", ["write: partition\n    partition_by: [day]", "write: merge\n    key: [customer_id]"])
def test_the_range_needs_no_declaration(package: Any, write: str) -> None:
    files = {"sql/order_totals.sql": QUERY, "control/processing/silver.yaml": STEP.format(write=write)}
    manifest = package.write(files).load()
    assert manifest.steps[0].variables == {"lowest": 10}


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("write: append", "a backfill would add rows that are there already"),
        ("write: overwrite", "a backfill would keep only the rows of its range"),
    ],
)
def test_a_table_that_a_range_would_spoil_is_refused_with_its_line(package: Any, write: str, said: str) -> None:
    broken = package.write({"sql/order_totals.sql": QUERY, "control/processing/silver.yaml": STEP.format(write=write)})
    with pytest.raises(ConfigError) as caught:
        broken.load()
    text = str(caught.value)
    assert f"silver.yaml:7: {said}: the query uses $window_start, and the step has {write}" in text
    assert "declare write: partition or merge" in text
