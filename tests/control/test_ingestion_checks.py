"""What a table declares, against what its source can do."""

from __future__ import annotations

from typing import Any

import pytest


def tables(*entries: str, source: str = "erp") -> dict[str, str]:
    lines = "".join(f"  - {entry}\n" for entry in entries)
    return {
        "control/ingestion/erp.yaml": f"source: {source}\ntables:\n{lines}",
        "control/refresh.yaml": "dashboards: []\n",
    }


@pytest.fixture
def only(package: Any) -> Any:
    """The package with nothing but the tables of the test."""
    return package.write({"control/processing/silver.yaml": None, "control/refresh.yaml": None})


FAULTS = {
    "incremental without a cursor": (
        "{object: orders, mode: incremental, key: [id]}",
        ":3: mode incremental needs 'cursor': a column that grows with every change",
    ),
    "a filter that would not run": (
        '{object: orders, mode: full, key: [id], filter: "1 = 1; drop table x"}',
        ":3: 'filter': the filter drops something\n  write one that reads",
    ),
    "a query that would not run": (
        '{table: orders, mode: full, key: [id], query: "drop table x"}',
        ":3: 'query': the query drops something\n  write one that reads",
    ),
    "changes told by a source that cannot tell them": (
        "{object: orders, mode: full, key: [id], detect_changes: {by: source}}",
        ":3: 'detect_changes' is for sources that know which rows changed; this one does not\n"
        "  remove it, or see docs/reference/sources.md for those that do",
    ),
    "changes told of an incremental table": (
        "{object: orders, mode: incremental, key: [id], cursor: at, detect_changes: {by: source}}",
        ":3: 'detect_changes' is for mode full; the other modes read what is new by their cursor",
    ),
    "changes told of rows that a filter picks": (
        "{object: orders, mode: full, key: [id], filter: a = 1, detect_changes: {by: source}}",
        ":3: 'detect_changes' and 'filter' exclude each other: what decides on a row may change without the row; "
        "remove one of them",
    ),
    "readers without a column to share rows by": (
        "{object: orders, mode: full, key: [a, b], parallel: 4}",
        ":3: 'parallel' needs 'split_by'\n"
        "  name a column whose ranges share the rows; only a key of one column needs no naming",
    ),
    "a column declared under both of its names (FAULTS B6)": (
        "{object: orders, mode: full, key: [id], columns: {EMail: {mask: full}, e_mail: {mask: full}}}",
        ":3: columns 'EMail' and 'e_mail' would both be 'e_mail' in the lake\n"
        "  declare each column once, by the source's name or the lake's",
    ),
    "key columns that are one in the lake (FAULTS B6)": (
        "{object: orders, mode: full, key: [OrderId, order_id]}",
        ":3: columns 'OrderId' and 'order_id' would both be 'order_id' in the lake\n"
        "  declare each column once, by the source's name or the lake's",
    ),
    "a column without a name in the lake (FAULTS B6)": (
        '{object: orders, mode: full, key: ["%"]}',
        ":3: column '%' has neither letter nor digit",
    ),
    "a cursor that is masked under its other name": (
        "{object: orders, mode: incremental, key: [id], cursor: ChangedAt, columns: {changed_at: {mask: full}}}",
        ":3: column 'ChangedAt' orders or flags rows and so cannot be masked",
    ),
    "a key that its mask makes the same for all": (
        "{object: orders, mode: full, key: [OrderId], columns: {order_id: {mask: full}}}",
        ":3: column 'order_id' is a key, and mask 'full' makes different values the same\n"
        "  mask it with 'hash', which keeps rows apart",
    ),
    "a key that is not selected": (
        "{object: orders, mode: full, key: [order_id], select: [Name]}",
        ":3: column 'order_id' is not among those that 'select' reads\n  add it to 'select'",
    ),
    "a history whose name is too long": (
        f"{{object: orders, table: {'o' * 60}, mode: full, key: [id], snapshot_history: true}}",
        f":3: the table of its versions would be named '{'o' * 60}_history', which is too long\n"
        "  give 'table' a name of at most 55 characters",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_line(only: Any, name: str) -> None:
    entry, expected = FAULTS[name]
    assert only.write(tables(entry)).faults() == f"control/ingestion/erp.yaml{expected}"


def test_a_source_that_is_not_asked_in_sql_takes_neither_query_nor_filter(only: Any) -> None:
    entry = '{object: "*.csv", table: a, mode: full, key: [id], filter: "a > 1"}'
    assert only.write(tables(entry, source="lists")).faults() == (
        "control/ingestion/erp.yaml:3: 'filter' is for sources that are asked in SQL; this one is not\n  remove it"
    )


def test_a_source_that_keeps_state_needs_no_cursor(only: Any) -> None:
    only.write(tables("{object: orders.csv, table: orders, mode: incremental, key: [id]}", source="lists")).load()


@pytest.mark.parametrize(
    "entry",
    [
        '{object: orders, mode: full, key: [id], filter: "amount > 1", parallel: 4}',
        "{object: orders, mode: full, key: [a, b], parallel: 2, split_by: b}",
        '{table: orders, mode: incremental, key: [OrderId], cursor: ChangedAt, query: "select * from orders", '
        "select: [OrderId, changed_at]}",
    ],
)
def test_what_fits_is_accepted(only: Any, entry: str) -> None:
    only.write(tables(entry)).load()


def test_a_history_is_a_table_like_any_other(package: Any) -> None:
    package.write(
        {
            "control/processing/silver.yaml": """\
            steps:
              - {name: versions, layer: silver, kind: sql, sql: sql/versions.sql}
            """,
            "sql/versions.sql": "select * from bronze.orders_history\n",
            "control/refresh.yaml": None,
            "control/ingestion/erp.yaml": """\
            source: erp
            tables:
              - {object: orders, mode: full, key: [id], snapshot_history: true}
            """,
        }
    ).load()


def test_a_history_that_is_declared_as_a_table_too_is_told(only: Any) -> None:
    only.write(
        tables(
            "{object: orders, mode: full, key: [id], snapshot_history: true}",
            "{object: orders_history, mode: full, key: [id]}",
        )
    )
    assert only.faults() == (
        "control/ingestion/erp.yaml:3: table 'bronze.orders_history' is made twice\n"
        "  first declared at control/ingestion/erp.yaml:4"
    )
