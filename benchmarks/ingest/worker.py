"""Does one piece of work that it reads from its input, and writes down what it took: `... worker <answer file>`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ingest import applying, ours, peers, small_tables
from benchmarks.ingest.measuring import own_peak

Do = Callable[[dict[str, Any]], dict[str, Any]]
WORK: dict[str, tuple[Callable[[dict[str, Any]], None], Do]] = {
    "ours": (ours.warmed, ours.load),
    "dlt": (peers.warmed, peers.dlt_load),
    "dlt small": (peers.warmed, peers.dlt_small),
    "delta-rs merge": (lambda _: peers.prepared_delta(), peers.delta_merge),
    "apply": (lambda _: applying.prepared(), applying.apply_one),
    "small alone": (lambda _: ours.prepared(), small_tables.alone),
    "small in Dagster": (lambda _: small_tables.prepared(), small_tables.in_dagster),
}


def main() -> None:
    work = json.load(sys.stdin)
    prepare, do = WORK[work["contender"]]
    prepare(work)
    used = _processor()
    began = time.perf_counter()
    told = do(work)
    answer = {
        "seconds": time.perf_counter() - began,
        "processor": _processor() - used,
        "megabytes": own_peak(),
        **told,
    }
    Path(sys.argv[1]).write_text(json.dumps(answer, default=str))


def _processor() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
