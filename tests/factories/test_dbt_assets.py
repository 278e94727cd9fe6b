"""A dbt project as Dagster assets and checks."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import ConfigError
from platform_core.factories.dbt import build_dbt_assets
from platform_core.lake.delta import open_table, write
from platform_core.lake.paths import Lake
from platform_core.operations.dbt_project import open_project, parse
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

PROJECT = Path(__file__).parents[1] / "operations" / "dbt_project"
SPEC = DbtSpec(workstream="shop", name="analytics", project="dbt")
TOTALS = dg.AssetKey(["shop", "gold", "totals"])
ORDERS = dg.AssetKey(["shop", "silver", "orders"])

pytestmark = pytest.mark.usefixtures("dbt_in_forks")


def platform_at(root: Path) -> Platform:
    lake = str(root / "lake")
    environment = EnvironmentSpec(name="test", lake={"root": lake}, secrets={"type": "environment"})
    secrets = EnvironmentSecrets(NoOptions())
    return Platform(
        environment=environment,
        lake=Lake(lake),
        engine=LocalEngine(LocalOptions(spill=str(root / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=root / "state", secrets=secrets),
        state=root / "state",
    )


def manifest_at(root: Path) -> Manifest:
    workstream = WorkstreamSpec(name="shop", owners=("team:shop",))
    return Manifest(root=root, location=LocationSpec(name="shop", workstreams=(workstream,)), dbt=(SPEC,))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose dbt project has its manifest."""
    root = tmp_path_factory.mktemp("package")
    shutil.copytree(PROJECT, root / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    platform = platform_at(root)
    parse(open_project(SPEC, root=root, state=platform.state), lake=platform.lake)
    return root


@pytest.fixture(scope="module")
def assets(root: Path) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        [assets] = build_dbt_assets(SPEC, manifest=manifest_at(root))
    return assets


def put_orders(platform: Platform, *amounts: float) -> None:
    tables = {
        "customers": {"customer_id": [1, 2], "name": ["Bo", "Ada"]},
        "orders": {
            "order_id": list(range(len(amounts))),
            "customer_id": [1 + number % 2 for number in range(len(amounts))],
            "amount": list(amounts),
        },
    }
    for name, columns in tables.items():
        ref = TableRef("shop", "silver", name)
        uri = platform.lake.table(ref)
        rows = pa.table(columns).to_reader()
        write(rows, table=ref, uri=uri, storage_options={}, mode=WriteMode.OVERWRITE)


def materialize(assets: dg.AssetsDefinition, platform: Platform, **selection: Any) -> dg.ExecuteInProcessResult:
    resource = SimpleNamespace(open=lambda context: platform.for_step(context.log, lambda: False))
    return dg.materialize([assets], resources={"platform": resource}, raise_on_error=False, **selection)


def test_each_model_is_an_asset_below_its_layer(assets: dg.AssetsDefinition) -> None:
    assert {key.to_user_string() for key in assets.keys} == {
        "shop/staging/stg_orders",
        "shop/gold/totals",
        "shop/gold/best",
    }
    spec = assets.specs_by_key[TOTALS]
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {"shop/silver/customers", "shop/staging/stg_orders"}
    assert spec.group_name == "shop/gold"
    assert list(spec.owners) == ["team:shop"]
    assert {"dbt", "duckdb", "deltalake"} <= spec.kinds
    assert spec.description == "What each customer has spent."
    [reference] = spec.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("models/marts/totals.sql")


def test_each_test_is_a_check_that_blocks_unless_it_is_a_warning(assets: dg.AssetsDefinition) -> None:
    checks = {spec.name: spec for spec in assets.check_specs}
    assert checks["no_total_is_too_small"].asset_key == TOTALS
    assert checks["shop_analytics__source_not_null_shop_orders_order_id"].asset_key == ORDERS
    assert [name for name, spec in checks.items() if not spec.blocking] == ["not_null_totals_total"]


def test_a_missing_manifest_is_refused_when_definitions_load(tmp_path: Path) -> None:
    shutil.copytree(PROJECT, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    with pytest.raises(ConfigError, match="edp setup"):
        build_dbt_assets(SPEC, manifest=manifest_at(tmp_path))


def test_loading_definitions_imports_neither_dbt_nor_its_integration() -> None:
    loaded = "[name for name in sys.modules if name.split('.')[0] in ('dbt', 'dagster_dbt')]"
    code = f"import sys, platform_core.factories.dbt; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_run_materialises_what_was_selected_and_is_good_and_fails_for_the_rest(
    root: Path, assets: dg.AssetsDefinition
) -> None:
    platform = platform_at(root)
    put_orders(platform, 60.0, 10.0)
    result = materialize(assets, platform)
    assert result.success
    [event] = result.asset_materializations_for_node("shop__dbt__analytics")[1:2]
    assert event.asset_key == TOTALS
    assert event.metadata["dagster/row_count"].value == 2
    assert event.metadata["edp/version"].value == 0
    assert [column.name for column in event.metadata["dagster/column_schema"].value.columns] == [
        "customer", "orders", "total",
    ]  # fmt: skip
    lineage = event.metadata["dagster/column_lineage"].value.deps_by_column
    assert lineage["customer"][0] == dg.TableColumnDep(dg.AssetKey(["shop", "silver", "customers"]), "name")
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        # Checks of a source run with the step that builds the source.
        spec.name: True
        for spec in assets.check_specs
        if spec.asset_key in assets.keys
    }

    result = materialize(assets, platform, selection=[TOTALS])
    assert result.success
    assert [event.asset_key for event in result.asset_materializations_for_node("shop__dbt__analytics")] == [TOTALS]
    assert {check.asset_key for check in result.get_asset_check_evaluations()} == {TOTALS}

    put_orders(platform, 60.0, -10.0)
    result = materialize(assets, platform)
    assert not result.success
    made = [
        event.asset_key.to_user_string() for event in result.asset_materializations_for_node("shop__dbt__analytics")
    ]
    assert made == ["shop/staging/stg_orders"]
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed == {"no_total_is_too_small"}
    table = open_table(platform.lake.table(TableRef("shop", "gold", "totals")), storage_options={})
    assert table is not None
    assert table.version() == 1
