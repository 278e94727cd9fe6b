"""Of applies at the same time one after the other gets through, and none undoes another."""

from __future__ import annotations

import json
import threading

import pytest

from platform_core.errors import PlanError
from tests.control_plane.conftest import Project

_PROCESSES = 4


def test_of_processes_that_apply_one_plan_at_once_one_does(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    applied.write("plan.json", applied.plan().as_json())
    answers = applied.worker().ask(f"race {_PROCESSES} apply")
    assert [answer["serial"] for answer in answers if "serial" in answer] == [2]
    refused = [answer["refused"] for answer in answers if "refused" in answer]
    assert len(refused) == _PROCESSES - 1
    assert all("locked by" in each or "have moved" in each for each in refused)


def test_no_update_is_lost_among_applies_that_plan_again_when_refused(
    project: Project, request: pytest.FixtureRequest
) -> None:
    """Threads that each bring one location's description on, step by step: every step must be in history."""
    applies: int = request.config.getoption("--applies")
    project.apply()
    each = max(1, applies // 2)
    refused: list[str] = []
    failed: list[BaseException] = []

    def work(location: str) -> None:
        file = project.folder / location / "control/location.yaml"
        text = file.read_text()
        try:
            for number in range(each):
                file.write_text(f"{text}description: step {number}\n")
                while True:
                    try:
                        project.apply(project.plan(location))
                        break
                    except PlanError as error:
                        refused.append(str(error))
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    workers = [threading.Thread(target=work, args=(location,)) for location in ("crm", "finance")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    assert all("locked by" in text or "have moved" in text for text in refused)
    for location in ("crm", "finance"):
        steps = project.sql(
            "SELECT serial, content FROM control.history WHERE kind = 'location' AND location = :location ORDER BY id",
            location=location,
        )
        found = [json.loads(content) if isinstance(content, str) else content for _, content in steps]
        assert [content["description"] for content in found] == ["", *(f"step {number}" for number in range(each))]
    serials = [serial for (serial,) in project.sql("SELECT serial FROM control.applies ORDER BY serial")]
    assert serials == list(range(1, 2 * each + 2))
