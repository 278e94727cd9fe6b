"""Data of what left git stays until a person says otherwise; nothing else is ever removed."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from platform_core.control.store.history import read_versions
from platform_core.errors import LeaseError, PlanError
from platform_core.lake.paths import Lake
from platform_core.operations.platform import Platform, open_platform
from platform_core.operations.prune import Remnant, find_remnants, prune
from platform_core.specs.table import TableRef
from tests.control_plane.conftest import AUTHOR, Project

ORDERS = TableRef("crm", "bronze", "orders")
MARGIN = TableRef("finance", "gold", "margin")


def platform(project: Project) -> Platform:
    return open_platform(project.environment(), state=project.settings().state)


def lake(project: Project) -> Lake:
    return Lake(project.environment().lake.root)


def fill(project: Project, ref: TableRef) -> Path:
    """A table of the lake."""
    folder = Path(lake(project).table(ref))
    write_deltalake(folder, pa.table({"id": [1]}))
    return folder


def remnants(project: Project) -> list[Remnant]:
    return find_remnants(project.store(), lake(project))


def pruned(project: Project, *, reason: str = "Not needed") -> None:
    prune(project.store(), platform(project), remnants(project), author=AUTHOR, reason=reason)


@pytest.fixture
def gone(applied: Project) -> Project:
    """A project whose step and dashboard were deleted; its tables are in the lake."""
    for ref in (ORDERS, MARGIN, TableRef("crm", "bronze", "of_somebody_else")):
        fill(applied, ref)
    for name in ("processing", "refresh"):
        (applied.folder / f"finance/control/{name}.yaml").unlink()
    applied.apply()
    return applied


def test_what_has_its_spec_is_not_listed(applied: Project) -> None:
    fill(applied, ORDERS)
    assert remnants(applied) == []


def test_a_table_whose_spec_is_gone_is_listed_and_stays(gone: Project) -> None:
    assert [each.ref for each in remnants(gone)] == [MARGIN]
    assert Path(lake(gone).table(MARGIN)).is_dir()


def test_only_what_is_listed_is_removed(gone: Project) -> None:
    pruned(gone)
    found = {path.relative_to(lake(gone).root).as_posix() for path in Path(lake(gone).root).glob("*/*/*")}
    assert found == {"crm/bronze/orders", "crm/bronze/of_somebody_else"}
    assert remnants(gone) == []
    newest = gone.store().read(lambda c: read_versions(c, kind="processing", address="finance.gold.margin"))[0]
    assert (newest.change, newest.approval, newest.author) == ("pruned", "Not needed", AUTHOR)


def test_an_ingested_table_goes_with_all_that_belongs_to_it(gone: Project) -> None:
    gone.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 2 hours\n    snapshot_history: true")
    gone.apply()
    gone.write("crm/control/ingestion.yaml", "source: crm\ntables: []\n")
    gone.apply()
    places = lake(gone)
    for uri in (
        places.landing(ORDERS),
        places.quarantine(ORDERS),
        places.table(ORDERS._replace(name="orders_history")),
    ):
        (Path(uri) / "1").mkdir(parents=True)
    pruned(gone)
    assert {path.parent.name for path in Path(places.root).glob("crm/*/*")} == {"bronze"}
    assert [path.name for path in Path(places.root).glob("crm/bronze/*")] == ["of_somebody_else"]


def test_nothing_is_removed_without_a_reason(gone: Project) -> None:
    with pytest.raises(PlanError, match="data is removed for a reason"):
        pruned(gone, reason=" ")
    assert [each.ref for each in remnants(gone)] == [MARGIN]


def test_a_table_whose_spec_came_back_meanwhile_stays(gone: Project) -> None:
    found = remnants(gone)
    gone.apply(gone.rollback(1))
    with pytest.raises(PlanError, match=r"finance\.gold\.margin: its spec has come back meanwhile"):
        prune(gone.store(), platform(gone), found, author=AUTHOR, reason="Not needed")
    assert Path(lake(gone).table(MARGIN)).is_dir()


def test_a_table_that_is_being_loaded_stays(gone: Project) -> None:
    busy = platform(gone)
    with busy.loads.begin(
        MARGIN,
        mode="full",
        above=0,
        run_id=None,
        wait=dt.timedelta(0),
        log=logging.getLogger("tests"),
        cancelled=lambda: False,
    ) as ticket:
        with pytest.raises(LeaseError, match="is being loaded by"):
            pruned(gone)
        ticket.finish(status="succeeded", figures={})
    assert Path(lake(gone).table(MARGIN)).is_dir()


def test_a_table_that_a_dbt_project_may_make_stays(gone: Project) -> None:
    gone.write("finance/control/dbt.yaml", "projects:\n  - {name: shop, project: shop}\n")
    gone.write("finance/shop/dbt_project.yml", "name: shop\n")
    gone.apply()
    [found] = remnants(gone)
    assert found.kept == "dbt project shop publishes into its layer and may make it"
    pruned(gone)
    assert Path(lake(gone).table(MARGIN)).is_dir()


def test_tables_that_were_never_applied_are_not_looked_at(project: Project) -> None:
    fill(project, ORDERS)
    assert remnants(project) == []
