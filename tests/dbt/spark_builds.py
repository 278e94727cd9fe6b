"""The same models built by a real Spark; not of `make test`, for Spark is 430 MB and takes minutes.

./scripts/spark && .venv/bin/python -m pytest tests/dbt/spark_builds.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import read_manifest
from platform_core.operations.dbt_results import DbtResult
from platform_core.specs.environment import DbtChoice, EngineChoice
from platform_core.specs.table import TableRef
from tests.dbt.conftest import SALES, Teams

# Spark takes a minute to start where two cores are shared.
pytestmark = pytest.mark.timeout(1200)

SPARK = Path(__file__).parents[2] / ".edp" / "tools" / "spark"
DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
REVENUE, BUILDS, HISTORY = "model.sales.revenue", "model.sales.builds", "snapshot.sales.customer_history"
CUSTOMERS = TableRef("shop", "silver", "customers")


def run(teams: Teams, *models: str, full_refresh: bool = False) -> DbtResult:
    [packages] = SPARK.glob("lib/python3*/site-packages")
    config = {"spark.jars.packages": DELTA, "spark.sql.shuffle.partitions": "1"}
    teams.environment = teams.environment.model_copy(
        update={
            "dbt": DbtChoice(target="spark", variables={"PYTHONPATH": str(packages)}),
            "spark": EngineChoice(type="local", options={"master": "local[1]", "config": config}),
        }
    )
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    return build(
        project, manifest=manifest, models=models, tests=(), platform=teams.platform(), full_refresh=full_refresh
    )


def test_models_are_built_by_spark_over_the_lake_and_added_to_and_made_anew(teams: Teams) -> None:
    result = run(teams, REVENUE, BUILDS, HISTORY)
    assert result.failures == ()
    assert teams.rows("gold.revenue") == [{"customer": "Ada", "total": 60.0}, {"customer": "Bo", "total": 120.0}]
    assert result.models[REVENUE].columns == {"customer": "string", "total": "double"}
    assert result.models[REVENUE].column_lineage["customer"] == ((CUSTOMERS, "name"),)
    assert not teams.project(SALES).database.exists()

    teams.put("silver.customers", {"customer_id": [1, 2], "name": ["Ada", "Bob"]})
    assert run(teams, BUILDS, HISTORY).failures == ()
    assert sorted(row["name"] for row in teams.rows("gold.customer_history")) == ["Ada", "Bo", "Bob"]
    assert len(teams.rows("gold.builds")) == 2

    assert run(teams, BUILDS, HISTORY, full_refresh=True).failures == ()
    assert len(teams.rows("gold.customer_history")) == 3
    assert len(teams.rows("gold.builds")) == 1


def test_what_spark_refuses_is_told_without_row_values_and_nothing_is_published(teams: Teams) -> None:
    before = teams.version("gold.revenue")
    model = teams.project(SALES).folder / "models" / "marts" / "revenue.sql"
    model.write_text(model.read_text().replace("c.name as customer", "cast(raise_error(c.name) as string) as customer"))
    result = run(teams, REVENUE)
    said = "\n".join(result.failures)
    assert "USER_RAISED_EXCEPTION: Spark's own text is left out" in said
    assert "Ada" not in said
    assert teams.version("gold.revenue") == before
