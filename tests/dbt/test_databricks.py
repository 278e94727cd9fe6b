"""Builds in Databricks, up to Databricks: the statements that its client is given, and what comes back as a table."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import PluginError, StorageError
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.dbt_databricks import DatabricksWarehouse
from platform_core.operations.dbt_manifest import DbtManifest, read_manifest
from platform_core.operations.dbt_warehouse import warehouse_of
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions, Secret, SecretStore
from platform_core.specs.environment import DatabricksSpec, DbtChoice
from platform_core.specs.table import TableRef
from tests.dbt.conftest import SALES, Teams

pytestmark = pytest.mark.slow

PASSWORD = "dapi-t0ps3cret"
PERSON = "ada@example.org"
HISTORY = "snapshot.sales.customer_history"
SPEC = DatabricksSpec(
    host="adb-1.azuredatabricks.net",
    http_path="/sql/1.0/warehouses/a",
    catalog="analytics",
    token={"secret": "shop/databricks"},
)


class OneSecret(SecretStore):
    """A store that holds what signs in."""

    def __init__(self) -> None:
        super().__init__(NoOptions())

    def get(self, name: str) -> Secret:
        assert name == "shop/databricks"
        return Secret(name, PASSWORD.encode())


class RefusedError(Exception):
    """The client's own base class, with a text that holds a row value."""

    sqlstate = "22018"


@dataclass
class Databricks:
    """As much of the client as is used: a module, a connection and a cursor at once."""

    found: list[tuple[str, str, str, str]] = field(default_factory=list)
    table: pa.Table = field(default_factory=lambda: pa.table({"id": [1, 2, 3]}))
    location: str = ""
    said: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    refuses: bool = False
    closed: int = 0

    def connect(self, **given: Any) -> Databricks:
        self.given = given
        return self

    def cursor(self) -> Databricks:
        return self

    def close(self) -> None:
        self.closed += 1

    def execute(self, statement: str) -> None:
        if self.refuses:
            raise RefusedError(PERSON)
        self.said.append(statement)

    @property
    def description(self) -> list[tuple[str, ...]]:
        return [("format", "string"), ("location", "string")]

    def fetchall(self) -> list[tuple[str, ...]]:
        if not self.said[-1].startswith("DESCRIBE"):
            return list(self.found)
        [registered] = re.findall(r"LOCATION '(.*)'", self.said[-2])
        return [("delta", self.location or f"{registered}/")]

    def fetchmany_arrow(self, size: int) -> pa.Table:
        part, self.table = self.table.slice(0, 2), self.table.slice(2)
        return part


@pytest.fixture
def databricks(monkeypatch: pytest.MonkeyPatch) -> Databricks:
    made = Databricks()
    module = ModuleType("databricks.sql")
    module.connect, module.Error = made.connect, RefusedError  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "databricks", ModuleType("databricks"))
    monkeypatch.setitem(sys.modules, "databricks.sql", module)
    return made


@pytest.fixture
def platform(teams: Teams) -> Platform:
    teams.environment = teams.environment.model_copy(
        update={"dbt": DbtChoice(target="databricks", databricks=SPEC), "databases": {}}
    )
    return replace(teams.platform(), secrets=OneSecret())


@pytest.fixture
def warehouse(teams: Teams, platform: Platform) -> DatabricksWarehouse:
    return DatabricksWarehouse(teams.project(SALES, platform), platform, SPEC)


@pytest.fixture
def manifest(teams: Teams, platform: Platform) -> DbtManifest:
    return read_manifest(SALES, folder=teams.project(SALES, platform).folder)


def test_the_environments_target_is_databricks(teams: Teams, platform: Platform) -> None:
    lake = platform.environment.lake.model_copy(update={"root": "abfss://lake@account.dfs.core.windows.net/lake"})
    environment = platform.environment.model_copy(update={"lake": lake})
    found = warehouse_of(teams.project(SALES, platform), replace(platform, environment=environment))
    assert isinstance(found, DatabricksWarehouse)


