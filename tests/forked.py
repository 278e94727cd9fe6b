"""Python programs in forks of one process that has imported what `edp` and its tests need, or what dbt does.

Starting Python and importing Dagster, pyarrow and SQLAlchemy takes most of what a short program takes. A fork is a
process of its own as well, with its own variables, folder and streams, that ends as a process ends; but it shows the
command line of the process that it comes from. What is to be proven of the start itself is started plainly.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TextIO

PROJECT = Path(__file__).parents[1]
EDP = "platform_core.cli.__main__"
DBT = "platform_core.operations.dbt_process"
IMPORTED_FOR_DBT = (
    "babel.dates",
    "dbt.adapters.duckdb.impl",
    "dbt.cli.main",
    "dbt.parser.sql",
    "dbt.task.build",
    "dbt_common.clients.agate_helper",
    "deltalake",
    "duckdb",
    "platform_core.engines.dbt_lake",
    "platform_core.engines.dbt_spark",
    DBT,
)
IMPORTED = (
    "adbc_driver_manager",
    "alembic.command",
    "dagster._cli",
    "dagster._cli.job",
    "deltalake.transaction",
    "duckdb",
    "platform_core.cli.apply",
    "platform_core.cli.check",
    "platform_core.cli.ddl",
    "platform_core.cli.demo",
    "platform_core.cli.ingest",
    "platform_core.cli.keys",
    "platform_core.cli.list",
    "platform_core.cli.run",
    "platform_core.cli.secrets",
    "platform_core.cli.setup",
    "platform_core.control.plan.applying",
    "platform_core.control.plan.planning",
    "platform_core.control.plan.rendering",
    "platform_core.definitions",
    "platform_core.engines.local",
    "platform_core.execution.instance",
    "platform_core.lake.history",
    "platform_core.masks.keyed_hash",
    "platform_core.operations.ddl",
    "platform_core.operations.doctor",
    "platform_core.operations.ingest",
    "platform_core.operations.prune",
    "platform_core.operations.refresh",
    "platform_core.sources.files",
    "platform_core.sources.sqlite",
    "polars_hash",
    "psycopg",
    "pyarrow.dataset",
    "pyarrow.fs",
    "pyarrow.parquet",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlglot.dialects.duckdb",
)
_LENGTH = 8
_MOST_STREAMS = 8
_PR_SET_PDEATHSIG = 1


class Forked:
    """A program that was started; used as `subprocess.Popen` is.

    Args:
        stderr: may be the same stream as ``stdout``; then it is not for :meth:`communicate`.
    """

    def __init__(self, line: socket.socket, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> None:
        self._line = line
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.pid = _number(line)
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.wait()

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        try:
            return self.wait(timeout=0.001)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; negative: the signal that ended it."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = _number(self._line)
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and give all that it wrote to both streams."""
        texts = ["", ""]

        def read(at: int, stream: TextIO) -> None:
            texts[at] = stream.read()

        streams = (self.stdout, self.stderr)
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in enumerate(streams)]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            # Until the last process that inherited a stream has closed it.
            for reader in readers:
                reader.join(timeout)
            self.close()
        return texts[0], texts[1]

    def close(self) -> None:
        """Close its streams."""
        for stream in (self.stdin, self.stdout, self.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                # What it was told last it did not live to read.
                continue


class Nursery:
    """The process that forks."""

    def __init__(self, *imported: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno()), *imported],
                cwd=PROJECT,
                env={name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # No terminal, as in a program whose output is read.
                stdout=subprocess.DEVNULL,
            )
        self._line = ours
        self._turn = threading.Lock()
        atexit.register(self.close)

    def start(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        code: str | None,
        module: str | None,
        as_one: bool = False,
        kept: Sequence[int] = (),
    ) -> Forked:
        """Fork a program: a module, or code as `python -c` runs it.

        Args:
            as_one: what it complains goes where its output goes.
            kept: descriptors that it holds as long as it lives; there their numbers are others.
        """
        read_in, stdin = os.pipe()
        stdout, write_out = os.pipe()
        stderr, write_err = (stdout, write_out) if as_one else os.pipe()
        asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd), "code": code, "module": module}
        ours = self.begin(asked, streams=[read_in, write_out, write_err, *kept])
        for inherited in {read_in, write_out, write_err}:
            os.close(inherited)
        out = _text(stdout)
        return Forked(ours, _text(stdin, "w"), out, out if as_one else _text(stderr))

    def begin(self, asked: Mapping[str, Any], *, streams: Sequence[int]) -> socket.socket:
        """Fork a program that reads and writes these streams; the line tells its number, and at last how it ended."""
        ours, theirs = socket.socketpair()
        body = json.dumps(asked).encode()
        with theirs, self._turn:
            socket.send_fds(self._line, [len(body).to_bytes(_LENGTH)], [theirs.fileno(), *streams])
            self._line.sendall(body)
        return ours

    def close(self) -> None:
        """End the process, and all that it has forked."""
        self._line.close()
        self._process.wait(timeout=30)


def _text(descriptor: int, mode: Literal["r", "w"] = "r") -> TextIO:
    return os.fdopen(descriptor, mode, encoding="utf-8", errors="replace")


@cache
def _nursery() -> Nursery:
    return Nursery(*IMPORTED)


@cache
def _nursery_of_dbt() -> Nursery:
    return Nursery(*IMPORTED_FOR_DBT)


