"""Train on the past, score the hold-out, and write the predicted hourly counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core import StepError

if TYPE_CHECKING:
    from platform_core import StepContext

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WEEK = 168
"""Hours of one week; the forecast is made a week ahead, so nothing younger than a week is looked at."""

WEATHERS = ("Mist", "Light Rain", "Heavy Rain", "Unknown")
"""Every label but "Clear", which all others are measured against."""

PARTS_OF_DAY = ((0, 6), (6, 10), (10, 16), (16, 20), (20, 24))
"""Hours between which weather is taken to work alike: [from, to)."""


@dataclass(frozen=True)
class Hours:
    """Hours in the order of time, one array element each.

    Args:
        start: the first hour.
        position: whole hours since the first one; an hour without any ride may be missing.
        rides: rides counted.
        hour: hour of the day, 0 to 23.
        working: whether it belongs to a working day.
        labels: 1 where the weather is so, else 0; one column per label of :data:`WEATHERS`.
        weather: columns temperature (10 °C), humidity (0 to 1) and wind (10 km/h).
    """

    start: np.datetime64
    position: npt.NDArray[np.int64]
    rides: Floats
    hour: npt.NDArray[np.int64]
    working: Bools
    labels: Floats
    weather: Floats

    @classmethod
    def of(cls, table: pa.Table) -> Hours:
        """Read silver.rides_weather."""
        table = table.sort_by("ride_hour")
        hours = table["ride_hour"].cast(pa.timestamp("s")).to_numpy().astype("datetime64[h]")
        start = hours[0]
        return cls(
            start=start,
            position=(hours - start).astype(np.int64),
            rides=table["rides"].to_numpy().astype(np.float64),
            hour=table["hour_of_day"].to_numpy().astype(np.int64),
            working=table["is_working_day"].to_numpy().astype(np.bool_),
            labels=np.column_stack([_equals(table["weather"], label) for label in WEATHERS]),
            weather=np.column_stack(
                [
                    _filled(table["temperature_c"]) / 10,
                    _filled(table["humidity_percent"]) / 100,
                    _filled(table["wind_kmh"]) / 10,
                ]
            ),
        )

    def counts(self) -> Floats:
        """Rides of every hour from the first to the last; 0 where the data set has no row, as nobody rode then."""
        counts = np.zeros(int(self.position[-1]) + 1)
        counts[self.position] = self.rides
        return counts


def train(context: StepContext) -> pa.Table:
    """Forecast the hold-out one week ahead and compare it with the same hour of the week before.

    The weather of a hold-out hour is taken as known, as if its weather forecast had been right.

    Variables:
        holdout_days: length of the hold-out at the end of the data, days.
        ridge: strength of the penalty on the coefficients, in standardised features.

    Returns:
        ride_hour, actual, predicted, baseline, and both errors (rides an hour); one row per hour of the hold-out.
    """
    holdout_days = int(context.variables["holdout_days"])
    hours = Hours.of(context.inputs["silver.rides_weather"].arrow())
    counts = hours.counts()
    cut = len(counts) - holdout_days * 24
    known = hours.position >= 4 * WEEK  # before, the longest look back would reach beyond the first hour
    training, holdout = known & (hours.position < cut), known & (hours.position >= cut)
    if not training.any():
        raise StepError(
            f"no hour is left to train on: {len(counts)} hours are there, the first {4 * WEEK} serve as look-back "
            f"and the last {holdout_days * 24} are held out; lower holdout_days"
        )

    features, baseline = _features(hours, counts), counts[np.maximum(hours.position - WEEK, 0)]
    # Rides are multiplied by hour and weather, not added to: so the logarithm is what is fitted.
    coefficients = _ridge(features[training], np.log1p(hours.rides[training]), float(context.variables["ridge"]))
    predicted = np.maximum(np.expm1(coefficients.predict(features[holdout])), 0)
    actual, baseline = hours.rides[holdout], baseline[holdout]

    moments = (hours.start + hours.position[holdout]).astype("datetime64[us]")
    cut_date = str((hours.start + cut).astype("datetime64[D]"))
    context.add_figure("cut_date", cut_date)
    context.add_figure("train_hours", int(training.sum()))
    context.add_figure("test_hours", int(holdout.sum()))
    context.add_figure("mae", _mae(predicted, actual))
    context.add_figure("rmse", _rmse(predicted, actual))
    context.add_figure("baseline_mae", _mae(baseline, actual))
    context.add_figure("baseline_rmse", _rmse(baseline, actual))
    context.write_file("forecast.json", _document(cut_date, moments, predicted))
    context.log.info("trained on %d hours, scored %d", training.sum(), holdout.sum())
    return pa.table(
        {
            "ride_hour": pa.array(moments),
            "actual": pa.array(actual.astype(np.int64)),
            "predicted": pa.array(np.round(predicted, 1)),
            "baseline": pa.array(baseline.astype(np.int64)),
            "error": pa.array(np.round(np.abs(predicted - actual), 1)),
            "baseline_error": pa.array(np.abs(baseline - actual).astype(np.int64)),
        }
    )


def _features(hours: Hours, counts: Floats) -> Floats:
    """One row of features an hour; none looks at a ride younger than a week."""
    weeks = [counts[np.maximum(hours.position - WEEK * back, 0)] for back in (1, 2, 3, 4)]
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    levels = [_mean_between(sums, hours.position, WEEK, WEEK * last) for last in (2, 4)]
    history = np.log1p(np.column_stack([weeks[0], np.mean(weeks, axis=0), *levels]))

    slot = hours.hour + 24 * hours.working
    profile = (slot[:, None] == np.arange(48)).astype(np.float64)
    rain = hours.labels[:, WEATHERS.index("Light Rain")] + hours.labels[:, WEATHERS.index("Heavy Rain")]
    daily = [
        part * group * effect
        for first, end in PARTS_OF_DAY
        for part in [((hours.hour >= first) & (hours.hour < end)).astype(np.float64)]
        for group in (hours.working.astype(np.float64), (~hours.working).astype(np.float64))
        for effect in (hours.weather[:, 0], hours.weather[:, 1], rain)
    ]
    trend = hours.position / len(counts)
    return np.column_stack(
        [history, profile, hours.weather, hours.weather[:, :2] ** 2, hours.labels, trend, np.column_stack(daily)]
    )


def _mean_between(sums: Floats, position: npt.NDArray[np.int64], newest: int, oldest: int) -> Floats:
    """Mean rides of the hours from ``oldest`` to ``newest`` hours ago, by differences of running sums."""
    first, end = np.maximum(position - oldest, 0), np.maximum(position - newest, 1)
    means: Floats = (sums[end] - sums[first]) / np.maximum(end - first, 1)
    return means


@dataclass(frozen=True)
class _Coefficients:
    mean: Floats
    scale: Floats
    weights: Floats
    level: float

    def predict(self, features: Floats) -> Floats:
        """The fitted value of each row."""
        fitted: Floats = (features - self.mean) / self.scale @ self.weights + self.level
        return fitted


def _ridge(features: Floats, target: Floats, penalty: float) -> _Coefficients:
    """Least squares with a penalty on the squared weights of standardised features."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1.0  # a label that never occurs in training
    standard, level = (features - mean) / scale, float(target.mean())
    gram = standard.T @ standard + penalty * np.eye(standard.shape[1])
    return _Coefficients(mean, scale, np.linalg.solve(gram, standard.T @ (target - level)), level)


def _filled(column: pa.ChunkedArray) -> Floats:
    """The values, each missing one replaced by the last known before it, and 0 before the first."""
    values = column.cast(pa.float64()).to_numpy().copy()
    known = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.accumulate(known)
    filled: Floats = np.where(last < 0, 0.0, values[np.maximum(last, 0)])
    return filled


def _equals(column: pa.ChunkedArray, label: str) -> Floats:
    return np.array([value == label for value in column.to_pylist()], dtype=np.float64)


def _mae(predicted: Floats, actual: Floats) -> float:
    return round(float(np.abs(predicted - actual).mean()), 2)


def _rmse(predicted: Floats, actual: Floats) -> float:
    return round(float(np.sqrt(((predicted - actual) ** 2).mean())), 2)


def _document(cut_date: str, moments: npt.NDArray[np.datetime64], predicted: Floats) -> bytes:
    hours = [
        {"ride_hour": moment, "predicted": round(float(value), 1)}
        for moment, value in zip(np.datetime_as_string(moments, unit="s").tolist(), predicted, strict=True)
    ]
    return json.dumps({"trained_until": cut_date, "unit": "rides an hour", "hours": hours}, indent=1).encode()
