"""A machine that does to a source, and to the loads of it, whatever can happen, and compares bronze with the model."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from platform_core.control.loads import LoadRow
from platform_core.errors import DeletesStopped, LoadError, SchemaError
from platform_core.faults import FaultPoint, armed
from platform_core.operations.reload import Reload
from tests.oracle.model import (
    BASE,
    EXTRA,
    Columns,
    Declared,
    Key,
    Landed,
    Outcome,
    RefusedColumns,
    Row,
    State,
    applied,
    assert_intervals,
    extracted,
    key_of,
    keys_of,
    masked,
)
from tests.oracle.nursery import KILLED
from tests.oracle.source import digests
from tests.oracle.table import Bench, Seen, Table, attempt

EDITS_BETWEEN = 4
"""Most steps only change the source: a load costs twenty times as much, and compares all that happened since."""

MOST_KILLS = 1
"""Of one table, as many as loads at once: processes and waits for a lease are dear."""

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDS: dict[str, type[Exception] | None] = {
    "succeeded": None,
    "stopped": DeletesStopped,
    "schema": SchemaError,
    "keys": LoadError,
}
STATUS = {"succeeded": "succeeded", "stopped": "stopped", "schema": "failed", "keys": "failed"}

POINTS = [f"{point}:raise:{nth}" for point in FaultPoint for nth in (1, 1, 1, 2)]
KILLS = [f"{point}:kill" for point in FaultPoint]
SOURCE_ENDS = [f"source:{batches}" for batches in (0, 1, 2)]

PLACE = st.integers(0, 63)
KEY = st.integers(0, 23)
SMALL = st.integers(0, 3)


@dataclass
class Figures:
    """What a run of the machine did."""

    steps: int = 0
    tables: int = 0
    seconds: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    loads: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    approvals: int = 0
    replays: int = 0
    compared: int = 0
    told: int = 0
    lost: int = 0
    doubled: int = 0
    falsely_deleted: int = 0

    def lines(self) -> list[str]:
        """For a person."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return [
            f"{self.steps} steps on {self.tables} tables in {self.seconds:.0f} s",
            f"{self.loads} loads ({ends})",
            f"{self.crashes.total()} crashes at {len(self.crashes)} points, {self.kills.total()} of processes at "
            f"{len(self.kills)} points, {self.approvals} approvals, {self.replays} replays",
            f"{self.compared} rows compared: {self.lost} lost, {self.doubled} doubled, "
            f"{self.falsely_deleted} falsely deleted",
            f"{self.told} rows told unchanged, and not read",
        ]


class Part:
    """One load that the model expects, a lease each: of what was approved, of the rows, of the keys."""

    def __init__(
        self,
        kind: str,
        *,
        landed: Landed | None = None,
        content: int | None = None,
        mode: str = "",
        remembers: bool = False,
    ) -> None:
        self.kind = kind
        self.landed = landed
        self.content = content
        self.mode = mode
        self.remembers = remembers


