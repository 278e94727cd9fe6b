"""Two people work on the same workstream of one lake at once, each in processes of their own, and do not meet."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from platform_core.lake.delta import DeltaTableReader
from platform_core.specs.person import PEOPLE
from tests.conftest import PROJECT
from tests.scenarios.workspaces import Workspace

pytestmark = pytest.mark.slow

TABLES = ("bronze/orders", "bronze/customers", "silver/orders", "silver/customers", "gold/totals", "gold/best")
FILES = {
    "shop/control/location.yaml": """\
        location: shop
        workstreams:
          - name: shop
            owners: [team:shop]
            schedule: {cron: "0 6 * * *", timezone: UTC}
        """,
    "shop/control/connections.yaml": """\
        connections:
          - {name: till, type: sqlite, path: "${env.state}/../till.db"}
        """,
    "shop/control/ingestion.yaml": """\
        source: till
        tables:
          - {object: orders, mode: full, key: [order_id]}
          - {object: customers, mode: full, key: [customer_id]}
        """,
    "shop/control/processing.yaml": """\
        steps:
          - {name: orders, layer: silver, kind: sql, sql: sql/orders.sql, depends_on: [bronze.orders]}
          - {name: customers, layer: silver, kind: sql, sql: sql/customers.sql, depends_on: [bronze.customers]}
        """,
    "shop/sql/orders.sql": "SELECT order_id, customer_id, amount FROM bronze.orders WHERE _is_current\n",
    "shop/sql/customers.sql": "SELECT customer_id, name FROM bronze.customers WHERE _is_current\n",
    "shop/control/dbt.yaml": """\
        projects:
          - {name: analytics, project: ../dbt, layer: gold}
        """,
    "shop/control/refresh.yaml": """\
        dashboards:
          - name: board
            type: page
            shows: [gold.best]
            tables: [{title: Best customers, table: gold.best}]
        """,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A lake that was built in the environment of everybody; the control database is everybody's, too."""
    root = tmp_path_factory.mktemp("shop")
    shared = f"lake: {{root: {root}/lake}}\nsecrets: {{type: files, options: {{path: {root}/secrets}}}}\n"
    shared += f"control: {{url: 'sqlite:///{root}/control.db'}}\nmax_concurrent: 2\n"
    found = Workspace.create(
        root,
        {
            **FILES,
            "dagster_home/environments/dev.yaml": shared,
            "dagster_home/environments/personal.yaml": shared + "developer: true\n",
        },
    )
    shutil.copytree(PROJECT / "tests/operations/dbt_project", root / "dbt", ignore=shutil.ignore_patterns("target"))
    found.sql("till.db", "CREATE TABLE orders (order_id INTEGER, customer_id INTEGER, amount REAL)")
    found.sql("till.db", "CREATE TABLE customers (customer_id INTEGER, name TEXT)")
    found.sql("till.db", "INSERT INTO orders VALUES (1, 2, 10.0), (2, 1, 60.0)")
    found.sql("till.db", "INSERT INTO customers VALUES (1, 'Bo'), (2, 'Ada')")
    for command in ("setup", "run"):
        done = found.edp(command)
        assert done.returncode == 0, done.stdout + done.stderr
    yield found


def as_person(shop: Workspace, name: str, *arguments: str, **others: str) -> CompletedProcess[str]:
    """What a person does on a machine of theirs: a state folder of its own, and the environment `personal`."""
    more = {
        "EDP_ENVIRONMENT": "personal",
        "EDP_USER": name,
        "EDP_STATE": str(shop.root / f"state_{name}"),
        "EDP_DAGSTER_STATE": str(shop.root / f"state_{name}" / "dagster"),
    }
    return shop.edp(*arguments, **more, **others)


def bytes_of(folder: Path, *, people: bool) -> dict[str, str]:
    """SHA-256 by path of the files of everybody, or of people."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (file.relative_to(folder).parts[0] == PEOPLE) is people
    }


def rows(shop: Workspace, table: str, *, person: str | None = None) -> list[dict[str, Any]] | None:
    """Rows of a table, without what a load adds to them."""
    root = shop.root / "lake" if person is None else shop.root / "lake" / PEOPLE / person
    reader = DeltaTableReader.open(str(root / "shop" / table), storage_options={})
    if reader is None:
        return None
    own = tuple(name for name in reader.schema.names if not name.startswith("_"))
    return sorted(reader.read(columns=own).read_all().to_pylist(), key=repr)


def loads(shop: Workspace) -> dict[tuple[str, str], list[tuple[int, str]]]:
    """Batch and status by workstream and table, as the control database of everybody has them."""
    with closing(sqlite3.connect(shop.root / "control.db")) as connection:
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        query = "SELECT workstream, name, batch_id, status FROM loads ORDER BY batch_id"
        for workstream, name, batch, status in connection.execute(query):
            found.setdefault((workstream, name), []).append((batch, status))
    return found


def test_two_who_build_everything_at_once_do_not_meet(shop: Workspace) -> None:
    before = bytes_of(shop.root / "lake", people=False)
    shared = {table: rows(shop, table) for table in TABLES}
    log = loads(shop)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda name: as_person(shop, name, "run"), ("anna", "bo")):
            assert done.returncode == 0, done.stdout + done.stderr

    assert bytes_of(shop.root / "lake", people=False) == before
    for person in ("anna", "bo"):
        assert {table: rows(shop, table, person=person) for table in TABLES} == shared
        assert (shop.root / "lake" / PEOPLE / person / "shop/dashboard/board/index.html").is_file()
        # Nobody waited for anybody, and the batches of each count from one.
        for table in ("orders", "customers"):
            assert loads(shop)[f"_{person}__shop", table] == [(1, "succeeded")]
    assert {key: found for key, found in loads(shop).items() if key[0] == "shop"} == log


def test_one_step_alone_is_run_on_the_shared_tables(shop: Workspace) -> None:
    before = bytes_of(shop.root / "lake", people=False)
    done = as_person(shop, "cora", "run", "shop.silver.orders")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bytes_of(shop.root / "lake", people=False) == before
    assert rows(shop, "silver/orders", person="cora") == rows(shop, "silver/orders")
    assert rows(shop, "bronze/orders", person="cora") is None


def test_a_dashboard_alone_shows_the_shared_tables(shop: Workspace) -> None:
    before = bytes_of(shop.root / "lake", people=False)
    done = as_person(shop, "dan", "run", "shop.dashboard.board")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bytes_of(shop.root / "lake", people=False) == before
    page = (shop.root / "lake" / PEOPLE / "dan" / "shop/dashboard/board/index.html").read_text()
    assert "Bo" in page


def test_the_load_log_shows_a_person_their_own_loads(shop: Workspace) -> None:
    assert as_person(shop, "eve", "run", "shop.bronze.orders").returncode == 0
    mine = json.loads(as_person(shop, "eve", "ingest", "log", "--json").stdout)
    assert {load["table"] for load in mine} == {"shop.bronze.orders"}
    everybodys = json.loads(shop.edp("ingest", "log", "--json").stdout)
    assert {load["table"] for load in everybodys} == {
        "shop.bronze.orders",
        "shop.bronze.customers",
        "shop.dbt.analytics",
    }


def test_a_run_of_nobody_in_particular_is_refused(shop: Workspace) -> None:
    # Whoever runs the tests, the process believes to be of an account that every container has.
    done = as_person(shop, "", "run", "shop.silver.orders", LOGNAME="root")
    assert done.returncode == 1
    assert "it is not known whose tables are meant" in done.stdout + done.stderr
