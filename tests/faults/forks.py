"""A process that has everything imported and no thread yet: each job runs in a fork of it, and may be killed there."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.loading import RESULT, Job, Report

PROJECT = Path(__file__).parents[2]
LONGEST_SECONDS = 120.0
PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class End:
    """How a process ended, or that it stopped.

    Args:
        how: ``exit``, ``signal``, ``stopped`` or ``late``: still running after two minutes, and killed for it.
        number: exit code or signal.
        seconds: how long it ran until then.
    """

    pid: int
    how: str
    number: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.how == "signal" and self.number == signal.SIGKILL

    @property
    def stopped(self) -> bool:
        return self.how == "stopped"


class Forks:
    """The process from which jobs are forked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, job: Job) -> End:
        """Run a job until its process ends or stops itself."""
        Path(job.folder, RESULT).unlink(missing_ok=True)
        return self._ask({"start": job.as_json()})

    def done(self, job: Job) -> Report:
        """Run a job that nothing is to disturb."""
        end = self.start(job)
        report = self.report(job)
        if end.how != "exit" or report is None or report.error:
            raise AssertionError(f"{job} ended by {end}:\n{report and report.error}")
        return report

    def resume(self, pid: int) -> End:
        """Let a stopped process go on, to its end."""
        return self._ask({"resume": pid})

    def send(self, pid: int, number: int) -> None:
        """Send a signal to a stopped process."""
        os.kill(pid, number)

    def report(self, job: Job) -> Report | None:
        """What a job's process said; None where it did not live to say it."""
        path = Path(job.folder, RESULT)
        return Report(**json.loads(path.read_text())) if path.exists() else None

    def _ask(self, command: dict[str, object]) -> End:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the process that forks has ended with {self._process.wait()}")
        return End(**json.loads(line))


@contextmanager
def forking(errors: Path) -> Iterator[Forks]:
    """The process that forks; it ends with the block, and its children with it.

    Args:
        errors: file for what the processes write on standard error.
    """
    with errors.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
        )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise AssertionError(errors.read_text())
        yield Forks(process)
    finally:
        process.kill()
        process.communicate()


def serve() -> None:
    """Fork a child for each job that comes in on standard input."""
    import_everything()
    # Allocators of libraries have idle threads of their own, which a fork does not miss.
    if threading.active_count() != 1:
        raise AssertionError(f"{threading.active_count()} threads before the first fork")
    answers = os.fdopen(os.dup(1), "w")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        command = json.loads(line)
        began = time.monotonic()
        kill_at = None
        if "start" in command:
            job = Job(**json.loads(command["start"]))
            pid = os.fork()
            if pid == 0:
                _child(job)
            kill_at = None if job.kill_after is None else began + job.kill_after
        else:
            pid = command["resume"]
            os.kill(pid, signal.SIGCONT)
        how, number = _end_of(pid, began, kill_at)
        end = {"pid": pid, "how": how, "number": number, "seconds": time.monotonic() - began}
        answers.write(json.dumps(end) + "\n")
        answers.flush()


def _end_of(pid: int, began: float, kill_at: float | None) -> tuple[str, int]:
    late = False
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        now = time.monotonic()
        if found == pid:
            if os.WIFSTOPPED(status):
                return "stopped", os.WSTOPSIG(status)
            if late:
                return "late", 0
            return ("signal", os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ("exit", os.WEXITSTATUS(status))
        late = late or now - began > LONGEST_SECONDS
        if late or (kill_at is not None and now >= kill_at):
            os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _child(job: Job) -> None:
    from tests.faults.loading import run, write_report

    code = 1
    try:
        # As a step's own process does (execution/isolated.py, which needs Dagster): no child outlives its parent.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        write_report(job, run(job))
        code = 0
    finally:
        # Nothing of the parent's is to be run again at the end of the child.
        os._exit(code)


def import_everything() -> None:
    """Import what a load needs, so that a fork need not."""
    import adbc_driver_manager  # noqa: F401
    import deltalake
    import deltalake.transaction  # noqa: F401
    import duckdb  # noqa: F401
    import polars_hash  # noqa: F401
    import pyarrow.dataset
    import pyarrow.fs
    import pyarrow.parquet  # noqa: F401
    import sqlglot.dialects.duckdb  # noqa: F401

    import platform_core.lake.attempt
    import platform_core.lake.history
    import platform_core.lake.prefetch
    import platform_core.masks.keyed_hash
    import platform_core.operations.ingest  # noqa: F401
    from tests.faults.loading import open_platform_in

    # SQLAlchemy looks at its own functions when it first connects, which takes longer than a load.
    with tempfile.TemporaryDirectory() as folder:
        platform = open_platform_in(Path(folder))
        platform.loads.recent()
        platform.loads.close()


if __name__ == "__main__":
    serve()
