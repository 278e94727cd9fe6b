"""Expectations as Dagster has them: checks of the asset, made by the step that builds it, or alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from platform_core.definitions import build_definitions
from platform_core.settings import Settings
from tests.scenarios.workspaces import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # Of `context.run_id`, which a load puts into its log.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ORDERS = dg.AssetKey(["shop", "bronze", "orders"])
CUSTOMERS = dg.AssetKey(["shop", "bronze", "customers"])
REVENUE = dg.AssetKey(["shop", "gold", "revenue"])
NAMES = ("even_cents", "not_null_customer_id", "range_amount", "references_customer_id")


class Shop:
    """The location of the shop in this process."""

    def __init__(self, workspace: Workspace, instance: dg.DagsterInstance) -> None:
        self.workspace = workspace
        self.instance = instance
        root = workspace.root
        settings = Settings(project=root, home=root / "dagster_home", state=workspace.state, environment="dev")
        self.definitions = build_definitions(root / "shop" / "control", settings=settings)
        self.graph = self.definitions.get_repository_def().asset_graph

    def build(self, *keys: dg.AssetKey, checks: set[dg.AssetCheckKey] | None = None) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        part = job.get_subset(asset_selection=set(keys), asset_check_selection=checks)
        return part.execute_in_process(instance=self.instance, raise_on_error=False)


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


@pytest.fixture
def location(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name, value in shop.environment().items():
        if name.startswith(("EDP_", "DAGSTER_HOME")):
            monkeypatch.setenv(name, value)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(shop, instance)


def test_each_expectation_is_a_check_with_a_stable_name(location: Shop) -> None:
    specs = {each.name: each for each in location.graph.get(ORDERS).assets_def.check_specs}
    assert sorted(specs) == sorted(NAMES)
    assert {name for name, spec in specs.items() if spec.blocking} == set(NAMES) - {"even_cents"}
    assert specs["not_null_customer_id"].description == "customer_id always has a value"


def test_the_job_of_a_workstream_makes_the_checks_too(location: Shop) -> None:
    job = location.definitions.resolve_job_def("shop")
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} == set(NAMES)


def test_a_referenced_table_is_an_input(location: Shop) -> None:
    assert CUSTOMERS in location.graph.get(ORDERS).parent_keys


def test_a_table_that_nothing_is_expected_of_is_built_as_before(location: Shop) -> None:
    assert not location.graph.get(CUSTOMERS).assets_def.can_subset


def test_the_ui_offers_to_execute_a_check_by_itself(location: Shop) -> None:
    # What it goes by: more than one key there means that the table has to be built, too.
    check = dg.AssetCheckKey(ORDERS, "range_amount")
    assert location.graph.get_execution_set_asset_and_check_keys(check) == {check}


def test_checks_are_made_in_the_step_that_builds_the_table(location: Shop) -> None:
    result = location.build(CUSTOMERS, ORDERS)
    assert result.success
    found = outcomes(result)
    assert sorted(found) == sorted(NAMES)
    assert all(each.passed for each in found.values())
    (materialization,) = result.asset_materializations_for_node("shop__bronze__orders")
    assert materialization.asset_key == ORDERS


def test_figures_of_a_check_are_counts(location: Shop) -> None:
    location.workspace.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    found = outcomes(location.build(CUSTOMERS, ORDERS))["range_amount"]
    figures: dict[str, Any] = {name: value.value for name, value in found.metadata.items()}
    assert figures == {
        "edp/version": 0,
        "edp/checked_rows": 3,
        "edp/failing_rows": 1,
        "edp/ratio": pytest.approx(1 / 3),
        "edp/quarantined_rows": 1,
    }
    assert (found.severity, found.description) == (dg.AssetCheckSeverity.ERROR, "1 of 3 rows fail")


def test_a_failed_blocking_check_keeps_the_table_and_stops_what_depends_on_it(location: Shop) -> None:
    location.workspace.sql("erp.db", "INSERT INTO orders VALUES (3, NULL, -5.0)")
    result = location.build(CUSTOMERS, ORDERS, REVENUE)
    assert not result.success
    assert result.asset_materializations_for_node("shop__bronze__orders")
    assert "shop__gold__revenue" not in {event.step_key for event in result.all_node_events}
    failed = {name for name, each in outcomes(result).items() if not each.passed}
    assert failed == {"not_null_customer_id", "range_amount"}


def test_a_failed_warning_stops_nothing(location: Shop) -> None:
    location.workspace.sql("erp.db", "INSERT INTO orders VALUES (3, 1, 5.01)")
    result = location.build(CUSTOMERS, ORDERS, REVENUE)
    assert result.success
    found = outcomes(result)["even_cents"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_a_check_runs_alone_and_loads_nothing(location: Shop) -> None:
    assert location.build(CUSTOMERS, ORDERS).success
    location.workspace.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    result = location.build(checks={dg.AssetCheckKey(ORDERS, "range_amount")})
    assert result.success
    assert list(outcomes(result)) == ["range_amount"]
    assert result.asset_materializations_for_node("shop__bronze__orders") == []


def test_rows_that_are_set_aside_are_masked_as_the_table_is(shop: Workspace) -> None:
    shop.sql("erp.db", "ALTER TABLE orders ADD COLUMN buyer TEXT", "UPDATE orders SET buyer = 'Rosalind', amount = -1")
    file = shop.root / "shop/control/ingestion/erp.yaml"
    text = file.read_text().replace("key: [order_id]\n", "key: [order_id]\n    columns: {buyer: {mask: full}}\n")
    file.write_text(text)
    assert shop.run("shop").code == 1
    side = shop.state / "lake/shop/quarantined/bronze__orders"
    assert side.is_dir()
    assert not any(b"Rosalind" in path.read_bytes() for path in shop.state.rglob("*") if path.is_file())


def test_row_values_are_in_no_output_and_no_file_of_dagster(shop: Workspace) -> None:
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -731264.5)")
    ran = shop.run("shop")
    assert ran.code == 1
    told = ran.process.stdout + ran.process.stderr + shop.edp("quality").stdout
    assert "731264" not in told
    assert not any(b"731264" in path.read_bytes() for path in (shop.state / "dagster").rglob("*") if path.is_file())


def test_the_command_writes_no_side_table(shop: Workspace) -> None:
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    shop.run("shop")
    side = shop.state / "lake/shop/quarantined/bronze__orders/_delta_log"
    before = sorted(side.iterdir())
    assert shop.edp("quality").returncode == 1
    assert sorted(side.iterdir()) == before
