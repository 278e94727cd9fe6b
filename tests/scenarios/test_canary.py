"""FAULTS F1 and F3: personal data and secrets go through every load and failure, and are found at the source only.

The project of `planted.py` is set up, loaded, broken in every way, killed at every named moment, and then all that it
wrote is searched: lake, spill, quarantine, temporary files, logs, Dagster's databases, the control database, and
all that was printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from platform_core.faults import FaultPoint
from platform_core.lake.delta import DeltaTableReader
from tests.forked import start_forked
from tests.scenarios import planted, taint
from tests.scenarios.workspaces import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

PASSWORD = "canary-password-4b17c9"
POLL_SECONDS = 0.02

KILLED = """
import sys
from platform_core import faults
from platform_core.cli import main

faults.arm(sys.argv.pop(1))
main()
"""
"""`edp` with one fault armed."""

MISBEHAVING = """
import sys
from platform_core.cli import main
from platform_core.masks.full import FullMask

def apply(self, values):
    raise ValueError(f"cannot mask {values.to_pylist()}")

FullMask.apply = apply
main()
"""
"""`edp` with a mask that fails and tells about whom."""

UNFORESEEN = """
import sys
from platform_core.cli import main
from platform_core.operations import masking

def apply(self, batch):
    raise KeyError(str(batch.to_pylist()))

masking.Masking.apply = apply
main()
"""
"""`edp` with an error in its own code, which nobody foresaw."""

POINTS = [
    FaultPoint.LEASE_ACQUIRED,
    FaultPoint.EXTRACT_FIRST_BATCH,
    FaultPoint.MASK_BATCH,
    FaultPoint.LANDING_WRITE_TMP,
    FaultPoint.LANDING_RENAME,
    FaultPoint.BRONZE_READ,
    FaultPoint.BRONZE_BEFORE_COMMIT,
    FaultPoint.BRONZE_AFTER_COMMIT,
    FaultPoint.AUDIT_COMMIT,
]


@dataclass
class Story:
    """What was done to the project, and what was seen of it.

    Args:
        answers: standard output by what was run.
        printed: all output by what was run.
        codes: exit code by what was run.
        processes: command line and environment of every process that ran below ours.
    """

    workspace: Workspace
    answers: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    processes: set[str] = field(default_factory=set)

    def edp(self, name: str, *arguments: str, code: str | None = None, plainly: bool = False) -> None:
        """Run `edp`, or a program that calls it, and watch the processes below it.

        Args:
            plainly: start it as a person does, for its command line and its environment to be looked at.
        """
        temporary = self.workspace.root / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = self.workspace.environment(TMPDIR=str(temporary))
        if not plainly:
            forked = start_forked(arguments, env=environment, cwd=self.workspace.root, code=code)
            with self._watched(forked.pid):
                answer, told = forked.communicate(timeout=600)
            self._note(name, answer, told, forked.wait())
            return
        start = [sys.executable, "-m", "platform_core.cli"] if code is None else [sys.executable, "-c", code]
        process = subprocess.Popen(
            [*start, *arguments],
            env=environment,
            cwd=self.workspace.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        with self._watched(process.pid):
            answer, told = process.communicate(timeout=600)
        self._note(name, answer, told, process.returncode)

    def _note(self, name: str, answer: str, told: str, code: int) -> None:
        self.answers[name], self.printed[name] = answer, f"{answer}\n{told}"
        self.codes[name] = code

    @contextmanager
    def _watched(self, pid: int) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(pid, done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, pid: int, done: threading.Event) -> None:
        while not done.wait(POLL_SECONDS):
            try:
                parent = psutil.Process(pid)
                for found in (parent, *parent.children(recursive=True)):
                    self.processes.add(json.dumps([found.cmdline(), found.environ()]))
            except psutil.Error:
                continue

    def bronze(self, name: str) -> pa.Table:
        reader = DeltaTableReader.open(str(self.workspace.state / "lake/crm/bronze" / name), storage_options={})
        assert reader is not None, f"{name} was never loaded:\n{self.printed}"
        return reader.read().read_all()


def change_sources(sources: Path) -> None:
    """The second day: most people leave one table, another has a column more, and a third a type that is wider."""
    everyone = planted.table(range(1, planted.PEOPLE + 1))
    planted.put(sources / "leaving", everyone.slice(0, 3))
    planted.put(sources / "drifting", everyone.append_column("maiden_name", everyone["name"]))
    # A text where the year of a date was.
    texts = everyone["born"].cast(pa.string())
    planted.put(sources / "narrowing", everyone.set_column(everyone.schema.get_field_index("born"), "born", texts))
    changed = everyone.set_column(2, "name", pa.array([f"{name} II" for name in everyone["name"].to_pylist()]))
    planted.put(sources / "people", changed)
    planted.put(sources / "seen_people", changed)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Everything, once."""
    workspace = Workspace.create(tmp_path_factory.mktemp("canary"), planted.CONTROL)
    story = Story(workspace)
    sources = workspace.root / "sources"
    planted.put_sources(sources)
    story.edp("setup", "setup", plainly=True)
    password = workspace.state / "secrets/crm/till_password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    story.edp("first run", "run", "--json", plainly=True)
    story.edp("preview", "ingest", "preview", "crm.people", plainly=True)
    story.edp("preview as JSON", "ingest", "preview", "crm.people", "--json", "--rows", "60")
    for name in planted.BROKEN:
        story.edp(f"preview of {name}", "ingest", "preview", f"crm.{name}")
    change_sources(sources)
    story.edp("misbehaving mask", "ingest", "reload", "crm.people", "--logs", code=MISBEHAVING, plainly=True)
    story.edp("misbehaving mask in a run", "run", "crm.bronze.people", "--json", code=MISBEHAVING)
    story.edp("unforeseen", "ingest", "reload", "crm.people", "--logs", code=UNFORESEEN)
    story.edp("unforeseen in a run", "run", "crm.bronze.people", "--json", code=UNFORESEEN)
    for point in POINTS:
        story.edp(f"kill at {point}", f"{point}:kill", "ingest", "reload", "crm.seen_people", code=KILLED)
    for fault in ("enospc", "eio", "raise"):
        for point in (FaultPoint.LANDING_WRITE_TMP, FaultPoint.BRONZE_BEFORE_COMMIT):
            story.edp(
                f"{fault} at {point}", f"{point}:{fault}", "ingest", "reload", "crm.people", "--logs", code=KILLED
            )
    story.edp("second run", "run", "--json")
    story.edp("log", "ingest", "log")
    story.edp("keys", "keys", "show", "--tokens", plainly=True)
    return story


