"""What is looked at, what is tolerated, what is set aside and remembered, and what it costs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import StepError
from platform_core.lake.delta import open_table
from platform_core.operations.quality import evaluate
from platform_core.specs.expectation import quarantined
from platform_core.specs.table import TableRef
from tests.quality.worlds import TABLE, World, expecting

NOW = dt.datetime.now(dt.UTC)


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def moments(*ages: dt.timedelta) -> pa.Array:
    return pa.array([NOW - age for age in ages], pa.timestamp("us", "UTC"))


def counts(world: World, *rows: int, fewer: str = "20 %", **how: Any) -> list[bool]:
    """Whether each of several sizes of the table, one after the other, is accepted."""
    passed = []
    for number in rows:
        world.put(table(id=list(range(number))))
        passed.append(world.evaluate({"row_count_change": {"fewer": fewer, "more": "50 %"}}, **how).passed)
    return passed


def test_deleted_rows_are_not_counted(world: World) -> None:
    world.put(table(id=[1, None, None], _is_current=[True, True, False]))
    result = world.one(not_null="id")
    assert (result.checked, result.failing, result.ratio) == (2, 1, 0.5)


def test_an_empty_table_meets_what_is_expected_of_rows(world: World) -> None:
    world.put(table(id=pa.array([], pa.int64())))
    assert world.one(not_null="id").passed
    assert world.one(not_null="id").ratio == 0.0
    assert not world.one(row_count={"min": 1}).passed


@pytest.mark.parametrize(
    ("at_most", "passed"), [(None, False), (1, False), (2, True), ("20 %", True), ("19.999 %", False), ("100 %", True)]
)
def test_failing_rows_are_tolerated_up_to_a_number_or_share(world: World, at_most: Any, passed: bool) -> None:
    world.put(table(id=[None, None, *range(8)]))
    assert world.one(not_null="id", at_most=at_most).passed is passed


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"min": 3}, ""),
        ({"max": 3}, ""),
        ({"min": 4}, "3 rows are fewer than 4"),
        ({"max": 2}, "3 rows are more than 2"),
    ],
)
def test_a_number_of_rows_is_within_its_range(world: World, limits: dict[str, int], said: str) -> None:
    world.put(table(id=[1, 2, 3]))
    assert world.one(row_count=limits).message == said


def test_the_newest_value_must_be_new_enough(world: World) -> None:
    world.put(table(seen=moments(dt.timedelta(hours=3), dt.timedelta(days=9)), day=[NOW.date(), None]))
    assert world.one(column="seen", fresh="4 hours").passed
    assert not world.one(column="seen", fresh="2 hours").passed
    assert world.one(column="day", fresh="2 days").passed


def test_freshness_goes_by_the_last_change_where_no_column_is_named(world: World) -> None:
    world.put(table(_modified_at=moments(dt.timedelta(hours=3))))
    assert world.one(fresh="4 hours").passed
    assert not world.one(fresh="2 hours").passed


def test_a_table_without_rows_is_not_fresh(world: World) -> None:
    world.put(table(seen=moments()))
    result = world.one(column="seen", fresh="4 hours")
    assert (result.passed, result.message) == (False, "there are no rows")


def test_a_number_of_rows_is_compared_with_the_last_that_was_accepted(world: World) -> None:
    assert counts(world, 10, 8, 12) == [True, True, True]


def test_a_loss_stays_a_failure_when_the_step_is_run_again(world: World) -> None:
    assert counts(world, 10, 5, 5, 5, 9) == [True, False, False, False, True]


def test_a_growth_may_be_limited_too(world: World) -> None:
    assert counts(world, 10, 16, 15) == [True, False, True]


def test_a_person_accepts_a_new_number_of_rows(world: World) -> None:
    assert counts(world, 10, 5) == [True, False]
    assert world.evaluate({"row_count_change": {"fewer": "20 %"}}, keep=False, accept=True).passed
    assert counts(world, 5) == [True]


def test_a_look_that_keeps_nothing_moves_no_number(world: World) -> None:
    assert counts(world, 10) == [True]
    assert counts(world, 9, 8, 7, keep=False) == [True, True, False]


def test_a_select_that_gives_no_row_is_met(world: World) -> None:
    world.put(table(id=[1, 2]))
    assert world.one(name="q", sql="SELECT * FROM silver.orders WHERE id > 2").passed
    result = world.one(name="q", sql="SELECT * FROM silver.orders WHERE id > 1")
    assert (result.passed, result.failing, result.checked) == (False, 1, None)


def test_what_cannot_be_evaluated_is_not_met_and_keeps_no_other_from_its_result(world: World) -> None:
    world.put(table(id=[1, 2], text=["4411 Main Street", "x"]))
    result = world.evaluate(
        {"not_null": "id"}, {"not_null": "nosuch"}, {"name": "cast", "sql": "CAST(text AS INTEGER) > 0"}
    )
    good, unknown, wrong = result.results
    assert good.passed
    assert (unknown.passed, unknown.message) == (False, "there is no column 'nosuch'; columns: id, text")
    assert not wrong.passed
    assert wrong.message.startswith("could not be evaluated: Conversion Error")
    assert "Main" not in wrong.message


def test_a_referenced_table_that_is_missing_is_said(world: World) -> None:
    world.put(table(id=[1]))
    result = world.one(column="id", references={"table": "silver.nosuch", "column": "id"})
    assert (result.passed, result.message) == (False, "table shop.silver.nosuch does not exist yet; build it first")


def test_a_table_that_was_never_built_is_an_error(world: World) -> None:
    with pytest.raises(StepError, match=r"build shop\.silver\.orders first"):
        world.one(not_null="id")


def test_values_are_compared_as_the_column_has_them(world: World) -> None:
    world.put(
        pa.table(
            {
                "day": pa.array([dt.date(2026, 1, 1), dt.date(2026, 2, 1)]),
                "at": pa.array([dt.datetime(2026, 1, 1), dt.datetime(2026, 2, 1)], pa.timestamp("us", "UTC")),
                "price": pa.array(["1.10", "2.20"]).cast(pa.decimal128(12, 2)),
                "single": pa.array([0.1, 0.2], pa.float32()),
                "flag": [True, False],
            }
        )
    )
    assert world.one(column="day", range={"min": "2026-01-01", "max": "2026-02-01"}).passed
    assert world.one(column="day", range={"min": "2026-01-02"}).failing == 1
    assert world.one(column="at", range={"max": "2026-01-01T00:00:00+01:00"}).failing == 2
    assert world.one(column="price", accepted_values=[1.1, 2.2]).passed
    assert world.one(column="single", accepted_values=[0.1, 0.2]).passed
    assert world.one(column="flag", accepted_values=[True]).failing == 1
    assert "cannot be one of column 'day'" in world.one(column="day", range={"min": 7}).message


def test_rows_that_fail_are_copied_once_with_the_names_of_what_they_fail(world: World) -> None:
    world.put(table(id=[1, 1, 2], amount=[-1.0, 5.0, 5.0]))
    wanted = (
        {"unique": "id", "quarantine": True},
        {"column": "amount", "range": {"min": 0}, "quarantine": True},
        {"not_null": "amount"},
    )
    assert world.evaluate(*wanted).quarantined == 2
    shown = sorted((row["id"], row["amount"], row["_failed_expectations"]) for row in world.set_aside())
    assert shown == [(1, -1.0, "unique_id, range_amount"), (1, 5.0, "unique_id")]


def test_looking_again_sets_the_same_rows_aside_and_none_once_they_are_mended(world: World) -> None:
    wanted = {"not_null": "id", "quarantine": True}
    world.put(table(id=[1, None]))
    assert [world.evaluate(wanted).quarantined for _ in range(2)] == [1, 1]
    assert len(world.set_aside()) == 1
    world.put(table(id=[1, 2]))
    assert world.evaluate(wanted).quarantined == 0
    assert world.set_aside() == []
    side = world.platform.lake.table(quarantined(TABLE))
    before = open_table(side, storage_options={})
    world.evaluate(wanted)
    after = open_table(side, storage_options={})
    assert before is not None and after is not None and before.version() == after.version()


def test_no_side_table_is_made_where_no_row_ever_failed(world: World) -> None:
    world.put(table(id=[1]))
    assert world.evaluate({"not_null": "id", "quarantine": True}).quarantined is None
    assert open_table(world.platform.lake.table(quarantined(TABLE)), storage_options={}) is None


def test_one_expectation_looked_at_alone_keeps_the_rows_that_others_set_aside(world: World) -> None:
    world.put(table(id=[None, 1], amount=[1.0, None]))
    both = ({"not_null": "id", "quarantine": True}, {"not_null": "amount", "quarantine": True})
    world.evaluate(*both)
    world.evaluate(*both, only={"not_null_id"})
    assert len(world.set_aside()) == 2


def test_fifty_expectations_are_one_query_that_reads_the_columns_once(world: World) -> None:
    rows = 200_000
    world.put(table(id=list(range(rows)), amount=[float(each % 997) for each in range(rows)], text=["x" * 40] * rows))
    # Nothing that the statistics of the files could answer.
    fifty = [
        {"column": "amount", "range": {"max": 500 + each}, "where": f"id % 51 <> {each}", "name": f"e{each}"}
        for each in range(50)
    ]
    world.evaluate(*fifty[:1])
    alone, together = (bytes_read(world, *wanted) for wanted in (fifty[:1], fifty))
    assert together <= alone * 1.2
    result = world.evaluate(*fifty)
    assert result.queries == 1
    assert [(each.checked, each.failing) for each in result.results] == [
        (
            sum(at % 51 != place for at in range(rows)),
            sum(at % 51 != place and at % 997 > 500 + place for at in range(rows)),
        )
        for place in range(50)
    ]


def test_a_table_whose_files_are_not_all_of_it_is_read_through_its_log(world: World) -> None:
    from deltalake import write_deltalake

    rows = table(id=[1, None, 2], country=["NL", "NL", "BE"], note=["a", "b", "c"])
    write_deltalake(world.platform.lake.table(TABLE), rows, partition_by=["country"])
    result = world.evaluate(
        {"not_null": "id", "where": "country = 'NL'", "quarantine": True},
        {"unique": "country"},
        {"row_count": {"min": 3}},
    )
    assert [(each.checked, each.failing) for each in result.results] == [(2, 1), (3, 2), (3, None)]
    assert [row["note"] for row in world.set_aside()] == ["b"]


def bytes_read(world: World, *expectations: dict[str, Any]) -> int:
    def so_far() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))

    spec = expecting(*expectations)
    before = so_far()
    evaluate(spec, platform=world.platform)
    return so_far() - before


def test_a_run_that_is_cancelled_says_so_instead_of_a_result(world: World) -> None:
    from dataclasses import replace

    world.put(table(id=list(range(1_000_000))))
    world.platform = replace(world.platform, cancelled=lambda: True)
    slow = "SELECT a.id FROM silver.orders a, silver.orders b WHERE a.id = b.id + 1 AND sqrt(a.id * b.id) < 0"
    with pytest.raises(StepError, match="cancelled"):
        world.one(name="slow", sql=slow.replace("a.id = b.id + 1 AND ", ""))


INJECTIONS = [
    'x\'; DROP TABLE "shop"."silver"."orders"; --',
    "' OR '1'='1",
    "$e0_0",
    "\"; ATTACH '/etc/passwd' AS stolen; --",
    "\\' OR 1=1 --",
    "*/ OR true /*",
    "${location.root}",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_hostile_texts_are_values_and_nothing_else(world: World, text: str) -> None:
    world.put(table(text=["a", text]))
    assert world.one(column="text", accepted_values=[text]).failing == 1
    assert world.one(column="text", accepted_values=["a", text]).passed
    assert world.one(column="text", range={"min": text, "max": text}).failing == 1
    assert world.one(not_null=text).message.startswith("there is no column")
    assert world.one(
        column="text", matches="a|" + "".join(f"[{c}]" if c not in "\\^[]" else "\\" + c for c in text)
    ).passed
    assert not world.one(column="text", references={"table": "silver.orders", "column": text}).passed


@pytest.mark.parametrize(
    "text",
    [
        "id > 0; DROP TABLE silver.orders",
        "id > 0) OR (1 = 1",
        "id IN (SELECT 1)",
        "id > (SELECT count(*) FROM read_csv('/etc/passwd'))",
        "read_text('/etc/passwd') = '' OR id > 0",
        "getenv('HOME') = '' OR id > 0",
        "id > 0 UNION SELECT 1",
        "COPY silver.orders TO '/tmp/x'",
    ],
)
@pytest.mark.parametrize("key", ["sql", "where"])
def test_conditions_that_reach_beyond_a_row_are_refused_when_they_are_looked_at_too(
    world: World, key: str, text: str
) -> None:
    world.put(table(id=[1]))
    spec = {"name": "q", "sql": text} if key == "sql" else {"not_null": "id", "where": text}
    result = world.one(**spec)
    assert not result.passed
    assert result.checked is None


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT 1 FROM silver.orders; DROP TABLE silver.orders",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM silver.orders WHERE getenv('HOME') <> ''",
        "WITH x AS (INSERT INTO silver.orders VALUES (1)) SELECT 1",
        "SELECT * FROM glob('/etc/*')",
    ],
)
def test_queries_that_reach_beyond_lake_tables_are_refused(world: World, text: str) -> None:
    world.put(table(id=[1]))
    assert world.one(name="q", sql=text).checked is None
    assert not world.one(name="q", sql=text).passed


def test_a_name_with_quotes_in_a_column_is_quoted(world: World) -> None:
    world.put(pa.table({'a"b': [1, None]}))
    assert world.one(name="odd", not_null='a"b').failing == 1


def test_a_null_in_the_referenced_column_is_no_value(world: World) -> None:
    world.put(table(id=[1, 2, None]), table=TableRef("shop", "silver", "customers"))
    world.put(table(id=[1, 2, 3]))
    result = world.one(column="id", references={"table": "silver.customers", "column": "id"})
    assert (result.checked, result.failing) == (3, 1)
