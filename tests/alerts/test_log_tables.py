"""The queries of docs/how-to/logs.md, word for word, on the tables that loads and the sensor for alerts fill."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from platform_core.control.alert_records import Seen, StepRow
from platform_core.control.database import Database
from platform_core.control.outbox import Outbox
from platform_core.errors import SourceError
from platform_core.operations.alerts.wording import told_of_recovery
from tests.control_database.conftest import LOG, ORDERS, postgres_place
from tests.services.postgres import PostgresServer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "logs.md"
NOW = dt.datetime.now(dt.UTC)
pytestmark = pytest.mark.services


def query(title: str) -> str:
    """The first query below a line of the page."""
    _, _, rest = PAGE.read_text().partition(title)
    return rest.split("```sql\n")[1].split("```")[0]


def step(run_id: str, *, hours_ago: float, took: float, error: str | None = None) -> StepRow:
    started = NOW - dt.timedelta(hours=hours_ago)
    return StepRow(
        run_id=run_id,
        step="crm__bronze__orders",
        location="crm",
        job="crm",
        workstream=ORDERS.workstream,
        layer=ORDERS.layer,
        name=ORDERS.name,
        status="failure" if error else "success",
        tries=1,
        started_at=started,
        ended_at=started + dt.timedelta(seconds=took),
        error_class="SourceError" if error else None,
        error=error,
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Database]:
    """A load that failed and was logged as a step, and steps before it."""
    place = postgres_place(tmp_path_factory.mktemp("logs"), postgres_server)
    loads = place.loads()
    given: dict[str, Any] = {
        "mode": "full",
        "above": 0,
        "wait": dt.timedelta(0),
        "log": LOG,
        "cancelled": lambda: False,
    }
    with pytest.raises(SourceError), loads.begin(ORDERS, run_id="r3", **given):
        raise SourceError("crm.bronze.orders: source erp does not answer")
    database = place.database()
    steps = (
        step("r1", hours_ago=50, took=10),
        step("r2", hours_ago=30, took=90),
        step("r3", hours_ago=2, took=5, error="crm.bronze.orders: source erp does not answer"),
    )
    Outbox(database).record(Seen(mark="r", location="crm", steps=steps), recovery=told_of_recovery)
    yield database
    database.close()
    for each in place.opened:
        each.close()


def rows(database: Database, title: str) -> list[dict[str, object]]:
    text = sa.text(query(title))
    return database.transact(lambda connection: [dict(row._mapping) for row in connection.execute(text)])


def test_every_query_of_the_page_is_run_here() -> None:
    assert len(re.findall("```sql", PAGE.read_text())) == 4


def test_a_step_stands_beside_its_load(filled: Database) -> None:
    (row,) = rows(filled, "What ran in the last day")
    assert (row["name"], row["status"], row["load"]) == ("orders", "failure", "failed")
    assert row["took"] == dt.timedelta(seconds=5)


def test_what_fails_is_counted_by_its_class(filled: Database) -> None:
    (row,) = rows(filled, "What fails most")
    assert (row["name"], row["error_class"], row["failures"]) == ("orders", "SourceError", 1)


def test_errors_of_steps_and_loads_are_one_list(filled: Database) -> None:
    assert sorted(str(row["error_class"]) for row in rows(filled, "Every error")) == ["SourceError", "load"]


def test_what_takes_longer_than_it_did_is_found(filled: Database) -> None:
    (row,) = rows(filled, "What takes longer")
    assert (row["last"], row["before"]) == (dt.timedelta(seconds=90), dt.timedelta(seconds=10))
