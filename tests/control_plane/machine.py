"""A machine that does to metadata whatever can happen to it, and compares the control tables with a model.

The model keeps what git declares, the rows as they should be found, and the rows after every apply. It knows a plan
only by what it was made from, and decides by itself what an apply of it has to do.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from platform_core.control.holders import this_process
from platform_core.control.plan.applying import Applied, apply_plan
from platform_core.control.plan.declared import manifest_rows, read_declared
from platform_core.control.plan.planning import plan_from_git, plan_rollback
from platform_core.control.reviewed_sql.applying import apply_changes
from platform_core.control.reviewed_sql.planning import Scope
from platform_core.control.store.codec import codec
from platform_core.control.store.history import rows_at, serial_at, version_at
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.lock import current_lock, unlock
from platform_core.control.store.overrides import read_overrides
from platform_core.control.store.rows import RowKey, read_manifest, read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.control.store.tables import SPEC_TABLES, applies, history, locks
from platform_core.errors import ConfigError, PlanError
from tests.control_plane.conftest import AUTHOR, Databases
from tests.control_plane.git_side import HOMES, WORKSTREAMS, Table
from tests.control_plane.killing import Killed, at_once, killed_before
from tests.control_plane.model import LOOKBACK, Figures, Held, Model, Planned, Rows, with_lookback

TABLES = ("t0", "t1", "t2", "t3")
MASKS = (None, "hash", "full")
MOST_STATEMENTS = 30
MALFORMED = ("[1]", "5", '{"email": 5}', '{"email": {"masking": "hash"}}')

MASKED_BY_HAND = ('{"email": {"masking": {"mask": "full"}}}', "{}")

WORKSTREAM = st.sampled_from(WORKSTREAMS)
TABLE = st.sampled_from(TABLES)
ACTOR = st.sampled_from((0, 1))
NUMBER = st.integers(0, 99)
PLACE = st.integers(0, 63)


class ControlPlane(Model, RuleBasedStateMachine):
    """A project of two locations, its control tables, two people who plan and apply, and the model of it all."""

    databases: ClassVar[Databases]
    figures: ClassVar[Figures]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.planned: dict[int, Planned] = {}
        self.sql_files = 0

    @initialize()
    def begin(self) -> None:
        self.project = self.databases.project(self.folder / secrets.token_hex(6), state="prepared")
        self.environment = self.project.environment()
        self.settings = self.project.settings()
        self.stores = [self._store() for _ in range(2)]
        self.git.write(self.project)
        self.figures.projects += 1

    def teardown(self) -> None:
        self.figures.versions += sum(len(snapshot) for snapshot in self.snapshots)
        if hasattr(self, "project"):
            self.databases.close()
            shutil.rmtree(self.project.folder)

    # What happens in git

    @rule(workstream=WORKSTREAM, name=TABLE, hours=st.integers(1, 9), mask=st.sampled_from(MASKS))
    def declare(self, workstream: str, name: str, hours: int, mask: str | None) -> None:
        """A table is created, or changed."""
        self.git.tables[workstream][name] = Table(hours, mask)
        self._edited("declare")

    @rule(workstream=WORKSTREAM, name=TABLE)
    def take_out(self, workstream: str, name: str) -> None:
        self.git.tables[workstream].pop(name, None)
        self._edited("take_out")

    @rule(workstream=WORKSTREAM, old=TABLE, new=TABLE)
    def rename(self, workstream: str, old: str, new: str) -> None:
        tables = self.git.tables[workstream]
        if old in tables:
            tables[new] = tables.pop(old)
        self._edited("rename")

    @rule()
    def move(self) -> None:
        """A workstream goes to the other location, with all that it has."""
        self.git.home["ship"] = "finance" if self.git.home["ship"] == "crm" else "crm"
        self._edited("move")

    @rule(home=st.sampled_from(HOMES), number=NUMBER)
    def set_variable(self, home: str, number: int) -> None:
        """A variable changes, and with it each row that it stands in."""
        self.git.paths[home] = number
        self._edited("set_variable")

    @rule()
    def leave_or_return(self) -> None:
        """A location leaves the workspace, or comes back."""
        self.git.listed = HOMES if self.git.listed != HOMES else HOMES[:1]
        self._edited("leave_or_return")

    # What people do

    @rule(actor=ACTOR, only=st.sampled_from((None, None, *HOMES)))
    def plan(self, actor: int, only: str | None) -> None:
        chosen = (only,) if only in self.git.listed else ()
        plan = plan_from_git(self.settings, self.environment, self.stores[actor], author=AUTHOR, locations=chosen)
        self.planned[actor] = self.expect_of_git(plan, self.stand(), chosen, self._declared())
        self._count("plan")

    @precondition(lambda self: self.serial > 0)
    @rule(actor=ACTOR, place=PLACE)
    def plan_to_go_back(self, actor: int, place: int) -> None:
        serial = place % (self.serial + 1)
        plan = plan_rollback(self.settings, self.environment, self.stores[actor], serial=serial, author=AUTHOR)
        wanted = self.snapshots[serial]
        ends = frozenset(key for key, held in self.held.items() if held.serial > serial or key not in wanted)
        known = {key.location for key in self.live if key.kind == "location"}
        live = {key: row for key, row in self.live.items() if key.location in known}
        ends = frozenset(key for key in ends if key.location in known)
        self.planned[actor] = self.expect(plan, self.serial, live, wanted, ends)
        self._count("plan_to_go_back")

    @precondition(lambda self: self.planned)
    @rule(actor=ACTOR)
    def apply(self, actor: int) -> None:
        if actor in self.planned:
            self.judge(self.planned[actor], self._apply(actor))
        self._count("apply")

    @rule(actor=ACTOR)
    def plan_and_apply(self, actor: int) -> None:
        self.plan(actor, None)
        self.apply(actor)
        self._count("plan_and_apply")

    @precondition(lambda self: len(self.planned) == 2)
    @rule()
    def apply_at_once(self) -> None:
        """Two people apply what they have planned, at the same time."""
        outcomes = at_once(lambda: self._apply(0), lambda: self._apply(1))
        before = self.stand()
        order = sorted((0, 1), key=lambda actor: (isinstance(outcomes[actor], PlanError), _serial(outcomes[actor])))
        for actor in order:
            outcome = outcomes[actor]
            if not isinstance(outcome, PlanError):
                self.judge(self.planned[actor], outcome)
            elif "locked by" in str(outcome):
                self.figures.ends["refused: locked"] += 1
            else:
                told = {self.refusal(self.planned[actor], before), self.refusal(self.planned[actor])}
                assert any(reason and reason in str(outcome) for reason in told), (told, outcome)
                self.figures.ends["refused at once"] += 1
        self._count("apply_at_once")

    @precondition(lambda self: 0 in self.planned)
    @rule()
    def plan_during_an_apply(self) -> None:
        """Whoever plans while another applies sees the tables before it or after it, and nothing between."""
        before = self.stand()
        outcome, plan = at_once(
            lambda: self._apply(0),
            lambda: plan_from_git(self.settings, self.environment, self.stores[1], author=AUTHOR),
        )
        self.judge(self.planned[0], outcome)
        stand = before if plan.base.serial == before.serial else self.stand()
        self.planned[1] = self.expect_of_git(plan, stand, (), self._declared())
        self._count("plan_during_an_apply")

    @precondition(lambda self: self.planned)
    @rule(actor=ACTOR, nth=st.integers(1, MOST_STATEMENTS))
    def kill(self, actor: int, nth: int) -> None:
        """An apply ends before its nth statement, or its commit, without having done anything; or it got through."""
        if actor not in self.planned:
            actor = 1 - actor
        try:
            with killed_before(nth):
                outcome = self._apply(actor)
        except Killed:
            self.figures.kills["in the middle"] += 1
            # Killed while it gave the lock back: the process is gone, and its lock stays until somebody wants it.
            died = locks.update().values(process_started="long ago")
            self.orphaned = self.stores[0].change(lambda connection: connection.execute(died).rowcount) > 0
        else:
            self.judge(self.planned[actor], outcome)
            self.figures.kills["too late"] += 1
        self._count("kill")

    @precondition(lambda self: self.planned)
    @rule(actor=ACTOR)
    def apply_after_another_died(self, actor: int) -> None:
        """Somebody's process ended while it held the lock; it is taken over."""
        if actor in self.planned:
            self._hold(replace(this_process(), started="long ago"))
            outcome = self._apply(actor)
            if isinstance(outcome, PlanError):
                assert "locked by" not in str(outcome)
            self.judge(self.planned[actor], outcome)
        self._count("apply_after_another_died")

    @precondition(lambda self: self.planned)
    @rule(actor=ACTOR)
    def apply_while_another_holds_the_lock(self, actor: int) -> None:
        """Somebody on another machine holds the lock, until it is taken away."""
        if actor in self.planned:
            id_ = self._hold(replace(this_process(), host="elsewhere"))
            outcome = self._apply(actor)
            assert isinstance(outcome, PlanError)
            assert id_ in str(outcome)
            self.figures.ends["refused: locked"] += 1
            assert unlock(self.stores[0].database, id_).id == id_
        self._count("apply_while_another_holds_the_lock")

    # What people with SQL do

    @precondition(lambda self: self.live)
    @rule(place=PLACE, number=NUMBER)
    def change_by_sql(self, place: int, number: int) -> None:
        self._override(place, "ingestion", "description", f"by hand {number}")
        self._count("change_by_sql")

    @precondition(lambda self: self.live)
    @rule(place=PLACE, text=st.sampled_from(MASKED_BY_HAND))
    def change_mask_by_sql(self, place: int, text: str) -> None:
        self._override(place, "ingestion", "columns", text)
        self._count("change_mask_by_sql")

    @precondition(lambda self: self.live)
    @rule(place=PLACE)
    def space_by_sql(self, place: int) -> None:
        """JSON is written with other spaces, which changes nothing."""
        key = self.chosen_row(place, "ingestion")
        if key is not None:
            names = codec(KINDS["ingestion"]).names
            text = self.live[key][names.index("columns")]
            self._override(place, "ingestion", "columns", json.dumps(json.loads(text or "null"), indent=2))
        self._count("space_by_sql")

    @precondition(lambda self: self.live)
    @rule(place=PLACE, text=st.sampled_from(MALFORMED))
    def spoil_by_sql(self, place: int, text: str) -> None:
        """A value of a shape that no spec has."""
        if key := self._override(place, "ingestion", "columns", text):
            self.malformed.add(key)
        self._count("spoil_by_sql")

    @precondition(lambda self: self.live)
    @rule(place=PLACE, kind=st.sampled_from(("ingestion", "connection", "variable", "workstream", "location")))
    def delete_by_sql(self, place: int, kind: str) -> None:
        if (key := self.chosen_row(place, kind)) is not None:
            self._run(SPEC_TABLES[kind].delete().where(*self._is(key)))
            del self.live[key]
            self.figures.overrides["deleted"] += 1
        self._count("delete_by_sql")

    @precondition(lambda self: RowKey("location", "crm", "crm") in self.live)
    @rule(name=TABLE, is_spec=st.booleans())
    def insert_by_sql(self, name: str, is_spec: bool) -> None:
        key = RowKey("ingestion", "crm", f"crm.{name}")
        if key not in self.live:
            values = {"workstream": "crm", "name": name}
            if is_spec:
                values |= {"source": "erp", "object": name, "mode": "full", "key": '["id"]'}
            else:
                self.malformed.add(key)
            self._run(SPEC_TABLES["ingestion"].insert().values(location="crm", **values))
            rows = codec(KINDS["ingestion"])
            self.live[key] = rows.normal([values.get(column) for column in rows.names])
            self.figures.overrides["inserted"] += 1
        self._count("insert_by_sql")

    @precondition(lambda self: self.live)
    @rule(place=PLACE, hours=st.integers(2, 9), days=st.sampled_from((0, 1, 60)))
    def override_by_reviewed_sql(self, place: int, hours: int, days: int) -> None:
        """A value is held against git for some days; refused where rows do not fit, and then nothing changes."""
        key = self.chosen_row(place, "ingestion")
        if key is not None:
            self._override_reviewed(key, f"{hours} hours", self.now.date() + dt.timedelta(days=days))
        self._count("override_by_reviewed_sql")

    # What clocks do

    @rule(minutes=st.sampled_from((-600, -60, 60, 600, 4320)))
    def jump(self, minutes: int) -> None:
        self.now += dt.timedelta(minutes=minutes)
        self._count("jump")

    # What must be true at any time

    @invariant()
    def the_tables_are_what_was_applied_and_changed_by_sql(self) -> None:
        if not hasattr(self, "project"):
            return
        found, overrides, state, lock, serials = self.stores[0].read(
            lambda c: (
                read_rows(c),
                read_overrides(c),
                read_state(c),
                current_lock(c),
                list(c.execute(sa.select(applies.c.serial).order_by(applies.c.applied_at, applies.c.serial)).scalars()),
            )
        )
        assert {key: codec(KINDS[key.kind]).normal(row) for key, row in found.items()} == self.live
        assert {each.key: (each.value, each.expires) for each in overrides} == {
            key: (held.value, held.expires) for key, held in self.held.items()
        }
        assert state.serial == self.serial
        assert sorted(serials) == list(range(1, self.serial + 1))
        assert (lock is not None) == self.orphaned

    @invariant()
    def history_is_complete(self) -> None:
        if not hasattr(self, "project"):
            return
        assert self._replayed() == self.snapshots

    @invariant()
    def the_past_is_shown_as_it_was(self) -> None:
        if not hasattr(self, "project") or self.serial == 0:
            return
        # Another moment and another serial each time, and the same ones when it is played again.
        serial = self.figures.steps % (self.serial + 1)
        moment = self.times[self.figures.steps % len(self.times)] + dt.timedelta(seconds=1)
        then = max((each for each in range(1, self.serial + 1) if self.times[each] <= moment), default=0)
        key = next(
            itertools.islice(itertools.cycle(self.snapshots[-1] or {RowKey("dbt", "", "crm.x"): ()}), serial, None)
        )

        def look(connection: sa.Connection) -> Any:
            version = version_at(connection, kind=key.kind, address=key.address, moment=moment)
            return rows_at(connection, serial=serial), serial_at(connection, moment), version

        rows, at, version = self.stores[1].read(look)
        assert rows == self.snapshots[serial]
        assert at == then
        homes = {each: row for each, row in self.snapshots[then].items() if each[::2] == key[::2]}
        assert (version and version.row()) in (list(homes.values()) or [None])

    @invariant()
    def the_manifest_is_what_the_tables_hold(self) -> None:
        if not hasattr(self, "project"):
            return
        self.malformed &= self.live.keys()
        for home in HOMES:
            if RowKey("location", home, home) not in self.live or any(key.location == home for key in self.malformed):
                continue
            state = self.settings.state
            look = partial(read_manifest, location=home, root=self.project.folder / home, state=state)
            manifest = self.stores[0].read(look)
            expected = {key: row for key, row in self.live.items() if key.location == home}
            assert manifest_rows(manifest, state=state) == expected

    # How the model counts

    def _edited(self, name: str) -> None:
        self.git.write(self.project)
        self._count(name)

    def _count(self, name: str) -> None:
        self.figures.rules[name] += 1
        self.figures.steps += 1
        self.now += dt.timedelta(minutes=1)

    def _store(self) -> ControlStore:
        store = self.project.store()
        store.database.clock = lambda _connection: self.now  # type: ignore[method-assign]
        return store

    def _declared(self) -> Rows:
        """What git declares, as the platform reads it and as the model knows it."""
        found = dict(read_declared(self.settings).rows)
        rows = codec(KINDS["ingestion"])
        place = rows.names.index("lookback")
        read = {(key.location, key.address, row[place]) for key, row in found.items() if key.kind == "ingestion"}
        assert read == {
            (home, name, "1 hour" if hours == "1 hours" else hours) for home, name, hours in self.git.names()
        }
        return found

    def _apply(self, actor: int) -> Applied | PlanError:
        self.orphaned = False
        try:
            return apply_plan(
                self.planned[actor].plan, self.environment, self.stores[actor], author=AUTHOR, approval="tested"
            )
        except PlanError as refused:
            return refused

    def _override_reviewed(self, key: RowKey, value: str, expires: dt.date) -> None:
        workstream, _, name = key.address.partition(".")
        self.sql_files += 1
        file = self.project.write(
            f"control_sql/dev/{self.sql_files:04d}_change.sql",
            f"-- owner: team:{workstream}\n-- expires: {expires}\n-- reason: the source is down\n"
            f"UPDATE ingestion SET lookback = '{value}' "
            f"WHERE location = '{key.location}' AND workstream = '{workstream}' AND name = '{name}';\n",
        )
        scope = Scope(self.settings, self.environment, self.stores[0])
        scope.look()
        # Whether it gets through or not, it takes over the lock of one that died, and gives it back.
        self.orphaned = False
        try:
            [done] = apply_changes(scope, author=AUTHOR, approval="tested")
        except (ConfigError, PlanError):
            file.unlink()
            self.sql_files -= 1
            self.figures.overrides["refused"] += 1
            return
        old = self.live[key]
        self.live[key] = with_lookback(old, value)
        # A row that says so already has no new version, whatever was done to it by hand.
        written = {key: self.live[key]} if self.live[key] != old else {}
        self.snapshots.append({**self.snapshots[-1], **written})
        self.times.append(done.applied.at)
        assert done.applied.serial == self.serial
        git = self.held[key].git if key in self.held else str(old[LOOKBACK])
        if git == value:
            self.held.pop(key, None)
        else:
            self.held[key] = Held(value, git, expires, self.serial)
        self.figures.overrides["reviewed"] += 1

    def _replayed(self) -> list[Rows]:
        """The rows after every apply, from history alone."""
        columns = history.c.serial, history.c.kind, history.c.location, history.c.address, history.c.change
        query = sa.select(*columns, sa.cast(history.c.content, sa.Text)).order_by(history.c.id)
        entries = self.stores[1].read(lambda connection: connection.execute(query).all())
        assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)
        rows: Rows = {}
        found: list[Rows] = [{}]
        by_serial = {serial: list(group) for serial, group in itertools.groupby(entries, key=lambda entry: entry[0])}
        assert by_serial.keys() <= set(range(1, self.serial + 1))
        # An apply that only makes or ends overrides changes no row.
        for serial in range(1, self.serial + 1):
            for _, kind, location, address, change, content in by_serial.get(serial, ()):
                if change == "deleted":
                    rows.pop(RowKey(kind, location, address), None)
                else:
                    rows[RowKey(kind, location, address)] = codec(KINDS[kind]).row(json.loads(content))
            found.append(dict(rows))
        return found

    def _override(self, place: int, kind: str, column: str, value: str) -> RowKey | None:
        key = self.chosen_row(place, kind)
        if key is not None:
            self._run(SPEC_TABLES[kind].update().where(*self._is(key)).values({column: value}))
            rows = codec(KINDS[kind])
            row = list(self.live[key])
            row[rows.names.index(column)] = value
            self.live[key] = rows.normal(row)
            # A row that was inserted incomplete stays so.
            if column == "columns" and value in MASKED_BY_HAND and row[rows.names.index("mode")] is not None:
                self.malformed.discard(key)
            self.figures.overrides["changed"] += 1
        return key

    def _is(self, key: RowKey) -> Iterator[sa.ColumnElement[bool]]:
        table = SPEC_TABLES[key.kind]
        yield table.c.location == key.location
        yield table.c.name == key.address.rpartition(".")[2]
        if workstream := key.address.rpartition(".")[0]:
            yield table.c.workstream == workstream

    def _run(self, statement: sa.Executable) -> None:
        self.stores[0].change(lambda connection: connection.execute(statement) and None)

    def _hold(self, holder: Any) -> str:
        id_ = secrets.token_hex(8)
        self._run(locks.delete())
        self._run(
            locks.insert().values(
                name="apply",
                id=id_,
                purpose="a test",
                author="Somebody",
                since=self.now,
                host=holder.host,
                boot=holder.boot,
                pid=holder.pid,
                process_started=holder.started,
            )
        )
        return id_


def _serial(outcome: Applied | PlanError) -> int:
    return 0 if isinstance(outcome, PlanError) else outcome.serial
