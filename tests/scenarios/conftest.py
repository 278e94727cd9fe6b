"""Projects that several scenarios of this folder look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Workspace

CITY = {
    "city/control/location.yaml": "location: city\nworkstreams:\n  - {name: city, owners: ['team:city']}\n",
    "city/control/connections.yaml": """\
        connections:
          - {name: stations, type: sqlite, path: '${env.state}/../sources/stations.db'}
          - {name: readings, type: files, root: '${env.state}/../sources/readings'}
        """,
    "city/control/ingestion/stations.yaml": """\
        source: stations
        tables:
          - {object: stations, mode: full, key: [station_id]}
        """,
    "city/control/ingestion/readings.yaml": """\
        source: readings
        tables:
          - {object: '*.csv', table: readings, mode: full, key: [station_id]}
        """,
    "city/control/processing.yaml": """\
        steps:
          - {name: places, layer: silver, kind: sql, sql: sql/places.sql}
          - {name: heat, layer: silver, kind: sql, sql: sql/heat.sql}
        """,
    "city/sql/places.sql": "select station_id, place from bronze.stations where _is_current\n",
    "city/sql/heat.sql": """\
        select s.place, r.degrees
        from bronze.stations s join bronze.readings r using (station_id)
        where s._is_current and r._is_current
        """,
    "city/control/refresh.yaml": """\
        dashboards:
          - name: warm
            type: page
            title: Warm places
            shows: [silver.heat]
            tables: [{title: Places, table: silver.heat}]
        """,
    "sources/readings/today.csv": "station_id,degrees\n1,31\n2,18\n",
}
"""A location of two sources, a step on one, a step and a dashboard on both."""

SHOP = {
    "shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
    "shop/control/connections.yaml": """\
        connections:
          - {name: till, type: sqlite, path: '${env.state}/../sources/till.db'}
        """,
    "shop/control/ingestion.yaml": """\
        source: till
        tables:
          - {object: sales, mode: full, key: [sale_id]}
        """,
    "shop/control/processing.yaml": """\
        steps:
          - {name: by_heat, layer: gold, kind: sql, sql: sql/by_heat.sql}
        """,
    "shop/sql/by_heat.sql": """\
        select s.sale_id, h.degrees from bronze.sales s join city.silver.heat h using (place) where s._is_current
        """,
}
"""A location that depends on a table of the other."""


@pytest.fixture(scope="session")
def city_and_shop() -> Callable[[Path], Workspace]:
    """Makes a project of two locations and their sources; nothing has been run in it."""

    def make(root: Path) -> Workspace:
        workspace = Workspace.create(root, {**CITY, **SHOP})
        workspace.sql(
            "sources/stations.db",
            "create table stations (station_id integer primary key, place text)",
            "insert into stations values (1, 'North'), (2, 'South')",
        )
        workspace.sql(
            "sources/till.db",
            "create table sales (sale_id integer primary key, place text)",
            "insert into sales values (1, 'North'), (2, 'North'), (3, 'South')",
        )
        return workspace

    return make