class Oracle(RuleBasedStateMachine):
    """One table, its source, and the model of both."""

    bench: ClassVar[Bench]
    figures: ClassVar[Figures]

    def __init__(self) -> None:
        super().__init__()
        self.table: Table | None = None

    @initialize(
        mode=st.sampled_from(["full", "told", "incremental", "incremental", "append", "counted"]),
        key=st.sampled_from(["id", "id", "both", "masked"]),
        flags=st.integers(0, 127),
        lookback=st.sampled_from([0, 0, 3, 8]),
        ratio=st.sampled_from([0.3, 0.5, 1.0]),
        every=st.sampled_from([None, dt.timedelta(hours=1), dt.timedelta(days=1)]),
        contract=st.tuples(
            st.sampled_from(["evolve", "evolve", "ignore", "refuse"]),
            st.sampled_from(["refuse", "null"]),
            st.sampled_from(["widen", "widen", "refuse"]),
        ),
    )
    def declare(
        self,
        mode: str,
        key: str,
        flags: int,
        lookback: int,
        ratio: float,
        every: dt.timedelta | None,
        contract: tuple[str, str, str],
    ) -> None:
        incremental, append, told = mode == "incremental", mode in ("append", "counted"), mode == "told"
        new_columns, missing, type_change = contract
        declared = Declared(
            mode="append" if append else "full" if told else mode,
            key=() if append else ("id", "part") if key == "both" else ("id",),
            masked_key=key == "masked",
            masked=bool(flags & 1),
            lookback=lookback if incremental else 0,
            flag=bool(flags & 2) and not append and not told,
            # A row that is late once is late in each full load, but only once where changes are told.
            rank=bool(flags & 4) and not append and not told,
            quarantine=bool(flags & 8),
            ratio=ratio,
            floor=3 if flags & 32 else 5,
            new_columns=new_columns,
            missing=missing,
            type_change=type_change,
            history=bool(flags & 16) and not append,
            every=every if incremental else None,
            stateful=mode == "counted",
            told=told,
        )
        bench = self.bench
        bench.tables += 1
        self.figures.tables += 1
        self.table = Table(bench, f"t{bench.tables}", declared)
        self.declared = declared
        self.source: list[Row] = []
        self.offered: list[Row] = []
        self.removed: list[Row] = []
        self.columns: Columns = dict(BASE)
        self.given: Columns = self.columns
        self.tick = 100
        self.steps = 0
        self.ranks: set[int | None] = set()
        self.edits = 0
        self.clock = BEGIN
        self.state = State()
        self.behind = False
        self.log_cut = False
        self.fence_due = False
        self.epoch = 0
        self.landings: dict[int, Landed] = {}
        self.stopped: set[int] = set()
        self.approved: set[int] = set()
        self.torn: set[int] = set()
        self.compared_at: dt.datetime | None = None
        self.saved: State | None = None
        self.kills = 0
        self.parallel = not flags & 64
        self._insert(range(8))

    def teardown(self) -> None:
        if self.table is not None:
            self.table.remove()

    # What happens to the source

    def _step(self, name: str, *, edit: bool = True) -> None:
        self.steps += 1
        self.figures.steps += 1
        self.figures.rules[name] += 1
        self.edits = self.edits + 1 if edit else 0

    def _rank(self) -> int:
        """One that no row ever had: of doubled rows the newest must be one."""
        rank = self.tick * 1000
        while rank in self.ranks:
            rank += 1
        self.ranks.add(rank)
        return rank

    def _past_rank(self, of: int | None) -> int | None:
        if of is None:
            return None
        rank = of - 1
        while rank in self.ranks:
            rank -= 1
        self.ranks.add(rank)
        return rank

    def _row(self, key: int, *, seq: int | None, word: int) -> Row:
        words = [None, "", "x", "yellow"]
        return {
            "id": key // 2 if len(self.declared.key) == 2 else key,
            "part": "ab"[key % 2],
            "name": words[word],
            "amount": key * 10 + word,
            "value": words[3 - word],
            "seq": seq,
            "rank": self._rank(),
            "gone": False if self.declared.flag else None,
            EXTRA: "more" if word == 3 else None,
        }

    def _identity(self, row: Row) -> Key:
        return tuple(row[name] for name in (self.declared.key or ("id",)))

    def _insert(self, keys: Any) -> None:
        there = {self._identity(row) for row in self.source}
        for key in keys:
            row = self._row(key, seq=self.tick, word=key % 4)
            if self.declared.mode == "append" or self._identity(row) not in there:
                self.tick += key % 2
                there.add(self._identity(row))
                self.source.append(row)

    def _at(self, place: int) -> int:
        if not self.source:
            self._insert([place % 24])
        return place % len(self.source)

    def _change(self, at: int, *, keep: bool = False, **values: Any) -> None:
        """Change a row; its rank grows unless it is to stay."""
        row = self.source[at]
        alone = sum(other["rank"] == row["rank"] for other in self.source) == 1
        rank = {} if keep and alone else {"rank": self._rank()}
        self.source[at] = row | rank | values

    @property
    def facts(self) -> bool:
        """The source only ever gets rows."""
        return self.table is not None and self.declared.stateful

    @rule(key=KEY, word=SMALL)
    def insert(self, key: int, word: int) -> None:
        self._step("insert")
        self.tick += word
        self._insert([key])

    @rule(key=KEY, word=SMALL)
    def insert_at_the_boundary(self, key: int, word: int) -> None:
        """A row with the very cursor value that was read last. FAULTS B9."""
        self._step("insert_at_the_boundary")
        row = self._row(key, seq=self.state.mark or self.tick, word=word)
        if self.declared.mode == "append" or self._identity(row) not in map(self._identity, self.source):
            self.source.append(row)

    @rule(key=KEY, word=SMALL, back=st.integers(1, 9))
    def insert_committed_late(self, key: int, word: int, back: int) -> None:
        """A transaction that ends after our read, with an older cursor value. FAULTS B10."""
        self._step("insert_committed_late")
        row = self._row(key, seq=(self.state.mark or self.tick) - back, word=word)
        if self.declared.mode == "append" or self._identity(row) not in map(self._identity, self.source):
            self.source.append(row)

    @rule(place=PLACE, word=SMALL)
    def update(self, place: int, word: int) -> None:
        self._step("update")
        if self.facts:
            return
        self.tick += 1
        self._change(self._at(place), seq=self.tick, name=["", "x", "yellow", None][word], amount=word)

    @rule(place=PLACE, word=SMALL)
    def update_at_the_same_cursor(self, place: int, word: int) -> None:
        self._step("update_at_the_same_cursor")
        if not self.facts:
            self._change(self._at(place), keep=True, value=[None, "x", "", "yy"][word])

    @rule(place=PLACE, back=st.integers(1, 6))
    def become_older(self, place: int, back: int) -> None:
        """The source shows an older version of a row: it must not overwrite the newer one. FAULTS B9."""
        self._step("become_older")
        if self.facts:
            return
        at = self._at(place)
        row = self.source[at]
        seq = None if row["seq"] is None else row["seq"] - back
        self._change(at, seq=seq, rank=self._past_rank(row["rank"]), amount=back)

    @rule(place=PLACE)
    def lose_the_cursor(self, place: int) -> None:
        self._step("lose_the_cursor")
        if place % 4 == 0 and not self.facts:
            self._change(self._at(place), seq=None)

    @rule(place=PLACE)
    def delete(self, place: int) -> None:
        self._step("delete")
        if not self.facts:
            self.removed.append(self.source.pop(self._at(place)))

    @rule(share=st.integers(2, 5))
    def delete_many(self, share: int) -> None:
        """FAULTS B2."""
        self._step("delete_many")
        if not self.facts:
            self.removed += self.source[share:]
            del self.source[share:]

    @rule(place=PLACE, newer=st.booleans())
    def return_of_a_deleted_row(self, place: int, newer: bool) -> None:
        """As it was, or changed meanwhile. FAULTS B12."""
        self._step("return_of_a_deleted_row")
        if not self.removed:
            return
        row = self.removed.pop(place % len(self.removed))
        if self._identity(row) not in map(self._identity, self.source):
            self.source.append(row)
            if newer:
                self.tick += 1
                self._change(len(self.source) - 1, seq=self.tick)

    @rule(place=PLACE, key=KEY)
    def change_the_key(self, place: int, key: int) -> None:
        """FAULTS B12."""
        self._step("change_the_key")
        if self.facts:
            return
        at = self._at(place)
        new = self._row(key, seq=None, word=0)
        if self._identity(new) not in map(self._identity, self.source):
            self.tick += 1
            self._change(at, id=new["id"], part=new["part"], seq=self.tick)

    @rule(place=PLACE, gone=st.sampled_from([True, True, False, None]))
    def flag(self, place: int, gone: bool | None) -> None:
        self._step("flag")
        if not self.facts:
            self.tick += 1
            self._change(self._at(place), gone=gone, seq=self.tick)

    @rule(place=PLACE, often=st.integers(0, 3))
    def spoil_keys(self, place: int, often: int) -> None:
        """A null key, or one that two rows have, equal or not. FAULTS B7, B8."""
        self._step("spoil_keys")
        if often > 1 or self.facts or self.declared.mode == "append":
            return
        at = self._at(place)
        self.tick += 1
        if place % 3 == 0:
            self._change(at, id=None, seq=self.tick)
        else:
            self.source.insert(place % (len(self.source) + 1), dict(self.source[at]))
            if place % 3 == 1:
                self._change(len(self.source) - 1, keep=True)
                twin = next(i for i, row in enumerate(self.source) if self._twins(row) > 1)
                self._change(twin, seq=self.tick, name="twin")

    def _twins(self, row: Row) -> int:
        return sum(self._identity(other) == self._identity(row) for other in self.source)

    def _mend_keys(self) -> None:
        """Give every row a key of its own again."""
        if self.declared.mode == "append":
            return
        seen: set[Key] = set()
        kept = []
        for row in self.source:
            if None not in self._identity(row) and self._identity(row) not in seen:
                seen.add(self._identity(row))
                kept.append(row)
        self.source = kept

    @rule(what=st.sampled_from(["add", "drop", "widen", "narrow", "retype", "classify", "back", "back", "back"]))
    def drift(self, what: str) -> None:
        """The columns of the source change. FAULTS B3, B4, B5."""
        self._step("drift")
        columns = dict(self.columns)
        match what:
            case "add":
                columns[EXTRA] = "string"
            case "drop":
                columns.pop("value", None)
            case "widen":
                columns["amount"] = "int64"
            case "narrow":
                columns["amount"] = "int32"
            case "retype":
                columns["amount"] = "string"
            case "classify" if EXTRA in columns:
                self.declared = replace(self.declared, classified=True)
                self._table.declared = self.declared
            case "back" if self.state.columns is not None:
                columns = {name: BASE.get(name, "string") for name in (*BASE, *self.state.columns)}
                columns["amount"] = self.state.columns["amount"]
        self.columns = columns

    # What is done with it

    @property
    def _table(self) -> Table:
        assert self.table is not None
        return self.table

    def is_ready(self) -> bool:
        return self.table is not None and self.edits >= EDITS_BETWEEN

    def _offer(self, *, mend: bool) -> None:
        if mend:
            self._mend_keys()
        self.given = dict(self.columns)
        self.offered = [self._typed(row) for row in self.source]
        self._table.offer(self.offered, self.given)

    def _typed(self, row: Row) -> Row:
        return row | {"amount": str(row["amount"])} if self.given["amount"] == "string" else row

    def _moment(self, days: int) -> dt.datetime:
        """Clocks move by what they like, to the microsecond."""
        self.clock += dt.timedelta(minutes=(1, 50, 300, 1440)[days], microseconds=self.steps % 977)
        return self.clock

    def _plan(
        self, *, span: tuple[int | None, int | None] | None, forced: bool, approval: int | None, now: dt.datetime
    ) -> list[Part]:
        """The loads that one call makes, one after the other, unless one of them ends it."""
        parts = []
        if approval is not None and self._can_apply(approval):
            parts.append(self._landed_part("approved", approval))
        parts.append(Part("rows"))
        every = self.declared.every
        due = every is not None and self.state.columns is not None
        if due and every is not None and self.compared_at is not None:
            due = now - self.compared_at >= every * 0.9
        if due or forced:
            parts.append(Part("keys"))
        return parts

    def _can_apply(self, batch: int) -> bool:
        landed = self.landings.get(batch)
        return landed is not None and landed.held == self.state.batch and self._table.landed().get(batch, False)

    def _landed_part(self, kind: str, batch: int) -> Part:
        """A landed batch that is applied again."""
        table, landed = self._table, self.landings[batch]
        if not self.declared.told:
            return Part(kind, landed=landed, content=batch, mode=landed.mode)
        remembers = table.remembers(batch, self.state.batch)
        return Part(kind, landed=landed, content=batch, mode=table.mode_of(batch), remembers=remembers)

    def _told(self, row: LoadRow | None, state: State) -> tuple[frozenset[str] | None, bool]:
        """What a source that tells changes knows after a load, and whether that is kept in any case.

        Whether it was asked for changes or for everything is what the load itself says.
        """
        if not self.declared.told:
            return None, False
        partial = row is not None and row.figures.get("told_unchanged") is not None
        known = digests(self._table.offered())
        if not partial:
            return known, True
        assert row is not None
        assert isinstance(state.source, frozenset), "changes were read without a state"
        self.figures.told += row.figures["told_unchanged"]
        changes = not known <= state.source
        return (known if changes else state.source), changes

    def _run(
        self, part: Part, state: State, *, batch: int, moment: dt.datetime, span: Any, row: LoadRow | None = None
    ) -> Outcome:
        if part.landed is not None:
            assert part.content is not None
            return applied(
                self.declared,
                state,
                replace(part.landed, read=len(part.landed.rows)),
                batch=batch,
                content=part.content,
                moment=moment,
                approved=part.kind == "approved",
                always=part.remembers if self.declared.told else part.landed.state is not None,
            )
        told, always = self._told(row, state)
        if part.kind == "keys":
            landed = keys_of(self.declared, state, self.offered, key=self.bench.key)
        else:
            try:
                landed = extracted(
                    self.declared, state, self.offered, self.given, key=self.bench.key, span=span, told=told
                )
            except RefusedColumns:
                return Outcome(end="schema", after=state)
        return applied(
            self.declared,
            state,
            landed,
            batch=batch,
            content=batch,
            moment=moment,
            always=always or (landed.state is not None and landed.state != state.source),
        )

    def _compare(
        self,
        ended: Any,
        parts: list[Part],
        *,
        now: dt.datetime | None,
        since: dt.datetime,
        before: int,
        span: Any = None,
        broken: bool = False,
    ) -> None:
        """Compare what was done with what the model says.

        Args:
            ended: the result, or the error, or KILLED.
            now: what ``_modified_at`` was to become; None: the time of the clock.
            since: when the call was made, by the clock.
            before: version of the table before it.
            broken: something was made to fail.
        """
        table, figures = self._table, self.figures
        rows = table.log(after=self.epoch)
        assert [row.batch_id for row in rows] == sorted({row.batch_id for row in rows})
        if rows:
            self.epoch = rows[-1].batch_id
        bronze, old = table.look(), self.state
        outcomes: list[Outcome] = []
        state = self.state
        for part, row in zip(parts, [*rows, *[None] * len(parts)], strict=False):
            batch = row.batch_id if row is not None else -1
            moment = now if now is not None and part.kind in ("rows", "keys") else None
            outcome = self._run(
                part, state, batch=batch, moment=moment or self._observed(bronze, batch, since), span=span, row=row
            )
            outcomes.append(outcome)
            state = outcome.after
            if outcome.end != "succeeded":
                break
        figures.loads += max(1, len(rows))
        expected = ENDS[outcomes[-1].end]
        as_expected = (
            ended == (expected and expected.__name__)
            if isinstance(ended, str)
            else (expected is None and not isinstance(ended, Exception)) or _kind(ended) is expected
        )
        if broken and not as_expected:
            figures.ends["crashed"] += 1
            self._adopt_after_crash(rows, parts, outcomes, held=bronze.batch)
        else:
            if isinstance(ended, Exception) and _kind(ended) is not expected:
                raise ended
            assert as_expected, f"{outcomes[-1].end} was expected, and this came: {ended!r}"
            assert len(rows) == len(outcomes)
            for part, row, outcome in zip(parts[: len(rows)], rows, outcomes, strict=True):
                figures.ends[outcome.end] += 1
                self._compare_log(part, row, outcome)
                self._note(part, row, outcome, now=now)
            self.state = state
            committed = any(outcome.committed for outcome in outcomes)
            if not committed and not self.fence_due and not broken:
                assert bronze.version == before, "a load that changed nothing made a commit"
            self.fence_due = False
            applied_last = outcomes[-1].landed is not None and outcomes[-1].end == "succeeded"
            # Where the load did not come to bronze, a history that a crash left behind still is.
            self.behind = self.behind and not applied_last
            if not isinstance(ended, Exception | str | None):
                self._compare_result(ended, outcomes, old)
        self._compare_bronze(bronze)
        self._compare_landing(rows, broken=broken)
        if not broken and outcomes[-1].end == "succeeded":
            self._count_wrongs(bronze.rows, outcomes, parts)

    def _observed(self, bronze: Seen, batch: int, since: dt.datetime) -> dt.datetime:
        """When an operation that goes by the clock says that it changed rows: once, and while it ran."""
        found = {row["_modified_at"] for row in bronze.rows if row["_batch_id"] == batch}
        assert len(found) <= 1
        if not found:
            return since
        moment: dt.datetime = found.pop()
        assert moment == self.clock or since <= moment <= dt.datetime.now(dt.UTC)
        return moment

    def _adopt_after_crash(self, rows: list[LoadRow], parts: list[Part], outcomes: list[Outcome], *, held: int) -> None:
        """Whatever broke: bronze is as it was before one of the loads, or after it, and nothing in between."""
        self.torn |= {row.batch_id for row in rows}
        was = self.state
        if held != self.state.batch:
            batches = [row.batch_id for row in rows]
            assert held in batches, "bronze holds a batch of no load"
            at = batches.index(held)
            assert outcomes[at].committed, "a load that was to change nothing, or to be stopped, was committed"
            self.state = outcomes[at].after
        for part, row, outcome in zip(parts, rows, outcomes, strict=False):
            if row.status in ("succeeded", "stopped"):
                self._note(part, row, outcome, now=None if was is self.state else self.clock)
            if outcome.landed is not None:
                self.landings[row.batch_id] = outcome.landed
        self.fence_due = True
        self.behind = self.behind or self.state is not was

    def _note(self, part: Part, row: LoadRow, outcome: Outcome, *, now: dt.datetime | None) -> None:
        """Remember what later loads go by."""
        if outcome.landed is not None and part.kind not in ("approved", "replay"):
            self.landings[row.batch_id] = outcome.landed
        if outcome.end == "stopped" and part.kind != "replay":
            self.stopped.add(row.batch_id)
        all_keys = part.kind == "keys" or (part.kind == "rows" and outcome.committed and self.first(outcome))
        if row.status == "succeeded" and all_keys:
            self.compared_at = now or self.clock

    def first(self, outcome: Outcome) -> bool:
        """Whether that load made the table."""
        return outcome.landed is not None and outcome.landed.held == 0

    def _compare_log(self, part: Part, row: LoadRow, outcome: Outcome) -> None:
        assert row.status == STATUS[outcome.end]
        mode = "keys" if part.kind == "keys" else self.declared.mode
        if part.landed is not None:
            mode = part.mode
        assert row.mode == mode
        if outcome.end == "succeeded":
            for name, value in outcome.figures.items():
                assert row.figures[name] == value, f"{name}: {value} was expected, and the log says {row.figures}"
            assert bool(row.figures["committed"]) == outcome.committed
        if outcome.end == "stopped":
            assert row.figures["deletes"] == outcome.deletes
            assert row.figures["current"] == outcome.after.current
        if outcome.quarantine and outcome.landed is not None:
            found = self._table.quarantined(row.batch_id)
            names = [*outcome.landed.columns, "_reason"]
            assert _many(found, names) == _many(outcome.quarantine, names)

    def _compare_result(self, result: Any, outcomes: list[Outcome], old: State) -> None:
        shown = [part for part in (result.approved, result, result.keys) if part is not None]
        assert len(shown) == len(outcomes)
        for found, outcome in zip(shown, outcomes, strict=True):
            assert {name: getattr(found, name) for name in outcome.figures} == outcome.figures
            assert found.committed == outcome.committed
            if found is result and self.declared.cursor and found.landed_batch is None:
                assert outcome.landed is not None
                first = outcomes[0].after if found.approved is not None or result.approved is not None else old
                assert found.watermark_from == first.mark
                marks = [one for one in (first.mark, outcome.landed.largest) if one is not None]
                assert found.watermark_to == (max(marks) if marks else None)

    def _compare_bronze(self, found: Seen) -> None:
        state, table = self.state, self._table
        assert found.columns == state.columns
        if state.columns is None:
            return
        assert found.batch == state.batch
        names = [*state.columns, "_is_current", "_is_deleted", "_modified_at", "_batch_id"]
        wanted = _many(state.rows.values(), names)
        rows = _many(found.rows, names)
        assert rows == wanted, f"missing: {wanted - rows}, too much: {rows - wanted}"
        self.figures.compared += len(found.rows)
        assert found.mark == state.mark
        if self.declared.history and not self.behind:
            history = table.history()
            assert history is not None
            columns, versions = history
            assert columns == state.columns
            names = [*state.columns, "_valid_from", "_valid_to", "_is_deleted", "_batch_id"]
            told = [one for found_ in state.versions.values() for one in found_]
            there, wanted = _many(versions, names), _many(told, names)
            assert there == wanted, f"missing: {wanted - there}, too much: {there - wanted}"
            assert_intervals(state)

    def _compare_landing(self, rows: list[LoadRow], *, broken: bool) -> None:
        """Nothing torn but what a crash left, which does not exist for whoever reads it."""
        for batch, whole in self._table.landed().items():
            assert whole or batch in self.torn
        if not broken:
            landed = self._table.landed()
            for row in rows:
                # A load that follows and succeeds puts an end to what was stopped.
                if row.status == "stopped" and row is rows[-1]:
                    assert landed.get(row.batch_id), "a stopped load did not keep its landing"
                if row.status == "failed":
                    assert row.batch_id not in landed, "a load that failed left something in the landing"

    def _count_wrongs(self, rows: tuple[Row, ...], outcomes: list[Outcome], parts: list[Part]) -> None:
        """Bronze against the source itself, past all that the model knows of loads."""
        if not self.declared.key or parts[0].kind == "replay":
            return
        bronze = Counter(key_of(row, self.declared) for row in rows)
        current = {key_of(row, self.declared) for row in rows if row["_is_current"]}
        source: dict[Key, list[Row]] = {}
        for row in self.offered:
            shown = masked(row, self.declared, self.bench.key)
            if None not in key_of(shown, self.declared):
                source.setdefault(key_of(shown, self.declared), []).append(shown)
        left_alone = frozenset().union(*(outcome.left_alone for outcome in outcomes))
        gone = {key for key, same in source.items() if self.declared.flag and any(row["gone"] for row in same)}
        read = {
            key_of(row, self.declared)
            for part, outcome in zip(parts, outcomes, strict=False)
            if part.kind == "rows" and outcome.landed is not None
            for row in outcome.landed.rows
        }
        there = (read & set(source)) - left_alone - gone
        lost = there - set(bronze)
        wrongly = (there & set(bronze)) - current
        doubled = sum(count - 1 for count in bronze.values())
        self.figures.lost += len(lost)
        self.figures.doubled += doubled
        self.figures.falsely_deleted += len(wrongly)
        assert not lost, "rows of the source are not in bronze"
        assert not doubled, "a key is in bronze more than once"
        assert not wrongly, "rows of the source are flagged deleted"
        if self.declared.mode == "full" and parts[-1].kind == "rows":
            assert current - left_alone <= set(source), "rows that the source lacks are current"

    # The loads

    def _load(self, *, days: int, mend: bool, span: Any = None, forced: bool = False) -> None:
        table = self._table
        self._offer(mend=mend)
        now, before = self._moment(days), table.version
        reload = None
        if span is not None or forced:
            since, until = span or (None, None)
            reload = Reload(
                since=None if since is None else str(since),
                until=None if until is None else str(until),
                detect_deletes=forced,
            )
            span = span or (None, None)
        parts = self._plan(span=span, forced=forced, approval=table.approval(), now=now)
        since_ = dt.datetime.now(dt.UTC)
        ended = attempt(lambda: table.load(started_at=now, reload=reload))
        self._compare(ended, parts, now=now, since=since_, before=before, span=span)

    @precondition(is_ready)
    @rule(days=SMALL, mend=st.sampled_from([False, False, True]), again=st.booleans())
    def load(self, days: int, mend: bool, again: bool) -> None:
        self._step("load", edit=False)
        self._load(days=days, mend=mend)
        if self.epoch in self.stopped and again:
            self._approve(self.epoch, None)
        elif again:
            self._load(days=0, mend=False)

    @precondition(is_ready)
    @rule(fault=st.sampled_from([*POINTS, *SOURCE_ENDS]), days=SMALL)
    def load_that_breaks(self, fault: str, days: int) -> None:
        """An error at a named point, or a source that dies; then the load again. FAULTS A1, A11, B1."""
        self._step("load_that_breaks", edit=False)
        self._insert([self.steps % 24])
        self.tick += 1
        self._change(0, seq=self.tick) if not self.facts else None
        table = self._table
        self._offer(mend=True)
        now, before = self._moment(days), table.version
        parts = self._plan(span=None, forced=False, approval=table.approval(), now=now)
        since = dt.datetime.now(dt.UTC)
        ended = attempt(lambda: table.load_broken(fault, started_at=now))
        if isinstance(ended, Exception):
            self.figures.crashes[fault.split(":")[0]] += 1
        self._compare(ended, parts, now=now, since=since, before=before, broken=True)
        self._load(days=0, mend=False)

    @precondition(lambda self: self.is_ready() and self.kills < MOST_KILLS)
    @rule(fault=st.sampled_from(KILLS), days=SMALL)
    def load_that_is_killed(self, fault: str, days: int) -> None:
        """SIGKILL at a named point; then the load again. FAULTS A1, A11."""
        self._step("load_that_is_killed", edit=False)
        self._insert([self.steps % 24])
        self.tick += 1
        self._change(0, seq=self.tick) if not self.facts else None
        self.kills += 1
        table = self._table
        self._offer(mend=True)
        now, before = self._moment(days), table.version
        parts = self._plan(span=None, forced=False, approval=table.approval(), now=now)
        since = dt.datetime.now(dt.UTC)
        ended = table.load_killed(fault, started_at=now)
        if ended == KILLED:
            self.figures.kills[fault.split(":")[0]] += 1
        self._compare(ended, parts, now=now, since=since, before=before, broken=True)
        self._load(days=0, mend=False)

    @precondition(lambda self: self.is_ready() and not self.parallel)
    @rule(days=SMALL)
    def two_loads_at_once(self, days: int) -> None:
        """The second waits for the first, and finds nothing to do. FAULTS C1."""
        self._step("two_loads_at_once", edit=False)
        self.parallel = True
        table = self._table
        if table.approval() is not None:
            self._load(days=0, mend=False)
        self._offer(mend=True)
        now = self._moment(days)
        results = table.load_twice_at_once(started_at=now)
        rows = table.log(after=self.epoch)
        assert len(rows) >= 2
        # Each is a load of its own, whatever their keys' comparisons came between.
        ends: Counter[str] = Counter()
        taken: list[LoadRow] = []
        for row in rows:
            part = Part("keys" if row.mode == "keys" else "rows")
            outcome = self._run(part, self.state, batch=row.batch_id, moment=now, span=None, row=row)
            self._compare_log(part, row, outcome)
            self._note(part, row, outcome, now=now)
            self.state = outcome.after
            self.behind = self.behind and outcome.landed is None
            ends[outcome.end] += 1
            taken.append(row)
        self.epoch = rows[-1].batch_id
        self.figures.loads += len(rows)
        self.figures.ends.update(ends)
        for end, error in ENDS.items():
            if error is not None:
                assert sum(_kind(result) is error for result in results) == ends[end]
        self.fence_due = False
        self._compare_bronze(table.look())
        self._compare_landing(taken, broken=False)

    @precondition(is_ready)
    @rule(low=st.integers(0, 30), high=st.integers(0, 30), how=SMALL, keys=st.booleans(), days=SMALL)
    def reload(self, low: int, high: int, how: int, keys: bool, days: int) -> None:
        self._step("reload", edit=False)
        top = self.state.mark or self.tick
        span = None
        if self.declared.mode == "incremental":
            span = (top - low if how & 1 else None, top + 5 - high if how & 2 else None)
        if self.declared.mode == "append":
            error = attempt(lambda: self._table.load(started_at=self._moment(days), reload=Reload()))
            assert type(error) is LoadError
            self._compare_bronze(self._table.look())
            return
        forced = keys and self.declared.mode == "incremental"
        self._load(days=days, mend=True, span=span or (None, None), forced=forced)

    @precondition(lambda self: self.table is not None and bool(self.stopped))
    @rule(place=PLACE, fault=st.sampled_from([None, None, None, *POINTS]))
    def approve(self, place: int, fault: str | None) -> None:
        """FAULTS B2."""
        self._step("approve", edit=False)
        batch = sorted(self.stopped)[-1 - (place % 4 == 0) * (place % len(self.stopped))]
        self._approve(batch, fault)

    def _approve(self, batch: int, fault: str | None) -> None:
        table = self._table
        before, recorded = table.version, table.approval()
        fits = self._can_apply(batch)
        allowed = fits and (batch not in self.approved or recorded == batch)
        part = self._landed_part("approved", batch) if fits else None
        since = dt.datetime.now(dt.UTC)
        with nullcontext() if fault is None else armed(fault):
            ended = attempt(lambda: table.approve(batch))
        if table.approval() == batch or not isinstance(ended, Exception):
            self.approved.add(batch)
        if part is None or not allowed:
            assert isinstance(ended, Exception)
            assert fault is not None or type(ended) is LoadError
            rows = table.log(after=self.epoch)
            self.epoch = rows[-1].batch_id if rows else self.epoch
            self.fence_due = self.fence_due or fault is not None
            self._compare_bronze(table.look())
            return
        if isinstance(ended, Exception) and fault is not None:
            self.figures.crashes[fault.split(":")[0]] += 1
        self.figures.approvals += not isinstance(ended, Exception)
        self._compare(ended, [part], now=None, since=since, before=before, broken=fault is not None)

    @precondition(lambda self: self.table is not None and bool(self.landings) and not self.log_cut)
    @rule(place=PLACE)
    def replay(self, place: int) -> None:
        """Any landing, however old, and as often as one likes. FAULTS A12."""
        self._step("replay", edit=False)
        self._replay(place)

    def _replay(self, place: int | None) -> None:
        """Replay one landing of those that are there; None: the one that follows bronze."""
        table, state = self._table, self.state
        landed = {batch: self.landings.get(batch) for batch, whole in table.landed().items() if whole}
        known = {batch: found for batch, found in landed.items() if found is not None}
        if not known:
            return
        following = [batch for batch, found in known.items() if found.held == state.batch]
        batch = sorted(known)[place % len(known)] if place is not None else min(following, default=min(known))
        part = self._landed_part("replay", batch)
        assert part.landed is not None
        before, since = table.version, dt.datetime.now(dt.UTC)
        ended = attempt(lambda: table.replay(batch))
        follows = part.landed.held in (state.content, state.batch) or part.mode == "full"
        if batch == state.content:
            rows = table.log(after=self.epoch)
            assert [row.status for row in rows] == ["succeeded"], ended
            self.epoch = rows[-1].batch_id
            assert not ended.committed
            assert table.version == before or self.fence_due
            self.fence_due = False
            self._compare_bronze(table.look())
        elif batch < state.content or not follows:
            assert type(ended) is LoadError
            rows = table.log(after=self.epoch)
            self.epoch = rows[-1].batch_id if rows else self.epoch
            self._compare_bronze(table.look())
        else:
            self.figures.replays += 1
            if type(ended) is LoadError:
                rows = table.log(after=self.epoch)
                outcome = self._run(part, state, batch=-1, moment=since, span=None)
                assert outcome.end in ("stopped", "keys"), ended
                self.epoch = rows[-1].batch_id
                self._compare_bronze(table.look())
            else:
                self._compare(ended, [part], now=None, since=since, before=before)

    @precondition(is_ready)
    @rule(operation=st.sampled_from(["compact", "vacuum", "landing", "orphans", "logs"]))
    def upkeep(self, operation: str) -> None:
        """Nothing that is kept up looks different to a reader."""
        self._step("upkeep", edit=False)
        table = self._table
        table.keep_up(operation)
        self.log_cut = self.log_cut or operation == "logs"
        rows = table.log(after=self.epoch)
        self.epoch = rows[-1].batch_id if rows else self.epoch
        self._compare_bronze(table.look())
        if operation == "orphans":
            assert all(table.landed().values()), "a torn landing outlived the orphans' sweep"

    @precondition(lambda self: self.is_ready() and not self.behind and not self.declared.stateful)
    @rule(back=st.booleans(), replay=st.booleans())
    def back_up_or_restore(self, back: bool, replay: bool) -> None:
        """Bronze and its history as they were earlier; the control database and the landing stay. FAULTS A12."""
        self._step("back_up_or_restore", edit=False)
        table = self._table
        if back and self.saved is not None:
            table.restore()
            self.state, self.saved = self.saved, None
            self.fence_due = True
        else:
            table.save()
            self.saved = self.state
        self._compare_bronze(table.look())
        if back and replay and not self.log_cut:
            self._replay(None)


def _kind(ended: Any) -> type:
    """The class of what came; the model does not ask which columns a contract refuses for what reason."""
    return SchemaError if isinstance(ended, SchemaError) else type(ended)


def _many(rows: Any, names: list[str]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row.get(name) for name in names) for row in rows)
