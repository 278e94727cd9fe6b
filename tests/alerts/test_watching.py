"""What should have happened and did not: late workstreams and tables, stale dashboards; and what was applied."""

from __future__ import annotations

import datetime as dt
import json

import sqlalchemy as sa

from platform_core.control.store.tables import applies, history
from platform_core.factories.alerts import opened_outbox
from platform_core.specs.alerts import AlertEvent
from platform_core.specs.expectation import ExpectationSpec
from platform_core.specs.ingestion import IngestionSpec, LoadMode
from platform_core.specs.processing import ProcessingSpec, StepKind
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef
from tests.alerts.company import Company


def test_a_workstream_that_no_run_has_built_in_time_is_late_until_one_has(company: Company) -> None:
    cursor = json.loads(company.cursor)
    company.cursor = json.dumps(cursor | {"began": cursor["began"] - 86_400})
    for _ in range(2):
        company.tick()
    (late,) = company.seen()
    assert late.title == "crm is late"
    company.run()
    for _ in range(2):
        company.tick()
    assert [seen.title for seen in company.seen()] == ["crm is late", "Over: crm is late"]


def test_an_apply_that_changes_the_location_is_told_once(company: Company) -> None:
    rule = company.manifest.alerts[0].model_copy(update={"events": (AlertEvent.DEPLOY,)})
    company.manifest = company.manifest.model_copy(update={"alerts": (rule,)})
    company.tick()
    database = opened_outbox(company.settings).database
    now = dt.datetime.now(dt.UTC)
    common = {"git_commit": None, "author": "anna", "applied_at": now, "origin": "git"}

    def apply(connection: sa.Connection) -> None:
        one = {"serial": 1, "plan": "p", "token": "t", "release": "1.2.3", "created": 1, "changed": 0, "deleted": 0}
        connection.execute(applies.insert().values(**common, **one))
        row = {"serial": 1, "kind": "ingestion", "location": "crm", "workstream": "crm", "address": "crm.orders"}
        connection.execute(history.insert().values(**common, **row, change="created", content="{}", hash=""))

    database.transact(apply)
    for _ in range(3):
        company.tick()
    (seen,) = company.seen()
    assert seen.title == "Applied: serial 1"
    assert "Changes: 1 created" in seen.text
    assert "By: anna" in seen.text
    assert not opened_outbox(company.settings).open_alerts()


def test_a_dashboard_that_shows_old_data_is_told_until_it_does_not(company: Company) -> None:
    rule = company.manifest.alerts[0].model_copy(
        update={
            "events": (AlertEvent.STALE, AlertEvent.RECOVERED),
            "late_after": None,
            "stale_after": dt.timedelta(days=1),
        }
    )
    sales = RefreshSpec(workstream="crm", name="sales", type="page", shows=("silver.orders",))
    company.manifest = company.manifest.model_copy(update={"alerts": (rule,), "refreshes": (sales,)})
    company.as_of = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    company.run()
    for _ in range(2):
        company.tick()
    company.as_of = dt.datetime.now(dt.UTC)
    company.run()
    for _ in range(2):
        company.tick()
    stale, over = company.seen()
    assert stale.title == "crm.dashboard.sales shows old data"
    assert "(3 days old)" in stale.text
    assert over.title == "Over: crm.dashboard.sales shows old data"


ORDERS, SILVER = TableRef("crm", "bronze", "orders"), TableRef("crm", "silver", "orders")
NOW = dt.datetime.now(dt.UTC)
LATE = (AlertEvent.FAILED, AlertEvent.LATE, AlertEvent.RECOVERED)
STALE = (AlertEvent.FAILED, AlertEvent.STALE, AlertEvent.RECOVERED)


def expect_fresh(company: Company, *names: str, paused: bool = False) -> None:
    """Tables of bronze, and what is made of orders, are to be built every day."""
    fresh = (ExpectationSpec.model_validate({"fresh": dt.timedelta(days=1)}),)
    loaded = [
        IngestionSpec(
            workstream="crm",
            source="erp",
            object=name,
            table=name,
            mode=LoadMode.APPEND,
            expectations=fresh,
            paused=paused,
        )
        for name in names
    ]
    made = ProcessingSpec(
        workstream="crm",
        layer="silver",
        name="orders",
        kind=StepKind.SQL,
        sql="SELECT 1 AS one",
        depends_on=("bronze.orders",),
        expectations=fresh,
        paused=paused,
    )
    company.manifest = company.manifest.model_copy(update={"ingestions": tuple(loaded), "steps": (made,)})


