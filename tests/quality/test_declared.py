"""Faults of expectations are found by `edp check`, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.load import load_manifest
from platform_core.errors import ConfigError
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest
from tests.quality.conftest import FILES
from tests.scenarios.workspaces import Workspace


def load(root: Path, *entries: str, select: str = "", step: str = "", extra: str = "") -> Manifest:
    """The location, with entries under the orders that begin at line 8 of their file."""
    lines = "".join(f"      - {entry}\n" for entry in entries)
    wanted = (
        "source: erp\ntables:\n  - object: customers\n    mode: full\n    key: [customer_id]\n  - object: orders\n"
        f"    mode: full\n    key: [order_id]\n{select}    expectations:\n{lines}"
    )
    files = {name: text for name, text in FILES.items() if name.startswith("shop/")}
    workspace = Workspace.create(root, files)
    (root / "shop/control/ingestion/erp.yaml").write_text(wanted if entries else wanted.partition("    expect")[0])
    if step:
        workspace.write({"shop/control/processing/gold.yaml": step})
    return load_manifest(root / "shop" / "control", environment="dev", state=root / "state")


ENTRY = "shop/control/ingestion/erp.yaml:10"

FAULTS = {
    "no kind": ("{severity: warn}", "exactly one of the keys not_null, unique"),
    "two kinds": ("{not_null: a, unique: b}", "'not_null' and 'unique' are two"),
    "a misspelt kind": ("{not_nul: a}", "unknown key 'not_nul'"),
    "a missing column": ("{range: {min: 1}}", "'range' needs 'column'"),
    "a column that means nothing": ("{column: a, not_null: a}", "'column' means nothing to 'not_null'"),
    "an empty range": ("{column: a, range: {}}", "needs 'min', 'max' or both"),
    "a range upside down": ("{column: a, range: {min: 2, max: 1}}", "'min' is larger than 'max'"),
    "a share of more than all": ("{not_null: a, at_most: 101 %}", "is more than 100 %"),
    "a share without a sign": ('{not_null: a, at_most: "5"}', "must read like '5 %'"),
    "a warning that blocks": ("{not_null: a, severity: warn, blocking: true}", "a warning blocks nothing"),
    "an unknown severity": ("{not_null: a, severity: fatal}", "unknown severity 'fatal'"),
    "rows that cannot be told": ("{row_count: {min: 1}, quarantine: true}", "does not tell which rows"),
    "a tolerance of a count": ("{row_count: {min: 1}, at_most: 1}", "is met by the table or not"),
    "a condition without a name": ('{sql: "amount > 0"}', "'sql' needs 'name'"),
    "a condition that is none": ('{name: q, sql: "DROP TABLE x"}', "not DROP"),
    "a condition of two": ('{name: q, sql: "a > 1; b > 2"}', "2 statements are there"),
    "a condition that reads files": ("{name: q, sql: \"getenv('HOME') = a\"}", "reaches outside"),
    "a condition over many rows": ('{name: q, sql: "sum(a) > 1"}', "reads several"),
    "a scope that is none": ('{not_null: a, where: "1 = 1"}', "names a column"),
    "a query that reads files": ("{name: q, sql: \"SELECT * FROM read_csv('x')\"}", "'read_csv' is not allowed"),
    "a query of another table only": (
        '{name: q, sql: "SELECT * FROM bronze.customers"}',
        "does not read shop.bronze.orders",
    ),
    "a query with a parameter": ('{name: q, sql: "SELECT * FROM bronze.orders WHERE a = $b"}', "$b is one"),
    "a query of an unknown table": (
        '{name: q, sql: "SELECT 1 FROM bronze.orders, bronze.order"}',
        "unknown table 'bronze.order'",
    ),
    "a reference to an unknown table": (
        "{column: a, references: {table: bronze.custmers, column: id}}",
        "unknown table 'bronze.custmers'",
    ),
    "a pattern that RE2 does not know": ("{column: a, matches: '(?=x)'}", "'matches' is no regular expression of RE2"),
    "a pattern that repeats too much": ("{column: a, matches: 'a{9999}'}", "repeats too much"),
    "a span that is none": ("{fresh: soon}", "must read like '2 hours'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line(tmp_path: Path, fault: str) -> None:
    entry, said = FAULTS[fault]
    with pytest.raises(ConfigError) as told:
        load(tmp_path, entry)
    found = {f"{issue.place}": issue.message for issue in told.value.issues}
    assert any(place.endswith(ENTRY) and said in message for place, message in found.items()), found


def test_two_checks_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two expectations are named 'not_null_a'"):
        load(tmp_path, "{not_null: a}", "{not_null: A}")


def test_an_unknown_column_is_told_where_all_are_declared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, "{not_null: amuont}", '{name: q, sql: "amuont > 0"}', select="    select: [order_id, amount]\n")
    assert [issue.message for issue in told.value.issues] == ["unknown column 'amuont'"] * 2
    assert "did you mean 'amount'?" in told.value.issues[0].hints


def test_columns_of_the_platform_are_known(tmp_path: Path) -> None:
    assert load(tmp_path, "{not_null: _batch_id}", "{fresh: 1 day}", select="    select: [order_id]\n").ingestions


def test_an_unknown_column_of_a_query_is_told(tmp_path: Path) -> None:
    step = """\
        steps:
          - name: revenue
            layer: gold
            kind: sql
            sql: sql/revenue.sql
            expectations:
              - not_null: amont
        """
    with pytest.raises(ConfigError, match=r"gold\.yaml:7: unknown column 'amont'"):
        load(tmp_path, step=step)


def test_a_table_that_expects_what_is_made_from_it_is_a_cycle(tmp_path: Path) -> None:
    entry = "{column: order_id, references: {table: gold.revenue, column: amount}}"
    with pytest.raises(ConfigError, match="tables are made from each other"):
        load(tmp_path, entry)


def test_expectations_come_back_from_the_control_tables_as_they_were(tmp_path: Path) -> None:
    manifest = load(tmp_path, "{not_null: [a, b], at_most: 1 %}", "{column: a, accepted_values: [1, 1.0, x, true]}")
    spec = manifest.ingestions[1]
    told = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert IngestionSpec.model_validate(told).expectations == spec.expectations
