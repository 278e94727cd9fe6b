"""A dbt project in a personal environment: its database and what it publishes are the person's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import read_manifest
from platform_core.operations.dbt_project import DbtProject, open_project, parse
from platform_core.operations.dbt_results import DbtResult
from platform_core.operations.own_tables import drop_own
from platform_core.operations.platform import Platform
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.table import TableRef
from tests.conftest import PROJECT
from tests.developer.conftest import House

SPEC = DbtSpec(workstream="shop", name="analytics", project="dbt")
TOTALS, BEST = "model.shop.totals", "model.shop.best"
ORDERS, CUSTOMERS = TableRef("shop", "silver", "orders"), TableRef("shop", "silver", "customers")
GOLD_TOTALS = TableRef("shop", "gold", "totals")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("dbt_in_forks")]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with its manifest, which everybody shares."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("target", "logs")
    shutil.copytree(PROJECT / "tests/operations/dbt_project", root / "dbt", ignore=ignored)
    platform = House(root).platform()
    assert parse(open_project(SPEC, root=root, state=platform.state), lake=platform.lake)
    return root


@pytest.fixture
def shop(tmp_path: Path) -> House:
    """Customers and orders in the shared lake."""
    found = House(tmp_path)
    shared = found.platform()
    found.put(shared, "shop.silver.customers", pa.table({"customer_id": [1, 2], "name": ["Bo", "Ada"]}))
    rows = {"order_id": [1, 2], "customer_id": [2, 1], "amount": [10.0, 60.0]}
    found.put(shared, "shop.silver.orders", pa.table(rows))
    return found


@pytest.fixture
def unchanged_shop(shop: House) -> Iterator[None]:
    """Asserts at the end that no byte of the shared tables has changed."""
    before = shop.fingerprint()
    yield
    assert shop.fingerprint() == before


def project_of(platform: Platform, parsed: Path) -> DbtProject:
    return open_project(SPEC, root=parsed, state=platform.state, person=platform.environment.person)


def run(platform: Platform, parsed: Path, *models: str) -> DbtResult:
    project = project_of(platform, parsed)
    manifest = read_manifest(SPEC, folder=project.folder)
    chosen = models or tuple(manifest.model_by_id)
    tests = () if models else tuple(manifest.test_by_id)
    return build(project, manifest=manifest, models=chosen, tests=tests, platform=platform)


def test_sources_are_the_shared_tables_and_models_the_persons_own(
    shop: House, parsed: Path, unchanged_shop: None
) -> None:
    anna = shop.platform("anna")
    result = run(anna, parsed)
    assert result.failures == ()
    assert result.deferred == (CUSTOMERS, ORDERS)
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bo", "total": 60.0}]
    assert shop.rows("shop.gold.best") is None
    assert project_of(anna, parsed).database.is_file()
    assert not project_of(shop.platform(), parsed).database.exists()
    assert project_of(shop.platform("bo"), parsed).database != project_of(anna, parsed).database


def test_a_source_of_the_persons_own_goes_before_the_shared_one(shop: House, parsed: Path) -> None:
    anna = shop.platform("anna")
    assert run(anna, parsed).deferred == (CUSTOMERS, ORDERS)
    shop.put(anna, "shop.silver.customers", pa.table({"customer_id": [1, 2], "name": ["Bea", "Ada"]}))
    assert run(anna, parsed).deferred == (ORDERS,)
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bea", "total": 60.0}]


def test_a_published_model_above_is_read_from_the_shared_lake_and_not_built(shop: House, parsed: Path) -> None:
    assert run(shop.platform(), parsed).failures == ()
    before = shop.fingerprint()
    anna = shop.platform("anna")
    result = run(anna, parsed, BEST)
    assert result.failures == ()
    assert set(result.models) == {BEST}
    assert result.deferred == (GOLD_TOTALS,)
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bo", "total": 60.0}]
    assert shop.rows("shop.gold.totals", person="anna") is None
    # Again: what was a view of everybody's table last time is one this time, too.
    assert run(anna, parsed, BEST).deferred == (GOLD_TOTALS,)
    # And once the person builds that model, it is the person's.
    shop.put(anna, "shop.silver.customers", pa.table({"customer_id": [1, 2], "name": ["Bea", "Ada"]}))
    assert set(run(anna, parsed, TOTALS).models) == {TOTALS}
    last = run(anna, parsed, BEST)
    assert GOLD_TOTALS not in last.deferred
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bea", "total": 60.0}]
    # Until it is dropped: then everybody's is read again, although dbt's database still has the person's.
    drop_own(anna, [GOLD_TOTALS])
    assert GOLD_TOTALS in run(anna, parsed, BEST).deferred
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bo", "total": 60.0}]
    assert shop.fingerprint() == before


def test_models_above_that_nobody_published_are_built_for_the_person_and_not_published(
    shop: House, parsed: Path, unchanged_shop: None
) -> None:
    anna = shop.platform("anna")
    result = run(anna, parsed, BEST)
    assert result.failures == ()
    assert set(result.models) == {BEST}
    assert shop.rows("shop.gold.best", person="anna") == [{"customer": "Bo", "total": 60.0}]
    assert shop.rows("shop.gold.totals", person="anna") is None