def watch_for(company: Company, events: tuple[AlertEvent, ...], **more: object) -> None:
    """One rule with these events."""
    rule = company.manifest.alerts[0].model_copy(
        update={
            "events": events,
            "late_after": None,
            "stale_after": dt.timedelta(days=1) if AlertEvent.STALE in events else None,
            **more,
        }
    )
    company.manifest = company.manifest.model_copy(update={"alerts": (*company.manifest.alerts[1:], rule)})


def show(company: Company, *names: str) -> None:
    specs = [RefreshSpec(workstream="crm", name=name, type="page", shows=("silver.orders",)) for name in names]
    company.manifest = company.manifest.model_copy(update={"refreshes": tuple(specs)})


def days_ago(days: int) -> dt.datetime:
    return NOW - dt.timedelta(days=days)


def titles(company: Company) -> list[str]:
    """What the phone has got after some ticks."""
    for _ in range(3):
        company.tick()
    return [seen.title for seen in company.seen()]


def test_a_table_that_nothing_has_built_for_longer_than_it_is_to_be_fresh_is_late_until_it_is(company: Company) -> None:
    watch_for(company, LATE)
    expect_fresh(company, "orders")
    company.built(ORDERS, at=days_ago(2))
    company.built(SILVER, at=NOW)
    assert titles(company) == ["crm.bronze.orders is late"]
    assert "Last built: crm.bronze.orders: " in company.seen()[0].text
    assert "(2 days ago)" in company.seen()[0].text
    company.built(ORDERS, at=NOW)
    assert titles(company) == ["crm.bronze.orders is late", "Over: crm.bronze.orders is late"]


def test_what_is_made_from_a_late_table_is_late_for_no_reason_of_its_own(company: Company) -> None:
    watch_for(company, LATE)
    expect_fresh(company, "orders")
    for ref in (ORDERS, SILVER):
        company.built(ref, at=days_ago(2))
    assert titles(company) == ["crm.bronze.orders is late"]


def test_a_table_whose_load_fails_is_late_for_a_reason_that_was_told(company: Company) -> None:
    watch_for(company, LATE)
    expect_fresh(company, "orders")
    company.run("orders")
    company.built(ORDERS, at=days_ago(2))
    assert titles(company) == ["crm.bronze.orders failed"]


def test_forty_late_tables_are_one_message(company: Company) -> None:
    watch_for(company, LATE)
    names = [f"t{number}" for number in range(40)]
    expect_fresh(company, *names)
    for name in names:
        company.built(TableRef("crm", "bronze", name), at=days_ago(2))
    assert titles(company) == ["crm: 40 tables are late"]
    assert " and 32" in company.seen()[0].text


def test_what_is_paused_is_not_late(company: Company) -> None:
    watch_for(company, LATE)
    expect_fresh(company, "orders", paused=True)
    company.built(ORDERS, at=days_ago(2))
    assert titles(company) == []


def test_nobody_is_told_twice_why_a_dashboard_shows_old_data(company: Company) -> None:
    watch_for(company, STALE)
    show(company, "sales")
    company.as_of = days_ago(3)
    company.run()
    company.run("orders")
    assert titles(company) == ["crm.bronze.orders failed"]


def test_who_is_not_told_of_failures_is_told_of_stale_dashboards_all_the_same(company: Company) -> None:
    company.manifest = company.manifest.model_copy(update={"alerts": (company.manifest.alerts[0],) * 2})
    watch_for(company, (AlertEvent.FAILED,))
    watch_for(company, (AlertEvent.STALE,), channels=("desk",))
    show(company, "sales")
    company.as_of = days_ago(3)
    company.run()
    company.run("orders")
    titles(company)
    assert sorted((posted.body["topic"], posted.body["title"]) for posted in company.ntfy.posted) == [
        ("edp-alerts", "crm.bronze.orders failed"),
        ("edp-desk", "crm.dashboard.sales shows old data"),
    ]


def test_forty_stale_dashboards_are_one_message_and_one_recovery(company: Company) -> None:
    watch_for(company, STALE)
    names = [f"d{number}" for number in range(40)]
    show(company, *names)
    for at in (days_ago(3), NOW):
        for name in names:
            company.built(TableRef("crm", "dashboard", name), at=at)
        found = titles(company)
    assert found == ["crm: 40 dashboards show old data", "Over: crm: 40 dashboards show old data"]


def test_a_quiet_tick_writes_nothing(company: Company) -> None:
    watch_for(company, (*LATE, AlertEvent.STALE), stale_after=dt.timedelta(days=1))
    expect_fresh(company, "orders")
    show(company, "sales")
    company.run()
    company.as_of = NOW
    company.run()
    company.tick()
    statements: list[str] = []
    engine = opened_outbox(company.settings).database._opened()
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    company.tick()
    assert statements
    assert not [text for text in statements if not text.lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN"))]
