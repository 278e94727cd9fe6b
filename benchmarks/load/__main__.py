"""How long a location of thousands of tables takes to Dagster definitions: from YAML, from a snapshot, and plainly.

    python -m benchmarks.load [--tables 5000] [--queries 0] [--repeat 3] [--write]

Each repeat is a process of its own. Wall seconds hold on an idle machine only; processor seconds stand beside
them, because the machine that measures seldom is.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load.control_folder import inputs_of, write_control_folder

RESULTS = Path(__file__).parents[1] / "results" / "load.md"
DAGSTER = "import dagster"
IMPORTED = "import platform_core.definitions"
PLAIN = "plain @asset factory, resolved"
WHOLE = "build_definitions, YAML included"
RESOLVED = "– resolved by Dagster"
LOADED = "snapshot to Manifest"
WHOLE_OF_SNAPSHOT = "build_definitions, snapshot included"

Seconds = tuple[float, float]
"""Wall and processor time."""


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, Seconds] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what stands below."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = (time.perf_counter() - wall, time.process_time() - processor)


def measure(control: Path, *, tables: int, with_dagster: bool) -> dict[str, Seconds]:
    """Seconds by phase of one start, in this process."""
    clock = Clock()
    if with_dagster:
        # First, as in a code server: what follows then pays for a large heap, as it does there.
        with clock.phase(DAGSTER):
            import dagster  # noqa: F401
    with clock.phase("import the loader"):
        from platform_core.control.checks import check_reading
        from platform_core.control.documents import read_document
        from platform_core.control.files import control_files
        from platform_core.control.load import load_manifest
        from platform_core.control.reading import read_control
        from platform_core.control.report import Report
    state = control.parent / "state"
    # The whole first, cold, as a process meets it; then its parts.
    with clock.phase("YAML to Manifest, plug-ins imported"):
        manifest = load_manifest(control, environment="dev", state=state)
    assert len(manifest.ingestions) + len(manifest.steps) == tables
    report = Report()
    with clock.phase("– parse"):
        documents = [read_document(file, report) for _, file in control_files(control, report)]
    assert all(documents)
    with clock.phase("– parse and validate"):
        reading = read_control(control, environment="dev", state=state, report=report)
    with clock.phase("– cross-check"):
        check_reading(reading, report)
    assert not report
    del documents, reading
    if with_dagster:
        _measure_definitions(control, clock, tables=tables)
    return clock.seconds


def _measure_definitions(control: Path, clock: Clock, *, tables: int) -> None:
    with clock.phase(PLAIN):
        _plain_definitions(tables).get_repository_def()
    if importlib.util.find_spec("platform_core.definitions") is None:
        return
    with clock.phase(IMPORTED):
        from platform_core.definitions import build_definitions
    settings = _settings(control, manifest="files")
    with clock.phase(WHOLE):
        definitions = build_definitions(control, settings=settings)
    with clock.phase(RESOLVED):
        definitions.get_repository_def()


def publish(control: Path) -> None:
    """Apply the location and publish it, as ``edp apply`` does."""
    from platform_core.control.environment import load_environment
    from platform_core.control.plan.applying import apply_plan
    from platform_core.control.plan.planning import plan_from_git
    from platform_core.control.snapshot.publish import publish_snapshot
    from platform_core.control.store.store import open_store

    settings = _settings(control, manifest="snapshot")
    (control.parent / "definitions.py").touch()
    (settings.project / "workspace.yaml").write_text(
        "load_from: [{python_module: {module_name: big.definitions, location_name: big, working_directory: .}}]\n"
    )
    environment = load_environment(settings)
    store = open_store(environment, state=settings.state)
    apply_plan(plan_from_git(settings, environment, store, author="benchmark"), environment, store, author="benchmark")
    publish_snapshot(environment, store, state=settings.state)
    store.close()


def measure_snapshot(control: Path, *, tables: int) -> dict[str, Seconds]:
    """Seconds by phase of one start from what :func:`publish` has published, in this process."""
    from platform_core.settings import Settings

    clock = Clock()
    with clock.phase(DAGSTER):
        import dagster  # noqa: F401
    with clock.phase(IMPORTED):
        from platform_core.definitions import build_definitions
    from platform_core.control.environment import load_environment
    from platform_core.control.snapshot.loading import load_snapshot

    settings: Settings = _settings(control, manifest="snapshot")
    with clock.phase(WHOLE_OF_SNAPSHOT):
        definitions = build_definitions(control, settings=settings)
    with clock.phase(RESOLVED):
        definitions.get_repository_def()
    environment = load_environment(settings)
    with clock.phase(LOADED):
        manifest = load_snapshot(control.parent, environment=environment, state=settings.state).manifest
    assert len(manifest.ingestions) + len(manifest.steps) == tables
    return clock.seconds


def _settings(control: Path, *, manifest: str) -> Any:
    """The settings of a project around a control folder, whose environment says where metadata comes from."""
    from platform_core.settings import read_settings

    project = control.parent.parent
    environments = project / f"dagster_home_{manifest}" / "environments"
    environments.mkdir(parents=True, exist_ok=True)
    (project / "workspace.yaml").touch()
    (environments / "dev.yaml").write_text(
        f"lake: {{root: lake}}\nsecrets: {{type: environment}}\ncontrol: {{manifest: {manifest}}}\n"
    )
    return dataclasses.replace(
        read_settings(), project=project, home=environments.parent, state=project / "state", environment="dev"
    )


def _plain_definitions(tables: int) -> Any:
    """The same tables and dependencies from the shortest factory that Dagster allows."""
    import dagster as dg

    def ingested(number: int) -> dg.AssetsDefinition:
        @dg.asset(key=["big", "bronze", f"table_{number}"])
        def body() -> None: ...

        return body

    def step(number: int, inputs: list[str]) -> dg.AssetsDefinition:
        deps = [dg.AssetKey(["big", *name.split(".")]) for name in inputs]

        @dg.asset(key=["big", "silver", f"step_{number}"], deps=deps)
        def body() -> None: ...

        return body

    count = tables * 2 // 5
    assets = [ingested(number) for number in range(count)]
    assets += [step(number, inputs_of(number, ingested=count)) for number in range(tables - count)]
    return dg.Definitions(assets=assets)


def summary(runs: list[dict[str, Seconds]], *, tables: int, queries: int) -> str:
    """The figures as a Markdown table, medians and ranges over the runs."""
    lines = [
        f"{tables:,} tables, {queries:,} of them by SQL files; {len(runs)} runs; seconds: median (least to most).",
        "",
        "| phase | wall | processor |",
        "|---|---|---|",
    ]
    lines += [f"| {phase} | {_spread(runs, (phase,), 0)} | {_spread(runs, (phase,), 1)} |" for phase in runs[0]]
    if WHOLE in runs[0]:
        ours = (IMPORTED, WHOLE, RESOLVED)
        lines.append(f"| **beyond `{DAGSTER}`** | {_spread(runs, ours, 0)} | {_spread(runs, ours, 1)} |")
        ratio = statistics.median((run[WHOLE][1] + run[RESOLVED][1]) / run[PLAIN][1] for run in runs)
        lines += ["", f"Processor time of our build against the plain factory's, same run: {ratio:.2f}."]
    return "\n".join(lines)


def summary_of_snapshot(runs: list[dict[str, Seconds]]) -> str:
    """The same of starts from a published snapshot, in processes of their own."""
    lines = ["From a published snapshot:", "", "| phase | wall | processor |", "|---|---|---|"]
    lines += [f"| {phase} | {_spread(runs, (phase,), 0)} | {_spread(runs, (phase,), 1)} |" for phase in runs[0]]
    ours = (IMPORTED, WHOLE_OF_SNAPSHOT, RESOLVED)
    lines.append(f"| **beyond `{DAGSTER}`** | {_spread(runs, ours, 0)} | {_spread(runs, ours, 1)} |")
    return "\n".join(lines)


def _spread(runs: list[dict[str, Seconds]], phases: tuple[str, ...], kind: int) -> str:
    values = [sum(run[phase][kind] for phase in phases) for run in runs]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Run the measurement in fresh processes and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Time loading a large location.")
    parser.add_argument("--tables", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=0, help="steps that are SQL files")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-dagster", action="store_true", help="YAML to Manifest only")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/load.md")
    parser.add_argument("--once", metavar="CONTROL", help=argparse.SUPPRESS)
    parser.add_argument("--publish", metavar="CONTROL", help=argparse.SUPPRESS)
    parser.add_argument("--once-from-snapshot", metavar="CONTROL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        found = measure(Path(options.once), tables=options.tables, with_dagster=not options.without_dagster)
        print(json.dumps(found))
        return
    if options.publish:
        publish(Path(options.publish))
        return
    if options.once_from_snapshot:
        print(json.dumps(measure_snapshot(Path(options.once_from_snapshot), tables=options.tables)))
        return
    runs: list[dict[str, Seconds]] = []
    runs_of_snapshot: list[dict[str, Seconds]] = []
    with tempfile.TemporaryDirectory() as folder:
        control = write_control_folder(Path(folder), tables=options.tables, queries=options.queries)
        command = [sys.executable, "-m", "benchmarks.load", "--tables", str(options.tables)]
        how = ["--without-dagster"] if options.without_dagster else []
        environment = {"PYTHONPATH": str(Path.cwd()), "EDP_PROJECT": folder, "PATH": "/usr/bin:/bin"}

        def process(*arguments: str) -> str:
            done = subprocess.run(
                [*command, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
            )
            return done.stdout

        if not options.without_dagster:
            process("--publish", str(control))
        for _ in range(options.repeat):
            runs.append(json.loads(process("--once", str(control), *how).splitlines()[-1]))
            if not options.without_dagster:
                told = process("--once-from-snapshot", str(control))
                runs_of_snapshot.append(json.loads(told.splitlines()[-1]))
    text = summary(runs, tables=options.tables, queries=options.queries)
    if runs_of_snapshot:
        text += "\n\n" + summary_of_snapshot(runs_of_snapshot)
    print(text)
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(f"# Loading\n\n`{' '.join(['python -m benchmarks.load', *sys.argv[1:]])}`\n\n{text}\n")


if __name__ == "__main__":
    main()
