"""Time the control plane: `python -m benchmarks.control_plane [--tables N] [--peer-tables N] [--write]`.

Measured are a plan and an apply of N tables from scratch, of one change among them, and of none; publishing and loading
the snapshot; the way back. Each in one process, by its parts, beyond the start of Python and the import of the
platform; and `edp plan` as a person calls it, its start included. Where Terraform is installed, a smaller number of
tables is planned by both in the same run, in turns, for Terraform as its resources.
`--write` writes `benchmarks/results/control-plane.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from benchmarks.terraform import Terraform, Took, version
from platform_core.control import workspace
from platform_core.control.environment import load_environment
from platform_core.control.plan import applying, declared, making, planning
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.plan import Plan, read_plan
from platform_core.control.plan.planning import plan_from_git, plan_rollback
from platform_core.control.snapshot.loading import load_snapshot
from platform_core.control.snapshot.publish import publish_snapshot
from platform_core.control.store.store import ControlStore, open_store
from platform_core.settings import Settings, read_settings
from platform_core.specs.environment import EnvironmentSpec

T = TypeVar("T")

REPORT = Path(__file__).parent / "results" / "control-plane.md"
AUTHOR = "benchmark"
TABLES_A_FILE = 100
TARGET_SECONDS = 2.0
ENVIRONMENT = """\
lake: {{root: lake}}
secrets: {{type: files, options: {{path: secrets}}}}
engine: {{type: local}}
control: {control}
"""
TABLE = """\
  - object: t{number}
    mode: incremental
    key: [id]
    cursor: updated_at
    lookback: 2 hours
    description: {description}
    columns:
      email: {{mask: hash, domain: email, personal: true}}
      name: {{mask: full, personal: true}}
"""

PARTS: list[tuple[str, Any, str]] = [
    ("control files read", workspace, "read_control"),
    ("specs checked, alone", workspace, "check_reading"),
    ("specs checked, between locations", workspace, "check_between"),
    ("specs made rows", declared, "manifest_rows"),
    ("git asked for the commit", declared, "git_commit"),
    ("tables read", planning, "look_at"),
    ("graph of readers", planning, "graph_of"),
    ("rows compared", making, "differences"),
    ("changes, marks, reach, seal", making.Maker, "plan"),
    ("rows looked at again", applying, "read_rows"),
    ("rows and history written", applying._Apply, "_write"),
]
"""What is timed within a plan or an apply, by where it is looked up."""


def write_project(folder: Path, *, tables: int, control: dict[str, object]) -> None:
    """A project of one location with so many tables."""
    for location in ("loc", "other"):
        control_files = folder / location / "control"
        control_files.mkdir(parents=True)
        for name in ("__init__.py", "definitions.py"):
            (folder / location / name).write_text("")
        (control_files / "location.yaml").write_text(
            f"location: {location}\nworkstreams: [{{name: {location}, owners: [team:{location}]}}]\n"
        )
    entries = [
        f"{{module_name: {name}.definitions, location_name: {name}, working_directory: .}}" for name in LOCATIONS
    ]
    modules = "".join(f"  - python_module: {entry}\n" for entry in entries)
    (folder / "workspace.yaml").write_text(f"load_from:\n{modules}")
    (folder / "dagster_home" / "environments").mkdir(parents=True)
    (folder / "dagster_home" / "environments" / "dev.yaml").write_text(ENVIRONMENT.format(control=json.dumps(control)))
    (folder / "loc/control/connections.yaml").write_text(
        "connections: [{name: erp, type: sqlite, path: /srv/erp.db}]\n"
    )
    (folder / "loc/control/ingestion").mkdir()
    for first in range(0, tables, TABLES_A_FILE):
        write_tables(folder, first, min(first + TABLES_A_FILE, tables))


LOCATIONS = ("loc", "other")


def write_tables(folder: Path, first: int, end: int, *, last: str = "One of many") -> None:
    """One file of tables, with the description of its last one."""
    entries = "".join(
        TABLE.format(number=number, description=last if number == end - 1 else "One of many")
        for number in range(first, end)
    )
    file = folder / "loc" / "control" / "ingestion" / f"from_{first:06}.yaml"
    file.write_text(f"source: erp\ntables:\n{entries}")


@dataclass
class Measured:
    """One thing that was timed.

    Args:
        parts: wall seconds by part.
    """

    title: str
    took: Took
    parts: dict[str, float] = field(default_factory=dict)


class Bench:
    """One project, its control tables, and what was measured of them."""

    def __init__(self, settings: Settings, *, tables: int) -> None:
        self.settings = settings
        self.tables = tables
        self.environment: EnvironmentSpec = load_environment(settings)
        self.store: ControlStore = open_store(self.environment, state=settings.state)
        self.store.prepare()
        self.measured: list[Measured] = []

    def time(self, title: str, work: Callable[[], T]) -> T:
        with _parts() as parts:
            wall, computed = time.perf_counter(), time.process_time()
            result = work()
            took = Took(time.perf_counter() - wall, time.process_time() - computed)
        self.measured.append(Measured(title, took, parts))
        sys.stdout.write(f"{title:<44} {took.wall:7.2f} s wall {took.processor:7.2f} s processor\n")
        return result

    def plan(self, title: str) -> Plan:
        return self.time(title, lambda: plan_from_git(self.settings, self.environment, self.store, author=AUTHOR))

    def apply(self, title: str, plan: Plan) -> None:
        file = self.settings.state / "plan.json"
        file.write_text(plan.as_json())
        self.time(
            title,
            lambda: apply_plan(read_plan(file), self.environment, self.store, author=AUTHOR, approval="benchmark"),
        )

    def publish(self, title: str) -> None:
        self.time(title, lambda: publish_snapshot(self.environment, self.store, state=self.settings.state))

    def load(self, title: str) -> None:
        folder, state = self.settings.project / "loc", self.settings.state
        self.time(title, lambda: load_snapshot(folder, environment=self.environment, state=state))

    def roll_back(self, title: str, serial: int) -> Plan:
        return self.time(
            title, lambda: plan_rollback(self.settings, self.environment, self.store, serial=serial, author=AUTHOR)
        )

    def change_one(self, description: str) -> None:
        first = (self.tables - 1) // TABLES_A_FILE * TABLES_A_FILE
        write_tables(self.settings.project, first, self.tables, last=description)

    def command(self, title: str, *arguments: str) -> None:
        """The command line, its start included."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
        before, began = _children(), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "platform_core.cli", *arguments],
            env=variables | {"EDP_PROJECT": str(self.settings.project)},
            cwd=self.settings.project,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        took = Took(time.perf_counter() - began, _children() - before)
        self.measured.append(Measured(title, took))
        sys.stdout.write(f"{title:<44} {took.wall:7.2f} s wall {took.processor:7.2f} s processor\n")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _parts() -> Iterator[dict[str, float]]:
    """Wall seconds of each part that is gone through within the block."""
    seconds: dict[str, float] = {}
    patches = [patch.object(owner, name, _timed(part, getattr(owner, name), seconds)) for part, owner, name in PARTS]
    for each in patches:
        each.start()
    try:
        yield seconds
    finally:
        for each in patches:
            each.stop()


