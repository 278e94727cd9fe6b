"""Time the control plane: `python -m benchmarks.control_plane [--tables N] [--postgres <url> --password-file <file>]`.

Measured are a plan and an apply of N tables from scratch, then a plan and an apply of one change among them; each by
its phases, in one process, without the start of Python and the import of the platform. Without `--postgres` only
SQLite is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.collection import collection_paused
from platform_core.control.plan.declared import read_declared
from platform_core.control.plan.plan import read_plan
from platform_core.control.plan.planning import plan_from_declared
from platform_core.control.store.rows import read_manifest
from platform_core.control.store.store import ControlStore, open_store
from platform_core.settings import Settings, read_settings

T = TypeVar("T")

TABLES_A_FILE = 100
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


def write_project(folder: Path, *, tables: int, control: dict[str, object]) -> None:
    """A project of one location with so many tables."""
    control_files = folder / "loc" / "control"
    (control_files / "ingestion").mkdir(parents=True)
    for name in ("__init__.py", "definitions.py"):
        (folder / "loc" / name).write_text("")
    location = "{module_name: loc.definitions, location_name: loc, working_directory: .}"
    (folder / "workspace.yaml").write_text(f"load_from:\n  - python_module: {location}\n")
    (folder / "dagster_home" / "environments").mkdir(parents=True)
    (folder / "dagster_home" / "environments" / "dev.yaml").write_text(ENVIRONMENT.format(control=json.dumps(control)))
    (control_files / "location.yaml").write_text("location: loc\nworkstreams: [{name: loc, owners: [team:loc]}]\n")
    (control_files / "connections.yaml").write_text("connections: [{name: erp, type: sqlite, path: /srv/erp.db}]\n")
    for first in range(0, tables, TABLES_A_FILE):
        write_tables(folder, first, min(first + TABLES_A_FILE, tables))


def write_tables(folder: Path, first: int, end: int, *, description: str = "One of many") -> None:
    """One file of tables."""
    entries = "".join(TABLE.format(number=number, description=description) for number in range(first, end))
    file = folder / "loc" / "control" / "ingestion" / f"from_{first:06}.yaml"
    file.write_text(f"source: erp\ntables:\n{entries}")


class Phases:
    """Seconds by phase of one measurement."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.seconds: dict[str, tuple[float, float]] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        began, computed = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[name] = time.perf_counter() - began, time.process_time() - computed
        return result

    def show(self) -> None:
        wall, computing = (sum(column) for column in zip(*self.seconds.values(), strict=True))
        print(f"\n{self.title:<44} {wall:7.2f} s wall  {computing:7.2f} s processor")
        for name, (took, computed) in self.seconds.items():
            print(f"  {name:<42} {took:7.3f} s       {computed:7.3f} s")


def measure(settings: Settings, *, title: str) -> None:
    """Plan and apply what the control files declare."""
    phases = Phases(title)
    environment = phases.time("environment's file", lambda: load_environment(settings))
    store = open_store(environment, state=settings.state)
    phases.time("schema of the control tables", store.prepare)
    with collection_paused():
        declared = phases.time("control files read and checked", lambda: read_declared(settings))
        plan = phases.time(
            "compared with the tables, reach, marks",
            lambda: plan_from_declared(declared, environment, store, author="benchmark", everything=True),
        )
    file = settings.state / "plan.json"
    phases.time("plan written", lambda: file.write_text(plan.as_json()))
    phases.show()
    phases = Phases(f"{title}: apply")
    read = phases.time("plan read", lambda: read_plan(file))
    phases.time("applied", lambda: apply_plan(read, environment, store, author="benchmark"))
    phases.time("manifest read from the tables", lambda: read_back(store, settings))
    phases.show()
    store.close()


def read_back(store: ControlStore, settings: Settings) -> None:
    store.read(lambda connection: read_manifest(connection, "loc", root=settings.project / "loc", state=settings.state))


def measure_all(tables: int, control: dict[str, object], *, name: str, prepare: Callable[[Path], None]) -> None:
    """From scratch, then one change."""
    with project(tables, control) as settings:
        prepare(settings.state)
        measure(settings, title=f"{name}, {tables:,} tables from scratch")
        last = (tables - 1) // TABLES_A_FILE * TABLES_A_FILE
        write_tables(settings.project, last, last + 1, description="Changed")
        if last + 1 < tables:
            write_tables(settings.project, last + 1, tables)
        measure(settings, title=f"{name}, one change in {tables:,}")
        measure(settings, title=f"{name}, no change in {tables:,}")


@contextmanager
def project(tables: int, control: dict[str, object]) -> Iterator[Settings]:
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
    parser.add_argument("--postgres", metavar="URL", help="without a password")
    parser.add_argument("--password-file", type=Path)
    arguments = parser.parse_args()
    measure_all(arguments.tables, {}, name="SQLite", prepare=lambda _: None)
    if arguments.postgres:

        def keep_password(state: Path) -> None:
            file = state / "secrets" / "platform" / "control"
            file.parent.mkdir(parents=True, mode=0o700)
            file.touch(mode=0o600)
            file.write_text(arguments.password_file.read_text().strip())

        control = {"url": arguments.postgres, "password": {"secret": "platform/control"}}
        measure_all(arguments.tables, control, name="PostgreSQL", prepare=keep_password)


if __name__ == "__main__":
    main()
