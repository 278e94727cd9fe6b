"""What a call asks of its runs reaches every one of them, in every location, and those that finish it later."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from platform_core.execution.locations import load_location
from platform_core.execution.workspace import WorkspaceRunner

MODULE = """\
from pathlib import Path

import dagster as dg

from platform_core.execution import threaded_executor

FOLDER = Path({folder!r})


class Platform(dg.ConfigurableResource):
    full_refresh: bool = False


def asset(name, deps):
    @dg.asset(key=[{stream!r}, "silver", name], deps=deps)
    def body(platform: Platform):
        if (FOLDER / "broken").exists() and name == "second":
            raise RuntimeError
        with (FOLDER / "told").open("a") as file:
            print({stream!r}, name, platform.full_refresh, file=file)

    return body


@dg.definitions
def defs():
    assets = [asset("first", {deps!r}), asset("second", [[{stream!r}, "silver", "first"]])]
    jobs = [dg.define_asset_job({stream!r}, dg.AssetSelection.all())]
    return dg.Definitions(assets, jobs=jobs, resources={{"platform": Platform()}}, executor=threaded_executor)
"""
ASKED = {"resources": {"platform": {"config": {"full_refresh": True}}}}


@pytest.fixture
def runner(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceRunner]:
    """Two locations of two assets each, the one's made from the other's."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, locations = [], []
    for stream, deps in (("rides", []), ("crm", [["rides", "silver", "second"]])):
        module = f"{stream}_config_of_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(MODULE.format(folder=str(tmp_path), stream=stream, deps=deps))
        modules.append(module)
    importlib.invalidate_caches()
    locations = [load_location(module.split("_")[0], module, folder=tmp_path) for module in modules]
    yield WorkspaceRunner(locations, instance=instance)
    for module in modules:
        sys.modules.pop(module, None)


def test_what_is_asked_for_reaches_all_runs_and_those_that_finish_the_rest(
    runner: WorkspaceRunner, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    begun = runner.execute(runner.plan(run_config=ASKED), progress=lambda _: None)
    assert not begun.succeeded
    (tmp_path / "broken").unlink()
    rest = runner.plan_rest(begun.runs[0].run_id)
    assert runner.execute(rest, progress=lambda _: None).succeeded
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["rides first True", "rides second True", "crm first True", "crm second True"]


def test_nothing_is_asked_of_an_ordinary_run(runner: WorkspaceRunner, tmp_path: Path) -> None:
    runner.execute(runner.plan(), progress=lambda _: None)
    assert {line.split()[-1] for line in (tmp_path / "told").read_text().splitlines()} == {"False"}
