"""A table whose rows do not compress, loaded in this process or, to measure it, in one of its own."""

from __future__ import annotations

import json
import random
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from platform_core.engines.local import LocalEngine
from platform_core.errors import PlatformError
from platform_core.operations import extract
from platform_core.operations.ingest import ingest
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec
from tests.faults.loading import open_platform_in
from tests.faults.scenarios import started_at

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
ROW_BYTES = 1_000
BATCH_ROWS = 5_000
_MEGABYTE = 1 << 20


class WideOptions(Model):
    """How many rows there are, and what their texts begin from."""

    rows: int
    seed: int = 0


class WideSource(Source):
    """Makes up rows of a kilobyte, a few thousand at a time, and holds none of them."""

    Options = WideOptions

    def schema(self, request: ReadRequest) -> pa.Schema:
        return SCHEMA

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            made = random.Random(self.options.seed)
            for first in range(0, self.options.rows, BATCH_ROWS):
                ids = range(first, min(first + BATCH_ROWS, self.options.rows))
                texts = [made.randbytes(ROW_BYTES // 2).hex() for _ in ids]
                yield pa.RecordBatch.from_arrays([pa.array(ids), pa.array(texts)], schema=SCHEMA)

        return pa.RecordBatchReader.from_batches(SCHEMA, batches())


class Wide:
    """The table, in the platform of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        platform = open_platform_in(folder)
        engine = LocalEngine(LocalEngine.Options(load_memory_limit="300MB", threads=1, spill=str(folder / "spill")))
        self.platform = replace(platform, engine=engine)

    @property
    def bronze(self) -> Path:
        return self.folder / "lake" / "crm" / "bronze" / "riders"

    @property
    def landing(self) -> Path:
        return self.folder / "lake" / "crm" / "landing" / "riders"

    @property
    def control(self) -> Path:
        return self.folder / "state"

    def load(self, rows: int, *, seed: int = 0) -> None:
        """Load so many rows of a kilobyte; other seeds make other texts."""
        known, wide = (
            plugin,
            ConnectionSpec(name="wide", workstream="crm", type="wide", options={"rows": rows, "seed": seed}),
        )
        extract.plugin = lambda kind, name: WideSource if name == "wide" else known(kind, name)  # type: ignore[attr-defined]
        spec = IngestionSpec(workstream="crm", source="wide", object="riders", table="riders", mode="full", key=("id",))
        try:
            ingest(spec, connection=wide, platform=self.platform, started_at=started_at(1))
        finally:
            extract.plugin = known  # type: ignore[attr-defined]

    def rows(self) -> int:
        return int(DeltaTable(self.bronze).to_pyarrow_table(columns=["id"]).num_rows)

    def version(self) -> int:
        return int(DeltaTable(self.bronze).version())

    def leaked(self) -> list[str]:
        """Files in the folders of the table that belong to no commit and no landed batch."""
        known = {Path(uri).name for uri in DeltaTable(self.bronze).file_uris()}
        whole = {path.parent for path in self.landing.glob("*/_manifest.json")}
        return [
            *(path.name for path in self.bronze.glob("*.parquet") if path.name not in known),
            *(str(path) for path in self.landing.glob("*/*") if path.parent not in whole),
        ]


def main(folder: Path, rows: int, limit: int | None) -> None:
    """Load in this process, and print its largest size in megabytes and how the load ended.

    Args:
        limit: megabytes of address space beyond those of the begin.
    """
    wide = Wide(folder)
    wide.load(10)
    if limit is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + limit * _MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    error = None
    try:
        wide.load(rows, seed=1)
    except (PlatformError, MemoryError) as failure:
        error = type(failure).__name__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps({"peak": peak, "error": error}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
