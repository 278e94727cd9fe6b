"""Which assets stand behind what a step or dashboard reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.load import load_manifest
from platform_core.errors import ConfigError
from platform_core.factories.inputs import built_inputs
from platform_core.factories.processing import build_processing_asset
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef


def _manifest(root: Path, *, query: str, migrations: dict[str, str]) -> Manifest:
    package = root / "shop"
    files = {
        "control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
        "control/connections.yaml": "connections:\n  - {name: erp, type: sqlite, path: '${env.state}/erp.db'}\n",
        "control/ingestion.yaml": "source: erp\ntables:\n  - {object: orders, mode: full, key: [order_id]}\n",
        "control/processing.yaml": "steps:\n  - {name: months, layer: gold, kind: sql, sql: q.sql}\n",
        "q.sql": query,
        **{f"ddl/shop/{name}": sql for name, sql in migrations.items()},
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return load_manifest(package / "control", environment="dev", state=root / "state")


@pytest.mark.filterwarnings("ignore:.*is currently in beta")
def test_a_step_over_a_view_waits_for_the_tables_below_it(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        query="SELECT * FROM gold.open_large",
        migrations={
            "0001_views.sql": "CREATE VIEW gold.open AS SELECT * FROM bronze.orders;\n"
            "CREATE VIEW gold.open_large AS SELECT * FROM gold.open;"
        },
    )

    asset = build_processing_asset(manifest.steps[0], manifest=manifest)

    assert [dep.asset_key.path for dep in next(iter(asset.specs)).deps] == [["shop", "bronze", "orders"]]


def test_nobody_waits_for_a_table_that_only_migrations_know(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        query="SELECT o.* FROM bronze.orders o JOIN gold.targets t ON t.order_id = o.order_id",
        migrations={"0001_targets.sql": "CREATE TABLE gold.targets (order_id BIGINT);"},
    )

    assert built_inputs(manifest.steps[0].inputs, manifest=manifest) == (TableRef("shop", "bronze", "orders"),)


def test_a_table_that_a_migration_makes_for_a_step_is_waited_for(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        query="SELECT 1 AS a",
        migrations={"0001_months.sql": "CREATE TABLE gold.months (a INTEGER);"},
    )

    months = TableRef("shop", "gold", "months")
    assert built_inputs([months], manifest=manifest) == (months,)


def test_a_step_over_a_view_of_its_own_table_is_a_cycle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a table is made from itself: gold\.months → gold\.months"):
        _manifest(
            tmp_path,
            query="SELECT * FROM gold.latest",
            migrations={"0001_latest.sql": "CREATE VIEW gold.latest AS SELECT * FROM gold.months;"},
        )
