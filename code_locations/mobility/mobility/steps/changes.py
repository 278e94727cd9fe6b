"""Write down what each run found new or changed in the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from platform_core import StepContext

SCHEMA = pa.schema(
    [
        ("first_hour", pa.timestamp("us")),
        ("last_hour", pa.timestamp("us")),
        ("hours", pa.int64()),
        ("rides", pa.int64()),
    ]
)


def summarise(context: StepContext) -> pa.Table:
    """One row over the counts that are new or changed since this step last succeeded; none where nothing is.

    Returns:
        first_hour and last_hour (the span they lie in), hours (how many), rides (their sum as they now are).
    """
    changed = context.changed_rows("bronze.rides").read_all()
    context.add_figure("changed_hours", changed.num_rows)
    if not changed.num_rows:
        return SCHEMA.empty_table()
    span = pc.min_max(changed["ride_hour"].cast(pa.timestamp("us")))
    rides = pc.sum(pc.add(changed["casual"], changed["registered"]))
    row = {
        "first_hour": span["min"].as_py(),
        "last_hour": span["max"].as_py(),
        "hours": changed.num_rows,
        "rides": rides.as_py(),
    }
    return pa.Table.from_pylist([row], schema=SCHEMA)
