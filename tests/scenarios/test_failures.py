"""A source that is missing: what is loaded, what is skipped, and what re-execution from failure builds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Ran, Workspace

pytestmark = pytest.mark.slow

UNHARMED = {"city.bronze.stations", "city.silver.places", "shop.bronze.sales"}
DEPENDENT = {"city.silver.heat", "city.dashboard.warm", "shop.gold.by_heat"}
PAGE = "state/lake/city/dashboard/warm/index.html"


@dataclass(frozen=True)
class Story:
    """Runs of a project, one after the other, and its dashboard page after each.

    Args:
        failed: with a source missing, after everything had been loaded once.
        in_vain: finished from failure while the source was still missing.
        finished: finished from failure with the source back.
        again: finished from failure once more.
        pages: the page before, and after failed, in_vain and finished.
    """

    workspace: Workspace
    failed: Ran
    in_vain: Ran
    finished: Ran
    again: Ran
    pages: tuple[bytes, ...]


@pytest.fixture(scope="module")
def story(city_and_shop: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Story:
    workspace = city_and_shop(tmp_path_factory.mktemp("project"))
    page = workspace.root / PAGE
    first = workspace.run()
    assert first.code == 0, first.process
    pages = [page.read_bytes()]

    readings, elsewhere = workspace.root / "sources/readings", workspace.root / "elsewhere"
    readings.rename(elsewhere)
    failed = workspace.run()
    pages.append(page.read_bytes())
    in_vain = workspace.run("--from-failure", "last")
    pages.append(page.read_bytes())
    elsewhere.rename(readings)
    finished = workspace.run("--from-failure", failed.answer["runs"][0]["run_id"][:8])
    pages.append(page.read_bytes())
    return Story(workspace, failed, in_vain, finished, workspace.run("--from-failure", "last"), tuple(pages))


def test_all_other_tables_are_loaded_and_dependents_skipped_in_both_locations(story: Story) -> None:
    assert story.failed.statuses == {
        "city.bronze.readings": "failed",
        **dict.fromkeys(UNHARMED, "ok"),
        **dict.fromkeys(DEPENDENT, "skipped"),
    }


def test_the_run_is_failed_and_so_is_the_command(story: Story) -> None:
    assert story.failed.code == 1
    assert {run["job"]: run["status"] for run in story.failed.answer["runs"]} == {"city": "FAILURE", "shop": "SUCCESS"}


def test_the_message_names_the_table_and_what_to_do(story: Story) -> None:
    root = story.workspace.root / "state/../sources/readings"
    assert story.failed.errors == {
        "city.bronze.readings": f"files: root {root} is not a folder\n  correct the connection's 'root'"
    }
    run_id = story.failed.answer["runs"][0]["run_id"][:8]
    assert story.failed.process.stderr == (
        f"run {run_id} of city ended FAILURE\n"
        f"  once the cause is mended, finish the rest: edp run --from-failure {run_id}\n"
    )


def test_the_dashboard_is_left_as_it_was(story: Story) -> None:
    before, failed, in_vain, _ = story.pages
    assert before == failed == in_vain


def test_finishing_while_the_source_is_missing_fails_again_and_touches_nothing_else(story: Story) -> None:
    assert story.in_vain.code == 1
    assert story.in_vain.statuses == {"city.bronze.readings": "failed", **dict.fromkeys(DEPENDENT, "skipped")}


def test_once_the_source_is_back_the_rest_is_built_in_both_locations_and_nothing_else(story: Story) -> None:
    assert story.finished.code == 0
    assert story.finished.statuses == dict.fromkeys({"city.bronze.readings", *DEPENDENT}, "ok")
    assert [run["job"] for run in story.finished.answer["runs"]] == ["city", "shop"]


def test_the_dashboard_is_then_refreshed(story: Story) -> None:
    *_, in_vain, finished = story.pages
    assert finished != in_vain


def test_when_all_is_finished_there_is_nothing_to_do(story: Story) -> None:
    assert story.again.code == 0
    assert story.again.answer == {"succeeded": True, "runs": [], "assets": []}


def test_a_finishing_run_is_recorded_as_a_re_execution_of_the_failed_one(story: Story) -> None:
    failed, in_vain, finished = (
        ran.answer["runs"][0]["run_id"] for ran in (story.failed, story.in_vain, story.finished)
    )
    with closing(sqlite3.connect(story.workspace.state / "dagster/history/runs.db")) as connection:
        parents = dict(
            connection.execute("select run_id, value from run_tags where key = 'dagster/parent_run_id'").fetchall()
        )
    assert parents == {in_vain: failed, finished: in_vain}
