"""After each day of the demo, every table holds what an independent calculation says."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import crm.sample
import pytest
from deltalake import DeltaTable

from tests.conftest import Day, Demo
from tests.scenarios import oracle, taint
from tests.scenarios.oracle import CrmSources, Expected, Row

DAYS = pytest.mark.parametrize("day", [1, 2])
HALF_A_CENT = 0.005 + 1e-9
"""How far a mean that was rounded to two decimals may lie from the exact one."""

TECHNICAL = {"_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash"}


@pytest.fixture(scope="module")
def crm_sources(tmp_path_factory: pytest.TempPathFactory) -> CrmSources:
    folder = tmp_path_factory.mktemp("crm")
    for day in (1, 2):
        crm.sample.lay_out(folder / str(day), day=day)
    return CrmSources({day: folder / str(day) / "crm.db" for day in (1, 2)})


@cache
def rows_of(lake: Path, table: str) -> list[Row]:
    """All rows of ``workstream.layer.name``, with plain Python values."""
    rows: list[Row] = DeltaTable(str(lake.joinpath(*table.split(".")))).to_pyarrow_table().to_pylist()
    return rows


def keyed(rows: Iterable[Row], *key: str) -> dict[Any, Row]:
    """Rows by key, which must be unique."""
    listed = list(rows)
    result = {tuple(row[name] for name in key) if len(key) > 1 else row[key[0]]: row for row in listed}
    assert len(result) == len(listed), f"{len(listed) - len(result)} rows have a key that another row has too"
    return result


def assert_same(actual: Mapping[Any, Row], expected: Mapping[Any, Row], *, tolerance: float = 1e-9) -> None:
    """Every expected row with every expected column, and no other row."""
    missing, extra = expected.keys() - actual.keys(), actual.keys() - expected.keys()
    assert not missing, f"{len(missing)} rows are missing, such as {sorted(missing, key=str)[:3]}"
    assert not extra, f"{len(extra)} rows should not be there, such as {sorted(extra, key=str)[:3]}"
    wrong = [
        f"{key}.{name}: {actual[key][name]!r}, expected {value!r}"
        for key, row in expected.items()
        for name, value in row.items()
        if not _same(actual[key][name], value, tolerance)
    ]
    assert not wrong, f"{len(wrong)} values differ, such as\n" + "\n".join(wrong[:5])


def _same(actual: object, expected: object, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(actual, float | int):
        return math.isclose(actual, expected, rel_tol=1e-9, abs_tol=tolerance)
    # A blank in a CSV file may arrive as an empty text or as nothing.
    return actual == expected or (expected == "" and actual is None)


def assert_bronze(rows: Mapping[Any, Row], expected: Expected, *, days: Mapping[int, Day], day: int) -> None:
    """Values, flags, and the day on which each row was last modified."""
    assert_same(rows, expected.rows)
    assert {key for key, row in rows.items() if row["_is_deleted"]} == expected.deleted
    assert {key for key, row in rows.items() if not row["_is_current"]} == expected.deleted
    outside = [key for key, row in rows.items() if not _modified_on(row, days[day if key in expected.touched else 1])]
    assert not outside, f"_modified_at of {len(outside)} rows is not of the right load, such as {outside[:3]}"
    batches = {(row["_batch_id"], _modified_on(row, days[1])) for row in rows.values()}
    assert len({batch for batch, _ in batches}) == len(batches), "a batch spans both days"
    assert all(row["_row_hash"] is not None for row in rows.values())


def _modified_on(row: Row, day: Day) -> bool:
    modified: dt.datetime = row["_modified_at"]
    return day.started <= modified <= day.ended


def _by(*key: str) -> Callable[[Iterable[Row]], dict[Any, Row]]:
    return lambda rows: keyed(rows, *key)


def test_day_one_holds_the_published_totals(demo: Demo) -> None:
    rows = rows_of(demo.days[1].lake, "mobility.bronze.rides")
    assert (len(rows), sum(row["casual"] + row["registered"] for row in rows)) == (17_379, 3_292_679)


def test_day_two_holds_other_totals(demo: Demo) -> None:
    rows = rows_of(demo.days[2].lake, "mobility.bronze.rides")
    assert (len(rows), sum(row["casual"] + row["registered"] for row in rows)) == (17_406, 3_295_092)


@DAYS
@pytest.mark.parametrize(
    ("table", "key", "expected"),
    [
        ("rides", ("ride_id",), oracle.rides),
        ("ride_events", ("event_id",), oracle.ride_events),
        ("seasons", ("season",), oracle.seasons),
        ("weather", ("dteday", "hr"), oracle.weather),
    ],
)
def test_bronze_of_mobility(
    table: str, key: tuple[str, ...], expected: Callable[[int], Expected], day: int, demo: Demo
) -> None:
    rows = keyed(rows_of(demo.days[day].lake, f"mobility.bronze.{table}"), *key)
    assert_bronze(rows, expected(day), days=demo.days, day=day)


@DAYS
def test_bronze_of_reference(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "reference.bronze.public_holidays"), "holiday_date")
    holidays = oracle.public_holidays()
    expected = Expected(holidays, frozenset(), frozenset(holidays) if day == 1 else frozenset())
    assert_bronze(rows, expected, days=demo.days, day=day)


@DAYS
def test_silver_of_mobility(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "mobility.silver.rides_weather"), "ride_id")
    assert_same(rows, oracle.rides_weather(day))


@DAYS
def test_silver_of_reference(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "reference.silver.public_holidays"), "holiday_date")
    assert_same(rows, oracle.public_holidays())


def test_holidays_of_the_list_are_those_of_the_data_set() -> None:
    published = {dt.date.fromisoformat(hour["dteday"]) for hour in oracle.hours() if hour["holiday"] == "true"}
    assert oracle.public_holidays().keys() == published | {dt.date(2013, 1, 1)}


@DAYS
def test_gold_daily(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "mobility.gold.daily"), "ride_date")
    assert_same(rows, oracle.daily(day), tolerance=HALF_A_CENT)


@DAYS
def test_gold_hourly_profile(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "mobility.gold.hourly_profile"), "day_type", "hour_of_day")
    assert_same(rows, oracle.hourly_profile(day), tolerance=HALF_A_CENT)


@DAYS
def test_gold_weather_effect(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "mobility.gold.weather_effect"), "weather")
    expected = oracle.weather_effect(day)
    assert_same(rows, expected, tolerance=HALF_A_CENT)
    ratios = {label: {"ratio_to_usual": row["ratio_to_usual"]} for label, row in expected.items()}
    assert_same(rows, ratios, tolerance=HALF_A_CENT / 100)


@DAYS
def test_gold_changes(day: int, demo: Demo) -> None:
    rows = sorted(rows_of(demo.days[day].lake, "mobility.gold.changes"), key=lambda row: row["hours"], reverse=True)
    assert rows == oracle.changes(day)


@DAYS
def test_gold_forecast_stands_beside_the_counts_and_beats_the_baseline(day: int, demo: Demo) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "mobility.gold.forecast"), "ride_hour")
    expected = oracle.forecast(day)
    assert_same(rows, expected)
    error = _mean_distance(rows, "predicted", expected)
    assert error < 0.7 * _mean_distance(expected, "baseline", expected)
    assert_same(
        rows, {key: {"error": abs(row["predicted"] - row["actual"])} for key, row in rows.items()}, tolerance=0.1
    )


def _mean_distance(rows: Mapping[Any, Row], column: str, expected: Mapping[Any, Row]) -> float:
    return float(sum(abs(rows[key][column] - expected[key]["actual"]) for key in expected) / len(expected))


@DAYS
def test_forecast_file_holds_the_predicted_counts(day: int, demo: Demo) -> None:
    lake = demo.days[day].lake
    rows = keyed(rows_of(lake, "mobility.gold.forecast"), "ride_hour")
    document = json.loads((lake / "mobility" / "files" / "forecast" / "forecast.json").read_text())
    predicted = {dt.datetime.fromisoformat(hour["ride_hour"]): hour["predicted"] for hour in document["hours"]}
    assert predicted == {moment: row["predicted"] for moment, row in rows.items()}
    assert dt.date.fromisoformat(document["trained_until"]) == min(predicted).date()


@DAYS
def test_bronze_of_riders_but_for_what_is_masked(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "crm.bronze.riders"), "rider_id")
    expected = crm_sources.riders(day)
    assert_bronze(rows, _only(expected, "membership"), days=demo.days, day=day)
    assert all(
        rows[key][name] != value
        for key, row in expected.rows.items()
        for name, value in row.items()
        if name in ("name", "email", "phone", "birth_date", "postcode")
    )


@DAYS
def test_bronze_of_rentals_but_for_what_is_masked(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "crm.bronze.rentals"), "rental_id")
    expected = crm_sources.rentals(day)
    assert_bronze(rows, _only(expected, "duration_minutes"), days=demo.days, day=day)


@DAYS
def test_one_address_has_one_hash_in_both_tables(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    lake = demo.days[day].lake
    pairs: Counter[tuple[str, str]] = Counter()
    for table, key, column, expected in (
        ("crm.bronze.riders", "rider_id", "email", crm_sources.riders(day)),
        ("crm.bronze.rentals", "rental_id", "rider_email", crm_sources.rentals(day)),
    ):
        rows = keyed(rows_of(lake, table), key)
        pairs.update((row[column], rows[number][column]) for number, row in expected.rows.items())
    # Compared as booleans: a failure must not print an address.
    one_to_one = len({raw for raw, _ in pairs}) == len({masked for _, masked in pairs}) == len(pairs)
    assert one_to_one


def test_one_phone_number_has_one_hash_and_it_is_not_that_of_an_address(demo: Demo) -> None:
    rows = rows_of(demo.days[2].lake, "crm.bronze.riders")
    assert len({row["phone"] for row in rows}) == len(rows)
    assert not {row["phone"] for row in rows} & {row["email"] for row in rows}


@DAYS
def test_silver_of_crm(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    rows = keyed(rows_of(demo.days[day].lake, "crm.silver.rider_activity"), "rental_id")
    assert_same(rows, crm_sources.rider_activity(day))


@DAYS
def test_gold_of_crm(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    lake = demo.days[day].lake
    by_membership = keyed(rows_of(lake, "crm.gold.membership_weather"), "membership", "weather")
    assert_same(by_membership, crm_sources.membership_weather(day), tolerance=HALF_A_CENT)
    by_month = keyed(rows_of(lake, "crm.gold.monthly"), "month")
    assert_same(by_month, crm_sources.monthly(day), tolerance=HALF_A_CENT)


def test_rentals_of_forgotten_riders_lose_their_rider(demo: Demo, crm_sources: CrmSources) -> None:
    gone = crm_sources.riders(2).deleted
    before = rows_of(demo.days[1].lake, "crm.silver.rider_activity")
    after = keyed(rows_of(demo.days[2].lake, "crm.silver.rider_activity"), "rental_id")
    orphaned = [row["rental_id"] for row in before if row["rider_id"] in gone]
    assert orphaned
    assert {(after[rental]["rider_id"], after[rental]["membership"]) for rental in orphaned} == {(None, "former rider")}


@DAYS
def test_printed_figures_of_each_load(day: int, demo: Demo, crm_sources: CrmSources) -> None:
    printed = _printed_loads(demo.days[day].output)
    expected = {
        table: (figures.read, figures.inserted, figures.updated, figures.deleted, figures.unchanged)
        for table, figures in oracle.load_figures(day, crm_sources).items()
    }
    assert printed == expected


def _printed_loads(output: str) -> dict[str, tuple[int, ...]]:
    cells = [line.split() for line in output.splitlines() if (".bronze." in line and " v" in line) or " none " in line]
    return {row[0]: tuple(int(cell.replace(",", "")) for cell in row[2:7]) for row in cells}


@pytest.mark.parametrize("table", ["mobility.bronze.seasons", "reference.bronze.public_holidays"])
def test_unchanged_table_makes_no_commit_on_day_two(table: str, demo: Demo) -> None:
    first, second = (DeltaTable(str(demo.days[day].lake.joinpath(*table.split(".")))).version() for day in (1, 2))
    assert first == second


@pytest.mark.parametrize("table", ["rides", "ride_events", "weather"])
def test_changed_table_makes_one_commit_on_day_two(table: str, demo: Demo) -> None:
    first, second = (DeltaTable(str(demo.days[day].lake / "mobility" / "bronze" / table)).version() for day in (1, 2))
    assert second == first + 1


def test_no_file_that_the_demo_left_holds_a_personal_value(demo: Demo) -> None:
    values = crm.sample.personal_values()
    found = taint.hits(demo.state, values)
    assert not found, f"{len(found)} hits, in " + ", ".join(sorted({str(file) for file, _ in found})[:10])


def test_the_search_sees_personal_values_where_they_are(demo: Demo) -> None:
    values = crm.sample.personal_values()
    found = taint.hits(demo.state / "sources" / "crm", values, exclude=())
    database = CrmSources({2: demo.state / "sources" / "crm" / "crm.db"})
    of_day_two = {row[name] for row in database.read("riders", 2).values() for name in ("name", "email", "phone")}
    of_day_two |= {row["rider_email"] for row in database.read("rentals", 2).values()}
    # Compared as a boolean: a failure must not print them.
    all_found = {sorted(values)[index] for _, index in found} == of_day_two
    assert all_found


def _only(expected: Expected, *columns: str) -> Expected:
    rows = {key: {name: row[name] for name in columns} for key, row in expected.rows.items()}
    return Expected(rows, expected.deleted, expected.touched)
