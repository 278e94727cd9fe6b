"""Time the threaded executor beside Dagster's own: `python -m benchmarks.executor [--write]`.

All in one run on one machine, in turns, so that the ratios mean something where the seconds do
not. Times are of whole runs with SQLite storage: planning, events and logs included. Processor
seconds are shown beside the wall clock's because they hold on a machine that others use too.
"""

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import dagster as dg

from benchmarks.executor.graphs import independent_assets
from benchmarks.instance_file import write_instance_file

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "executor.md"


@contextmanager
def fresh_instance(*, own_storage: bool = True) -> Iterator[dg.DagsterInstance]:
    with tempfile.TemporaryDirectory() as home:
        write_instance_file(Path(home), own_storage=own_storage)
        with dg.DagsterInstance.from_config(home) as instance:
            yield instance


class Taken(NamedTuple):
    wall: float
    processor: float


def processor_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def time_a_run(executor: str, *, count: int, wait: float, one_writer: bool = False, own_storage: bool = True) -> Taken:
    job = dg.build_reconstructable_job(
        independent_assets.__module__,
        independent_assets.__name__,
        cast(Any, (count, wait, executor)),
        reconstructor_working_directory=str(ROOT),
    )
    job.get_definition()
    with fresh_instance(own_storage=own_storage) as instance, ThreadPoolExecutor(1) as writer:
        if one_writer:  # the variant that was not built: every event through one thread
            write = instance.handle_new_event

            def hand_over(*args: Any, **kwargs: Any) -> Any:
                return writer.submit(write, *args, **kwargs).result()

            vars(instance)["handle_new_event"] = hand_over
        began, used = time.perf_counter(), processor_seconds()
        result = dg.execute_job(job, instance=instance)
        taken = Taken(time.perf_counter() - began, processor_seconds() - used)
    assert result.success
    assert len([event for event in result.all_events if event.is_step_success]) == count
    return taken


def in_turns(contestants: dict[str, dict[str, Any]], *, repeat: int) -> dict[str, list[Taken]]:
    times: dict[str, list[Taken]] = {name: [] for name in contestants}
    for _ in range(repeat):
        for name, options in contestants.items():
            times[name].append(time_a_run(**options))
    return times


def table(title: str, times: dict[str, list[Taken]], *, count: int) -> str:
    lines = [
        f"## {title}",
        "",
        "| | wall s, median | all | ms a step | ratio | processor s, median | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    medians = {
        name: Taken(statistics.median(t.wall for t in taken), statistics.median(t.processor for t in taken))
        for name, taken in times.items()
    }
    first = next(iter(medians.values()))
    for name, median in medians.items():
        spread = ", ".join(f"{taken.wall:.2f}" for taken in times[name])
        lines.append(
            f"| {name} | {median.wall:.2f} | {spread} | {median.wall / count * 1000:.0f} |"
            f" {median.wall / first.wall:.2f} × | {median.processor:.2f} |"
            f" {median.processor / first.processor:.2f} × |"
        )
    return "\n".join(lines) + "\n"


def report(*, repeat: int) -> Iterator[str]:
    yield (
        "# The threaded executor beside Dagster's own\n\n"
        f"`python -m benchmarks.executor --repeat {repeat} --write`, dagster {dg.__version__},"
        f" Python {platform.python_version()}, {os.cpu_count()} processors,"
        f" load {os.getloadavg()[0]:.1f} at the start. Contestants take turns.\n"
    )
    count = 200
    yield table(
        f"{count} assets that do nothing (target: at most 1.50 × in-process)",
        in_turns(
            {
                "in process": {"executor": "in process", "count": count, "wait": 0},
                "threaded, 1 at once": {"executor": "threaded 1", "count": count, "wait": 0},
                "threaded, 8 at once": {"executor": "threaded 8", "count": count, "wait": 0},
                "threaded, 8 at once, all events written by one thread": {
                    "executor": "threaded 8",
                    "count": count,
                    "wait": 0,
                    "one_writer": True,
                },
            },
            repeat=repeat,
        ),
        count=count,
    )
    yield table(
        f"{count} assets that do nothing, beside Dagster's own SQLite storage",
        in_turns(
            {
                f"threaded, 8 at once, {title}": {
                    "executor": "threaded 8",
                    "count": count,
                    "wait": 0,
                    "own_storage": own,
                }
                for title, own in (("Dagster's storage", False), ("ours", True))
            },
            repeat=repeat,
        ),
        count=count,
    )
    count, wait = 32, 0.5
    yield table(
        f"{count} assets that wait {wait} s (target: near-linear gain)",
        in_turns(
            {
                "in process": {"executor": "in process", "count": count, "wait": wait},
                **{
                    f"threaded, {at_once} at once": {"executor": f"threaded {at_once}", "count": count, "wait": wait}
                    for at_once in (2, 4, 8, 16)
                },
            },
            repeat=1,
        ),
        count=count,
    )
    count = 6
    yield table(
        f"{count} assets that do nothing, beside processes",
        in_turns(
            {
                "multiprocess, 2 at once": {"executor": "multiprocess 2", "count": count, "wait": 0},
                "threaded, 2 at once": {"executor": "threaded 2", "count": count, "wait": 0},
            },
            repeat=1,
        ),
        count=count,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contestant in the first table")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a terminal would be part of what is timed
    parts = []
    for part in report(repeat=options.repeat):
        print(part, flush=True)
        parts.append(part)
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
