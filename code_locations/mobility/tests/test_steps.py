"""The Python steps, run on small tables."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from mobility.steps import changes, forecast

from platform_core import StepError

FIRST = dt.datetime(2012, 1, 2)


@dataclass(frozen=True)
class FakeInput:
    table: pa.Table

    def arrow(self) -> pa.Table:
        return self.table


@dataclass
class FakeContext:
    """What a step is given, with tables in memory."""

    tables: dict[str, pa.Table]
    variables: dict[str, Any] = field(default_factory=lambda: {"holdout_days": 14, "ridge": 10})
    figures: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("test"))

    @property
    def inputs(self) -> dict[str, FakeInput]:
        return {name: FakeInput(table) for name, table in self.tables.items()}

    def changed_rows(self, name: str) -> pa.RecordBatchReader:
        return self.tables[name].to_reader()

    def add_figure(self, name: str, value: Any) -> None:
        self.figures[name] = value

    def write_file(self, name: str, content: bytes) -> str:
        self.files[name] = content
        return name


def _hour(position: int, **changed: Any) -> dict[str, Any]:
    """An hour whose rides follow the clock and are halved by rain, which falls on every fifth day."""
    moment = FIRST + dt.timedelta(hours=position)
    rainy = moment.toordinal() % 5 == 0
    peak = 1 + math.sin((moment.hour - 6) / 24 * 2 * math.pi)
    return {
        "ride_hour": moment,
        "rides": round((20 + 150 * peak) * (0.5 if rainy else 1)),
        "hour_of_day": moment.hour,
        "is_working_day": moment.weekday() < 5,
        "weather": "Light Rain" if rainy else "Clear",
        "temperature_c": 15.0,
        "humidity_percent": 60,
        "wind_kmh": 10.0,
        **changed,
    }


def _hours(days: int, change: Callable[[int], dict[str, Any]] = lambda _: {}) -> pa.Table:
    return pa.Table.from_pylist([_hour(position, **change(position)) for position in range(days * 24)])


def _train(table: pa.Table, **variables: Any) -> tuple[pa.Table, FakeContext]:
    context = FakeContext({"silver.rides_weather": table})
    context.variables.update(variables)
    return forecast.train(context), context


def test_forecast_beats_last_weeks_value_where_weather_matters() -> None:
    rows, context = _train(_hours(120))
    assert context.figures["mae"] < 0.25 * context.figures["baseline_mae"]
    assert rows.num_rows == context.figures["test_hours"] == 14 * 24


def test_hold_out_lies_after_all_that_is_trained_on() -> None:
    rows, context = _train(_hours(120))
    cut = FIRST + dt.timedelta(days=120 - 14)
    assert context.figures["cut_date"] == cut.date().isoformat()
    assert min(rows["ride_hour"].to_pylist()) == cut
    assert context.figures["train_hours"] == (120 - 14 - 28) * 24


def test_counts_of_the_last_week_do_not_reach_the_forecast() -> None:
    """Nothing younger than a week is looked at: other counts in the last week leave every prediction as it is."""
    table = _hours(120)
    changed = _hours(120, lambda position: {"rides": 9_999} if position >= 113 * 24 else {})
    assert _train(table)[0]["predicted"].equals(_train(changed)[0]["predicted"])


def test_baseline_is_the_same_hour_of_the_week_before() -> None:
    table = _hours(60)
    counts = dict(zip(table["ride_hour"].to_pylist(), table["rides"].to_pylist(), strict=True))
    rows, _ = _train(table)
    for moment, baseline in zip(rows["ride_hour"].to_pylist(), rows["baseline"].to_pylist(), strict=True):
        assert baseline == counts[moment - dt.timedelta(days=7)]


def test_order_of_rows_does_not_matter() -> None:
    table = _hours(60)
    shuffled = table.take(list(reversed(range(table.num_rows))))
    assert _train(table)[0].equals(_train(shuffled)[0])


def test_missing_weather_and_missing_hours_are_bridged() -> None:
    table = _hours(60, lambda position: {"temperature_c": None, "weather": "Unknown"} if position % 50 == 7 else {})
    table = table.take([position for position in range(table.num_rows) if position % 97])
    rows, context = _train(table)
    assert all(math.isfinite(value) for value in rows["predicted"].to_pylist())
    assert context.figures["mae"] < context.figures["baseline_mae"]


def test_file_holds_the_predicted_counts_of_the_table() -> None:
    rows, context = _train(_hours(60))
    document = json.loads(context.files["forecast.json"])
    assert [hour["predicted"] for hour in document["hours"]] == rows["predicted"].to_pylist()
    assert document["hours"][0]["ride_hour"] == rows["ride_hour"][0].as_py().isoformat()


def test_too_little_history_says_what_to_do() -> None:
    with pytest.raises(StepError, match="lower holdout_days"):
        _train(_hours(40))


def _rides(*rows: tuple[int, int, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"ride_hour": FIRST + dt.timedelta(hours=hour), "casual": casual, "registered": registered}
            for hour, casual, registered in rows
        ],
        schema=pa.schema([("ride_hour", pa.timestamp("us")), ("casual", pa.int64()), ("registered", pa.int64())]),
    )


def test_changes_are_summed_up_in_one_row() -> None:
    context = FakeContext({"bronze.rides": _rides((5, 1, 2), (3, 10, 20), (9, 100, 200))})
    assert changes.summarise(context).to_pylist() == [
        {
            "first_hour": FIRST + dt.timedelta(hours=3),
            "last_hour": FIRST + dt.timedelta(hours=9),
            "hours": 3,
            "rides": 333,
        }
    ]
    assert context.figures == {"changed_hours": 3}


def test_without_changes_there_is_no_row() -> None:
    assert changes.summarise(FakeContext({"bronze.rides": _rides()})).num_rows == 0
