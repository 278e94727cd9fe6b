"""The second half of a load alone: one landed snapshot is applied to the same table by our engine, by a comparison
followed by a delta-rs MERGE of what changed, and, as the floor, by nothing but comparing and writing again.

The contestants are those of :mod:`benchmarks.bronze`, here with what the real load landed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTESTANTS = {
    "our engine": "ours",
    "diff, then delta-rs merge": "delta-rs merge",
    "floor: compare keys and hashes, rewrite": "floor",
}
WRITE = "floor: write the landed rows as Parquet"


def prepared() -> None:
    """Import what a worker that loads has imported long before."""
    import duckdb  # noqa: F401

    import platform_core.lake.bronze  # noqa: F401


def apply_one(work: dict[str, Any]) -> dict[str, Any]:
    """Apply ``<folder>/second`` to ``<folder>/table``."""
    from benchmarks import bronze

    folder = Path(work["folder"])
    if work["work"] == WRITE:
        load = bronze.load_of(folder, "second", mode="full", batch=2)
        with bronze.opened(folder).cursor() as connection:
            connection.execute(
                f"COPY (FROM read_parquet($files)) TO '{folder}/written.parquet' "
                "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)",
                {"files": list(load.files)},
            ).fetchall()
        return {}
    bronze.CONTESTANTS[CONTESTANTS[work["work"]]](folder, "full")
    return {}


def fault(folder: Path, contestant: str) -> str:
    """What is wrong with the table after it; the floor makes none."""
    from benchmarks import bronze

    if contestant.startswith("floor"):
        return ""
    try:
        bronze.check(folder, "full")
    except AssertionError as error:
        return f"missing, changed, doubled rows: {error}"
    return ""
