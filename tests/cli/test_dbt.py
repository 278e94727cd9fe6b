"""``edp dbt``: over a project whose manifest is there, so that dbt itself need not be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Call = Callable[..., Result]

NODE = {
    "resource_type": "model",
    "package_name": "shop",
    "depends_on": {"nodes": []},
    "config": {"materialized": "table"},
    "schema": "main",
    "checksum": {"checksum": "1"},
}
DAILY = {
    **NODE,
    "name": "daily",
    "fqn": ["shop", "marts", "daily"],
    "alias": "daily",
    "original_file_path": "models/marts/daily.sql",
}


@pytest.fixture
def dbt(project: Path) -> Path:
    """The folder of a dbt project with one model."""
    (project / "cli_shop/control/dbt.yaml").write_text("projects:\n  - {name: sales, project: ../dbt}\n")
    folder = project / "dbt"
    (folder / "target").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (folder / "profiles.yml").write_text("shop:\n  outputs:\n    default: {type: duckdb}\n")
    manifest = {"metadata": {"project_name": "shop"}, "nodes": {"model.shop.daily": DAILY}, "sources": {}}
    (folder / "target" / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_project_that_was_never_deployed_differs_in_everything(dbt: Path, call: Call) -> None:
    result = call("dbt", "modified")
    assert result.exit_code == 0
    assert result.output == "shop_sales: was never deployed, so all 1 models differ\n  model.shop.daily\n"
    assert json.loads(call("dbt", "modified", "--json").output) == {
        "shop_sales": {"deployed": False, "models": ["model.shop.daily"]}
    }


def test_what_is_deployed_is_remembered_once(dbt: Path, project: Path, call: Call) -> None:
    assert call("dbt", "deployed").output == "dbt project shop_sales: deployed to dev as it is here\n"
    [kept] = project.rglob("_dbt/*.json")
    assert kept.name == "shop.sales.json"
    assert kept.read_bytes() == (dbt / "target" / "manifest.json").read_bytes()
    assert call("dbt", "deployed").output == ""


def test_a_manifest_that_is_older_than_its_project_is_not_taken_for_deployed(dbt: Path, call: Call) -> None:
    os.utime(dbt / "target" / "manifest.json", (0, 0))
    result = call("dbt", "deployed")
    assert "is missing, or older than its files\n  edp setup builds it" in str(result.exception)


@pytest.mark.parametrize(("status", "code"), [("success", 0), ("error", 1)])
def test_a_build_of_what_differs_fails_with_it_and_leaves_nothing(
    dbt: Path, project: Path, call: Call, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    def run(opened: Any, *_: Any, **__: Any) -> Mapping[str, Any]:
        import duckdb

        with duckdb.connect(str(opened.database)) as connection:
            connection.execute("create table main.daily as select 1 as id")
        return {"model.shop.daily": {"status": status, "execution_time": 0.0, "relation_name": '"d"."main"."daily"'}}

    monkeypatch.setattr("platform_core.operations.dbt.run_build", run)
    result = call("dbt", "build", "--modified", "--as", "ci_812", "--json")
    assert result.exit_code == code
    said = json.loads(result.output)["shop_sales"]
    assert said["built"] == (["model.shop.daily"] if code == 0 else [])
    assert (said["failures"] == []) is (code == 0)
    assert [path for path in project.rglob("_people/*/*") if path.is_file()] == []
    assert list(project.rglob("*.duckdb")) == []
