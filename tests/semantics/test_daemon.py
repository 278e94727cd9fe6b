"""The same rule with real processes: a daemon, a code server for each of two locations, runs, and PostgreSQL.

What happens is played once, since each run is a process that takes seconds; each test says one thing about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from platform_core.errors import InputsError
from platform_core.plugins.testing_alerts import Received
from tests.semantics.installation import URL, Installation, installed
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1_200)]

SLOW_STEP = """\
import time
from pathlib import Path


def step(context):
    rows = context.inputs["loader.bronze.a"].arrow().select(["id"])
    hold = Path(context.variables["hold"])
    # The inputs were opened before: what is loaded now, this run does not see.
    hold.with_suffix(".reading").touch()
    while hold.exists():
        time.sleep(0.1)
    return rows
"""
FILES = {
    "loader/control/location.yaml": """\
        location: loader
        workstreams:
          - {name: loader, description: Loads., owners: ["team:loader"]}
        """,
    "loader/control/alerts.yaml": """\
        workstream: loader
        rules:
          - {name: all, channels: [teams, ntfy, mail]}
        """,
    "loader/control/connections/shop.yaml": """\
        workstream: loader
        connections:
          - {name: shop, type: sqlite, path: "${env.state}/shop.db"}
        """,
    "loader/control/ingestion/shop.yaml": """\
        workstream: loader
        source: shop
        tables:
          - {object: a, table: a, mode: full, key: [id]}
          - object: b
            table: b
            mode: full
            key: [id]
            expectations:
              - {not_null: name}
        """,
    "maker/control/location.yaml": """\
        location: maker
        workstreams:
          - {name: maker, description: Makes., owners: ["team:maker"]}
        """,
    "maker/control/alerts.yaml": """\
        workstream: maker
        rules:
          - {name: all, channels: [teams, ntfy, mail]}
        """,
    "maker/control/processing/steps.yaml": """\
        workstream: maker
        steps:
          - name: both
            layer: silver
            kind: sql
            sql: sql/both.sql
            depends_on: [loader.bronze.a, loader.bronze.b]
          - name: slow
            layer: silver
            kind: python
            function: maker.slow:step
            depends_on: [loader.bronze.a]
            variables: {hold: HOLD}
        """,
    "maker/control/refresh/board.yaml": """\
        workstream: maker
        dashboards:
          - name: board
            type: page
            shows: [silver.both, silver.slow]
            tables: [{title: Both, table: silver.both}]
        """,
    "maker/sql/both.sql": "SELECT a.id, b.name FROM loader.bronze.a JOIN loader.bronze.b USING (id)\n",
    "maker/slow.py": SLOW_STEP,
}
A, B = dg.AssetKey(["loader", "bronze", "a"]), dg.AssetKey(["loader", "bronze", "b"])
BOTH, SLOW = dg.AssetKey(["maker", "silver", "both"]), dg.AssetKey(["maker", "silver", "slow"])
BOARD = dg.AssetKey(["maker", "dashboard", "board"])


@dataclass
class Moment:
    """What is so at one moment of the story.

    Args:
        builds: how often each asset of location 2 was built.
        current: whether it has seen the newest build of each of its inputs.
        messages: of each channel, in order.
    """

    builds: dict[dg.AssetKey, int]
    current: dict[dg.AssetKey, bool]
    messages: dict[str, list[Received]]


@dataclass
class Story:
    """What happens to the installation, from the first load to a source that is mended."""

    here: Installation
    runs: dict[str, dg.DagsterRun] = field(default_factory=dict)
    moments: dict[str, Moment] = field(default_factory=dict)

    def play(self) -> None:
        self.fill("'x'")
        self._overlap()
        self._mend_check()
        self._lose_source()
        self._mend_source()

    def fill(self, name: str) -> None:
        """New rows in both sources; ``name`` is that of the row of b."""
        self.here.workspace.sql(
            "state/shop.db",
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE IF NOT EXISTS a (id INTEGER PRIMARY KEY, name TEXT)",
            "CREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO a (name) VALUES ('x')",
            f"INSERT INTO b (name) VALUES ({name})",
        )

    def _overlap(self) -> None:
        """While location 2 works, a is loaded again, and b is and fails its blocking check."""
        hold = self.here.workspace.state / "hold"
        hold.touch()
        self.runs["first load"] = self.here.launch("loader")
        self.here.until(hold.with_suffix(".reading").exists, what="the slow step")
        self.here.until(lambda: self.here.builds(BOTH) == 1, what="the quick step")
        self.fill("NULL")
        self.runs["bad load"] = self.here.launch("loader")
        hold.unlink()
        self.here.until(lambda: self.here.builds(SLOW) == 2, what="the slow step, once more")
        self.here.settles()
        self.here.look_for_alerts()
        self._look("b is bad")

    def _mend_check(self) -> None:
        self.here.workspace.sql("state/shop.db", "UPDATE b SET name = 'mended' WHERE name IS NULL")
        self.runs["good load"] = self.here.launch("loader")
        self.here.until(lambda: all(self._current().values()), what="the dashboard")
        self.here.settles()
        self.here.look_for_alerts()
        self._look("all is well")

    def _lose_source(self) -> None:
        """The source of both tables is away; then somebody runs location 2 by hand."""
        shop = self.here.workspace.state / "shop.db"
        shop.rename(shop.with_suffix(".away"))
        self.runs["failed load"] = self.here.launch("loader")
        self.runs["by hand"] = self.here.launch("maker")
        self.here.settles()
        self.here.look_for_alerts()
        self._look("the source is away")

    def _mend_source(self) -> None:
        """The source is back, and somebody runs the failed run again, from failure."""
        shop = self.here.workspace.state / "shop.db"
        shop.with_suffix(".away").rename(shop)
        asked = self.here.requests(SLOW)
        self.runs["run again"] = self.here.run_again(self.runs["failed load"])
        # That what is asked for is built, too, was seen before.
        self.here.until(lambda: self.here.requests(SLOW) > asked, what="a request for the slow step")
        self.here.look_for_alerts()
        self._look("the source is back")

    def _look(self, when: str) -> None:
        self.moments[when] = Moment(
            builds={key: self.here.builds(key) for key in READS},
            current=self._current(),
            messages=self.here.services.received(),
        )

    def _current(self) -> dict[dg.AssetKey, bool]:
        return {key: all(self.here.saw(key, source) for source in sources) for key, sources in READS.items()}


READS = {BOTH: (A, B), SLOW: (A,), BOARD: (BOTH, SLOW)}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("semantics")
    hold = root / "project" / "state" / "hold"
    files = {name: text.replace("HOLD", str(hold)) for name, text in FILES.items()}
    with installed(root, files, postgres=postgres_server) as installation:
        story = Story(installation)
        story.play()
        yield story


def test_a_load_that_ends_while_a_step_works_is_not_lost(story: Story) -> None:
    assert story.runs["first load"].status is DagsterRunStatus.SUCCESS
    assert story.moments["b is bad"].builds[SLOW] == 2
    assert story.moments["b is bad"].current[SLOW]


def test_a_blocking_check_of_another_location_holds_a_step_back(story: Story) -> None:
    assert story.runs["bad load"].status is DagsterRunStatus.FAILURE
    assert story.moments["b is bad"].builds[BOTH] == 1
    assert not story.moments["b is bad"].current[BOTH]


def test_once_the_check_passes_each_is_built_once_more_and_nothing_is_asked_for_ever(story: Story) -> None:
    assert story.runs["good load"].status is DagsterRunStatus.SUCCESS
    before, after = story.moments["b is bad"].builds, story.moments["all is well"].builds
    assert after == {key: times + 1 for key, times in before.items()}
    assert all(story.moments["all is well"].current.values())


def test_nothing_runs_on_the_remains_of_a_failed_load(story: Story) -> None:
    assert story.runs["failed load"].status is DagsterRunStatus.FAILURE
    assert story.moments["the source is away"].builds == story.moments["all is well"].builds


def test_a_run_by_hand_refuses_what_is_left_of_a_failed_load(story: Story) -> None:
    run = story.runs["by hand"]
    assert run.status is DagsterRunStatus.FAILURE
    records = story.here.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    errors = [each.event_log_entry.get_dagster_event().step_failure_data.error for each in records]
    assert len(errors) == 2
    assert all(error is not None and InputsError.__name__ in str(error) for error in errors)


def test_a_run_again_from_failure_mends_and_what_waited_is_asked_for(story: Story) -> None:
    assert story.runs["run again"].status is DagsterRunStatus.SUCCESS
    assert story.runs["run again"].parent_run_id == story.runs["failed load"].run_id


CLOSED = {"teams": "Over", "ntfy": "Over", "mail": "Re"}
"""How the title of a recovery begins: a mail answers in the thread of the first one."""


def named(message: Received) -> str:
    """Its title, without the reference that a mail has there."""
    return message.title.partition(" [")[0]


@pytest.mark.parametrize("channel", CLOSED)
def test_a_failed_check_and_its_recovery_are_one_message_each(story: Story, channel: str) -> None:
    (failed,) = story.moments["b is bad"].messages[channel]
    assert named(failed) == "loader.bronze.b failed"
    assert "blocking check failed: not_null_name" in failed.text
    _, over = story.moments["all is well"].messages[channel]
    assert named(over) == f"{CLOSED[channel]}: loader.bronze.b failed"


@pytest.mark.parametrize("channel", CLOSED)
def test_a_failed_source_is_one_message_that_says_what_it_did(story: Story, channel: str) -> None:
    before, found = (story.moments[when].messages[channel] for when in ("all is well", "the source is away"))
    (message,) = found[len(before) :]
    assert named(message) == "connection loader.shop: 2 tables failed"
    for said in (
        "maker.dashboard.board: data of ",
        "team:loader, team:maker",
        "loader.bronze.a, loader.bronze.b",
    ):
        assert said in message.text
    assert message.links == (f"{URL}/runs/{story.runs['failed load'].run_id}",)


@pytest.mark.parametrize("channel", CLOSED)
def test_the_recovery_of_the_source_says_what_it_closes(story: Story, channel: str) -> None:
    before, found = (story.moments[when].messages[channel] for when in ("the source is away", "the source is back"))
    (message,) = found[len(before) :]
    assert named(message) == f"{CLOSED[channel]}: connection loader.shop: 2 tables failed"
    assert "This closes A-2." in message.text
