"""What happens while others are at work too: readers, people with SQL, lost acknowledgements, clocks that jump."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from platform_core.control.database import Database
from platform_core.control.plan import applying
from platform_core.control.plan.applying import commit_plan
from platform_core.control.plan.plan import Plan
from platform_core.control.store.history import serial_at, version_at
from platform_core.control.store.lock import current_lock, locked, unlock
from platform_core.control.store.rows import read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.errors import ControlError, PlanError, SecretError
from tests.control_plane.conftest import AUTHOR, Project

SOON = 0.4
"""Seconds after which another is surely at work, or waits."""


def described(project: Project, text: str) -> Plan:
    """A plan of two changes, in two tables."""
    project.write(
        "crm/control/location.yaml",
        f"location: crm\ndescription: {text}\nworkstreams: [{{name: crm, description: {text}, owners: [team:crm]}}]\n",
    )
    return project.plan()


class InThread:
    """Something that another thread does, at a moment that the test chooses."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def start_and_wait(self, seconds: float) -> None:
        """Begin, and go on once it has ended, or waits for somebody."""
        self._thread.start()
        self._thread.join(timeout=seconds)

    def result(self) -> Any:
        """What came of it; raises what it raised."""
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            self._error = error


@contextmanager
def before_statement(words: str, work: Callable[[], Any]) -> Iterator[None]:
    """Do something right before the first statement that holds these words."""
    done: list[bool] = []

    def look(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if words in statement and not done:
            done.append(True)
            work()

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
    assert done


def test_a_reader_sees_one_apply_or_the_next_and_never_parts_of_both(applied: Project) -> None:
    plan = described(applied, "new")
    applies = InThread(lambda: applied.apply(plan).serial)

    def look(connection: sa.Connection) -> Any:
        before = read_state(connection).serial
        applies.start_and_wait(SOON)
        return before, read_state(connection).serial, read_rows(connection, kinds=["workstream"])

    before, after, rows = applied.store().read(look)
    assert applies.result() == 2
    assert (before, after) == (1, 1)
    assert not any("new" in row for row in rows.values())


def test_what_a_person_changes_by_sql_while_a_plan_is_applied_is_not_lost(applied: Project) -> None:
    plan = described(applied, "new")
    by_hand = InThread(lambda: applied.sql("UPDATE control.workstream SET description = 'By hand' WHERE name = 'crm'"))
    with before_statement("applies (serial", lambda: by_hand.start_and_wait(SOON)):
        assert applied.apply(plan).serial == 2
    by_hand.result()
    assert applied.sql("SELECT description FROM control.workstream WHERE name = 'crm'") == [("By hand",)]
    assert [change.address for change in applied.plan().changes] == ["crm"]


def lose_the_acknowledgement(
    store: ControlStore, other: ControlStore, monkeypatch: pytest.MonkeyPatch, *, commit_after: float
) -> None:
    """The first transaction that changes an environment's rows is committed late, and nobody is told."""
    usual = store.database._once
    lost: list[bool] = []

    def once(work: Callable[[sa.Connection], Any], *, durable: bool) -> Any:
        if lost or not isinstance(getattr(work, "__self__", None), applying._Apply):
            return usual(work, durable=durable)
        lost.append(True)
        connection = other.database._opened().connect()
        if other.database.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        work(connection)

        def commit() -> None:
            if other.database.is_sqlite:
                connection.exec_driver_sql("COMMIT")
            connection.commit()
            connection.close()

        threading.Timer(commit_after, commit).start()
        raise sa.exc.OperationalError("COMMIT", {}, ConnectionError("the connection was cut"))

    monkeypatch.setattr(store.database, "_once", once)


def test_an_apply_that_is_committed_while_it_is_tried_again_is_told_as_done(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = described(applied, "new")
    store, other = applied.store(), applied.store()
    other.prepare()
    store.prepare()
    lose_the_acknowledgement(store, other, monkeypatch, commit_after=SOON)
    done = applying.apply_plan(plan, applied.environment(), store, author=AUTHOR)
    assert done.serial == 2
    assert applied.sql("SELECT count(*) FROM control.applies") == [(2,)]
    assert applied.store().read(current_lock) is None


def test_an_apply_whose_end_is_not_known_says_so(applied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = described(applied, "new")
    store, other = applied.store(), applied.store()
    other.prepare()
    store.prepare()
    monkeypatch.setattr(applying, "PATIENCE", 0.0)
    lose_the_acknowledgement(store, other, monkeypatch, commit_after=0.0)
    with pytest.raises(ControlError, match=r"(?s)may have been applied.*edp history --env dev"):
        applying.apply_plan(plan, applied.environment(), store, author=AUTHOR)


def test_an_apply_that_never_came_to_its_commit_does_not_speak_of_one(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = described(applied, "new")
    monkeypatch.setattr(applying, "PATIENCE", 0.0)

    def cut() -> None:
        raise sa.exc.OperationalError("INSERT", {}, ConnectionError("the connection was cut"))

    with before_statement("applies (serial", cut), pytest.raises(ControlError) as refused:
        applied.apply(plan)
    assert "may have been applied" not in str(refused.value)
    assert applied.sql("SELECT serial FROM control.state") == [(1,)]


def test_a_lock_is_not_taken_away_from_an_apply_that_gets_through(applied: Project) -> None:
    plan = described(applied, "new")
    store, unlocking = applied.store(), applied.store()
    store.prepare()
    unlocking.prepare()
    with locked(store.database, purpose="a test", author=AUTHOR) as lock:
        unlocks = InThread(lambda: unlock(unlocking.database, lock.id))
        done = commit_plan(
            plan, store, lock, author=AUTHOR, approval=None, along=lambda *_: unlocks.start_and_wait(SOON)
        )
        assert done.serial == 2
    with pytest.raises(PlanError, match="nobody holds the lock"):
        unlocks.result()


def test_an_unlock_whose_acknowledgement_was_lost_is_told_as_done(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = applied.store().database
    with locked(database, purpose="a test", author=AUTHOR) as lock:
        usual = database._once
        calls: list[bool] = []

        def once(work: Callable[[sa.Connection], Any], *, durable: bool) -> Any:
            found = usual(work, durable=durable)
            calls.append(True)
            if len(calls) == 1:
                raise sa.exc.OperationalError("COMMIT", {}, ConnectionError("the connection was cut"))
            return found

        monkeypatch.setattr(database, "_once", once)
        assert unlock(database, lock.id).id == lock.id
        monkeypatch.undo()
        lock.given_back = True
    assert len(calls) == 2


def test_an_apply_that_fails_tells_of_its_own_fault_though_the_lock_cannot_be_given_back(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = applied.store()
    store.prepare()

    def refuse(*_: Any, **__: Any) -> None:
        raise SecretError("the password is missing")

    with pytest.raises(PlanError, match="what went wrong"), locked(store.database, purpose="a test", author=AUTHOR):
        monkeypatch.setattr(store.database, "transact", refuse)
        raise PlanError("what went wrong")


def stopped(database: Database, moment: dt.datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(database), "clock", lambda *_: moment)


def test_a_clock_that_goes_back_shows_no_state_that_never_was(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = dt.datetime(2031, 1, 31, 12, tzinfo=dt.UTC)
    database = applied.store().database
    stopped(database, noon, monkeypatch)
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    applied.apply()
    stopped(database, noon - dt.timedelta(hours=2), monkeypatch)
    applied.edit("crm/control/connections.yaml", "name: lists", "name: folders")
    applied.apply()

    def look(connection: sa.Connection) -> tuple[int, Any, Any]:
        between = noon - dt.timedelta(hours=1)
        orders = version_at(connection, kind="ingestion", address="crm.orders", moment=between)
        folders = version_at(connection, kind="connection", address="crm.folders", moment=between)
        return serial_at(connection, between), orders and orders.serial, folders and folders.serial

    assert applied.store().read(look) == (3, 2, 3)


def test_an_apply_that_is_interrupted_is_told_as_interrupted(applied: Project) -> None:
    plan = described(applied, "new")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with before_statement("applies (serial", interrupt), pytest.raises(KeyboardInterrupt):
        applied.apply(plan)
    assert applied.store().read(current_lock) is None
    assert applied.apply(plan).serial == 2


def test_a_commit_that_fails_is_told_by_our_own_error(applied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = described(applied, "new")
    store = applied.store()
    store.prepare()
    coming: list[bool] = []
    monkeypatch.setattr(applying, "PATIENCE", 0.0)

    def fail(*_: Any) -> None:
        if coming:
            coming.pop()
            raise sa.exc.OperationalError("COMMIT", {}, OSError("disk full"))

    sa.event.listen(sa.Engine, "commit", fail)
    try:
        with (
            locked(store.database, purpose="a test", author=AUTHOR) as lock,
            pytest.raises(ControlError, match="may have been applied"),
        ):
            commit_plan(plan, store, lock, author=AUTHOR, approval=None, along=lambda *_: coming.append(True))
    finally:
        sa.event.remove(sa.Engine, "commit", fail)
    assert applied.apply(plan).serial == 2
