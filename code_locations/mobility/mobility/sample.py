"""Lay out the bike-sharing data the way a company would hold it: rides in a database, weather in daily files.

Day one is the data set as published. Day two is what the next night finds changed; it is written down, change
by change, in the README of this location, because the tests compare with that text and not with this code.
"""

from __future__ import annotations

import argparse
import csv
import io
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

DATA = Path(__file__).parent / "data" / "bike_sharing" / "hour.csv"

WEATHER_COLUMNS = (
    "dteday",
    "hr",
    "season",
    "holiday",
    "weekday",
    "workingday",
    "weathersit",
    "temp",
    "atemp",
    "hum",
    "windspeed",
)

SEASONS = (
    ("spring", "21 December to 20 March", 1),
    ("summer", "21 March to 20 June", 2),
    ("fall", "21 June to 22 September", 3),
    ("winter", "23 September to 20 December", 4),
)

_TABLES = """
create table rides (
  ride_id integer primary key,
  ride_hour timestamp not null,
  casual integer not null,
  registered integer not null,
  updated_at timestamp not null
);
create index rides_updated_at on rides (updated_at);
create table ride_events (
  event_id integer primary key,
  ride_id integer not null,
  noted_at timestamp not null,
  kind text not null
);
create table seasons (
  season text primary key,
  months text not null,
  position integer not null
);
"""


@dataclass(frozen=True)
class Ride:
    """The count of one hour, as the operational database holds it."""

    ride_id: int
    ride_hour: datetime
    casual: int
    registered: int
    updated_at: datetime

    def row(self) -> tuple[int, str, int, int, str]:
        """The values as SQLite stores them; times as ISO 8601 text without a zone."""
        return (self.ride_id, self.ride_hour.isoformat(), self.casual, self.registered, self.updated_at.isoformat())


@dataclass(frozen=True)
class Event:
    """One line of the audit trail of the ride counts; never changed afterwards."""

    ride_id: int
    noted_at: datetime
    kind: str


def lay_out(folder: Path, *, day: int) -> None:
    """Write the sources of a day: ``rides.db`` and ``weather/<date>.csv``.

    The same day always gives the same rows. What lies in the folder is replaced; files whose content stays the
    same are not touched.

    Args:
        folder: is made when it is missing.
        day: 1 or 2.

    Raises:
        ValueError: another day is asked for.
    """
    if day not in (1, 2):
        raise ValueError(f"the sample knows day 1 and day 2, not {day}")
    hours = _read_hours()
    rides, events = _first_rides(hours), _first_events(hours)
    weather = {date: list(rows) for date, rows in groupby(hours, key=lambda hour: hour["dteday"])}
    if day == 2:
        rides, corrections = _second_rides(rides, hours)
        events = [*events, *corrections]
        _second_weather(weather)
    folder.mkdir(parents=True, exist_ok=True)
    _write_database(folder / "rides.db", rides=rides, events=events)
    _write_weather(folder / "weather", weather)


def _read_hours() -> list[dict[str, str]]:
    with DATA.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _ride_hour(hour: dict[str, str]) -> datetime:
    return datetime.fromisoformat(hour["dteday"]) + timedelta(hours=int(hour["hr"]))


def _first_rides(hours: Iterable[dict[str, str]]) -> list[Ride]:
    """Every published hour; its count was entered within half an hour after the hour had ended."""
    rides = []
    for ride_id, hour in enumerate(hours, start=1):
        ride_hour = _ride_hour(hour)
        entered = ride_hour + timedelta(hours=1, minutes=ride_id % 30)
        rides.append(Ride(ride_id, ride_hour, int(hour["casual"]), int(hour["registered"]), entered))
    return rides


def _first_events(hours: list[dict[str, str]]) -> list[Event]:
    """Every 500th count was checked by a person at noon of the next day."""
    return [
        Event(
            ride_id,
            datetime.fromisoformat(hours[ride_id - 1]["dteday"]) + timedelta(days=1, hours=12),
            "count checked",
        )
        for ride_id in range(500, len(hours) + 1, 500)
    ]


