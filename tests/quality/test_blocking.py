"""A failed blocking expectation stops what depends on the table, in its run and in another location."""

from __future__ import annotations

import json

import pytest

from tests.scenarios.workspaces import Workspace

pytestmark = pytest.mark.slow

DEPENDENT = {"shop.gold.revenue", "finance.gold.ledger", "finance.dashboard.ledger"}


def test_good_rows_pass_everything_and_all_is_built(shop: Workspace) -> None:
    ran = shop.run()
    assert ran.code == 0, ran.process
    assert set(ran.statuses.values()) == {"ok"}


def test_a_failed_blocking_expectation_stops_dependents_here_and_in_another_location(shop: Workspace) -> None:
    assert shop.run().code == 0
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    ran = shop.run()
    assert ran.code == 1
    assert ran.statuses == {
        "shop.bronze.customers": "ok",
        "shop.bronze.orders": "failed",
        **dict.fromkeys(DEPENDENT, "skipped"),
    }
    assert "range_amount" in ran.errors["shop.bronze.orders"]


def test_a_manual_run_of_the_other_location_is_refused_until_the_rows_are_mended(shop: Workspace) -> None:
    assert shop.run().code == 0
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    assert shop.run("shop").code == 1
    refused = shop.run("finance.dashboard.ledger")
    assert refused.code == 1
    assert "failed a blocking check" in refused.errors["finance.dashboard.ledger"]

    shop.sql("erp.db", "UPDATE orders SET amount = 5.0 WHERE order_id = 3")
    ran = shop.run()
    assert ran.code == 0, ran.process


def test_what_was_stopped_is_finished_from_failure_once_the_rows_are_mended(shop: Workspace) -> None:
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    assert shop.run().code == 1
    assert shop.run("--from-failure", "last").statuses["shop.bronze.orders"] == "failed"
    shop.sql("erp.db", "UPDATE orders SET amount = 5.0 WHERE order_id = 3")
    finished = shop.run("--from-failure", "last")
    assert finished.code == 0, finished.process
    assert finished.statuses == dict.fromkeys({"shop.bronze.orders", *DEPENDENT}, "ok")


def test_a_warning_stops_nothing(shop: Workspace) -> None:
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, 5.01)")
    assert shop.run().code == 0
    assert "warning" in shop.edp("quality").stdout


def test_a_referenced_table_is_loaded_first(shop: Workspace) -> None:
    assert shop.run().code == 0
    shop.sql("erp.db", "INSERT INTO customers VALUES (3)", "INSERT INTO orders VALUES (3, 3, 5.0)")
    assert shop.run().code == 0


def test_the_command_tells_what_fails_and_ends_with_one(shop: Workspace) -> None:
    shop.sql("erp.db", "INSERT INTO orders VALUES (3, 1, -5.0)")
    shop.run("shop")
    told = shop.edp("quality", "--json")
    assert told.returncode == 1
    (table,) = json.loads(told.stdout)
    found = {each["check"]: (each["passed"], each["failing"], each["checked"]) for each in table["expectations"]}
    assert found == {
        "not_null_customer_id": (True, 0, 3),
        "range_amount": (False, 1, 3),
        "references_customer_id": (True, 0, 3),
        "even_cents": (True, 0, 3),
    }
    assert "-5" not in told.stdout


def test_the_command_ends_with_zero_where_all_is_met(shop: Workspace) -> None:
    assert shop.run("shop").code == 0
    told = shop.edp("quality", "shop.bronze.orders")
    assert (told.returncode, told.stderr) == (0, "")
    assert "4 passed, 0 warning, 0 failed" in told.stdout


def test_the_command_knows_a_table_that_nothing_is_expected_of(shop: Workspace) -> None:
    told = shop.edp("quality", "shop.bronze.customers")
    assert told.returncode == 1
    assert "nothing is expected of 'shop.bronze.customers'" in told.stderr


def test_the_command_says_which_table_was_never_built(shop: Workspace) -> None:
    told = shop.edp("quality")
    assert told.returncode == 1
    assert "build shop.bronze.orders first" in told.stderr
