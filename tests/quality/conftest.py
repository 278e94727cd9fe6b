"""A platform over an empty lake, tables put into it, and a project of two locations with expectations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quality.worlds import World
from tests.scenarios.workspaces import Workspace


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


FILES = {
    "shop/control/location.yaml": "location: shop\nworkstreams: [{name: shop, owners: ['team:shop']}]\n",
    "shop/control/connections.yaml": "connections: [{name: erp, type: sqlite, path: '${env.state}/../erp.db'}]\n",
    "shop/control/ingestion/erp.yaml": """\
        source: erp
        tables:
          - object: customers
            mode: full
            key: [customer_id]
          - object: orders
            mode: full
            key: [order_id]
            expectations:
              - not_null: customer_id
              - column: amount
                range: {min: 0, max: 1000}
                quarantine: true
              - column: customer_id
                references: {table: bronze.customers, column: customer_id}
              - name: even_cents
                sql: amount * 100 % 2 = 0
                severity: warn
        """,
    "shop/control/processing/gold.yaml": """\
        steps:
          - {name: revenue, layer: gold, kind: sql, sql: sql/revenue.sql}
        """,
    "shop/sql/revenue.sql": "SELECT sum(amount) AS amount FROM bronze.orders\n",
    "finance/control/location.yaml": "location: finance\nworkstreams: [{name: finance, owners: ['team:finance']}]\n",
    "finance/control/processing/gold.yaml": """\
        steps:
          - {name: ledger, layer: gold, kind: sql, sql: sql/ledger.sql}
        """,
    "finance/sql/ledger.sql": "SELECT order_id, amount FROM shop.bronze.orders\n",
    "finance/control/refresh.yaml": """\
        dashboards:
          - name: ledger
            type: page
            shows: [gold.ledger, shop.bronze.orders]
            tables: [{title: All, table: gold.ledger}]
        """,
}


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """Orders that are expected to be good, a step of their own location and one of another that read them."""
    workspace = Workspace.create(tmp_path, FILES)
    workspace.sql(
        "erp.db",
        "CREATE TABLE customers (customer_id INTEGER PRIMARY KEY)",
        "CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id INTEGER, amount DOUBLE)",
        "INSERT INTO customers VALUES (1), (2)",
        "INSERT INTO orders VALUES (1, 1, 10.0), (2, 2, 20.0)",
    )
    return workspace
