"""A small location, its instance of Dagster and a phone: what the tests of its sensor are about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData

from platform_core.control.environment import load_environment
from platform_core.control.load import load_manifest
from platform_core.errors import InputsError, SourceError
from platform_core.factories.alerts import Cursor, inputs_of, look, opened_outbox
from platform_core.factories.translation import asset_key
from platform_core.plugins.testing_alerts import Received
from platform_core.settings import Settings, read_settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef
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
            desk: {type: ntfy, options: {url: "${URL}", topic: edp-desk}}
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
    error: Callable[[], Exception] = lambda: SourceError("crm.bronze.orders: source erp does not answer")
    cursor: str = ""
    as_of: dt.datetime = dt.datetime(2026, 11, 18, 12, tzinfo=dt.UTC)

    def definitions(self) -> dg.Definitions:
        def body(name: str, error: Callable[[], Exception]) -> None:
            if name in self.broken:
                raise error()

        @dg.asset(key=["crm", "bronze", "orders"])
        def orders() -> None:
            body("orders", lambda: self.error())

        @dg.asset(key=["crm", "silver", "orders"], deps=[orders])
        def silver() -> None:
            body("silver", lambda: ValueError(CANARY))

        @dg.asset(key=["crm", "dashboard", "sales"], deps=[silver])
        def sales() -> dg.MaterializeResult[None]:
            body("sales", lambda: InputsError("crm.dashboard.sales was not refreshed"))
            return dg.MaterializeResult(metadata={"edp/as_of": dg.MetadataValue.timestamp(self.as_of.timestamp())})

        job = dg.define_asset_job("crm", selection=dg.AssetSelection.all())
        return dg.Definitions(assets=[orders, silver, sales], jobs=[job], executor=dg.in_process_executor)

    def run(self, *broken: str, tags: dict[str, str] | None = None) -> str:
        """One run of the job, in which some steps fail; its id."""
        self.broken = set(broken)
        job = self.definitions().resolve_job_def("crm")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).run_id

    def built(self, ref: TableRef, *, at: dt.datetime) -> None:
        """Let the event log say that an asset was built at some time."""
        materialised = StepMaterializationData(dg.AssetMaterialization(asset_key(ref)))
        event = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value, job_name="", event_specific_data=materialised
        )
        entry: Any = dg.EventLogEntry  # its constructor has no types
        self.instance.handle_new_event(entry(None, "debug", "", "", at.timestamp(), dagster_event=event))

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


@contextmanager
def opened_company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """A location whose sensor has looked once."""
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
