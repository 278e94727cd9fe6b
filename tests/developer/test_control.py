"""In a control database that several people share, nobody meets anybody else's leases, loads or migrations."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.control.loads import Loads, Ticket
from platform_core.errors import LeaseError
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef
from tests.control_database.conftest import Place, postgres_place, sqlite_place

RIDES = TableRef("mobility", "bronze", "rides")
LOG = logging.getLogger("tests.developer")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty control database, of each kind."""
    if request.param == "sqlite":
        found = sqlite_place(tmp_path)
    else:
        found = postgres_place(tmp_path, request.getfixturevalue("postgres_server"))
    yield found
    for each in found.opened:
        each.close()


def loads_of(place: Place, person: str | None) -> Loads:
    found = Loads(place.database(), lease=dt.timedelta(minutes=1), person=None if person is None else Person(person))
    place.opened.append(found)
    return found


def begin(loads: Loads, *, run_id: str | None = None) -> Ticket:
    return loads.begin(
        RIDES, mode="full", above=0, run_id=run_id, wait=dt.timedelta(0), log=LOG, cancelled=lambda: False
    )


def test_each_may_load_a_table_while_the_others_load_theirs(place: Place) -> None:
    everybody, anna, bo = (loads_of(place, name) for name in (None, "anna", "bo"))
    with begin(everybody) as first, begin(anna) as second, begin(bo) as third:
        for ticket in (first, second, third):
            ticket.confirm()
            ticket.finish(status="succeeded", figures={})


def test_one_person_loads_a_table_once_at_a_time(place: Place) -> None:
    with begin(loads_of(place, "anna")) as ticket:
        with pytest.raises(LeaseError, match=r"_anna__mobility\.bronze\.rides: is being loaded by"):
            begin(loads_of(place, "anna"))
        ticket.finish(status="succeeded", figures={})


def test_each_sees_the_loads_of_their_own_tables_under_plain_names(place: Place) -> None:
    for name, count in ((None, 1), ("anna", 2), ("anna_b", 3)):
        loads = loads_of(place, name)
        for _ in range(count):
            with begin(loads) as ticket:
                ticket.finish(status="succeeded", figures={"rows_read": count})
    for name, count in ((None, 1), ("anna", 2), ("anna_b", 3), ("nobody_else", 0)):
        loads = loads_of(place, name)
        for rows in (loads.recent(), loads.recent(table=RIDES)):
            assert [(row.table, row.figures["rows_read"]) for row in rows] == [(RIDES, count)] * count


def test_an_approval_lets_the_load_of_one_person_pass(place: Place) -> None:
    anna, bo = loads_of(place, "anna"), loads_of(place, "bo")
    for loads in (anna, bo):
        with begin(loads) as ticket:
            ticket.finish(status="stopped", figures={"deletes": 5, "current": 6})
    anna.approve(RIDES, 1, by="Anna", why="the source was cleaned")
    assert anna.approval(RIDES) is not None
    assert bo.approval(RIDES) is None
    assert bo.stopped(RIDES) is not None


def test_a_run_of_somebody_else_is_never_taken_for_an_abandoned_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.control.silent_loads.Holder.is_gone", lambda _: True)
    anna = loads_of(place, "anna")
    with begin(anna, run_id="run-of-anna") as ticket:
        assert [load.run_id for load in anna.silent()] == ["run-of-anna"]
        assert loads_of(place, "bo").silent() == []
        assert loads_of(place, None).silent() == []
        ticket.finish(status="succeeded", figures={})
