"""What the demo's tables must hold after each day, worked out in plain Python from the published CSV.

Nothing of the platform is used here, and nothing of the code that lays out the sources of mobility: day two is taken
from the text of ``code_locations/mobility/README.md``. The crm team's riders are made up, so their sources are read as
they lie in SQLite.
"""

from __future__ import annotations

import csv
import datetime as dt
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
HOURS = PROJECT / "code_locations" / "mobility" / "mobility" / "data" / "bike_sharing" / "hour.csv"
HOLIDAYS = PROJECT / "code_locations" / "data_platform" / "data_platform" / "data" / "public_holidays.csv"

Row = dict[str, Any]

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
SEASONS = {
    "spring": "21 December to 20 March",
    "summer": "21 March to 20 June",
    "fall": "21 June to 22 September",
    "winter": "23 September to 20 December",
}

CORRECTED = tuple(1700 * number for number in range(1, 11))
LATE = (17380, 17381, 17382)
NEW_YEAR = tuple(range(17383, 17407))
STALE = 17378


@dataclass(frozen=True)
class Expected:
    """A bronze table after a day.

    Args:
        rows: the source's own columns, by key.
        deleted: keys of rows that are gone from the source.
        touched: keys of rows that this day inserted, changed or flagged; their ``_modified_at`` is of this day.
    """

    rows: Mapping[Any, Row]
    deleted: frozenset[Any]
    touched: frozenset[Any]


@dataclass(frozen=True)
class Figures:
    """What a load of one table must report, in rows."""

    read: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    late: int = 0


@cache
def hours() -> list[Row]:
    """The published hours."""
    with HOURS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _moment(row: Row) -> dt.datetime:
    return dt.datetime.fromisoformat(row["dteday"]) + dt.timedelta(hours=int(row["hr"]))


@cache
def rides(day: int) -> Expected:
    """bronze.rides, by ride_id."""
    rows: dict[int, Row] = {}
    for ride_id, hour in enumerate(hours(), start=1):
        moment = _moment(hour)
        rows[ride_id] = {
            "ride_hour": moment,
            "casual": int(hour["casual"]),
            "registered": int(hour["registered"]),
            "updated_at": moment + dt.timedelta(hours=1, minutes=ride_id % 30),
        }
    if day == 1:
        return Expected(rows, frozenset(), frozenset(rows))
    for number, ride_id in enumerate(CORRECTED):
        rows[ride_id]["registered"] += 5
        rows[ride_id]["updated_at"] = dt.datetime(2013, 1, 2, 5, number)
    for ride_id, hour_of_day in zip(LATE, (10, 11, 12), strict=True):
        rows[ride_id] = {
            "ride_hour": dt.datetime(2012, 10, 30, hour_of_day),
            "casual": 2,
            "registered": 10 + hour_of_day,
            "updated_at": dt.datetime(2012, 12, 31, 23, hour_of_day),
        }
    past = [hour for hour in hours() if hour["dteday"] == "2012-01-01"]
    for ride_id, hour in zip(NEW_YEAR, past, strict=True):
        moment = dt.datetime(2013, 1, 1, int(hour["hr"]))
        rows[ride_id] = {
            "ride_hour": moment,
            "casual": int(hour["casual"]),
            "registered": int(hour["registered"]),
            "updated_at": moment + dt.timedelta(hours=1, minutes=10),
        }
    # The stale answer for ride 17378 must not have overwritten the row: it stays as on day one.
    return Expected(rows, frozenset(), frozenset({*CORRECTED, *LATE, *NEW_YEAR}))


@cache
def ride_events(day: int) -> Expected:
    """bronze.ride_events, by event_id."""
    published = hours()
    events = [
        (ride_id, dt.datetime.fromisoformat(published[ride_id - 1]["dteday"]) + dt.timedelta(hours=36), "count checked")
        for ride_id in range(500, len(published) + 1, 500)
    ]
    first = len(events)
    if day == 2:
        events += [(ride_id, dt.datetime(2013, 1, 2, 5, n), "count corrected") for n, ride_id in enumerate(CORRECTED)]
        events += [(ride_id, dt.datetime(2012, 12, 31, 23, 10 + n), "entered late") for n, ride_id in enumerate(LATE)]
    rows = {
        number: {"ride_id": ride_id, "noted_at": noted_at, "kind": kind}
        for number, (ride_id, noted_at, kind) in enumerate(events, start=1)
    }
    return Expected(rows, frozenset(), frozenset(number for number in rows if day == 1 or number > first))


