"""What is read out of a step's SQL before it runs."""

from __future__ import annotations

import pytest

from platform_core.specs.sql import SqlError, parameters, qualified, quoted, referenced_tables
from platform_core.specs.table import TableRef


def test_tables_are_found_once_and_in_the_order_of_the_text() -> None:
    sql = """
        with busy as (select day from silver.rides where rides > 5)
        select * from busy join crm.gold.Monthly using (day)
        union all select * from silver.rides where day in (select day from bronze.weather)
    """
    assert referenced_tables(sql, workstream="mobility") == (
        TableRef("mobility", "silver", "rides"),
        TableRef("crm", "gold", "monthly"),
        TableRef("mobility", "bronze", "weather"),
    )


def test_a_named_query_is_no_table() -> None:
    assert (
        referenced_tables("with recursive n as (select 1 as i union all select i + 1 from n) from n", workstream="m")
        == ()
    )


def test_a_missing_workstream_is_put_in_and_nothing_else_changes() -> None:
    sql = "select silver.rides.day  -- a note\nfrom silver.rides, crm.gold.x\nwhere silver.rides.day > $since"
    assert qualified(sql, workstream="mobility") == (
        'select silver.rides.day  -- a note\nfrom "mobility".silver.rides, crm.gold.x\nwhere silver.rides.day > $since'
    )


def test_parameters_are_found_by_name() -> None:
    assert set(parameters("select * from a.b where x > $low and y < $high or z > $low")) == {"low", "high"}


def test_an_identifier_is_quoted_with_its_quotes_doubled() -> None:
    assert quoted('a"b') == '"a""b"'


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("", "there is no query"),
        ("-- nothing yet", "there is no query"),
        ("select 1;\ndrop table a.b", "line 2: one SELECT is expected, 2 statements"),
        ("drop table a.b", "not DROP"),
        ("copy (select 1) to 'x'", "not COPY"),
        ("attach 'x.db' as x", "not ATTACH"),
        ("set threads = 1", "not SET"),
        ("with x as (insert into a.b select 1) select * from x", "INSERT is not allowed"),
        ("select *\nfrom rides", "line 2: 'rides' is no table"),
        ("select * from 'rides.parquet'", "'rides.parquet' is no table"),
        ("select * from a.b.c.d", "must be written layer.name"),
        ("select * from read_parquet('x')", "table function 'read_parquet'"),
        ("select * from read_csv('x')", "table function 'read_csv'"),
        ("select * from glob('*')", "table function 'glob'"),
        ("select * from query('select 1')", "table function 'query'"),
        ("select * from duckdb_secrets()", "table function 'duckdb_secrets'"),
        ("select\n  1,\n  getenv('HOME')", "line 3: function 'getenv'"),
        ("select read_text('/etc/passwd')", "function 'read_text'"),
        ("select current_setting('temp_directory')", "function 'current_setting'"),
        ("select * from a.b\nwhere", "something is missing in WHERE"),
        ("select 'abc", "a quote is not closed"),
    ],
)
def test_anything_but_one_select_over_lake_tables_is_refused(sql: str, said: str) -> None:
    with pytest.raises(SqlError) as caught:
        referenced_tables(sql, workstream="m")
    assert said in str(caught.value)


@pytest.mark.parametrize("sql", ["select ?", "select * from a.b where x = ?"])
def test_a_parameter_without_a_name_is_refused(sql: str) -> None:
    with pytest.raises(SqlError, match="write \\$name"):
        parameters(sql)
