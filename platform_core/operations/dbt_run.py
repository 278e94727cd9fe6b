"""Run dbt as a child process over a project, to its end or until the run is cancelled."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from platform_core.errors import StepError
from platform_core.operations.dbt_log import failure_text, result_text
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.platform import Platform

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10
_MOST_LINES = 10_000


def run_build(
    project: DbtProject,
    arguments: Sequence[str],
    *,
    lock: int,
    platform: Platform,
    deferred: str | None,
    variables: Mapping[str, str],
) -> dict[str, Mapping[str, Any]]:
    """Run ``dbt build`` to its end.

    Args:
        arguments: dbt's own, behind the verb.
        lock: descriptor that the child holds as long as it lives.
        deferred: as of :meth:`DbtProject.environment`.
        variables: further environment variables.

    Returns:
        The entries of ``run_results.json`` by unique id.

    Raises:
        StepError: dbt did not run to its end, or the run was cancelled.
    """
    process = subprocess.Popen(  # noqa: S603 - our interpreter, no shell
        project.command("build", *arguments, target=project.target),
        cwd=project.folder,
        env={**project.environment(platform.lake, secrets=platform.secrets, deferred=deferred), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    output = _Output(process)
    said: deque[str] = deque(maxlen=_MOST_LINES)
    try:
        for line in output:
            if platform.cancelled():
                raise StepError(f"dbt project {project.name}: cancelled; nothing was published")
            if line is None:
                continue
            said.append(line)
            if text := result_text(line):
                platform.log.info(text)
        process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        output.close()
    path = project.target / "run_results.json"
    # 0: all good; 1: some model or test failed; anything else, and dbt did not get through.
    if process.returncode not in (0, 1) or not path.is_file():
        raise StepError(
            f"dbt project {project.name}: {failure_text(said)}\n  exit code {process.returncode}; nothing was published"
        )
    return {result["unique_id"]: result for result in json.loads(path.read_bytes())["results"]}


class _Output:
    """Lines as a process prints them, and None whenever it has been silent for a moment."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, name="dbt-output", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str | None]:
        while self._thread.is_alive() or not self._lines.empty():
            try:
                yield self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None

    def close(self) -> None:
        """Let go of the pipes; the process has ended."""
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process to stop, and stop it if it does not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
