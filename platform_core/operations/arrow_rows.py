"""Takes what a step makes, in any form that Arrow knows, as one stream of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import pyarrow as pa

from platform_core.errors import StepError

RETURNS = "a pyarrow Table or RecordBatchReader, an iterable of RecordBatch, a DuckDB relation, a polars frame, or None"


def stream_of(made: object) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Columns and batches of a result.

    Raises:
        StepError: it is nothing that holds rows.
    """
    if isinstance(made, pa.RecordBatch):
        return made.schema, iter([made])
    if hasattr(made, "__arrow_c_stream__"):
        stream = pa.RecordBatchReader.from_stream(made)
        return stream.schema, iter(stream)
    if not isinstance(made, Iterable) or isinstance(made, (str, bytes, Mapping)):
        raise StepError(f"the function returned {type(made).__name__}\n  it may return {RETURNS}")
    batches = iter(made)
    first = next(batches, None)
    if first is None:
        raise StepError("the function yielded nothing, so its columns are unknown: yield a batch without rows")
    if not isinstance(first, pa.RecordBatch):
        raise StepError(f"the function yielded {type(first).__name__}\n  it may yield pyarrow RecordBatch only")
    return first.schema, chain([first], batches)
