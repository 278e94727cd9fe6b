"""``edp ingest``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from platform_core.cli.ingest import _aligned, _cell, _plain

Call = Callable[..., Result]


@pytest.fixture
def erp(project: Path) -> Path:
    """A database with forty customers and two orders."""
    (project / ".edp").mkdir(exist_ok=True)
    file = project / ".edp" / "erp.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table customers (customer_id integer primary key, name text)")
        connection.executemany("insert into customers values (?, ?)", [(i, f"Anna {i}") for i in range(40)])
        connection.execute("create table orders (order_id integer primary key, updated_at integer, amount real)")
        connection.executemany("insert into orders values (?, ?, ?)", [(1, 100, 1.5), (2, 200, 2.5)])
    connection.close()
    return file


def change(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.fixture
def ingest(erp: Path, call: Call) -> Callable[..., Any]:
    """Call a command below `edp ingest` and read its JSON; errors of ours are raised."""

    def run(*arguments: str) -> Any:
        result = call("ingest", *arguments, "--json")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def test_preview_shows_masked_rows_and_types_and_writes_nothing(project: Path, erp: Path, call: Call) -> None:
    before = sorted(project.rglob("*"))
    result = call("ingest", "preview", "shop.customers", "--rows", "2")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "shop.bronze.customers, read from erp (sqlite): customers",
        "",
        "COLUMN       AT THE SOURCE  TYPE THERE  TYPE HERE  MASK  CLASSIFIED  CHANGE",
        "customer_id  customer_id    int64       int64",
        "name         name           string      string     full  personal",
        "",
        "customer_id  name",
        "0            ***",
        "1            ***",
    ]
    assert sorted(project.rglob("*")) == before


def test_preview_as_json_has_every_column_and_row(ingest: Any) -> None:
    seen = ingest("preview", "shop.bronze.customers", "--rows", "1")
    assert seen["rows"] == [{"customer_id": 0, "name": "***"}]
    assert seen["columns"][1] == {
        "name": "name",
        "source": "name",
        "source_type": "string",
        "type": "string",
        "mask": "full",
        "personal": True,
        "declared": True,
        "change": "",
    }


def test_reload_loads_and_says_what_changed(erp: Path, ingest: Any, call: Call) -> None:
    first = ingest("reload", "shop.orders")
    assert (first["table"], first["batch"], first["inserted"], first["watermark_to"]) == (
        "shop.bronze.orders",
        1,
        2,
        "200",
    )
    change(erp, "update orders set amount = 9 where order_id = 1")
    result = call("ingest", "reload", "shop.orders")
    assert result.output.startswith("shop.bronze.orders: read 2, inserted 0, updated 1, deleted 0, unchanged 1, late 0")


def test_reload_takes_a_span_of_cursor_values(ingest: Any) -> None:
    ingest("reload", "shop.orders")
    assert ingest("reload", "shop.orders", "--since", "200")["rows_read"] == 1
    assert ingest("reload", "shop.orders", "--until", "100")["rows_read"] == 1


def test_reload_finds_deletes_on_demand(erp: Path, ingest: Any) -> None:
    ingest("reload", "shop.orders")
    change(erp, "delete from orders where order_id = 1")
    assert ingest("reload", "shop.orders")["keys"] is None
    assert ingest("reload", "shop.orders", "--detect-deletes")["keys"]["deleted"] == 1


@pytest.mark.parametrize("again", [("replay", "shop.orders@1"), ("reload", "shop.orders", "--from-landing", "1")])
def test_a_landed_batch_that_bronze_holds_is_not_applied_again(ingest: Any, again: tuple[str, ...]) -> None:
    ingest("reload", "shop.orders")
    result = ingest(*again)
    assert (result["committed"], result["landed_batch"], result["unchanged"]) == (False, 1, 2)


def test_a_stopped_load_names_the_command_that_lets_it_pass(erp: Path, ingest: Any, call: Call) -> None:
    ingest("reload", "shop.customers")
    change(erp, "delete from customers where customer_id > 3")
    stopped = call("ingest", "reload", "shop.customers")
    assert stopped.exit_code == 1
    assert 'edp ingest approve shop.customers@2 --why "..."' in str(stopped.exception)
    done = ingest("approve", "shop.customers@2", "--why", "they moved", "--by", "a.user")
    assert (done["deleted"], done["landed_batch"]) == (36, 2)
    again = call("ingest", "approve", "shop.customers@2", "--why", "they moved")
    assert again.exit_code == 1
    assert "batch 2 cannot be approved: bronze holds batch 3 now" in str(again.exception)


def test_the_log_lists_the_newest_loads_first(erp: Path, ingest: Any, call: Call) -> None:
    assert call("ingest", "log").output == "nothing was loaded yet\n"
    ingest("reload", "shop.customers")
    ingest("reload", "shop.orders")
    change(erp, "delete from customers where customer_id > 3")
    call("ingest", "reload", "shop.customers")
    rows = ingest("log")
    assert [(row["table"], row["batch"], row["status"]) for row in rows] == [
        ("shop.bronze.customers", 2, "stopped"),
        ("shop.bronze.orders", 1, "succeeded"),
        ("shop.bronze.customers", 1, "succeeded"),
    ]
    assert rows[2]["figures"]["inserted"] == 40
    lines = call("ingest", "log", "shop.customers", "--limit", "1").output.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == [
        "BEGAN",
        "(UTC)",
        "TABLE",
        "BATCH",
        "MODE",
        "STATUS",
        "READ",
        "INSERTED",
        "UPDATED",
        "DELETED",
        "UNCHANGED",
        "LATE",
        "SECONDS",
    ]
    assert lines[1].split()[2:6] == ["shop.bronze.customers", "2", "full", "stopped"]


def test_the_log_tells_why_a_load_failed(erp: Path, call: Call) -> None:
    change(erp, "drop table orders")
    call("ingest", "reload", "shop.orders")
    output = call("ingest", "log", "shop.orders").output
    assert "shop.bronze.orders@1 failed:\n  " in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("preview", "shop.ordrs"), "no table 'shop.ordrs' is ingested\n  did you mean 'shop.orders'?"),
        (("preview", "orders"), "'orders' is no table: write <workstream>.<table>"),
        (("log", "shop.silver.orders"), "'shop.silver.orders' is no table"),
        (("replay", "shop.orders"), "'shop.orders' is no batch: write <workstream>.<table>@<batch>"),
        (("approve", "shop.orders@x", "--why", "x"), "'shop.orders@x' is no batch"),
        (("approve", "shop.orders@1", "--why", " "), "--why is empty"),
        (("reload", "shop.orders", "--from-landing", "1", "--since", "1"), "--from-landing reads no source"),
    ],
)
def test_a_wrong_call_says_what_is_right(erp: Path, call: Call, arguments: tuple[str, ...], message: str) -> None:
    result = call("ingest", *arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_values_are_shown_as_plain_text_and_json() -> None:
    assert [_plain(value) for value in (float("nan"), b"\x01", {"a": [float("inf")]})] == ["nan", "01", {"a": ["inf"]}]
    assert _cell("a\x1b[31mred") == "a�[31mred"
    assert len(_cell("x" * 100)) == 40
    assert _aligned(("A", "LONG"), [("xx", "")]) == "A   LONG\nxx"
