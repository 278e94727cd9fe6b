"""What the state machine holds the control tables against: the rows as they should be found, and after every apply.

The model knows a plan only by what it was made from, and decides by itself what an apply of it has to do.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from platform_core.control.plan.applying import Applied
from platform_core.control.plan.plan import Action, Plan
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey
from platform_core.errors import PlanError
from tests.control_plane.git_side import HOMES, WORKSTREAMS, Git, Table

Rows = dict[RowKey, Row]

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LOOKBACK = codec(KINDS["ingestion"]).names.index("lookback")


def with_lookback(row: Row, value: str) -> Row:
    """The row of a table with another lookback."""
    return (*row[:LOOKBACK], value, *row[LOOKBACK + 1 :])


@dataclass(frozen=True)
class Held:
    """A lookback that a reviewed SQL change holds against git.

    Args:
        git: what git said when it was made.
        expires: last day on which it holds.
        serial: of the apply that made it.
    """

    value: str
    git: str
    expires: dt.date
    serial: int


@dataclass(frozen=True)
class Stand:
    """What the environment holds at one moment."""

    serial: int
    live: Rows
    held: Mapping[RowKey, Held]


@dataclass(frozen=True)
class Planned:
    """A plan, and what the model says of it.

    Args:
        changes: row before and after, by what names it; None: there is none.
        ends: rows whose override it ends.
    """

    plan: Plan
    serial: int
    changes: Mapping[RowKey, tuple[Row | None, Row | None]]
    ends: frozenset[RowKey]


@dataclass
class Figures:
    """What a run of the machine did."""

    steps: int = 0
    projects: int = 0
    seconds: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    overrides: Counter[str] = field(default_factory=Counter)
    versions: int = 0

    def lines(self) -> list[str]:
        """For a person."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        kills = ", ".join(f"{count} {end}" for end, count in sorted(self.kills.items()))
        overrides = ", ".join(f"{count} {end}" for end, count in sorted(self.overrides.items()))
        return [
            f"{self.steps} steps in {self.projects} projects in {self.seconds:.0f} s",
            f"applies: {ends}",
            f"killed: {kills}",
            f"rows changed by SQL: {overrides}",
            f"{self.versions} versions in history",
        ]


class Model:
    """What should be, and what of it has been seen.

    Args:
        live: rows as they should be found in the tables.
        snapshots: rows after every apply, by serial.
        times: when each of them was made.
        malformed: rows that no spec can be made of.
        orphaned: whether a process that is gone holds the lock.
        held: overrides that hold.
    """

    figures: ClassVar[Figures]

    def __init__(self) -> None:
        super().__init__()
        self.now = EPOCH
        self.live: Rows = {}
        self.snapshots: list[Rows] = [{}]
        self.times: list[dt.datetime] = [EPOCH]
        self.malformed: set[RowKey] = set()
        self.orphaned = False
        self.held: dict[RowKey, Held] = {}
        self.git = Git(
            tables={name: {"t0": Table(hours=1, mask="hash")} for name in WORKSTREAMS},
            home={"crm": "crm", "finance": "finance", "ship": "crm"},
            paths=dict.fromkeys(HOMES, 0),
        )

    @property
    def serial(self) -> int:
        """Of the newest apply."""
        return len(self.snapshots) - 1

    @property
    def today(self) -> dt.date:
        return self.now.date()

    def in_reach(self, live: Rows, chosen: Collection[str]) -> set[str]:
        """Locations whose rows a plan looks at: all that are declared, and those that have left."""
        if chosen:
            return set(chosen)
        return {*self.git.listed, *(key.location for key in live if key.kind == "location")}

    def stand(self) -> Stand:
        """What is, at this moment."""
        return Stand(self.serial, dict(self.live), dict(self.held))

    def expect_of_git(self, plan: Plan, stand: Stand, chosen: Collection[str], declared: Rows) -> Planned:
        """What a plan of the control files must hold: what git says, with the overrides that still hold in it."""
        locations = self.in_reach(stand.live, chosen)
        live = {key: row for key, row in stand.live.items() if key.location in locations}
        wanted = {key: row for key, row in declared.items() if key.location in locations}
        ends = set()
        for key, held in stand.held.items():
            if key.location in locations:
                said = wanted[key][LOOKBACK] if key in wanted else None
                if said in (None, held.value) or self.today > held.expires:
                    ends.add(key)
                else:
                    wanted[key] = with_lookback(wanted[key], held.value)
        return self.expect(plan, stand.serial, live, wanted, frozenset(ends))

    def expect(self, plan: Plan, serial: int, live: Rows, wanted: Rows, ends: frozenset[RowKey]) -> Planned:
        """Hold a plan against what the model says must change."""
        changes = {
            key: (live.get(key), wanted.get(key))
            for key in (*live, *(key for key in wanted if key not in live))
            if live.get(key) != wanted.get(key)
        }
        actions = {
            key: Action.CREATE if before is None else Action.DELETE if after is None else Action.UPDATE
            for key, (before, after) in changes.items()
        }
        assert {change.key: change.action for change in plan.changes} == actions
        assert len(plan.changes) == len(actions)
        assert {each.key for each in plan.ends} == ends
        assert plan.base.serial == serial
        return Planned(plan, serial, changes, ends)

    def refusal(self, planned: Planned, stand: Stand | None = None) -> str | None:
        """Why a plan must be refused; None: it must not."""
        found = stand or self.stand()
        if planned.serial != found.serial:
            return "have moved"
        if any(found.live.get(key) != before for key, (before, _) in planned.changes.items()):
            return "no longer what the plan saw"
        return None

    def judge(self, planned: Planned, outcome: Applied | PlanError) -> None:
        """Hold what came of an apply against what the model says, and count it."""
        reason = self.refusal(planned)
        if isinstance(outcome, PlanError):
            assert reason, outcome
            assert reason in str(outcome)
            self.figures.ends[f"refused: {reason}"] += 1
            return
        assert reason is None
        if not planned.changes and not planned.ends:
            assert outcome.serial == self.serial
            self.figures.ends["nothing to do"] += 1
            return
        after = dict(self.snapshots[-1])
        for key, (_, row) in planned.changes.items():
            for rows in (after, self.live):
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
            self.malformed.discard(key)
        for key in planned.ends:
            del self.held[key]
        self.snapshots.append(after)
        self.times.append(outcome.at)
        assert outcome.serial == self.serial
        self.figures.ends["done"] += 1

    def chosen_row(self, place: int, kind: str) -> RowKey | None:
        """One of the rows of a kind; None where there is none."""
        found = sorted(key for key in self.live if key.kind == kind)
        return found[place % len(found)] if found else None