def seasons(day: int) -> Expected:
    """bronze.seasons, by season; nothing ever changes."""
    rows = {season: {"months": months, "position": n} for n, (season, months) in enumerate(SEASONS.items(), start=1)}
    return Expected(rows, frozenset(), frozenset(rows) if day == 1 else frozenset())


@cache
def weather(day: int) -> Expected:
    """bronze.weather, by (date, hour)."""
    rows = {(_moment(hour).date(), int(hour["hr"])): _weather_row(hour) for hour in hours()}
    if day == 1:
        return Expected(rows, frozenset(), frozenset(rows))
    corrected = {(dt.date(2012, 12, 31), hour) for hour in range(18, 24)}
    for key in corrected:
        rows[key]["temp"] = round(rows[key]["temp"] + 1, 2)
    added = {(dt.date(2013, 1, 1), hour) for hour in range(24)}
    for key in added:
        past = rows[dt.date(2012, 1, 1), key[1]]
        rows[key] = past | {"holiday": True, "weekday": "Tue", "workingday": False}
    withdrawn = {key for key in rows if key[0] == dt.date(2012, 10, 30)}
    return Expected(rows, frozenset(withdrawn), frozenset(corrected | added | withdrawn))


def _weather_row(hour: Row) -> Row:
    return {
        "season": hour["season"],
        "holiday": hour["holiday"] == "true",
        "weekday": hour["weekday"],
        "workingday": hour["workingday"] == "true",
        "weathersit": hour["weathersit"],
        "temp": float(hour["temp"]),
        "atemp": float(hour["atemp"]),
        "hum": int(hour["hum"]),
        "windspeed": float(hour["windspeed"]),
    }


@cache
def rides_weather(day: int) -> dict[int, Row]:
    """mobility.silver.rides_weather, by ride_id."""
    of_hours = weather(day)
    result = {}
    for ride_id, ride in rides(day).rows.items():
        moment: dt.datetime = ride["ride_hour"]
        key = (moment.date(), moment.hour)
        found = of_hours.rows.get(key) if key not in of_hours.deleted else None
        found = found or {}
        result[ride_id] = {
            "ride_hour": moment,
            "ride_date": moment.date(),
            "hour_of_day": moment.hour,
            "casual": ride["casual"],
            "registered": ride["registered"],
            "rides": ride["casual"] + ride["registered"],
            "weekday": WEEKDAYS[moment.weekday()],
            "is_working_day": found.get("workingday", moment.weekday() < 5),
            "is_holiday": found.get("holiday", False),
            "season": found.get("season"),
            "season_months": SEASONS[found["season"]] if found else None,
            "weather": found.get("weathersit") or "Unknown",
            "temperature_c": found.get("temp"),
            "feels_like_c": found.get("atemp"),
            "humidity_percent": found.get("hum"),
            "wind_kmh": found.get("windspeed"),
        }
    return result


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _day_type(row: Row) -> str:
    return "working day" if row["is_working_day"] else "day off"


