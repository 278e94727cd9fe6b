"""Run a notebook as a step: execute a copy of it, take the rows that it hands over, and keep the copy."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from platform_core.errors import PluginError, StepError, StorageError, redacted
from platform_core.operations.notebook_server import Given, StepServer
from platform_core.operations.notebook_wire import ADDRESS_VARIABLE
from platform_core.operations.step_context import StepContext
from platform_core.settings import child_environment
from platform_core.specs.processing import ProcessingSpec

FOLDER = "notebooks"
"""Folder of the state folder that holds executed copies: their output may show rows."""

KEPT = 20
"""Executed copies that are kept of a step, the newest ones."""

_NEEDS = ("papermill", "ipykernel")
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
)
"""What a kernel may know of this process's environment; secrets and settings are not among it."""

_FAREWELL_SECONDS = 15.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Executed:
    """A notebook that is being executed.

    Args:
        rows: what it hands over, which ends well only if the whole notebook does; None: it ended, and made no table.
        copy: the executed notebook, with its output.
    """

    rows: pa.RecordBatchReader | None
    copy: Path


@contextmanager
def executed(
    spec: ProcessingSpec,
    context: StepContext,
    *,
    root: Path,
    state: Path,
    cancelled: Callable[[], bool],
    where: str,
) -> Iterator[Executed]:
    """Execute a step's notebook while its rows are taken; it is ended when the block is left.

    Args:
        spec: of the step.
        context: what the notebook may ask for.
        root: folder that the notebook's path counts from.
        state: local folder of this installation.
        cancelled: true once the run is being cancelled.
        where: the step, for messages.

    Raises:
        StepError: a cell failed, the kernel died, or the notebook cannot be read.
        PluginError: papermill or a kernel is not installed.
        StorageError: there is no room for the copy.
    """
    notebook = _notebook(spec, root=root, where=where)
    _refuse_without(where)
    copy = _place(spec, state=state)
    with StepServer(context, name=str(spec.ref)) as server:
        job = {
            "notebook": str(notebook),
            "executed": str(copy),
            "parameters": dict(spec.variables),
            "folder": str(notebook.parent),
        }
        with _Process(job, root=root, address=server.address, cancelled=cancelled) as process:
            given = server.result(ended=process.has_ended)

            def end() -> None:
                process.finish(copy, where=where)

            if given is None:
                end()
                yield Executed(rows=None, copy=copy)
            else:
                rows = pa.RecordBatchReader.from_batches(given.reader.schema, _rows(given, end, where=where))
                yield Executed(rows=rows, copy=copy)
    _keep_newest(copy.parent)


def _rows(given: Given, end: Callable[[], None], *, where: str) -> Iterator[pa.RecordBatch]:
    """The rows, and after them whatever is wrong with the notebook: none of them are written then."""
    broken = ""
    try:
        yield from given.reader
    except StepError as error:
        broken = str(error)
    given.drained.set()
    # Where the notebook failed, that is what a person wants to read.
    end()
    if broken:
        raise StepError(f"{where}: the notebook's {broken}")


def _notebook(spec: ProcessingSpec, *, root: Path, where: str) -> Path:
    folder = root.resolve()
    path = (folder / str(spec.notebook)).resolve()
    if not path.is_relative_to(folder):
        raise StepError(f"{where}: {spec.notebook} lies outside {folder}\n  keep notebooks in the location's package")
    if not path.is_file():
        raise StepError(f"{where}: there is no notebook {path}")
    return path


def _refuse_without(where: str) -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise PluginError(
            f"{where}: a step of kind notebook needs {' and '.join(missing)}\n"
            "  install the extra 'notebook': edp-platform-core[notebook]"
        )


def _place(spec: ProcessingSpec, *, state: Path) -> Path:
    folder = state.joinpath(FOLDER, *spec.ref)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: no executed notebook can be kept\n  {redacted(error)}") from None
    return folder / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.ipynb"


def _keep_newest(folder: Path) -> None:
    for old in sorted(folder.glob("*.ipynb"))[:-KEPT]:
        old.unlink(missing_ok=True)


class _Process:
    """The process in which papermill runs."""

    def __init__(self, job: dict[str, Any], *, root: Path, address: str, cancelled: Callable[[], bool]) -> None:
        self._job = job
        self._root = root
        self._address = address
        self._cancelled = cancelled
        self._over = threading.Event()
        self._stopped = False

    def __enter__(self) -> _Process:
        packages = [str(self._root.resolve().parent), *(folder for folder in sys.path if folder)]
        own = str(Path(self._address).parent)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "platform_core.operations.notebook_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Libraries write there what they like, rows included; what is told comes by standard output.
            stderr=subprocess.DEVNULL,
            env=child_environment(
                {
                    ADDRESS_VARIABLE: self._address,
                    "PYTHONPATH": os.pathsep.join(dict.fromkeys(packages)),
                    # What a person has set up for Jupyter and IPython, and their histories, are no part of a run.
                    **dict.fromkeys(("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"), own),
                    "JUPYTER_RUNTIME_DIR": str(Path(own) / "runtime"),
                    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                },
                keep=_PASSED_ON,
            ),
        )
        assert self._child.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._child.stdin.write(json.dumps(self._job).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            # It has ended already; `finish` tells.
            self._over.set()
        self._watch = threading.Thread(target=self._end_when_cancelled, name="notebook-watch", daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self._stop()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def has_ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self._child.poll() is not None

    def finish(self, copy: Path, *, where: str) -> None:
        """Wait until the notebook has come to its end.

        Raises:
            StepError: that was not a good one.
        """
        assert self._child.stdout is not None  # noqa: S101 - it was asked for
        said = self._child.stdout.read().strip()
        code = self._child.wait()
        if self._stopped or self._cancelled():
            raise StepError(f"{where}: cancelled; nothing was written")
        if code != 0 or not said:
            raise StepError(f"{where}: the process of the notebook ended with code {code}{_kept(copy)}")
        outcome = json.loads(said)
        if "class" not in outcome:
            return
        name = outcome["class"]
        if "cell" not in outcome:
            raise StepError(f"{where}: the notebook could not be executed: {name}{_kept(copy)}")
        text = outcome["text"] or f"{name} (its text is withheld: it may hold row values)"
        raise StepError(f"{where}: cell [{outcome['cell']}] of the notebook failed\n  {text}{_kept(copy)}")

    def _end_when_cancelled(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if self._child.poll() is not None:
                return
            if self._cancelled():
                self._stopped = True
                self._stop()
                return

    def _stop(self) -> None:
        if self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _kept(copy: Path) -> str:
    return f"\n  see {copy}" if copy.exists() else ""
