import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from tests.execution.graphs import PRELOADED, REPOSITORY_ROOT, reconstructable
from tests.execution.run_worker import execute_one_run


@pytest.fixture(scope="session", autouse=True)
def graphs_importable_in_child_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY_ROOT)
        patch.setenv("PYTHONPATH", str(REPOSITORY_ROOT))
        yield


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One for all tests: they look at runs by id, and creating an instance takes most of a second."""
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def execute(instance: dg.DagsterInstance) -> Callable[..., dg.JobExecutionResult]:
    def execute(graph: str, executor: str = "threaded", **options) -> dg.JobExecutionResult:
        return dg.execute_job(reconstructable(graph, executor), instance=instance, **options)

    return execute


class RunWorker:
    """A run in a process of its own, to send signals to."""

    def __init__(self, process: BaseProcess, markers: Path, instance: dg.DagsterInstance, run_id: str):
        self.process = process
        self._markers = markers
        self._instance = instance
        self._run_id = run_id

    def wait_for(self, marker: str) -> str:
        """What a step wrote into its marker file, once it is there."""
        deadline = time.monotonic() + 60
        while not (self._markers / marker).exists():
            assert self.process.is_alive(), "the run ended before its step began"
            assert time.monotonic() < deadline, f"no {marker} within a minute"
            time.sleep(0.02)
        return (self._markers / marker).read_text()

    def ask_dagster_to_cancel(self) -> None:
        """What the UI does before it sends the signal."""
        self._instance.report_run_canceling(self._run)

    def send(self, signal_number: signal.Signals) -> None:
        os.kill(self.process.pid, signal_number)

    def wait(self, *, within: float) -> float:
        """Seconds until the process has ended."""
        began = time.monotonic()
        self.process.join(within)
        assert not self.process.is_alive(), f"still running after {within:g} s"
        return time.monotonic() - began

    @property
    def _run(self) -> dg.DagsterRun:
        run = self._instance.get_run_by_id(self._run_id)
        assert run is not None
        return run

    @property
    def status(self) -> dg.DagsterRunStatus:
        return self._run.status

    def outcome(self) -> dict[str, list[str]]:
        outcome: dict[str, list[str]] = {}
        for entry in self._instance.all_logs(self._run_id):
            event = entry.dagster_event
            if event and event.step_key and event.is_step_event:
                outcome.setdefault(event.step_key, []).append(event.event_type_value)
        return outcome


@pytest.fixture
def run_worker(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Callable[..., RunWorker]]:
    markers = tmp_path / "markers"
    markers.mkdir()
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(PRELOADED)
    started: list[BaseProcess] = []

    def start(graph: str, executor: str = "threaded") -> RunWorker:
        run_id = str(uuid4())
        process = forkserver.Process(
            target=execute_one_run,
            args=(graph, executor, instance.root_directory, run_id, str(markers), str(tmp_path / "output")),
        )
        process.start()
        started.append(process)
        return RunWorker(process, markers, instance, run_id)

    yield start
    for process in started:
        process.kill()
        process.join()
