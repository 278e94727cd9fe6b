"""Make up riders and their rentals, with a fixed seed: no row describes a person who exists.

Day one is a customer database as it might be; day two is what the next night finds changed. The same day always
gives the same rows, on every machine.
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

RIDERS = 400
RENTALS = 6_000

_FIRST_NAMES = (
    "Aaliyah Abel Adriana Alonzo Amara Anders Beatriz Bram Callum Camila Cedric Dalia Dmitri Eleni Emeka Farah Fenna "
    "Gideon Hana Hugo Imani Ingrid Jarek Joaquin Kaveh Keiko Lamar Leonie Mateus Mireille Nadia Nkechi Octavia Orson "
    "Priya Quentin Rafael Rosalind Sanne Soren Tamika Tobias Ulrich Valentina Wendell Xiomara Yusuf Zora"
)
_LAST_NAMES = (
    "Abernathy Achterberg Bakshi Beaumont Calloway Castellanos Dekker Dumont Eriksen Espinoza Fairbanks Fitzgerald "
    "Gallagher Guerrero Halvorsen Hathaway Ibrahim Ivanova Jablonski Jefferson Kowalczyk Kuiper Lindqvist Lombardi "
    "Macpherson Mendoza Nakamura Nwosu Oyelaran Ostrowski Pemberton Petrov Quintero Ramaswamy Rutherford Salazar "
    "Silverstein Takahashi Thibodeaux Underwood Vandermeer Villanueva Whitfield Winterbourne Xenakis Yamamoto "
    "Yeboah Zimmerman"
)
_DOMAINS = ("example.com", "example.org", "example.net")  # set aside for examples: no mailbox can exist there
_AREA_CODES = ("202", "240", "301", "410", "443", "571", "667", "703")
_MEMBERSHIPS = ("annual", "monthly", "day pass", "corporate")
_HOUR_WEIGHTS = (4, 3, 2, 1, 1, 2, 8, 22, 36, 22, 17, 21, 25, 26, 24, 25, 31, 46, 43, 31, 23, 17, 13, 9)

_TABLES = """
create table riders (
  rider_id integer primary key,
  name text not null,
  email text not null unique,
  phone text not null,
  birth_date date not null,
  postcode text not null,
  membership text not null
);
create table rentals (
  rental_id integer primary key,
  rider_email text not null,
  started_at timestamp not null,
  duration_minutes integer not null,
  updated_at timestamp not null
);
create index rentals_updated_at on rentals (updated_at);
"""


@dataclass(frozen=True)
class Rider:
    """A customer, made up."""

    rider_id: int
    name: str
    email: str
    phone: str
    birth_date: date
    postcode: str
    membership: str


@dataclass(frozen=True)
class Rental:
    """One rental of a bike; the rider is known by e-mail address only, as the rental system has no customer number."""

    rental_id: int
    rider_email: str
    started_at: datetime
    duration_minutes: int
    updated_at: datetime


def lay_out(folder: Path, *, day: int) -> None:
    """Write the source of a day, ``crm.db``; what lies there is replaced in one move.

    Args:
        folder: is made when it is missing.
        day: 1 or 2.

    Raises:
        ValueError: another day is asked for.
    """
    riders, rentals = _database(day)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "crm.db"
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    connection = sqlite3.connect(fresh)
    try:
        connection.executescript(_TABLES)
        connection.executemany(
            "insert into riders values (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    rider.rider_id,
                    rider.name,
                    rider.email,
                    rider.phone,
                    rider.birth_date.isoformat(),
                    rider.postcode,
                    rider.membership,
                )
                for rider in riders
            ),
        )
        connection.executemany(
            "insert into rentals values (?, ?, ?, ?, ?)",
            (
                (
                    rental.rental_id,
                    rental.rider_email,
                    rental.started_at.isoformat(),
                    rental.duration_minutes,
                    rental.updated_at.isoformat(),
                )
                for rental in rentals
            ),
        )
        connection.commit()
    finally:
        connection.close()
    fresh.replace(path)


def personal_values() -> set[str]:
    """Every name, e-mail address and phone number of both days: what must never be found outside the sources."""
    return {value for day in (1, 2) for rider in _database(day)[0] for value in (rider.name, rider.email, rider.phone)}


def _database(day: int) -> tuple[list[Rider], list[Rental]]:
    if day not in (1, 2):
        raise ValueError(f"the sample knows day 1 and day 2, not {day}")
    # Everything is drawn in one order whatever the day, so that day two differs by its changes only.
    chance = random.Random("crm sample")  # noqa: S311  # repeatable on purpose, and no secret
    people = _people(chance, RIDERS + 12 + 5)
    riders, newcomers, spare = people[:RIDERS], people[RIDERS : RIDERS + 12], people[RIDERS + 12 :]
    rentals = _rentals(chance, riders)
    if day == 1:
        return riders, rentals
    return _second_day(chance, riders, newcomers, [rider.phone for rider in spare], rentals)


def _people(chance: random.Random, count: int) -> list[Rider]:
    names = chance.sample([f"{first} {last}" for first in _FIRST_NAMES.split() for last in _LAST_NAMES.split()], count)
    # 555-0100 to 555-0199 are set aside for fiction in every area.
    phones = chance.sample([f"+1-{area}-555-{line:04d}" for area in _AREA_CODES for line in range(100, 200)], count)
    return [
        Rider(
            rider_id=1000 + number,
            name=name,
            email=f"{name.lower().replace(' ', '.')}@{chance.choice(_DOMAINS)}",
            phone=phone,
            birth_date=date(1940, 1, 1) + timedelta(days=chance.randrange(20_000)),
            postcode=f"200{chance.randrange(1, 60):02d}",
            membership=chance.choices(_MEMBERSHIPS, weights=(5, 3, 2, 2))[0],
        )
        for number, (name, phone) in enumerate(zip(names, phones, strict=True), start=1)
    ]


def _rentals(chance: random.Random, riders: list[Rider]) -> list[Rental]:
    """Rentals of 2011 and 2012, numbered in the order they began; entered on the day after."""
    eagerness = [chance.paretovariate(1.5) for _ in riders]
    starts = sorted(
        datetime(2011, 1, 1)
        + timedelta(days=chance.randrange(731), hours=chance.choices(range(24), weights=_HOUR_WEIGHTS)[0])
        for _ in range(RENTALS)
    )
    return [
        Rental(
            rental_id=number,
            rider_email=chance.choices(riders, weights=eagerness)[0].email,
            started_at=start,
            duration_minutes=max(2, round(chance.gammavariate(2.2, 8))),
            updated_at=_next_morning(start) + timedelta(seconds=number),
        )
        for number, start in enumerate(starts, start=1)
    ]


def _next_morning(moment: datetime) -> datetime:
    return datetime(moment.year, moment.month, moment.day) + timedelta(days=1)


def _second_day(
    chance: random.Random, riders: list[Rider], newcomers: list[Rider], phones: list[str], rentals: list[Rental]
) -> tuple[list[Rider], list[Rental]]:
    """Six riders are gone, eight have a new address, five a new phone, twelve are new; 160 rentals are new."""
    morning = datetime(2013, 1, 2, 5)
    gone = {rider.rider_id for rider in riders[39:240:40]}
    moved = {rider.email: _turned(rider.email) for rider in riders[24:400:50]}
    called = dict(zip([rider.rider_id for rider in riders[9:400:80]], phones, strict=True))
    second = [
        replace(
            rider,
            email=moved.get(rider.email, rider.email),
            phone=called.get(rider.rider_id, rider.phone),
        )
        for rider in riders
        if rider.rider_id not in gone
    ]
    second += newcomers
    # The customer system carries a new address into old rentals, and so touches them.
    changed = [
        replace(rental, rider_email=moved[rental.rider_email], updated_at=morning)
        if rental.rider_email in moved
        else rental
        for rental in rentals
    ]
    new_year = datetime(2013, 1, 1)
    added = [
        Rental(
            rental_id=RENTALS + number,
            rider_email=chance.choice(second).email,
            started_at=new_year + timedelta(hours=chance.choices(range(24), weights=_HOUR_WEIGHTS)[0]),
            duration_minutes=max(2, round(chance.gammavariate(2.2, 8))),
            updated_at=_next_morning(new_year) + timedelta(seconds=number),
        )
        for number in range(1, 161)
    ]
    return second, changed + added


def _turned(email: str) -> str:
    """Another address of the same person, of which the old one is no part."""
    first, last, domain = re.split("[.@]", email, maxsplit=2)
    return f"{last}.{first}@{domain}"


def main() -> None:
    """``python -m crm.sample FOLDER --day 1``."""
    parser = argparse.ArgumentParser(description="Lay out the sample source of the crm team; every row is made up.")
    parser.add_argument("folder", type=Path, help="where crm.db is written")
    parser.add_argument("--day", type=int, choices=(1, 2), default=1, help="1: the first night; 2: one night later")
    arguments = parser.parse_args()
    lay_out(arguments.folder, day=arguments.day)


if __name__ == "__main__":
    main()
