"""When steps and dashboards run: the table first, then every order of what can happen.

Two locations. Location 1 loads ``a`` and ``b``; location 2 makes ``c`` from ``a`` and ``b``, ``d`` from ``a``, and the
dashboard ``e`` from ``c`` and ``d``. Location 2 knows nothing of the checks of location 1 but what the event log says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.semantics.dagster_world import DagsterWorld
from tests.semantics.light import LightWorld
from tests.semantics.world import ALIKE, HAPPENINGS, INPUTS, World

SPECIFICATION = [
    # what happens, one after the other             ; what is then asked for, tick by tick
    ("nothing is built: nothing can run", [], []),
    ("b was never built: only d can run", ["a loads"], ["d"]),
    ("both are loaded: steps, then the dashboard", ["a loads", "b loads"], ["c d", "e"]),
    ("one run loads both", ["a and b load"], ["c d", "e"]),
    ("b arrives late: c waits for it, d does not", ["a loads", "tick", "b loads"], ["c", "e"]),
    ("only b is new: c, and the dashboard waits for d", ["all", "b loads"], ["c"]),
    ("a is new: both steps, then the dashboard", ["all", "a loads"], ["c d", "e"]),
    ("nothing is new", ["all"], []),
    ("a failed: nothing runs on what is left of it", ["all", "b loads", "a fails"], []),
    ("a is mended: nothing was lost", ["all", "b loads", "a fails", "tick", "a loads"], ["c d", "e"]),
    ("a failed first and was loaded then", ["a fails", "b loads", "a loads"], ["c d", "e"]),
    ("b failed: d runs all the same", ["all", "a loads", "b fails"], ["d"]),
    ("a failed its blocking check in location 1", ["all", "a is bad"], []),
    ("b failed its blocking check: d runs all the same", ["all", "a loads", "b is bad"], ["d"]),
    ("b is new, and a failed its blocking check", ["all", "a is bad", "b loads"], []),
    ("the check is run again, and passes", ["all", "a is bad", "tick", "a is checked again"], ["c d", "e"]),
    ("a failed check, then a failed load: a check mends no load", ["a is bad", "a fails", "a is checked again"], []),
    ("a good load mends a failed check", ["b loads", "a is bad", "a loads"], ["c d", "e"]),
    ("c fails: it is not asked for again", ["all", "c will fail", "b loads", "tick"], []),
    ("c fails, b is new: it is", ["all", "c will fail", "b loads", "tick", "b loads"], ["c"]),
    ("c fails: the dashboard does not show a half", ["all", "c will fail", "a loads"], ["c d"]),
    ("c fails, and is run from failure", ["all", "c will fail", "a loads", "tick", "from failure"], ["e"]),
    ("c fails its own check: no dashboard", ["all", "c will be bad", "a loads"], ["c d"]),
    ("d fails its own check: no dashboard", ["all", "d will be bad", "a loads"], ["c d"]),
    ("c passes when it is checked again", ["all", "c will be bad", "a loads", "tick", "c is checked again"], ["e"]),
    ("the dashboard fails: not asked for again", ["all", "e will fail", "a loads", "tick", "tick"], []),
    ("the dashboard fails, all is new", ["all", "e will fail", "a loads", "tick", "tick", "a loads"], ["c d", "e"]),
    ("the schedule does it all: nothing is left to ask for", ["a loads", "b loads", "schedule"], []),
    ("the schedule, after a failed load: refused", ["all", "a fails", "schedule"], []),
    ("refused, then mended: nothing was lost", ["all", "a fails", "schedule", "a loads"], ["c d", "e"]),
    ("the schedule, c fails: d is done", ["all", "a loads", "c will fail", "schedule"], []),
    ("by hand, though nothing is new", ["all", "c by hand", "d by hand"], ["e"]),
    ("by hand, after a failed load: refused", ["all", "a fails", "c by hand"], []),
    ("by hand, after a failed check: refused", ["all", "a is bad", "d by hand", "a is checked again"], ["c d", "e"]),
    ("the dashboard by hand: nothing is left to ask for", ["all", "a loads", "tick", "e by hand"], []),
    ("the dashboard by hand, c failed: refused", ["all", "c will fail", "a loads", "tick", "e by hand"], []),
    ("c by hand before anything was loaded: refused", ["c by hand", "a loads", "b loads"], ["c d", "e"]),
    ("a is loaded while a step works: not lost", ["all", "b loads", "a loads late"], ["c", "c d", "e"]),
    (
        "a is loaded while the schedule works: no half",
        ["all", "a loads", "a loads late", "schedule"],
        ["c", "e"],
    ),
    ("a is loaded before the next tick, after c", ["all", "b loads", "tick", "a loads"], ["c d", "e"]),
    (
        "c is new again before the dashboard was asked for: it waits for c",
        ["all", "a loads", "tick", "b loads"],
        ["c", "e"],
    ),
    ("both are new again before that: one run does it all", ["all", "a loads", "tick", "a loads"], ["c d e"]),
    ("loaded twice between two ticks: once is enough", ["all", "a loads", "a loads", "b loads"], ["c d", "e"]),
]
ALL = ("a loads", "b loads", "tick", "tick")
"""``all``: everything was built once."""

CORE = (
    "a loads",
    "a fails",
    "a is bad",
    "a is checked again",
    "b loads",
    "c will fail",
    "from failure",
    "a loads late",
    "schedule",
    "tick",
)


def play(world: World, happenings: Iterable[str]) -> list[str]:
    """Let things happen, then tick until nothing is asked for; what was asked for at each tick of the end."""
    for what in happenings:
        for each in ALL if what == "all" else (what,):
            world.meets(each)
    return [" ".join(sorted(names)) for names in world.settle()]


def broken(world: World) -> list[str]:
    """Every invariant that does not hold, after the world has settled."""
    lost = [f"an update of what {name} reads was lost" for name in INPUTS if world.truth.is_wanted(name)]
    return [*world.truth.broken, *lost]


@pytest.mark.parametrize(("sentence", "happenings", "asked"), SPECIFICATION, ids=[row[0] for row in SPECIFICATION])
def test_the_conditions_ask_for_what_the_table_says(sentence: str, happenings: list[str], asked: list[str]) -> None:
    world = LightWorld()
    assert play(world, happenings) == asked, sentence
    assert broken(world) == []


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
@pytest.mark.parametrize(("sentence", "happenings", "asked"), SPECIFICATION, ids=[row[0] for row in SPECIFICATION])
def test_dagster_asks_for_what_the_table_says(sentence: str, happenings: list[str], asked: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        world = DagsterWorld(instance)
        assert play(world, happenings) == asked, sentence
        assert broken(world) == []


def every_order() -> Iterator[tuple[str, ...]]:
    """All happenings up to three, and those that matter most up to four, one after the other."""
    for length in range(4):
        yield from itertools.product((each for each in HAPPENINGS if each not in ALIKE), repeat=length)
    yield from itertools.product(CORE, repeat=4)


@pytest.mark.parametrize("before", [(), ALL], ids=["never built", "built once"])
@pytest.mark.parametrize("ticks", [True, False], ids=["a tick after each", "ticks at the end"])
def test_in_every_order_no_invariant_breaks(before: tuple[str, ...], ticks: bool) -> None:
    for order in every_order():
        world = LightWorld()
        play_out(world, (*before, *order), ticks=ticks)
        assert broken(world) == [], order


@settings(max_examples=1_500, deadline=None)
@given(order=st.lists(st.sampled_from(list(HAPPENINGS)), min_size=5, max_size=30), ticks=st.booleans())
def test_in_longer_orders_no_invariant_breaks(order: list[str], ticks: bool) -> None:
    world = LightWorld()
    play_out(world, order, ticks=ticks)
    assert broken(world) == []


def play_out(world: World, order: Iterable[str], *, ticks: bool) -> None:
    """Let things happen, with or without a tick between them, until nothing is asked for."""
    for what in order:
        world.meets(what)
        if ticks:
            world.tick()
    world.settle()
