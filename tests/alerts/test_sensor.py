"""The sensor of a location, from runs in a Dagster instance to a phone: once, whatever happens in between."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from platform_core.definitions import build_definitions
from platform_core.errors import ControlError, DeletesStopped, Unclassified
from platform_core.factories import alerts as sensor
from platform_core.factories.alerts import Cursor, alert_sensor_name, opened_outbox
from platform_core.settings import Settings
from platform_core.specs.alerts import AlertEvent
from tests.alerts.company import CANARY, Company


def test_a_failure_and_its_recovery_reach_the_phone_once_each(company: Company) -> None:
    company.run()
    run_id = company.run("orders")
    for _ in range(3):
        company.tick()
    company.run()
    for _ in range(3):
        company.tick()
    failure, recovery = company.seen()
    assert failure.title == "crm.bronze.orders failed"
    assert "source erp does not answer" in failure.text
    assert "Not run because of it: 2: crm.dashboard.sales, crm.silver.orders" in failure.text
    assert "crm.dashboard.sales: data of 2026-11-18" in failure.text
    assert "team:crm" in failure.text
    assert failure.links == (f"https://dagster.example.com/runs/{run_id}",)
    assert recovery.title == "Over: crm.bronze.orders failed"
    assert "A-1" in recovery.text


def test_the_text_of_an_error_that_is_not_ours_is_withheld(company: Company) -> None:
    company.run("silver")
    company.tick()
    (seen,) = company.seen()
    assert CANARY not in seen.text
    assert "ValueError (its text is withheld" in seen.text
    assert not any(CANARY in str(step) for step in opened_outbox(company.settings).steps(limit=10))


def test_a_tick_without_a_database_loses_nothing(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.run("orders")

    def away(_: Settings) -> Any:
        raise ControlError("control database: away")

    with monkeypatch.context() as patch, pytest.raises(ControlError):
        patch.setattr(sensor, "opened_outbox", away)
        company.tick()
    company.tick()
    assert [seen.title for seen in company.seen()] == ["crm.bronze.orders failed"]


def test_a_tick_whose_cursor_was_lost_tells_nothing_twice(company: Company) -> None:
    before = company.cursor
    company.run("orders")
    company.tick()
    company.cursor = before
    company.tick()
    assert len(company.seen()) == 1


def test_the_cursor_moves_past_what_has_settled(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.run("orders")
    company.tick()
    assert Cursor.read(company.cursor).after == {"PIPELINE_SUCCESS": 0, "PIPELINE_FAILURE": 0, "PIPELINE_CANCELED": 0}
    monkeypatch.setattr(sensor, "SETTLED", dt.timedelta(0))
    company.tick()
    assert Cursor.read(company.cursor).after["PIPELINE_FAILURE"] > 0


def test_what_ran_before_anybody_watched_is_not_told(company: Company) -> None:
    company.run("orders")
    company.cursor = ""
    company.tick()
    assert not company.seen()


def test_a_failure_that_another_run_has_mended_meanwhile_is_not_told(company: Company) -> None:
    company.run("orders")
    company.run()
    company.tick()
    assert not company.seen()


def test_a_run_that_is_retried_is_told_by_what_its_retry_comes_to(company: Company) -> None:
    waiting = company.run("orders", tags={WILL_RETRY_TAG: "true"})
    company.tick()
    assert not company.seen()
    company.instance.add_run_tags(waiting, {AUTO_RETRY_RUN_ID_TAG: "another"})
    company.tick()
    assert not company.seen()
    company.run("orders", tags={WILL_RETRY_TAG: "false"})
    company.tick()
    assert len(company.seen()) == 1


def test_a_retry_that_never_came_is_told_after_a_while(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.run("orders", tags={WILL_RETRY_TAG: "true"})
    monkeypatch.setattr(sensor, "RETRY_PATIENCE", dt.timedelta(0))
    company.tick()
    assert len(company.seen()) == 1


def test_runs_of_another_location_are_not_its_business(company: Company) -> None:
    company.manifest = company.manifest.model_copy(
        update={"location": company.manifest.location.model_copy(update={"workstreams": ()})}
    )
    company.run("orders")
    company.tick()
    assert not company.seen()


def test_the_log_of_steps_says_how_each_went(company: Company) -> None:
    run_id = company.run("silver", tags={"edp/serial": "12"})
    company.tick()
    rows = {row.step: row for row in opened_outbox(company.settings).steps(limit=10, run_id=run_id)}
    good, bad = rows["crm__bronze__orders"], rows["crm__silver__orders"]
    assert (good.status, good.workstream, good.layer, good.name, good.serial) == (
        "success",
        "crm",
        "bronze",
        "orders",
        12,
    )
    assert good.started_at is not None
    assert good.ended_at is not None
    assert good.started_at <= good.ended_at
    assert (bad.status, bad.error_class) == ("failure", "ValueError")
    assert "crm__dashboard__sales" not in rows


@pytest.mark.parametrize(
    ("error", "event", "title"),
    [
        (
            DeletesStopped("crm.bronze.orders: would flag 900 of 1,000 rows", deletes=900, current=1_000),
            AlertEvent.DELETE_STOP,
            "crm.bronze.orders: load stopped, it would have flagged too many rows deleted",
        ),
        (
            Unclassified("crm.bronze.orders: orders has columns that are new: email"),
            AlertEvent.PRIVACY,
            "crm.bronze.orders: load refused, a new column is not classified",
        ),
    ],
    ids=["delete_stop", "privacy"],
)
def test_the_class_of_an_error_makes_its_event(
    company: Company, error: Exception, event: AlertEvent, title: str
) -> None:
    company.error = lambda: error
    company.run("orders")
    company.tick()
    (alert,) = opened_outbox(company.settings).open_alerts()
    assert (alert.event, [seen.title for seen in company.seen()]) == (event, [title])


def test_what_refused_its_inputs_waits_for_who_tells_why(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.run("sales")
    company.tick()
    assert not company.seen()
    monkeypatch.setattr(sensor, "CAUSE_PATIENCE", dt.timedelta(0))
    company.tick()
    assert [seen.title for seen in company.seen()] == ["crm.dashboard.sales failed"]


def test_what_refused_its_inputs_says_nothing_once_the_reason_is_told(company: Company) -> None:
    company.run("sales")
    company.tick()
    company.run("orders")
    for _ in range(2):
        company.tick()
    assert [seen.title for seen in company.seen()] == ["crm.bronze.orders failed"]


def test_a_location_has_the_sensor_where_the_environment_tells_people(company: Company) -> None:
    definitions = build_definitions(company.folder / "crm" / "control", settings=company.settings)
    found = definitions.resolve_sensor_def(alert_sensor_name("crm"))
    context = dg.build_sensor_context(
        instance=company.instance, repository_def=definitions.get_repository_def(), sensor_name=found.name
    )
    told = found(context)
    assert isinstance(told, dg.SkipReason)
    assert told.skip_message == "0 runs seen; no message is due"
    assert Cursor.read(context.cursor).began > 0