def test_the_story_went_as_told(story: Story) -> None:
    for name in planted.HEALTHY:
        assert story.bronze(name).num_rows >= planted.PEOPLE - 3
    first = {asset["asset"]: asset["status"] for asset in json.loads(story.answers["first run"])["assets"]}
    assert {name: first[f"crm.bronze.{name}"] for name in planted.HEALTHY} == dict.fromkeys(planted.HEALTHY, "ok")
    assert {name: first[f"crm.bronze.{name}"] for name in planted.BROKEN} == dict.fromkeys(planted.BROKEN, "failed")
    assert first["crm.silver.broken"] == "failed"
    second = {asset["asset"]: asset["status"] for asset in json.loads(story.answers["second run"])["assets"]}
    assert {name: second[f"crm.bronze.{name}"] for name in ("leaving", "drifting", "narrowing")} == {
        "leaving": "failed",
        "drifting": "failed",
        "narrowing": "failed",
    }
    killed = {name: code for name, code in story.codes.items() if name.startswith("kill at")}
    assert killed == dict.fromkeys(killed, -9)
    assert list((story.workspace.state / "lake").rglob("*quarantine*/**/*.parquet"))
    for name in ("misbehaving mask", "unforeseen"):
        assert story.codes[name] == 1
    assert "the mask of column" in story.printed["misbehaving mask"]
    assert "unexpected error: KeyError" in story.printed["unforeseen"]


def test_the_values_are_at_the_source(story: Story) -> None:
    found = {index for _, index in taint.hits(story.workspace.root / "sources/people", planted.planted(), exclude=())}
    whole = len(planted.planted())
    # A number is written in several ways, and the source has one of them.
    assert len(found) > whole - 3 * planted.PEOPLE - 3


def test_f1_no_personal_value_is_in_anything_that_was_written(story: Story) -> None:
    found = taint.hits(story.workspace.root, planted.planted(), torn=True)
    where = sorted({str(file.relative_to(story.workspace.root)) for file, _ in found})
    assert where == []


def test_f1_no_personal_value_was_printed(story: Story) -> None:
    values = planted.planted()
    assert {name for name, text in story.printed.items() if taint.found_in(text, values)} == set()


def test_f14_statistics_of_a_masked_column_are_of_masked_values(story: Story) -> None:
    logs = list((story.workspace.state / "lake/crm/bronze/people/_delta_log").glob("*.json"))
    added = [
        json.loads(action["add"]["stats"])
        for log in logs
        for action in map(json.loads, log.read_text().splitlines())
        if "add" in action
    ]
    assert added
    for statistics in added:
        bounds = [statistics["minValues"], statistics["maxValues"]]
        assert [bound["born"] for bound in bounds] == [1871, 1871]
        assert [bound["initials"] for bound in bounds] == ["***", "***"]
        assert [bound["postcode"] for bound in bounds] == ["9876", "9876"]
        assert not taint.found_in(json.dumps(statistics), planted.planted())


def test_f3_no_secret_is_on_a_command_line_or_in_an_environment(story: Story) -> None:
    assert len(story.processes) > 10
    assert not [seen for seen in story.processes if any(secret in seen for secret in secrets_of(story))]


def test_f3_no_secret_is_in_anything_that_was_written_or_printed(story: Story) -> None:
    secrets = secrets_of(story)
    assert taint.hits(story.workspace.root, secrets, exclude=("sources", "state/secrets"), torn=True) == []
    assert {name for name, text in story.printed.items() if taint.found_in(text, secrets)} == set()


def test_f3_secrets_are_where_they_belong(story: Story) -> None:
    found = taint.hits(story.workspace.state / "secrets", secrets_of(story), exclude=())
    assert sorted(file.name for file, _ in found) == ["masking_key", "till_password"]


def test_nothing_temporary_is_left(story: Story) -> None:
    left = [file for file in (story.workspace.root / "tmp").rglob("*") if file.is_file()]
    assert [os.fspath(file) for file in left] == []


def secrets_of(story: Story) -> list[str]:
    """The values of all secrets."""
    folder = story.workspace.state / "secrets"
    return sorted(file.read_text().strip() for file in folder.rglob("*") if file.is_file())
