"""Scenarios as folders: files of a project, a `script` of commands, and the output that is `expected`.

`pytest tests/scenarios/test_golden.py --update-golden` rewrites what is expected; the diff is then for a person to
judge. In a script, `edp` is the command line of the folder's project, and `sqlite FILE` executes standard input in a
database. Run ids, seconds, sizes and the project's own path are replaced by placeholders.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Workspace

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden"
SCENARIOS = sorted(folder.name for folder in GOLDEN.iterdir())
OF_THE_TEST = ("script", "expected")
COMMANDS = {
    "edp": f'exec "{sys.executable}" -m platform_core.cli "$@"',
    "sqlite": f'exec "{sys.executable}" -c '
    "'import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())' \"$@\"",
}
VARYING = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<run>"),
    (re.compile(r"(?<![\w-])(run|--from-failure) [0-9a-f]{8}\b"), r"\1 <run>"),
    (re.compile(r" +\d+\.\d\d  (?=ok|failed)"), "  <s>  "),
    (re.compile(r'("\w*(?:seconds|bytes)\w*"): [\d.e-]+'), r"\1: <n>"),
    (re.compile(r"\(\d+ migrations\)"), "(<n> migrations)"),
    (re.compile(r"\(Dagster [\d.]+\)"), "(Dagster <version>)"),
    (re.compile(r" +$", re.MULTILINE), ""),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_output_is_as_expected(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = GOLDEN / name
    files = {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and str(file.relative_to(folder)) not in OF_THE_TEST
    }
    output = played((folder / "script").read_text(), Workspace.create(tmp_path / "project", files))
    expected = folder / "expected"
    if request.config.getoption("--update-golden"):
        expected.write_text(output)
    assert output == expected.read_text()


def played(script: str, workspace: Workspace) -> str:
    """Each line of a script, what it wrote, and its exit code where that is not 0."""
    commands = workspace.root / "state" / "commands"
    commands.mkdir(parents=True)
    for name, body in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{body}\n")
        (commands / name).chmod(0o755)
    environment = workspace.environment()
    environment["PATH"] = f"{commands}:{environment['PATH']}"
    parts = []
    for line in script.splitlines():
        parts.append(f"$ {line}\n" if line and not line.startswith("#") else f"{line}\n")
        result = subprocess.run(
            ["sh", "-c", line],
            env=environment,
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        parts.append(result.stdout)
        if result.returncode:
            parts.append(f"[exit {result.returncode}]\n")
    text = "".join(parts).replace(str(workspace.root), "<project>")
    for pattern, placeholder in VARYING:
        text = pattern.sub(placeholder, text)
    return text
