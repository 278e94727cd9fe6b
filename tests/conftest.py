"""Fixtures of all tests: the project, a fresh state folder, and the demo played once."""

import datetime as dt
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from tests.forked import run_forked, start_dbt

PROJECT = Path(__file__).parents[1]
pytest_plugins = ["tests.services.fixtures", "tests.side_by_side"]
# Before anything imports it: failed comparisons of the suites for plug-ins are then explained.
pytest.register_assert_rewrite("platform_core.plugins.testing")

# The same examples everywhere: what a new draw finds belongs to whoever looks for it (`make explore`), and does not
# stop somebody else's change.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("explore", derandomize=False, deadline=None, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

Edp = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Day:
    """The lake as one day of the demo left it.

    Args:
        lake: a copy of the lake root.
        started: when `edp demo` was started for that day, UTC.
        ended: when it returned.
        output: what it printed.
    """

    lake: Path
    started: dt.datetime
    ended: dt.datetime
    output: str


@dataclass(frozen=True)
class Demo:
    """Both days of the demo, played in a fresh state folder.

    Args:
        state: the state folder, as day two left it.
        days: by number.
    """

    state: Path
    days: dict[int, Day]


def environment(state: Path, **more: str) -> dict[str, str]:
    """Environment variables for a process of this project that keeps its state in a folder of the test's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
    return inherited | {
        "EDP_PROJECT": str(PROJECT),
        "EDP_STATE": str(state),
        "EDP_DAGSTER_STATE": str(state / "dagster"),
        "DAGSTER_HOME": str(PROJECT / "dagster_home"),
        "DO_NOT_TRACK": "1",
        **more,
    }


def run_edp(*arguments: str, state: Path, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `edp` in a process that is started for it alone."""
    return subprocess.run(
        [sys.executable, "-m", "platform_core.cli", *arguments],
        env=environment(state, **more),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def edp(tmp_path: Path) -> Edp:
    """`edp` with a fresh state folder of this test."""

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run_forked(arguments, env=environment(tmp_path / "state", **more), cwd=PROJECT, timeout=240)

    return call


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's two days, played once for all tests that look at what it left."""
    folder = tmp_path_factory.mktemp("demo")
    state = folder / "state"
    assert run_edp("setup", state=state).returncode == 0
    days = {}
    for day in (1, 2):
        started = dt.datetime.now(dt.UTC)
        result = run_edp("demo", "--until", str(day), state=state)
        ended = dt.datetime.now(dt.UTC)
        assert result.returncode == 0, result.stdout + result.stderr
        copy = folder / f"day{day}"
        shutil.copytree(state / "lake", copy)
        days[day] = Day(copy, started, ended, result.stdout)
    return Demo(state, days)


@pytest.fixture(scope="module")
def dbt_in_forks() -> Iterator[None]:
    """The dbt processes of a module's tests are forks: most of what a small build takes is imports.

    What a process of a test's own starts is started plainly, and so is what is to be proven of the start itself.
    """
    # As the two modules see it, and nobody else.
    like = SimpleNamespace(**{**vars(subprocess), "Popen": start_dbt})
    with pytest.MonkeyPatch.context() as patch:
        for module in ("dbt_project", "dbt_run"):
            patch.setattr(f"platform_core.operations.{module}.subprocess", like)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without looking for garbage: what this makes lives as long as the process, and is not looked at
    again afterwards.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Look at all again, for extension modules tell at the end of what nobody has let go of."""
    gc.unfreeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="Write the browser tests' pictures to docs/images.")
    parser.addoption("--update-golden", action="store_true", help="Rewrite what the golden scenarios expect.")
