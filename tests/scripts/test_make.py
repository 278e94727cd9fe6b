"""What a newcomer meets first: the list of commands, and clear words where something is missing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
_TOOLS = ("sh", "echo", "awk", "cat", "mkdir", "rm", "make", "mv")


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without Python and uv."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in _TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    return {"PATH": str(tools), "HOME": str(tmp_path)}


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A fresh copy of what `make setup` starts from, in a folder whose name has a space."""
    folder = tmp_path / "a project"
    (folder / "scripts").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "uv.lock", "scripts/install"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def _run(*command: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _fake_python(folder: Path, release: str) -> str:
    """An interpreter that claims another release."""
    file = folder / f"python{release}"
    major, minor = release.split(".")
    file.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = ({major}, {minor}, 0); $2"\n'
    )
    file.chmod(0o755)
    return str(file)


def test_make_alone_lists_every_command(fresh, bare) -> None:
    done = _run("make", cwd=fresh, env=bare)

    declared = re.search(r"^\.PHONY: (help .+)$", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  ([a-z-]+) +\w", done.stdout, flags=re.MULTILINE)
    assert sorted([*listed, "install"]) == sorted(declared[1].split())


def test_a_machine_without_python_is_told_which_one_is_needed(fresh, bare) -> None:
    done = _run("make", "setup", cwd=fresh, env=bare)

    assert done.returncode != 0
    assert done.stderr.startswith("this project needs Python 3.11, 3.12 or 3.13; found: no python3 in PATH\n")
    assert "python3-venv" in done.stderr


@pytest.mark.parametrize("release", ["3.10", "3.14"])
def test_a_python_of_another_release_is_refused(fresh, bare, tmp_path, release) -> None:
    done = _run("make", "setup", f"PYTHON={_fake_python(tmp_path, release)}", cwd=fresh, env=bare)

    assert done.returncode != 0
    assert "is not a Python of version 3.11, 3.12 or 3.13" in done.stderr


def test_what_uv_says_about_a_failed_installation_is_shown(fresh, bare, tmp_path) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = --version ] && echo uv 99.0.0 && exit\necho "no such package" >&2\nexit 1\n')
    uv.chmod(0o755)

    done = _run("make", "setup", f"PYTHON={sys.executable}", cwd=fresh, env=bare)

    assert done.returncode != 0
    assert "no such package\nthe environment could not be installed" in done.stderr
    assert not (fresh / ".venv" / ".synced").exists()


def _ui(port: object, state: Path) -> subprocess.CompletedProcess[str]:
    script = str(PROJECT / "scripts" / "ui.py")
    return _run(sys.executable, script, str(port), cwd=PROJECT, env={**os.environ, "EDP_STATE": str(state)})


def test_a_taken_port_is_named_with_the_way_out(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = _ui(port, tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(f"port {port} cannot be used: ")
    assert f"make ui PORT={port + 1}" in done.stderr


def test_a_port_that_is_no_number_is_refused(tmp_path) -> None:
    done = _ui("http", tmp_path)

    assert (done.returncode, done.stderr) == (1, "PORT=http is not a port number\n")


def test_a_second_ui_over_the_same_state_is_refused_with_the_first_one_s_address(tmp_path) -> None:
    with (tmp_path / "ui.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write("http://127.0.0.1:3000")
        first.flush()

        done = _ui(0xC0DE, tmp_path)

    assert (done.returncode, done.stderr) == (1, "the UI is running already: http://127.0.0.1:3000\n")


def test_ci_runs_what_a_laptop_runs() -> None:
    commands = [line for line in (PROJECT / ".ci/run").read_text().splitlines() if line.startswith("make ")]

    assert commands == ["make check", "make test"]
    assert os.access(PROJECT / ".ci/run", os.X_OK)