def _grouped(rows: Iterable[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def daily(day: int) -> dict[dt.date, Row]:
    """mobility.gold.daily, by date; means are exact, not rounded."""
    result = {}
    for date, rows in _grouped(rides_weather(day).values(), lambda row: row["ride_date"]).items():
        found = {row["season"] for row in rows} - {None}
        result[date] = {
            "day_type": _day_type(rows[0]),
            "season": found.pop() if found else None,
            "hours_counted": len(rows),
            "casual": sum(row["casual"] for row in rows),
            "registered": sum(row["registered"] for row in rows),
            "rides": sum(row["rides"] for row in rows),
            "mean_temperature_c": _mean(row["temperature_c"] for row in rows if row["temperature_c"] is not None),
        }
    return result


@cache
def hourly_profile(day: int) -> dict[tuple[str, int], Row]:
    """mobility.gold.hourly_profile, by kind of day and hour."""
    groups = _grouped(rides_weather(day).values(), lambda row: (_day_type(row), row["hour_of_day"]))
    return {
        key: {
            "hours_counted": len(rows),
            "mean_casual": _mean(row["casual"] for row in rows),
            "mean_registered": _mean(row["registered"] for row in rows),
            "mean_rides": _mean(row["rides"] for row in rows),
        }
        for key, rows in groups.items()
    }


def weather_effect(day: int) -> dict[str, Row]:
    """mobility.gold.weather_effect, by weather."""
    usual = {key: row["mean_rides"] for key, row in hourly_profile(day).items()}
    result = {}
    for label, rows in _grouped(rides_weather(day).values(), lambda row: row["weather"]).items():
        counted = sum(row["rides"] for row in rows)
        expected = [usual[_day_type(row), row["hour_of_day"]] for row in rows]
        result[label] = {
            "hours_counted": len(rows),
            "rides": counted,
            "mean_rides": counted / len(rows),
            "usual_rides": sum(expected) / len(rows),
            "ratio_to_usual": counted / sum(expected),
        }
    return result


def forecast(day: int, *, holdout_days: int = 60) -> dict[dt.datetime, Row]:
    """What is certain of mobility.gold.forecast, by hour: the count, and the count one week before."""
    counts = {row["ride_hour"]: row["rides"] for row in rides_weather(day).values()}
    cut = max(counts) + dt.timedelta(hours=1) - dt.timedelta(days=holdout_days)
    week = dt.timedelta(days=7)
    return {
        moment: {"actual": count, "baseline": counts.get(moment - week, 0)}
        for moment, count in counts.items()
        if moment >= cut
    }


def changes(day: int) -> list[Row]:
    """mobility.gold.changes: one row a day, in order."""
    result = []
    for each in range(1, day + 1):
        expected = rides(each)
        touched = [expected.rows[key] for key in expected.touched]
        result.append(
            {
                "first_hour": min(row["ride_hour"] for row in touched),
                "last_hour": max(row["ride_hour"] for row in touched),
                "hours": len(touched),
                "rides": sum(row["casual"] + row["registered"] for row in touched),
            }
        )
    return result


def public_holidays() -> dict[dt.date, Row]:
    """reference.bronze.public_holidays and its silver table, by date; nothing ever changes."""
    with HOLIDAYS.open(newline="", encoding="utf-8") as file:
        return {dt.date.fromisoformat(row["holiday_date"]): {"holiday": row["holiday"]} for row in csv.DictReader(file)}


@dataclass(frozen=True)
class CrmSources:
    """The crm team's database as it lay on each day."""

    databases: Mapping[int, Path]

    def riders(self, day: int) -> Expected:
        """crm.bronze.riders, by rider_id, unmasked; a deleted rider keeps the last known values."""
        rows, touched = self.read("riders", 1), set()
        touched = set(rows)
        if day == 1:
            return Expected(rows, frozenset(), frozenset(touched))
        second = self.read("riders", 2)
        gone = rows.keys() - second.keys()
        touched = {key for key, row in second.items() if rows.get(key) != row} | gone
        return Expected(rows | second, frozenset(gone), frozenset(touched))

    def rentals(self, day: int) -> Expected:
        """crm.bronze.rentals, by rental_id, unmasked."""
        rows = self.read("rentals", 1)
        if day == 1:
            return Expected(rows, frozenset(), frozenset(rows))
        second = self.read("rentals", 2)
        return Expected(second, frozenset(), frozenset(key for key, row in second.items() if rows.get(key) != row))

    def rider_activity(self, day: int) -> dict[int, Row]:
        """crm.silver.rider_activity, by rental_id."""
        expected = self.riders(day)
        by_email = {row["email"]: (key, row) for key, row in expected.rows.items() if key not in expected.deleted}
        by_hour = {row["ride_hour"]: row for row in rides_weather(day).values()}
        holidays = public_holidays()
        result = {}
        for key, rental in self.rentals(day).rows.items():
            started = dt.datetime.fromisoformat(rental["started_at"])
            rider_id, rider = by_email.get(rental["rider_email"], (None, {}))
            hour = by_hour.get(started, {})
            result[key] = {
                "rider_id": rider_id,
                "membership": rider.get("membership", "former rider"),
                "started_at": started,
                "duration_minutes": rental["duration_minutes"],
                "weather": hour.get("weather", "Unknown"),
                "temperature_c": hour.get("temperature_c"),
                "is_working_day": hour.get("is_working_day"),
                "holiday": holidays.get(started.date(), {}).get("holiday"),
                "city_rides": hour.get("rides"),
            }
        return result

    def membership_weather(self, day: int) -> dict[tuple[str, str], Row]:
        """crm.gold.membership_weather, by membership and weather."""
        groups = _grouped(self.rider_activity(day).values(), lambda row: (row["membership"], row["weather"]))
        return {
            key: {
                "rentals": len(rows),
                "riders": len({row["rider_id"] for row in rows} - {None}),
                "mean_minutes": _mean(row["duration_minutes"] for row in rows),
            }
            for key, rows in groups.items()
        }

    def monthly(self, day: int) -> dict[dt.date, Row]:
        """crm.gold.monthly, by first day of the month."""
        city: dict[dt.date, int] = defaultdict(int)
        for row in rides_weather(day).values():
            city[row["ride_date"].replace(day=1)] += row["rides"]
        groups = _grouped(self.rider_activity(day).values(), lambda row: row["started_at"].date().replace(day=1))
        return {
            month: {
                "rentals": len(rows),
                "riders": len({row["rider_id"] for row in rows} - {None}),
                "rentals_on_holidays": sum(row["holiday"] is not None for row in rows),
                "mean_minutes": _mean(row["duration_minutes"] for row in rows),
                "city_rides": city.get(month),
            }
            for month, rows in groups.items()
        }

    def read(self, table: str, day: int) -> dict[int, Row]:
        """One table of the database as it lay on a day, by its number."""
        with closing(sqlite3.connect(f"{self.databases[day].resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(f"select * from {table}")]
        key = {"riders": "rider_id", "rentals": "rental_id"}[table]
        return {row.pop(key): row for row in rows}


def load_figures(day: int, crm: CrmSources) -> dict[str, Figures]:
    """What each load of a day must report, by table."""
    everything: dict[str, Callable[[int], Expected]] = {
        "mobility.bronze.rides": rides,
        "mobility.bronze.ride_events": ride_events,
        "mobility.bronze.seasons": seasons,
        "mobility.bronze.weather": weather,
        "crm.bronze.riders": crm.riders,
        "crm.bronze.rentals": crm.rentals,
    }
    holidays = len(public_holidays())
    if day == 1:
        first = {name: Figures(read=len(of(1).rows), inserted=len(of(1).rows)) for name, of in everything.items()}
        return first | {"reference.bronze.public_holidays": Figures(read=holidays, inserted=holidays)}
    result = {"reference.bronze.public_holidays": Figures(read=holidays, unchanged=holidays)}
    for name, of in everything.items():
        before, after = of(1), of(2)
        inserted = len(after.rows.keys() - before.rows.keys())
        deleted = len(after.deleted - before.deleted)
        updated = len(after.touched) - inserted - deleted
        read = len(after.rows) - len(after.deleted)
        result[name] = Figures(read, inserted, updated, deleted, read - inserted - updated)
    events = len(ride_events(2).rows) - len(ride_events(1).rows)
    # The row at the watermark is handed over again, and left out as it is there.
    result["mobility.bronze.ride_events"] = Figures(read=events + 1, inserted=events)
    result["mobility.bronze.rides"] = _reread(rides(1), rides(2), lookback=dt.timedelta(hours=3), stale={STALE})
    result["crm.bronze.rentals"] = _reread(crm.rentals(1), crm.rentals(2), lookback=dt.timedelta(hours=2))
    return result


def _reread(before: Expected, after: Expected, *, lookback: dt.timedelta, stale: Iterable[int] = ()) -> Figures:
    """Figures of an incremental load: what lies after the watermark less the lookback is read again."""
    since = max(map(_updated_at, before.rows.values())) - lookback
    read = {key for key, row in after.rows.items() if _updated_at(row) >= since}
    late = read & set(stale)
    inserted = read - before.rows.keys()
    updated = (read & after.touched) - inserted
    return Figures(len(read), len(inserted), len(updated), 0, len(read) - len(inserted | updated | late), len(late))


def _updated_at(row: Row) -> dt.datetime:
    value = row["updated_at"]
    return value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