def test_dbt_is_told_where_it_is_and_the_secret_by_a_name_that_it_keeps_out_of_logs(
    teams: Teams, platform: Platform
) -> None:
    project = teams.project(SALES, platform)
    found = DatabricksWarehouse(project, platform, SPEC).variables()
    assert found == {
        "EDP_DBT_HOST": "adb-1.azuredatabricks.net",
        "EDP_DBT_HTTP_PATH": "/sql/1.0/warehouses/a",
        "EDP_DBT_CATALOG": "analytics",
        "DBT_ENV_SECRET_TOKEN": PASSWORD,
    }
    principal = SPEC.model_copy(update={"token": None, "client_id": "id", "client_secret": SPEC.token})
    found = DatabricksWarehouse(project, platform, principal).variables()
    assert (found["EDP_DBT_CLIENT_ID"], found["DBT_ENV_SECRET_CLIENT_SECRET"]) == ("id", PASSWORD)
    assert "DBT_ENV_SECRET_TOKEN" not in found


def test_lake_tables_are_external_tables_where_they_lie(
    warehouse: DatabricksWarehouse, manifest: DbtManifest, databricks: Databricks, platform: Platform
) -> None:
    assert warehouse.prepare(manifest, wanted=[HISTORY]).built == set()
    reader = DeltaTableReader.open(platform.lake.table(TableRef("shop", "silver", "customers")), storage_options={})
    assert reader is not None
    uri = reader.handle.table_uri.rstrip("/")
    assert databricks.said[1:] == [
        "CREATE SCHEMA IF NOT EXISTS `silver`",
        f"CREATE TABLE IF NOT EXISTS `silver`.`customers` USING DELTA LOCATION '{uri}'",
        "DESCRIBE DETAIL `silver`.`customers`",
    ]
    assert databricks.given["access_token"] == PASSWORD
    # Two cursors and the connection, at least.
    assert databricks.closed >= 3


def test_a_table_of_that_name_which_lies_elsewhere_is_not_taken_for_the_lakes(
    warehouse: DatabricksWarehouse, manifest: DbtManifest, databricks: Databricks
) -> None:
    databricks.location = "abfss://other@account.dfs.core.windows.net/customers"
    with pytest.raises(
        StorageError, match=r"is another table than shop\.silver\.customers\n  it lies at abfss://other"
    ):
        warehouse.prepare(manifest, wanted=[HISTORY])


def test_what_models_read_that_is_not_there_is_built_with_them(
    warehouse: DatabricksWarehouse, manifest: DbtManifest, databricks: Databricks
) -> None:
    revenue = manifest.model_by_id["model.sales.revenue"]
    assert revenue.unique_id in warehouse.prepare(manifest, wanted=["model.sales.top"]).built
    databricks.found = [(*revenue.relation, "total", "double")]
    assert warehouse.prepare(manifest, wanted=["model.sales.top"]).built == set()


def test_rows_come_back_in_parts_and_columns_with_their_types(
    warehouse: DatabricksWarehouse, databricks: Databricks
) -> None:
    databricks.found = [("analytics", "top", "id", "bigint")]
    with warehouse.built() as built:
        assert built.columns() == {("analytics", "top"): {"id": "bigint"}}
        assert built.rows(("analytics", "top")).read_all()["id"].to_pylist() == [1, 2, 3]
    assert databricks.said[-1] == "SELECT * FROM `analytics`.`top`"


def test_an_error_is_told_without_its_text(warehouse: DatabricksWarehouse, databricks: Databricks) -> None:
    databricks.refuses = True
    with (
        pytest.raises(
            StorageError, match=r"adb-1\.azuredatabricks\.net refused \(RefusedError, SQLSTATE 22018\)"
        ) as caught,
        warehouse.built() as built,
    ):
        built.columns()
    assert PERSON not in str(caught.value)


def test_without_the_adapter_it_is_said_what_to_install(
    warehouse: DatabricksWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "databricks.sql", None)
    with pytest.raises(PluginError, match="its target needs dbt-databricks\n  install it"), warehouse.built():
        pass
