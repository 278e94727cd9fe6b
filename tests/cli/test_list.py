"""``edp list``."""

from __future__ import annotations

import json


def test_everything_declared_is_listed(project, call) -> None:
    result = call("list")
    assert result.exit_code == 0
    assert result.output == (
        "NAME                   KIND            MODE         KEY          FROM\n"
        "shop.bronze.orders     table (sqlite)  incremental  order_id     erp: orders\n"
        "shop.bronze.customers  table (sqlite)  full         customer_id  erp: customers\n"
        "shop.gold.forecast     step (python)   overwrite                 shop.bronze.orders\n"
    )


def test_json_has_source_mode_key_inputs_and_place(project, call) -> None:
    entries = {entry["name"]: entry for entry in json.loads(call("list", "--json").output)}
    assert entries["shop.bronze.customers"] == {
        "name": "shop.bronze.customers",
        "kind": "table",
        "location": "shop",
        "workstream": "shop",
        "inputs": [],
        "source": "erp",
        "type": "sqlite",
        "object": "customers",
        "mode": "full",
        "key": ["customer_id"],
        "cursor": None,
        "masked": ["name"],
        "declared": "cli_shop/control/ingestion.yaml:4",
    }
    assert entries["shop.gold.forecast"]["inputs"] == ["shop.bronze.orders"]


def test_one_workstream_can_be_listed(project, call) -> None:
    assert call("list", "shop").output == call("list").output
    result = call("list", "shp")
    assert result.exit_code == 2
    assert "unknown workstream 'shp'; known: shop" in result.output