def _timed(part: str, work: Callable[..., T], seconds: dict[str, float]) -> Callable[..., T]:
    def timed(*arguments: Any, **more: Any) -> T:
        began = time.perf_counter()
        try:
            return work(*arguments, **more)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began

    return timed


def measure(bench: Bench, peer: Terraform | None, *, repeat: int) -> dict[str, list[Took]]:
    """Everything, ours and the peer's in turns; returns what the peer took, by title."""
    theirs: dict[str, list[Took]] = {}

    def peer_does(title: str, work: Callable[[Terraform], Took]) -> None:
        if peer is not None:
            took = work(peer)
            theirs.setdefault(title, []).append(took)
            sys.stdout.write(f"{'Terraform: ' + title:<44} {took.wall:7.2f} s wall {took.processor:7.2f} s processor\n")

    plan = bench.plan(PLAN_ALL)
    peer_does(PLAN_ALL, Terraform.plan)
    bench.apply(APPLY_ALL, plan)
    if peer is not None:
        peer.fill()
    bench.publish(PUBLISH_ALL)
    for turn in range(repeat):
        bench.change_one(f"Changed {turn}")
        if peer is not None:
            peer.change_one(f"Changed {turn}")
        plan = bench.plan(PLAN_ONE)
        peer_does(PLAN_ONE, Terraform.plan)
        bench.command(COMMAND_ONE, "plan")
        bench.apply(APPLY_ONE, plan)
        peer_does(APPLY_ONE, Terraform.apply)
        bench.publish(PUBLISH_ONE)
        bench.load(LOAD)
        bench.plan(PLAN_NONE)
        peer_does(PLAN_NONE, Terraform.plan)
    bench.apply(ROLL_BACK_APPLY, bench.roll_back(ROLL_BACK_PLAN, 1))
    (bench.settings.project / "loc/control/ingestion").rename(bench.settings.project / "other/control/ingestion")
    (bench.settings.project / "loc/control/connections.yaml").rename(
        bench.settings.project / "other/control/connections.yaml"
    )
    bench.apply(MOVE_APPLY, bench.plan(MOVE_PLAN))
    return theirs


