"""Runs over several locations: what is selected, in which order it runs, what is skipped, what finishes the rest."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest

from platform_core.errors import ConfigError, PlatformError
from platform_core.execution.locations import LoadedLocation, WorkspaceGraph, dotted, load_location
from platform_core.execution.outcomes import Status, WorkspaceOutcome
from platform_core.execution.workspace import Work, WorkspaceRunner

MODULE = """\
from pathlib import Path

import dagster as dg

from platform_core.errors import SourceError
from platform_core.execution import threaded_executor

GRAPH = {graph!r}


def asset(name, deps):
    @dg.asset(key=name.split("."), deps=[dep.split(".") for dep in deps])
    def body():
        if Path({folder!r}, name).exists():
            raise SourceError(name + " is broken")

    return body


@dg.definitions
def defs():
    assets = [asset(name, deps) for name, deps in GRAPH.items()]
    streams = sorted({{name.split(".")[0] for name in GRAPH}})
    jobs = [dg.define_asset_job(name, dg.AssetSelection.key_prefixes(name)) for name in streams]
    return dg.Definitions(assets, jobs=jobs, executor=threaded_executor)
"""
RIDES = {
    "rides.bronze.trips": [],
    "rides.bronze.docks": [],
    "rides.silver.trips": ["rides.bronze.trips"],
    "rides.gold.reach": ["crm.silver.riders"],
}
CRM = {
    "crm.bronze.riders": [],
    "crm.silver.riders": ["crm.bronze.riders", "rides.silver.trips"],
}
EVERYTHING = {*RIDES, *CRM}

Locate = Callable[..., LoadedLocation]


@pytest.fixture
def locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locate]:
    """Makes a location whose assets fail while a file of their name is in the folder `broken`."""
    (tmp_path / "broken").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = []

    def make(name: str, graph: dict[str, list[str]]) -> LoadedLocation:
        module = f"{name}_of_{tmp_path.name}"
        made.append(module)
        sys.modules.pop(module, None)
        (tmp_path / f"{module}.py").write_text(MODULE.format(graph=graph, folder=str(tmp_path / "broken")))
        importlib.invalidate_caches()
        return load_location(name, module, folder=tmp_path)

    yield make
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def graph(locate: Locate) -> WorkspaceGraph:
    return WorkspaceGraph([locate("rides", RIDES), locate("crm", CRM)])


@pytest.fixture
def own_instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def runner(locate: Locate, own_instance: dg.DagsterInstance) -> WorkspaceRunner:
    return WorkspaceRunner([locate("rides", RIDES), locate("crm", CRM)], instance=own_instance)


@pytest.fixture
def break_(tmp_path: Path) -> Callable[[str], Path]:
    """Lets an asset fail until the returned file is gone."""

    def make(name: str) -> Path:
        file = tmp_path / "broken" / name
        file.touch()
        return file

    return make


def execute(runner: WorkspaceRunner, work: Work) -> WorkspaceOutcome:
    return runner.execute(work, progress=lambda _: None)


def statuses(outcome: WorkspaceOutcome) -> dict[str, str]:
    return {dotted(key): asset.status.value for key, asset in outcome.assets.items()}


def ran(outcome: WorkspaceOutcome) -> list[set[str]]:
    """The assets of each run, in the order of the runs."""
    return [
        {dotted(key) for key, asset in outcome.assets.items() if asset.run_id == run.run_id} for run in outcome.runs
    ]


@pytest.mark.parametrize(
    ("selections", "expected"),
    [
        ([], EVERYTHING),
        (["crm"], set(CRM)),
        (["rides.bronze"], {"rides.bronze.trips", "rides.bronze.docks"}),
        (["crm.bronze.riders"], {"crm.bronze.riders"}),
        (
            ["+crm.silver.riders"],
            {"crm.silver.riders", "crm.bronze.riders", "rides.silver.trips", "rides.bronze.trips"},
        ),
        (["rides.silver.trips+"], {"rides.silver.trips", "crm.silver.riders", "rides.gold.reach"}),
        (["+crm.bronze+"], {"crm.bronze.riders", "crm.silver.riders", "rides.gold.reach"}),
        (["crm.bronze", "rides.bronze.docks"], {"crm.bronze.riders", "rides.bronze.docks"}),
        (['key:"rides/bronze/*"'], {"rides.bronze.trips", "rides.bronze.docks"}),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_a_selection_names_assets_of_all_locations(
    graph: WorkspaceGraph, selections: list[str], expected: set[str]
) -> None:
    assert {dotted(key) for key in graph.select(selections)} == expected


def test_every_selection_that_names_nothing_is_told_with_a_suggestion(graph: WorkspaceGraph) -> None:
    with pytest.raises(ConfigError) as caught:
        graph.select(["rides.bronze.trip", "crm", "ride", "kind:("])
    assert str(caught.value) == dedent("""\
        kind:(: selects nothing
          known workstreams: crm, rides
          `edp list` shows what is declared
        ride: selects nothing
          known workstreams: crm, rides
          did you mean 'rides'?
        rides.bronze.trip: selects nothing
          known workstreams: crm, rides
          did you mean 'rides.bronze.trips'?""")


def test_a_part_of_a_name_selects_nothing(graph: WorkspaceGraph) -> None:
    with pytest.raises(ConfigError, match="selects nothing"):
        graph.select(["rides.bronze.trips.more"])


def test_each_run_holds_what_can_run_next_of_one_workstream(runner: WorkspaceRunner) -> None:
    outcome = execute(runner, runner.plan())
    assert ran(outcome) == [
        {"rides.bronze.trips", "rides.bronze.docks", "rides.silver.trips"},
        {"crm.bronze.riders", "crm.silver.riders"},
        {"rides.gold.reach"},
    ]
    assert outcome.succeeded


def test_an_input_that_is_not_selected_is_not_waited_for(runner: WorkspaceRunner) -> None:
    assert ran(execute(runner, runner.plan(["crm"]))) == [set(CRM)]


def test_a_cycle_across_locations_is_told_instead_of_waited_for(
    locate: Locate, own_instance: dg.DagsterInstance
) -> None:
    locations = [locate("rides", {"rides.gold.a": ["crm.gold.b"]}), locate("crm", {"crm.gold.b": ["rides.gold.a"]})]
    runner = WorkspaceRunner(locations, instance=own_instance)
    with pytest.raises(PlatformError, match=r"wait for each other across locations: crm\.gold\.b, rides\.gold\.a"):
        execute(runner, runner.plan())


def test_a_failure_skips_what_is_made_from_it_in_every_location_and_nothing_else(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    break_("rides.bronze.trips")
    outcome = execute(runner, runner.plan())
    assert statuses(outcome) == {
        "rides.bronze.trips": "failed",
        "rides.bronze.docks": "ok",
        "rides.silver.trips": "skipped",
        "rides.gold.reach": "skipped",
        "crm.bronze.riders": "ok",
        "crm.silver.riders": "skipped",
    }
    assert not outcome.succeeded


def test_the_message_of_a_failure_is_the_platforms_own_without_wrapping(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    break_("crm.bronze.riders")
    outcome = execute(runner, runner.plan(["crm.bronze"]))
    assert [asset.error for asset in outcome.assets.values()] == ["crm.bronze.riders is broken"]


def test_progress_is_told_of_every_asset_to_its_end(runner: WorkspaceRunner, break_: Callable[[str], Path]) -> None:
    break_("rides.bronze.trips")
    told: dict[str, Status] = {}
    runner.execute(runner.plan(), progress=lambda asset: told.update({dotted(asset.key): asset.status}))
    assert {name: status.value for name, status in told.items()} == statuses(execute(runner, runner.plan()))


def test_the_rest_of_a_call_is_what_failed_was_skipped_or_never_began(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    mended = break_("rides.bronze.trips")
    execute(runner, runner.plan())
    mended.unlink()
    work = runner.plan_rest()
    assert {dotted(key) for key in work.keys} == {
        "rides.bronze.trips",
        "rides.silver.trips",
        "crm.silver.riders",
        "rides.gold.reach",
    }
    outcome = execute(runner, work)
    assert ran(outcome) == [
        {"rides.bronze.trips", "rides.silver.trips"},
        {"crm.silver.riders"},
        {"rides.gold.reach"},
    ]
    assert outcome.succeeded


def test_a_rest_can_be_finished_bit_by_bit(runner: WorkspaceRunner, break_: Callable[[str], Path]) -> None:
    first, second = break_("rides.bronze.trips"), break_("crm.bronze.riders")
    execute(runner, runner.plan())
    first.unlink()
    assert statuses(execute(runner, runner.plan_rest())) == {
        "rides.bronze.trips": "ok",
        "rides.silver.trips": "ok",
        "crm.bronze.riders": "failed",
        "crm.silver.riders": "skipped",
        "rides.gold.reach": "skipped",
    }
    second.unlink()
    assert set(statuses(execute(runner, runner.plan_rest())).items()) == {
        ("crm.bronze.riders", "ok"),
        ("crm.silver.riders", "ok"),
        ("rides.gold.reach", "ok"),
    }
    assert runner.plan_rest().keys == frozenset()


def test_a_selection_is_kept_to_when_its_rest_is_finished(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    mended = break_("rides.bronze.trips")
    execute(runner, runner.plan(["+crm.silver.riders"]))
    mended.unlink()
    assert {dotted(key) for key in runner.plan_rest().keys} == {
        "rides.bronze.trips",
        "rides.silver.trips",
        "crm.silver.riders",
    }


def test_any_run_of_the_call_leads_to_its_rest_by_its_first_letters(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    break_("rides.bronze.trips")
    runs = execute(runner, runner.plan()).runs
    assert len(runs) == 2
    assert {frozenset(runner.plan_rest(run.run_id[:8]).keys) for run in runs} == {runner.plan_rest().keys}


def test_where_nothing_failed_there_is_no_rest(runner: WorkspaceRunner) -> None:
    run = execute(runner, runner.plan(["rides.bronze"])).runs[0]
    assert runner.plan_rest().keys == runner.plan_rest(run.run_id).keys == frozenset()
    assert execute(runner, runner.plan_rest()).succeeded


def test_of_a_run_that_was_started_elsewhere_only_its_own_rest_is_done(
    runner: WorkspaceRunner, break_: Callable[[str], Path]
) -> None:
    mended = break_("rides.bronze.trips")
    execute(runner, Work(keys=runner.plan().keys, tags={}))
    mended.unlink()
    outcome = execute(runner, runner.plan_rest())
    assert ran(outcome) == [{"rides.bronze.trips", "rides.silver.trips"}]
    assert runner.plan_rest(outcome.runs[0].run_id).keys == frozenset()


def test_an_unknown_run_is_told(runner: WorkspaceRunner) -> None:
    with pytest.raises(PlatformError, match="no run begins with '0123'\n  give the id"):
        runner.plan_rest("0123")


def test_a_run_that_has_not_ended_is_not_finished_by_another(
    runner: WorkspaceRunner, own_instance: dg.DagsterInstance
) -> None:
    run_id = execute(runner, runner.plan(["crm.bronze"])).runs[0].run_id
    run = own_instance.get_run_by_id(run_id)
    assert run is not None
    own_instance.add_run(run._replace(run_id="still-running", status=dg.DagsterRunStatus.STARTED))
    with pytest.raises(PlatformError, match="has not ended, it is STARTED\n  wait for it"):
        runner.plan_rest("still-running")


def test_what_is_no_longer_declared_cannot_be_finished(
    runner: WorkspaceRunner, locate: Locate, break_: Callable[[str], Path], own_instance: dg.DagsterInstance
) -> None:
    break_("crm.bronze.riders")
    execute(runner, runner.plan(["crm"]))
    smaller = WorkspaceRunner([locate("crm", {"crm.silver.riders": []})], instance=own_instance)
    with pytest.raises(PlatformError, match=r"no longer declared\n  crm\.bronze\.riders\n  `edp run` builds"):
        smaller.plan_rest()
