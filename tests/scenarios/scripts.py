"""Plays a script of commands in a project, line by line, as a person would type it.

`edp` is a program on the PATH that hands its arguments and streams to a fork of a process that has imported it
already: pipes, redirections and exit codes are those of the shell, and no line waits for Python's start.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.forked import run_with_streams
from tests.scenarios.workspaces import Workspace

SECONDS = 120
_EDP = """\
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({socket!r})
asked = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(line, [len(asked).to_bytes(8)], [0, 1, 2])
line.sendall(asked)
code = int.from_bytes(line.recv(8), signed=True)
os._exit(code if code >= 0 else 128 - code)
"""
_SQLITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())"
VARYING = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<run>"),
    (re.compile(r"(?<![\w-])(run|--from-failure) [0-9a-f]{8}\b"), r"\1 <run>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "<commit>"),
    (re.compile(r"\b[0-9a-f]{12}(-dirty)?(?=  )"), r"<commit>\1    "),
    (re.compile(r"(?<=plan `)[0-9a-f]{12}\b"), "<digest>"),
    (re.compile(r" +\d+\.\d\d  (?=ok|failed)"), "  <s>  "),
    (re.compile(r'("\w*(?:seconds|bytes)\w*"): [\d.e-]+'), r"\1: <n>"),
    (re.compile(r"\b[\d,]+ ms\b"), "<n> ms"),
    (re.compile(r"[\d.,]+ [MG]B of [\d.,]+ [MG]B free \(\d+%\)"), "<n> GB of <n> GB free (<n>%)"),
    (re.compile(r"(?<=  )\d+\.\d$", re.MULTILINE), "<s>"),
    (re.compile(r"sqlite:///\S*?/(staging|prod)\.db|postgresql\+psycopg://[\w@.:]+/test_\w+"), "<control>"),
    (re.compile(r"\(\d+ migrations\)"), "(<n> migrations)"),
    (re.compile(r"\(Dagster [\d.]+\)"), "(Dagster <version>)"),
    (re.compile(r"(?<=installed: )control \(for control database\), "), ""),
    (re.compile(r"(?<=edp-platform-core )[\d.]+(, \S+ [\d.]+)+"), "<versions>"),
    (re.compile(r"SQLite file <project>/state/\S+?\.db|PostgreSQL database \w+ on [\d.:]+"), "<control database>"),
]
"""What differs from one run to the next, and what stands in its place."""


@dataclass
class Script:
    """A project in which lines are played.

    Args:
        variables: that commands find beside those of the project.
        commands: further programs on the PATH, by name: Python that is run with the line's arguments.
    """

    workspace: Workspace
    variables: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)

    def play(self, text: str) -> str:
        """Each line, what it wrote, and its exit code where that is not 0."""
        with tempfile.TemporaryDirectory(prefix="edp-") as folder, _serving(Path(folder) / "edp") as address:
            programs = {"edp": _EDP.format(socket=str(address)), "sqlite": _SQLITE, **self.commands}
            for name, body in programs.items():
                self._install(Path(folder) / "bin" / name, body)
            environment = self.workspace.environment(**self.variables)
            environment["PATH"] = f"{folder}/bin:{environment['PATH']}"
            return "".join(self._line(line, environment) for line in text.splitlines())

    def _install(self, program: Path, body: str) -> None:
        program.parent.mkdir(exist_ok=True)
        script = program.parent.with_name(f"{program.name}.py")
        script.write_text(body)
        # Nothing that is installed is needed to hand a call over.
        isolated = "-S " if program.name == "edp" else ""
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I {isolated}"{script}" "$@"\n')
        program.chmod(0o755)

    def _line(self, line: str, environment: Mapping[str, str]) -> str:
        said = f"$ {line}\n" if line and not line.startswith("#") else f"{line}\n"
        result = subprocess.run(
            ["sh", "-c", line],
            env=environment,
            cwd=self.workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        ended = f"[exit {result.returncode}]\n" if result.returncode else ""
        return said + result.stdout + ended


def settled(text: str, *, project: Path, began: dt.datetime) -> str:
    """The output with placeholders for what differs from one run to the next; of times those since it began."""
    days = "|".join(f"{began + dt.timedelta(days):%Y-%m-%d}" for days in (0, 1))
    # Examples in messages are not to be taken for today on the day that they name.
    text = text.replace(str(project), "<project>").replace("-- expires: 2026-12-31", "-- expires: <a day>")
    text = re.sub(rf"({days})[ T]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00| UTC)?", _placeholder, text)
    text = re.sub(rf"({days})", "<today>", text)
    for later in (45, 46):
        text = text.replace(f"{began + dt.timedelta(later):%Y-%m-%d}", "<in 45 days>")
    for pattern, placeholder in VARYING:
        text = pattern.sub(placeholder, text)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def _placeholder(found: re.Match[str]) -> str:
    # In a table the columns behind it stay where they are.
    return "<time>".ljust(len(found[0])) if found.string[found.end() :].startswith("  ") else "<time>"


@contextmanager
def _serving(address: Path) -> Iterator[Path]:
    """Runs `edp` for whoever connects, one call after another."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = threading.Thread(target=_serve, args=(listener,), daemon=True)
        server.start()
        try:
            yield address
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join(SECONDS)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            line, _ = listener.accept()
        except OSError:
            # It was shut down: the script has ended.
            return
        # A pipe has several calls at a time.
        threading.Thread(target=_run, args=(line,), daemon=True).start()


def _run(line: socket.socket) -> None:
    with line:
        head, streams, _, _ = socket.recv_fds(line, 8, 3)
        length, body = int.from_bytes(head), b""
        while len(body) < length:
            body += line.recv(length - len(body))
        arguments, environment, folder = json.loads(body)
        try:
            code = run_with_streams(arguments, env=environment, cwd=Path(folder), streams=streams)
        finally:
            for stream in streams:
                os.close(stream)
        line.sendall(code.to_bytes(8, signed=True))
