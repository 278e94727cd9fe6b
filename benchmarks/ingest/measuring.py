"""Runs one piece of work in a process of its own, and watches its time and memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MOST_MEGABYTES = 12_000
MOST_SECONDS = 1_200
_LOOK_SECONDS = 0.04
_ENDING_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one piece of work took.

    Args:
        seconds: wall time of the work, without the start of the interpreter and imports.
        processor: seconds of processor time of the process, its children and all its threads.
        megabytes: peak resident memory of the process and its children, all counted whole.
        phases: seconds by phase, where the work tells them.
        figures: what the work says it did.
        ended: why it did not finish; empty where it did.
        wrong: what was found wrong in its result; empty: it is right.
    """

    seconds: float = 0.0
    processor: float = 0.0
    megabytes: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    ended: str = ""
    wrong: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measured(
    work: Mapping[str, Any], *, python: str, secrets: Mapping[str, str], worker: str = "benchmarks.ingest.worker"
) -> Taken:
    """Let a worker do one piece of work.

    Args:
        work: what is asked of it, as plain JSON.
        python: interpreter of the worker.
        secrets: environment variables that it gets.
        worker: its module.
    """
    from tests.services.server_process import end_with_parent

    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder) / "answer.json", Path(folder) / "stderr"
        asked = Path(folder) / "work.json"
        asked.write_text(json.dumps(work))
        with asked.open() as into, said.open("w") as out:
            process = subprocess.Popen(
                [python, "-m", worker, str(answer)],
                cwd=ROOT,
                stdin=into,
                stdout=subprocess.DEVNULL,
                stderr=out,
                env={**os.environ, **secrets, "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"},
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )
            try:
                megabytes, ended = _watch(process)
            finally:
                _end_rest(process)
        if ended:
            return Taken(megabytes=megabytes, ended=ended)
        if process.returncode or not answer.exists():
            text = said.read_text(errors="replace").strip()
            print(text[-3000:], file=sys.stderr)
            last = text.splitlines()[-1:] or [""]
            return Taken(megabytes=megabytes, ended=f"failed with {process.returncode}: {last[0][:200]}")
        told = json.loads(answer.read_text())
        told["megabytes"] = max(told["megabytes"], megabytes)
        return Taken(**told)


def _watch(process: subprocess.Popen[bytes]) -> tuple[float, str]:
    """Peak megabytes of a process and its children, and why it was ended, where it was."""
    began = time.monotonic()
    most = 0.0
    while process.poll() is None:
        now = sum(_resident(pid) for pid in _family(process.pid))
        most = max(most, now)
        ended = ""
        if now > MOST_MEGABYTES:
            ended = f"ended when it passed {MOST_MEGABYTES // 1000} GB"
        elif time.monotonic() - began > MOST_SECONDS:
            ended = f"ended after {MOST_SECONDS // 60} minutes"
        if ended:
            return most, ended
        time.sleep(_LOOK_SECONDS)
    return most, ""


def _end_rest(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started, and wait for all of it: whoever lives on may write into folders that are
    about to be removed."""
    until = time.monotonic() + _ENDING_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        # A group lasts until the last of it is waited for: by us, or by whoever inherits it.
        process.poll()
        time.sleep(_LOOK_SECONDS)
    process.wait()


def _family(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        found.append(parent)
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                waiting += [int(child) for child in tasks.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def own_peak() -> float:
    """Most megabytes that this process held so far; not ``ru_maxrss``, which begins with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 / 1_000_000 for line in status.splitlines() if line.startswith("VmHWM:"))
