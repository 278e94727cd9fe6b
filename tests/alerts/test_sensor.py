"""The sensor of a location, from runs in a Dagster instance to a phone: once, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest
from platform_core.control.store.tables import applies, history
from platform_core.definitions import build_definitions
from platform_core.errors import ControlError, SourceError
from platform_core.factories import alerts as sensor
from platform_core.factories.alerts import Cursor, alert_sensor_name, inputs_of, look, opened_outbox
from platform_core.plugins.testing_alerts import Received
from platform_core.settings import Settings, read_settings
from platform_core.specs.alerts import AlertEvent
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.refresh import RefreshSpec
from tests.alerts.services import NtfyService, running

CANARY = "canary-1f0a6b"
FILES = {
    "workspace.yaml": "load_from: []\n",
    "crm/control/location.yaml": """\
        location: crm
        workstreams:
          - {name: crm, owners: [team:crm], schedule: {cron: "* * * * *", timezone: UTC}}
        """,
    "crm/control/alerts.yaml": """\
        rules:
          - name: all
            channels: [phone]
            events: [failed, recovered, delete_stop, privacy, late]
            late_after: 1 hours
        """,
    "home/environments/test.yaml": """\
        lake: {root: lake}
        secrets: {type: files, options: {path: secrets}}
        schedules: true
        alerts:
          base_url: https://dagster.example.com
          channels:
            phone: {type: ntfy, options: {url: "${URL}", topic: edp-alerts}}
          fallback: [phone]
        """,
}


@dataclass
class Company:
    """A location, its instance of Dagster, and the sensor's cursor between ticks."""

    folder: Path
    instance: dg.DagsterInstance
    ntfy: NtfyService
    settings: Settings
    environment: EnvironmentSpec
    manifest: Manifest
    broken: set[str] = field(default_factory=set)
    cursor: str = ""
    as_of: dt.datetime = dt.datetime(2026, 11, 18, 12, tzinfo=dt.UTC)

    def definitions(self) -> dg.Definitions:
        def body(name: str, error: Callable[[], Exception]) -> None:
            if name in self.broken:
                raise error()

        @dg.asset(key=["crm", "bronze", "orders"])
        def orders() -> None:
            body("orders", lambda: SourceError("crm.bronze.orders: source erp does not answer"))

        @dg.asset(key=["crm", "silver", "orders"], deps=[orders])
        def silver() -> None:
            body("silver", lambda: ValueError(CANARY))

        @dg.asset(key=["crm", "dashboard", "sales"], deps=[silver])
        def sales() -> dg.MaterializeResult[None]:
            return dg.MaterializeResult(metadata={"edp/as_of": dg.MetadataValue.timestamp(self.as_of.timestamp())})

        job = dg.define_asset_job("crm", selection=dg.AssetSelection.all())
        return dg.Definitions(assets=[orders, silver, sales], jobs=[job], executor=dg.in_process_executor)

    def run(self, *broken: str, tags: dict[str, str] | None = None) -> str:
        """One run of the job, in which some steps fail; its id."""
        self.broken = set(broken)
        job = self.definitions().resolve_job_def("crm")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).run_id

    def tick(self) -> str:
        """One tick of the sensor, as the daemon lets it go about."""
        cursor = Cursor.read(self.cursor)
        inputs = inputs_of(self.definitions().get_repository_def().asset_graph)
        try:
            return look(self.instance, cursor, manifest=self.manifest, environment=self.environment, inputs=inputs)
        finally:
            self.cursor = cursor.write()

    def seen(self) -> list[Received]:
        return list(self.ntfy.received())


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with running(NtfyService()) as ntfy, dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        monkeypatch.setattr(ntfy, "accept", lambda posted: (200, b'{"id": "x1"}', {}))
        for name, text in FILES.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text).replace("${URL}", ntfy.url))
        for name, value in {
            "EDP_PROJECT": tmp_path,
            "EDP_STATE": tmp_path / "state",
            "DAGSTER_HOME": tmp_path / "home",
            "EDP_ENVIRONMENT": "test",
        }.items():
            monkeypatch.setenv(name, str(value))
        settings = read_settings()
        manifest = load_manifest(tmp_path / "crm" / "control", environment="test", state=settings.state)
        environment = load_environment(settings)
        found = Company(tmp_path, instance, ntfy, settings, environment, manifest)
        found.tick()
        yield found
        opened_outbox(settings).database.close()


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
