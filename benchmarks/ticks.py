"""Processor time of one tick of the conditions of a location: `python -m benchmarks.ticks [--assets N] [--new N]`.

A fifth of the assets are loaded tables, the rest steps that read two of them each; all was built by one run before.
`quiet`: nothing is new. `news`: so many tables were loaded since, each by a run of its own, and what reads them is due.
The event log is in memory: on SQLite or PostgreSQL each query costs more, and there are as many.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg


def store_run(instance: dg.DagsterInstance, built: Sequence[str], reads: dict[str, tuple[str, ...]]) -> None:
    """The events of a run that built these assets, one step each."""
    from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
    from dagster._core.execution.plan.objects import StepSuccessData

    run_id = str(uuid.uuid4())
    run = dg.DagsterRun(job_name="crm", run_id=run_id, status=dg.DagsterRunStatus.SUCCESS)
    instance.add_run(run)
    kinds = dg.DagsterEventType
    positions: dict[str, int] = {}

    def store(kind: dg.DagsterEventType, step: str, data: Any = None) -> None:
        event = dg.DagsterEvent(kind.value, "crm", event_specific_data=data, step_key=step)
        entry: Any = dg.EventLogEntry(None, 10, "", run_id, time.time(), step, "crm", event)  # type: ignore[no-untyped-call]
        instance.event_log_storage.store_event(entry)

    for name in built:
        store(kinds.ASSET_MATERIALIZATION_PLANNED, name, AssetMaterializationPlannedData(dg.AssetKey(name)))
    for name in built:
        store(kinds.STEP_START, name)
        tags = {f"dagster/input_event_pointer/{source}": str(positions[source]) for source in reads.get(name, ())}
        made = dg.AssetMaterialization(name, tags=tags)
        store(kinds.ASSET_MATERIALIZATION, name, StepMaterializationData(made))
        positions[name] = instance.event_log_storage.get_maximum_record_id() or 0
        store(kinds.STEP_SUCCESS, name, StepSuccessData(0.0))  # type: ignore[no-untyped-call]


def definitions(loaded: Iterable[str], reads: dict[str, tuple[str, ...]]) -> dg.Definitions:
    """Tables and the steps that read them, each step with the condition of the platform."""
    from platform_core.factories.automation import PROCESSING

    def asset(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=reads.get(name, ()), automation_condition=PROCESSING if name in reads else None)
        def body() -> None: ...

        return body

    return dg.Definitions(assets=[asset(name) for name in (*loaded, *reads)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=2_000)
    parser.add_argument("--new", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = options.assets // 5
    loaded = [f"t{number}" for number in range(tables)]
    reads: dict[str, tuple[str, ...]] = {
        f"s{number}": (loaded[number % tables], loaded[(number * 7 + 1) % tables])
        for number in range(options.assets - tables)
    }
    seconds = {}
    with dg.DagsterInstance.ephemeral() as instance:
        store_run(instance, [*loaded, *reads], reads)
        location = definitions(loaded, reads)
        cursor = None
        for name in ("first", "quiet", "news"):
            if name == "news":
                for table in loaded[: options.new]:
                    store_run(instance, [table], {})
            begun = time.process_time()
            result = dg.evaluate_automation_conditions(location, instance, cursor=cursor)
            seconds[name] = round(time.process_time() - begun, 2)
            cursor = result.cursor
            new = set(loaded[: options.new])
            wanted = sum(bool(new & set(sources)) for sources in reads.values()) if name == "news" else 0
            assert result.total_requested == wanted or name == "first", (name, result.total_requested, wanted)
            if name == "news":
                seconds["requested"] = result.total_requested
    print(json.dumps({"assets": options.assets, "seconds": seconds}))


if __name__ == "__main__":
    main()
