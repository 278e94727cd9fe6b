"""Runs the loads of one job in this process: the platform in a folder, the days to load, and the fault to meet."""

from __future__ import annotations

import datetime as dt
import json
import logging
import traceback
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from platform_core import faults
from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine
from platform_core.lake import batch_sink
from platform_core.lake.paths import Lake
from platform_core.operations import extract
from platform_core.operations.ingest import ingest
from platform_core.operations.platform import Platform
from platform_core.plugins.registry import plugin
from platform_core.secrets.files import FileSecrets
from platform_core.specs.environment import ControlSpec, EnvironmentSpec, LakeSpec, PluginChoice
from tests.faults.scenarios import SCENARIOS, SOURCES, started_at, write_day

LAND_ALWAYS = -1
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process does.

    Args:
        folder: holds lake, state and secrets.
        days: loaded one after the other.
        fault: armed before the first load.
        held_bytes: up to this size a batch is held in memory before it is landed.
        lease: seconds for which a lease holds without a sign of life.
        count: report how often each point was reached.
        kill_after: seconds after which the process is killed, wherever it is.
    """

    folder: str
    scenario: str
    days: list[int]
    fault: str | None = None
    held_bytes: int = LAND_ALWAYS
    lease: float = 60.0
    count: bool = False
    kill_after: float | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Report:
    """What a process that lived to tell says.

    Args:
        error: the trace of what ended it.
        reached: how often each point was reached.
        committed: of each load, whether it made a commit.
    """

    error: str | None = None
    reached: dict[str, int] = field(default_factory=dict)
    committed: list[bool] = field(default_factory=list)


def open_platform_in(folder: Path, *, lease: float = 60.0) -> Platform:
    """The platform whose files are in a folder."""
    secrets = FileSecrets(FileSecrets.Options(path=str(folder / "secrets")))
    environment = EnvironmentSpec(
        name="test",
        lake=LakeSpec(root=str(folder / "lake")),
        secrets=PluginChoice(type="files"),
        control=ControlSpec(lease=dt.timedelta(seconds=lease)),
    )
    return Platform(
        environment=environment,
        lake=Lake(str(folder / "lake")),
        engine=LocalEngine(LocalEngine.Options(memory_limit="256MB", threads=1, spill=str(folder / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=folder / "state", secrets=secrets),
        state=folder / "state",
        log=logging.getLogger("test.faults"),
    )


def run(job: Job) -> Report:
    """Do the loads of a job; what goes wrong stands in the report."""
    report = Report()
    found: Any = plugin
    extract.plugin = lambda kind, name: SOURCES.get(name) or found(kind, name)  # type: ignore[attr-defined]
    batch_sink.HELD_BYTES = job.held_bytes  # type: ignore[misc]
    scenario = SCENARIOS[job.scenario]
    platform = open_platform_in(Path(job.folder), lease=job.lease)
    with ExitStack() as stack:
        stack.callback(platform.loads.close)
        reached = stack.enter_context(faults.counted()) if job.count else {}
        if job.fault is not None:
            faults.arm(job.fault)
        try:
            for day in job.days:
                calendar = Path(job.folder, "day")
                write_day(calendar, day)
                loaded = ingest(
                    scenario.spec,
                    connection=scenario.connection(calendar),
                    platform=platform,
                    started_at=started_at(day),
                )
                report.committed.append(loaded.committed)
        except BaseException:  # noqa: BLE001 - whoever asked for the job judges it
            report.error = traceback.format_exc()
        report.reached = {str(point): times for point, times in reached.items()}
    return report


def write_report(job: Job, report: Report) -> None:
    """Leave the report where the process that asked finds it."""
    Path(job.folder, RESULT).write_text(json.dumps(asdict(report)))