def _second_rides(rides: list[Ride], hours: list[dict[str, str]]) -> tuple[list[Ride], list[Event]]:
    """The rides of day two, and what the audit trail says about them."""
    morning = datetime(2013, 1, 2, 5)
    by_id = {ride.ride_id: ride for ride in rides}
    events = []
    for number, ride_id in enumerate(range(1700, len(rides) + 1, 1700)):
        noted = morning + timedelta(minutes=number)
        by_id[ride_id] = replace(by_id[ride_id], registered=by_id[ride_id].registered + 5, updated_at=noted)
        events.append(Event(ride_id, noted, "count corrected"))

    # A lagging replica answers with the preliminary count of an hour whose final count is known already.
    by_id[17378] = replace(by_id[17378], casual=9, registered=31, updated_at=datetime(2012, 12, 31, 22, 50))

    next_id = len(rides) + 1
    for hour in (10, 11, 12):
        # Entered in a transaction that was open while day one was loaded: new, yet older than the watermark.
        entered = datetime(2012, 12, 31, 23, hour)
        by_id[next_id] = Ride(next_id, datetime(2012, 10, 30, hour), 2, 10 + hour, entered)
        events.append(Event(next_id, entered, "entered late"))
        next_id += 1
    for ride in _new_year(hours, first_id=next_id):
        by_id[ride.ride_id] = ride
    return list(by_id.values()), events


def _new_year(hours: Iterable[dict[str, str]], *, first_id: int) -> Iterator[Ride]:
    """1 January 2013, which the data set does not reach, played by the counts of 1 January 2012."""
    past = (hour for hour in hours if hour["dteday"] == "2012-01-01")
    for ride_id, hour in enumerate(past, start=first_id):
        ride_hour = datetime(2013, 1, 1, int(hour["hr"]))
        entered = ride_hour + timedelta(hours=1, minutes=10)
        yield Ride(ride_id, ride_hour, int(hour["casual"]), int(hour["registered"]), entered)


def _second_weather(weather: dict[str, list[dict[str, str]]]) -> None:
    """A new file, a corrected one and a withdrawn one."""
    weather["2013-01-01"] = [
        hour | {"dteday": "2013-01-01", "holiday": "true", "weekday": "Tue", "workingday": "false"}
        for hour in weather["2012-01-01"]
    ]
    weather["2012-12-31"] = [
        hour | {"temp": f"{float(hour['temp']) + 1:.2f}"} if int(hour["hr"]) >= 18 else hour
        for hour in weather["2012-12-31"]
    ]
    del weather["2012-10-30"]


def _write_database(path: Path, *, rides: Iterable[Ride], events: Iterable[Event]) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    connection = sqlite3.connect(fresh)
    try:
        connection.executescript(_TABLES)
        connection.executemany("insert into rides values (?, ?, ?, ?, ?)", (ride.row() for ride in rides))
        connection.executemany(
            "insert into ride_events values (?, ?, ?, ?)",
            (
                (event_id, event.ride_id, event.noted_at.isoformat(), event.kind)
                for event_id, event in enumerate(events, start=1)
            ),
        )
        connection.executemany("insert into seasons values (?, ?, ?)", SEASONS)
        connection.commit()
    finally:
        connection.close()
    fresh.replace(path)  # in one move, so that an interrupted run leaves no half database


def _write_weather(folder: Path, weather: dict[str, list[dict[str, str]]]) -> None:
    folder.mkdir(exist_ok=True)
    for date, rows in weather.items():
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, WEATHER_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path, content = folder / f"{date}.csv", text.getvalue().encode()
        if not path.is_file() or path.read_bytes() != content:
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)
    for path in folder.iterdir():
        if path.suffix != ".csv" or path.stem not in weather:
            path.unlink()


def main() -> None:
    """``python -m mobility.sample FOLDER --day 1``."""
    parser = argparse.ArgumentParser(description="Lay out the sample sources of the mobility team.")
    parser.add_argument("folder", type=Path, help="where rides.db and weather/ are written")
    parser.add_argument("--day", type=int, choices=(1, 2), default=1, help="1: as published; 2: one night later")
    arguments = parser.parse_args()
    lay_out(arguments.folder, day=arguments.day)


if __name__ == "__main__":
    main()