PLAN_ALL, APPLY_ALL, PUBLISH_ALL = "all, from scratch: plan", "all, from scratch: apply", "all: publish the snapshot"
PLAN_ONE, APPLY_ONE, PUBLISH_ONE = "one change: plan", "one change: apply", "one change: publish the snapshot"
COMMAND_ONE = "one change: `edp plan`, start included"
PLAN_NONE, LOAD = "no change: plan", "load of the snapshot"
ROLL_BACK_PLAN, ROLL_BACK_APPLY = "back to the first apply: plan", "back to the first apply: apply"
MOVE_PLAN, MOVE_APPLY = "all move to another location: plan", "all move to another location: apply"


def median(measured: list[Took]) -> Took:
    """The median of each kind of seconds."""
    return Took(
        statistics.median(each.wall for each in measured), statistics.median(each.processor for each in measured)
    )


def report(sections: list[str], *, arguments: str) -> str:
    """The figures as a page."""
    lines = [
        "# Control plane",
        "",
        f"`python -m benchmarks.control_plane {arguments}`; SQLite, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f} at the end. Seconds, medians where something is done more than once; `processor` is "
        "what was computed, whoever else was at work. Ours are within a process that has started; Terraform's and `edp "
        "plan` have their start in them.",
        "",
    ]
    return "\n".join([*lines, *sections])


def section(bench: Bench, theirs: dict[str, list[Took]], *, peer: str | None) -> str:
    """The figures of one number of tables."""
    ours: dict[str, list[Measured]] = {}
    for each in bench.measured:
        ours.setdefault(each.title, []).append(each)
    one = median([each.took for each in ours[PLAN_ONE]])
    heads = ["wall", "processor", *([f"{peer}: wall", "processor"] if peer else [])]
    lines = [
        f"## {bench.tables:,} tables",
        "",
        f"One change is planned in **{one.wall:.2f} s** ({one.processor:.2f} s of a processor) beyond start-up; the "
        f"target, of 10,000 tables, is {TARGET_SECONDS:g} s.",
        "",
        f"| seconds | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for title, measured in ours.items():
        took = median([each.took for each in measured])
        cells = [f"{took.wall:.2f}", f"{took.processor:.2f}"]
        if peer:
            there = median(theirs[title]) if title in theirs else None
            cells += [f"{there.wall:.2f}", f"{there.processor:.2f}"] if there else ["—", "—"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    titles = [PLAN_ALL, PLAN_ONE, PLAN_NONE, APPLY_ALL, APPLY_ONE]
    lines += ["", "Shares of our wall time, in per cent:", "", f"| part | {' | '.join(titles)} |"]
    lines.append(f"|---|{'---:|' * len(titles)}")
    for part in [name for name, _, _ in PARTS]:
        lines.append(f"| {part} | {' | '.join(_share(ours[title], part) for title in titles)} |")
    lines.append(f"| all else (commit, plan's file, lock) | {' | '.join(_rest(ours[title]) for title in titles)} |")
    return "\n".join([*lines, "", ""])


def _share(measured: list[Measured], part: str) -> str:
    shares = [each.parts.get(part, 0.0) / each.took.wall for each in measured]
    return f"{100 * statistics.median(shares):.0f}" if any(shares) else "—"


def _rest(measured: list[Measured]) -> str:
    shares = [1 - sum(each.parts.values()) / each.took.wall for each in measured]
    return f"{100 * statistics.median(shares):.0f}"


@contextmanager
def project(tables: int, control: dict[str, object]) -> Iterator[Settings]:
    """A project in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        write_project(root, tables=tables, control=control)
        for name in ("EDP_PROJECT", "EDP_STATE", "DAGSTER_HOME", "EDP_ENVIRONMENT"):
            os.environ.pop(name, None)
        settings = read_settings(start=root)
        settings.state.mkdir()
        yield settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--peer-tables", type=int, default=1_000, help="of both sides, beside Terraform")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    peer = version()
    sections = [measured(arguments.tables, repeat=arguments.repeat, peer=None)]
    if peer is not None:
        sections.append(measured(arguments.peer_tables, repeat=arguments.repeat, peer=peer))
    told = f"--tables {arguments.tables} --peer-tables {arguments.peer_tables} --repeat {arguments.repeat}"
    text = report(sections, arguments=told)
    sys.stdout.write(text)
    if arguments.write:
        REPORT.write_text(text)


def measured(tables: int, *, repeat: int, peer: str | None) -> str:
    """Measure so many tables; the report's section."""
    with project(tables, {"manifest": "snapshot"}) as settings:
        bench = Bench(settings, tables=tables)
        terraform = Terraform(settings.project / "terraform", tables=tables) if peer else None
        theirs = measure(bench, terraform, repeat=repeat)
        bench.store.close()
    return section(bench, theirs, peer=peer)


if __name__ == "__main__":
    main()
