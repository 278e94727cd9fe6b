"""FAULTS C14: builds of one dbt project that meet, and readers beside them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from platform_core.errors import LeaseError, StepError
from platform_core.operations.dbt import build
from platform_core.operations.dbt_lease import MODE, leased_build
from platform_core.operations.dbt_manifest import read_manifest
from platform_core.operations.dbt_warehouse import Built, Publisher
from platform_core.specs.table import TableRef
from tests.dbt.conftest import SALES, Teams

ROWS = 20_000
WIDE, BUILDS = "model.sales.wide", "model.sales.builds"

BUILD = """
from pathlib import Path
from tests.dbt.conftest import SALES, Teams
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import read_manifest

teams = Teams(Path({root!r}), None)
project = teams.project(SALES)
manifest = read_manifest(SALES, folder=project.folder)
result = build(project, manifest=manifest, models={models!r}, tests=(), platform=teams.platform(), run_id={run!r})
assert result.failures == (), result.failures
"""


class Readers(threading.Thread):
    """Reads a published table again and again, until told to stop."""

    def __init__(self, teams: Teams) -> None:
        super().__init__(daemon=True)
        self.teams = teams
        self.enough = threading.Event()
        self.seen: list[tuple[int, frozenset[str]]] = []

    def run(self) -> None:
        while not self.enough.is_set():
            self.look()

    def look(self) -> None:
        reader = self.teams.reader("gold.wide")
        if reader is not None:
            table = reader.read().read_all()
            self.seen.append((table.num_rows, frozenset(table["build"].unique().to_pylist())))


@pytest.mark.slow
def test_c14_builds_in_two_processes_follow_each_other_and_readers_see_whole_builds_only(teams: Teams) -> None:
    readers = Readers(teams)
    readers.start()
    models = [WIDE, BUILDS]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD.format(root=str(teams.root), models=models, run=f"run-{number}")],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [worker.communicate()[1] for worker in workers]
    readers.enough.set()
    readers.join()
    readers.look()

    assert [worker.returncode for worker in workers] == [0, 0], said
    # Each has added its row to the incremental model: neither build was lost, or met the other half-way.
    assert len(teams.rows("gold.builds")) == 2
    assert (teams.version("gold.wide"), teams.version("gold.builds")) == (1, 1)
    assert {rows for rows, _ in readers.seen} == {ROWS}
    assert {len(builds) for _, builds in readers.seen} == {1}
    second, first = teams.platform().loads.recent(table=TableRef("shop", "dbt", "sales"), limit=2)
    assert {first.run_id, second.run_id} == {"run-0", "run-1"}
    assert [(row.mode, row.status) for row in (first, second)] == [(MODE, "succeeded")] * 2
    assert first.finished_at is not None
    assert first.finished_at <= second.started_at


def test_c14_a_build_waits_for_the_one_under_way_wherever_that_is(teams: Teams) -> None:
    platform, project = teams.platform(), teams.project(SALES)
    models = read_manifest(SALES, folder=project.folder).models
    order: list[str] = []
    asked = threading.Event()
    log = logging.getLogger("test_builds")
    log.setLevel(logging.INFO)

    def heard(record: logging.LogRecord) -> bool:
        if "waiting for" in record.getMessage():
            asked.set()
        return True

    log.addFilter(heard)

    def second() -> None:
        # Another installation has a state folder, and so locks, of its own; they share the control database.
        elsewhere = replace(teams.platform(), log=log)
        with leased_build(project, models=models, platform=elsewhere, run_id="second") as ticket:
            order.append("second")
            ticket.finish(status="succeeded", figures={})

    with leased_build(project, models=models, platform=platform, run_id="first") as ticket:
        thread = threading.Thread(target=second)
        thread.start()
        try:
            assert asked.wait(60)
        finally:
            order.append("first")
            ticket.finish(status="succeeded", figures={})
    thread.join()
    assert order == ["first", "second"]


def test_c14_a_build_that_was_overtaken_publishes_nothing(teams: Teams) -> None:
    platform = teams.platform()
    teams.put("gold.overtaken", {"id": [1]})
    manifest = read_manifest(SALES, folder=teams.project(SALES).folder)
    model = next(model for model in manifest.models if model.unique_id == WIDE)
    model = replace(model, ref=TableRef("shop", "gold", "overtaken"))

    class Rows(Built):
        def __init__(self, number: int) -> None:
            self.number = number

        def columns(self) -> dict[tuple[str, str], dict[str, str]]:
            return {}

        def rows(self, relation: tuple[str, str]) -> pa.RecordBatchReader:
            return pa.table({"id": [self.number]}).to_reader()

    Publisher(platform, batch=9).publish(model, model.relation, Rows(9))
    with pytest.raises(LeaseError, match=r"shop.gold.overtaken: not published, because a later build has done so"):
        Publisher(platform, batch=8).publish(model, model.relation, Rows(8))
    assert teams.rows("gold.overtaken") == [{"id": 9}]


def test_a_build_of_which_a_part_failed_stands_as_failed_in_the_log(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    failed = {WIDE: {"status": "error", "execution_time": 0.1, "message": "Catalog Error: no such thing"}}
    monkeypatch.setattr("platform_core.operations.dbt.run_build", lambda *_, **__: failed)
    platform = teams.platform()
    result = build(project, manifest=manifest, models=[WIDE], tests=(), platform=platform, run_id="half")
    assert result.models == {}
    [row] = platform.loads.recent(table=TableRef("shop", "dbt", "sales"), limit=1)
    assert (row.run_id, row.status) == ("half", "failed")
    assert "shop.gold.wide: error" in (row.error or "")


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_full_refresh_is_dbts_own(teams: Teams, monkeypatch: pytest.MonkeyPatch, full_refresh: bool) -> None:
    asked: list[str] = []

    def run(_: object, arguments: list[str], **__: object) -> None:
        asked.extend(arguments)
        raise StepError("far enough")

    monkeypatch.setattr("platform_core.operations.dbt.run_build", run)
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    with pytest.raises(StepError, match="far enough"):
        build(
            project,
            manifest=manifest,
            models=[BUILDS],
            tests=(),
            platform=teams.platform(),
            full_refresh=full_refresh,
        )
    assert ("--full-refresh" in asked) is full_refresh
    assert "fqn:sales.marts.builds" in asked