def start_forked(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    code: str | None = None,
    module: str | None = None,
) -> Forked:
    """Start `edp`, another module, or code, as `subprocess.Popen` would, without waiting for its imports.

    Args:
        arguments: of the program.
        env: all variables of the process.
        cwd: its folder.
    """
    return _nursery().start(arguments, env=env, cwd=cwd, code=code, module=module or (None if code else EDP))


def run_forked(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout: float,
    code: str | None = None,
    module: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same, as `subprocess.run`: with nothing to read, and to its end."""
    process = start_forked(arguments, env=env, cwd=cwd, code=code, module=module)
    process.stdin.close()
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(list(arguments), process.wait(), stdout, stderr)


def start_dbt(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
    text: bool,
    errors: str,
    pass_fds: Sequence[int] = (),
) -> Forked:
    """In place of `subprocess.Popen` where the platform starts dbt, and for nothing else.

    Raises:
        ValueError: it is started in another way than a fork imitates.
    """
    head, arguments = tuple(command[:3]), command[3:]
    asked = (head, stdin, stdout, stderr, text, errors)
    known = (sys.executable, "-m", DBT), subprocess.PIPE, subprocess.PIPE, subprocess.STDOUT, True, "replace"
    if asked != known:
        raise ValueError(f"dbt is started as {asked}, and a fork is like {known}")
    return _nursery_of_dbt().start(arguments, env=env, cwd=cwd, code=None, module=DBT, as_one=True, kept=pass_fds)


def run_with_streams(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, streams: Sequence[int]) -> int:
    """Run `edp` on open files, as a shell would start it, to its end; returns how it ended.

    Args:
        streams: what it reads, what it writes, and where it complains.
    """
    asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd), "code": None, "module": EDP}
    with _nursery().begin(asked, streams=streams) as line:
        _number(line)
        return _number(line)


def _number(line: socket.socket) -> int:
    return int.from_bytes(_received(line, _LENGTH), signed=True)


def _received(line: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        if not (part := line.recv(count - len(parts))):
            raise EOFError("the other end is gone")
        parts += part
    return parts


# What follows runs in the process that forks, and in its forks.


def serve(line: socket.socket) -> dict[str, Any]:
    """Fork for each program that is asked for; only the forks return, each with its own."""
    if threading.active_count() != 1:
        raise RuntimeError(f"{threading.active_count()} threads before the first fork")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        head, (told, *streams), _, _ = (
            socket.recv_fds(line, _LENGTH, _MOST_STREAMS) if _awaited(line) else (b"", [0], 0, "")
        )
        if not head:
            os._exit(0)
        asked: dict[str, Any] = json.loads(_received(line, int.from_bytes(head)))
        if os.fork() == 0:
            line.close()
            _end_with_parent()
            return _wait_for_child(asked, socket.socket(fileno=told), streams)
        for each in (told, *streams):
            os.close(each)


def _awaited(line: socket.socket) -> bool:
    return bool(line.recv(1, socket.MSG_PEEK))


def _wait_for_child(asked: dict[str, Any], told: socket.socket, streams: Sequence[int]) -> dict[str, Any]:
    """Fork once more: whoever has nothing else to do can wait for the end, and tell of it at once."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        told.close()
        _end_with_parent()
        for number, stream in enumerate(streams[:3]):
            os.dup2(stream, number)
            os.close(stream)
        return asked
    for stream in streams:
        os.close(stream)
    told.sendall(child.to_bytes(_LENGTH))
    _, status = os.waitpid(child, 0)
    try:
        told.sendall(os.waitstatus_to_exitcode(status).to_bytes(_LENGTH, signed=True))
    except BrokenPipeError:
        # Nobody asks any more.
        os._exit(0)
    os._exit(0)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def become(asked: Mapping[str, Any], *, path: Sequence[str]) -> None:
    """Be the program: its variables, folder, path of modules and main module."""
    os.environ.clear()
    os.environ.update(asked["env"])
    # The C library has read the zone of the process that this is a fork of.
    time.tzset()
    os.chdir(asked["cwd"])
    tempfile.tempdir = None
    added = [part for part in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = ["" if asked["code"] else asked["cwd"], *added, *path]
    sys.dont_write_bytecode = bool(asked["env"].get("PYTHONDONTWRITEBYTECODE"))
    importlib.invalidate_caches()
    # Processes of multiprocessing that are started from this one import its main module once more.
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if asked["code"] is not None:
        sys.argv = ["-c", *asked["arguments"]]
        exec(compile(asked["code"], "<string>", "exec"), main.__dict__)
        return
    main.__spec__ = found = find_spec(asked["module"])
    if found is None or found.origin is None or found.loader is None:
        raise ImportError(f"no module {asked['module']}")
    main.__file__ = found.origin
    sys.argv = [found.origin, *asked["arguments"]]
    exec(compile(Path(found.origin).read_bytes(), found.origin, "exec"), main.__dict__)


def end(code: object) -> NoReturn:
    """End as the interpreter does, save that it does not take down module by module what was imported."""
    if isinstance(code, str):
        sys.stderr.write(code + "\n")
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> NoReturn:
    """Import, serve, and in a fork be what was asked for."""
    inherited = {part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part}
    path = [part for part in sys.path if part not in (str(Path.cwd()), *inherited)]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # Else the first collection in a fork would touch, and so copy, all that was imported.
    gc.freeze()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        become(asked, path=path)
    except SystemExit as exit_:
        end(exit_.code)
    except BaseException:  # noqa: BLE001 - as the interpreter shows what a program ends in
        traceback.print_exc()
        end(1)
    end(None)


if __name__ == "__main__":
    main()
