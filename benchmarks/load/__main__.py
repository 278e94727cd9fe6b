"""How long a location of thousands of tables takes from YAML to Dagster definitions, beside a plain factory.

python -m benchmarks.load [--tables 5000] [--queries 0] [--repeat 3]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load.control_folder import inputs_of, write_control_folder


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def measure(control: Path, *, tables: int, with_dagster: bool) -> dict[str, float]:
    """Seconds by phase of one start, in this process."""
    clock = Clock()
    if with_dagster:
        # First, as in a code server: what follows then pays for a large heap, as it does there.
        with clock.phase("import dagster"):
            import dagster  # noqa: F401
    with clock.phase("import the loader"):
        from platform_core.control.checks import check_reading
        from platform_core.control.documents import read_document
        from platform_core.control.files import control_files
        from platform_core.control.load import load_manifest, manifest_of
        from platform_core.control.reading import read_control
        from platform_core.control.report import Report
    state = control.parent / "state"
    # The whole first, cold, as a process meets it; then its parts.
    with clock.phase("YAML to Manifest, cold"):
        manifest = load_manifest(control, environment="dev", state=state)
    assert len(manifest.ingestions) + len(manifest.steps) == tables
    report = Report()
    with clock.phase("  parse"):
        documents = [read_document(file, report) for _, file in control_files(control, report)]
    assert all(documents)
    with clock.phase("  parse and validate"):
        reading = read_control(control, environment="dev", state=state, report=report)
    with clock.phase("  cross-check"):
        check_reading(reading, report)
    with clock.phase("  assemble"):
        manifest_of(reading)
    assert not report
    del documents, reading
    if with_dagster:
        _measure_definitions(control, clock, tables=tables)
    return clock.seconds


def _measure_definitions(control: Path, clock: Clock, *, tables: int) -> None:
    with clock.phase("plain @asset factory"):
        _plain_definitions(tables).get_repository_def()
    if importlib.util.find_spec("platform_core.definitions") is None:
        return
    with clock.phase("import platform_core.definitions"):
        from platform_core.definitions import build_definitions
    from platform_core.settings import read_settings

    project = control.parent.parent
    environments = project / "dagster_home" / "environments"
    environments.mkdir(parents=True, exist_ok=True)
    (project / "workspace.yaml").write_text("load_from: [{python_module: big.definitions}]\n")
    (environments / "dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    found = read_settings()
    settings = dataclasses.replace(
        found, project=project, home=environments.parent, state=project / "state", environment="dev"
    )
    with clock.phase("build_definitions, YAML included"):
        definitions = build_definitions(control, settings=settings)
    with clock.phase("  get_repository_def"):
        definitions.get_repository_def()


def _plain_definitions(tables: int):
    """The same tables and dependencies from the shortest factory that Dagster allows."""
    import dagster as dg

    def ingested(number: int) -> dg.AssetsDefinition:
        @dg.asset(key=["big", "bronze", f"table_{number}"])
        def body() -> None: ...

        return body

    def step(number: int, inputs: list[str]) -> dg.AssetsDefinition:
        @dg.asset(
            key=["big", "silver", f"step_{number}"], deps=[dg.AssetKey(["big", *name.split(".")]) for name in inputs]
        )
        def body() -> None: ...

        return body

    count = tables * 2 // 5
    assets = [ingested(number) for number in range(count)]
    assets += [step(number, inputs_of(number, ingested=count)) for number in range(tables - count)]
    return dg.Definitions(assets=assets)


def main() -> None:
    """Run the measurement in fresh processes and print the median of each phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=0, help="steps that are SQL files")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-dagster", action="store_true")
    parser.add_argument("--once", metavar="CONTROL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        seconds = measure(Path(options.once), tables=options.tables, with_dagster=not options.without_dagster)
        print(json.dumps(seconds))
        return
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        control = write_control_folder(Path(folder), tables=options.tables, queries=options.queries)
        command = [sys.executable, "-m", "benchmarks.load", "--tables", str(options.tables), "--once", str(control)]
        command += ["--without-dagster"] if options.without_dagster else []
        environment = {"PYTHONPATH": str(Path.cwd()), "EDP_PROJECT": folder, "PATH": "/usr/bin:/bin"}
        for _ in range(options.repeat):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{options.tables:,} tables, {options.queries:,} of them by SQL files; median of {options.repeat} (min-max), s"
    )
    for phase in runs[0]:
        values = sorted(run[phase] for run in runs)
        print(f"{phase:40} {values[len(values) // 2]:7.2f}  ({values[0]:.2f}-{values[-1]:.2f})")
    whole, plain = "build_definitions, YAML included", "plain @asset factory"
    if whole in runs[0]:
        ratios = sorted((run[whole] + run["  get_repository_def"]) / run[plain] for run in runs)
        print(f"build_definitions / plain @asset factory  {ratios[len(ratios) // 2]:.2f}")


if __name__ == "__main__":
    main()
