"""Two workers share the tests module by module, so that what a module has set up is set up once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.side_by_side import DEAR, LONGEST, group_of

MODULE = """
import os
from pathlib import Path

import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    with Path({told!r}).open("a") as told:
        told.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def test_the_tests_of_a_module_are_run_by_one_worker(tmp_path: Path) -> None:
    names = [f"test_{letter}" for letter in "abcd"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(MODULE.format(told=str(tmp_path / f"{name}.txt")))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.side_by_side"),
            *("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", str(tmp_path)),
        ],
        env=inherited | {"PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    workers = {name: (tmp_path / f"{name}.txt").read_text().split() for name in names}
    assert {name: (len(told), len(set(told))) for name, told in workers.items()} == dict.fromkeys(names, (6, 1))
    assert {told[0] for told in workers.values()} == {"gw0", "gw1"}


def test_modules_that_lean_on_one_dear_fixture_are_one_group() -> None:
    for fixture, modules in DEAR.items():
        assert {group_of(f"{module}::test_it[{module}]") for module in modules} == {fixture}


@pytest.mark.parametrize("module", sorted({*LONGEST} - {*DEAR} | {name for names in DEAR.values() for name in names}))
def test_what_is_named_is_there(module: str) -> None:
    assert (PROJECT / module).is_file()
