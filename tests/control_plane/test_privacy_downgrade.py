"""FAULTS F13: a mask that is weakened shows in the plan, needs a reason, and unmasks nothing that was loaded."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from platform_core.control.plan.plan import MarkKind
from platform_core.control.plan.rendering import as_text
from platform_core.errors import PlanError
from platform_core.lake.delta import open_table
from platform_core.operations.ingest import ingest
from platform_core.operations.platform import Platform, open_platform
from platform_core.operations.replay import replay
from platform_core.specs.ingestion import IngestionSpec
from tests.control_plane.conftest import Project

PHONES = {1: "+1 555 0100", 2: "+1 555 0101"}
NEW_PHONE = "+1 555 0199"
MASKED = "{mask: partial, keep_last: 2, personal: true}"


@dataclass
class Orders:
    """The table with a masked column, as its metadata is applied."""

    project: Project
    platform: Platform

    @property
    def spec(self) -> IngestionSpec:
        (found,) = [spec for spec in self.project.manifest("crm").ingestions if spec.table == "orders"]
        return found

    def load(self) -> None:
        manifest = self.project.manifest("crm")
        (connection,) = [each for each in manifest.connections if each.name == self.spec.source]
        ingest(self.spec, connection=connection, platform=self.platform)

    def replay(self, batch_id: int) -> None:
        replay(self.spec, batch_id, platform=self.platform)

    def phones(self) -> dict[int, str]:
        lake = self.platform.lake
        table = open_table(lake.table(self.spec.ref), storage_options=lake.storage_options)
        assert table is not None
        return {row["id"]: row["phone"] for row in table.to_pyarrow_table().to_pylist() if row["phone"]}


@pytest.fixture
def orders(applied: Project) -> Iterator[Orders]:
    settings = applied.settings()
    with closing(sqlite3.connect(settings.state / "crm.db")) as source, source:
        source.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, phone TEXT, updated_at TIMESTAMP)")
        for number, phone in PHONES.items():
            source.execute("INSERT INTO orders VALUES (?, ?, '2025-12-01 10:00:00')", (number, phone))
        # The newest row, so that what follows reads none of the others again.
        source.execute("INSERT INTO orders VALUES (3, NULL, '2026-01-01 10:00:00')")
    platform = open_platform(applied.environment(), state=settings.state)
    yield Orders(applied, platform)
    platform.loads.close()


def test_f13_a_weakened_mask_is_marked_refused_without_a_reason_and_unmasks_nothing_that_was_loaded(
    orders: Orders,
) -> None:
    project = orders.project
    orders.load()
    masked = orders.phones()
    assert set(masked) == {1, 2}
    assert not set(masked.values()) & set(PHONES.values())

    project.edit("crm/control/ingestion.yaml", MASKED, "{}")
    plan = project.plan()
    marks = [mark for _, mark in plan.all_marks() if mark.kind is MarkKind.PRIVACY]
    assert [mark.message for mark in marks] == [
        "column 'phone': mask partial is removed",
        "column 'phone': is no longer classified personal",
    ]
    assert "! privacy" in as_text(plan)
    with pytest.raises(PlanError, match=r"(?s)need a person's reason.*mask partial is removed"):
        project.apply(plan)
    orders.load()
    assert orders.phones() == masked

    project.apply(plan, approve="the owner agreed, ticket 812")
    assert project.sql("SELECT approval FROM control.history WHERE serial = 2") == [("the owner agreed, ticket 812",)]
    with closing(sqlite3.connect(project.settings().state / "crm.db")) as source, source:
        source.execute("INSERT INTO orders VALUES (4, ?, '2026-01-02 10:00:00')", (NEW_PHONE,))
    orders.load()
    assert orders.phones() == masked | {4: NEW_PHONE}
    # Bronze is lost and rebuilt from what was landed.
    shutil.rmtree(orders.platform.lake.table(orders.spec.ref))
    orders.replay(1)
    assert orders.phones() == masked
