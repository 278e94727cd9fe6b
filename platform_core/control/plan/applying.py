"""Applies a plan: exactly that plan, in one transaction, or not at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.plan import Action, Base, Change, Mark, Origin, Plan
from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.store.codec import Content, Row, codec, dumped, identity_columns
from platform_core.control.store.history import write_versions
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.lock import HeldLock, locked
from platform_core.control.store.overrides import end_override
from platform_core.control.store.rows import read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.control.store.tables import SPEC_TABLES, applies, state
from platform_core.errors import ControlError, PlanError
from platform_core.specs.environment import EnvironmentSpec

Along = Callable[[sa.Connection, int, dt.datetime], None]
"""More that an apply does in its transaction; it is told the serial and the time, and may run more than once."""

PATIENCE = 60.0
"""Seconds for which an apply is tried again while the database is busy or away."""

_CHANGES = {Action.CREATE: "created", Action.UPDATE: "changed", Action.DELETE: "deleted"}


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What came of an apply.

    Args:
        serial: the new one; of a plan without changes the one that the tables stand at.
        at: UTC.
    """

    serial: int
    at: dt.datetime
    created: int
    changed: int
    deleted: int


def apply_plan(
    plan: Plan, environment: EnvironmentSpec, store: ControlStore, *, author: str, approval: str | None = None
) -> Applied:
    """Do what a plan says.

    Args:
        environment: of the control tables.
        author: who applies it.
        approval: a person's reason, for a plan that needs one.

    Raises:
        PlanError: the plan is for another environment, of another release or edited; it needs a reason; somebody else
            holds the lock; or the tables have moved since it was made. Nothing was changed.
        ControlError: the database cannot be reached or refused; nothing was changed, unless it says so.
    """
    _check(plan, environment)
    if plan.origin is not Origin.GIT:
        raise PlanError("this is the plan of a reviewed SQL change\n  apply the change itself: edp sql apply")
    reason = checked_approval([plan], approval)
    store.prepare()
    with locked(store.database, purpose=f"applying plan {plan.digest[:12]}", author=author) as lock:
        return commit_plan(plan, store, lock, author=author, approval=reason)


def checked_approval(plans: Sequence[Plan], approval: str | None) -> str | None:
    """A person's reason without blanks around it; None: there is none, and none is needed.

    Raises:
        PlanError: one is needed.
    """
    reason = (approval or "").strip() or None
    if reason is None and any(plan.needs_approval for plan in plans):
        raise PlanError("\n".join(_unapproved(plans)))
    return reason


def commit_plan(
    plan: Plan,
    store: ControlStore,
    lock: HeldLock,
    *,
    author: str,
    approval: str | None,
    along: Along | None = None,
    is_last: bool = True,
) -> Applied:
    """Do what a plan says, under a lock that is held already.

    Args:
        approval: checked by :func:`checked_approval`.
        along: does more in the same transaction; the plan then counts as an apply even where no row changes.
        is_last: whether the lock is given back in that transaction.

    Raises:
        PlanError, ControlError: as of :func:`apply_plan`.
    """
    work = _Apply(plan, store, lock, author=author, approval=approval, along=along, is_last=is_last)
    try:
        applied = store.change(work.run, patience=PATIENCE)
    except ControlError as error:
        raise (ControlError(_unknown(error, plan)) if work.came_to_commit else error) from None
    lock.given_back = is_last
    return applied


def _check(plan: Plan, environment: EnvironmentSpec) -> None:
    if plan.digest != plan.sealed().digest:
        raise PlanError("the plan was edited after it had been made\n  change the control files and plan again")
    if plan.environment != environment.name:
        raise PlanError(
            f"the plan was made for environment '{plan.environment}', this is '{environment.name}'\n"
            f"  apply it with --env {plan.environment}, or plan again for {environment.name}"
        )
    if plan.release != platform_release():
        raise PlanError(
            f"the plan was made by release {plan.release} of the platform, this is {platform_release()}\n  plan again"
        )
    if plan.specs != specs_digest():
        raise PlanError(
            "the plan was made by a version of the platform whose specs are not those of this one\n  plan again"
        )


def _unapproved(plans: Sequence[Plan]) -> Iterator[str]:
    yield "the plan holds changes that need a person's reason:"
    for plan in plans:
        for change, mark in plan.all_marks():
            if mark.approval:
                yield f"  {_of(change)}{mark.message}"
    yield '  look at them, then apply with --approve "<reason>"; the reason goes into history'


def _unknown(error: ControlError, plan: Plan) -> str:
    return (
        f"{error}\n  it broke while the apply was being committed: it may have been applied all the same\n"
        f"  look whether it was before you do anything else: edp history --env {plan.environment}"
    )


def _of(change: Change | None) -> str:
    return f"{change.kind} {change.address}: " if change else ""


class _Apply:
    """One apply; its transaction may be tried more than once."""

    def __init__(
        self,
        plan: Plan,
        store: ControlStore,
        lock: HeldLock,
        *,
        author: str,
        approval: str | None,
        along: Along | None,
        is_last: bool,
    ) -> None:
        self.along = along
        self.is_last = is_last
        self.plan = plan
        self.store = store
        self.lock = lock
        self.author = author
        self.approval = approval
        self.token = secrets.token_hex(16)
        self.came_to_commit = False
        # Made ready before the transaction, which others wait for, and which PostgreSQL ends if it idles.
        self.writes = [_Write.of(change) for change in plan.changes]

    def run(self, connection: sa.Connection) -> Applied:
        """The transaction."""
        applied = self._run(connection)
        self.came_to_commit = True
        return applied

    def _run(self, connection: sa.Connection) -> Applied:
        # An earlier try whose acknowledgement was lost may still be committing: its row is asked for once that is over.
        found = read_state(connection, for_change=True)
        done = connection.execute(sa.select(applies).where(applies.c.token == self.token)).one_or_none()
        if done is not None:
            # Committed before; only the acknowledgement was lost.
            return self._applied(done.serial, done.applied_at)
        self.lock.confirm(connection)
        if found.environment not in (None, self.plan.environment):
            raise PlanError(f"the control tables hold environment '{found.environment}', not '{self.plan.environment}'")
        if Base.of(found) != self.plan.base:
            raise PlanError(
                f"the control tables have moved since the plan was made: it was made at serial "
                f"{self.plan.base.serial}, they stand at {found.serial}\n  plan again"
            )
        now = self.store.database.clock(connection)
        if self.plan.is_empty and self.along is None:
            self.lock.give_back(connection)
            return self._applied(found.serial, now)
        serial = found.serial + 1
        self._check_rows(connection)
        self._write(connection, serial=serial, now=now)
        connection.execute(
            state.update().values(serial=serial, mark=_mark(found.mark, self.token), environment=self.plan.environment)
        )
        for each in self.plan.ends:
            end_override(connection, each.key, each.path)
        if self.along is not None:
            self.along(connection, serial, now)
        if self.is_last:
            self.lock.give_back(connection)
        return self._applied(serial, now)

    def _check_rows(self, connection: sa.Connection) -> None:
        """Make sure that each row to be changed is what the plan saw; people may change rows without a serial."""
        kinds = [kind for kind in KINDS if any(change.kind == kind for change in self.plan.changes)]
        _keep_others_from_writing(connection, kinds)
        current = read_rows(connection, locations={change.location for change in self.plan.changes}, kinds=kinds)
        for write in self.writes:
            change, found = write.change, current.get(write.change.key)
            if (codec(KINDS[change.kind]).normal(found) if found is not None else None) != write.expected:
                raise PlanError(
                    f"{change.kind} {change.address} is no longer what the plan saw: somebody changed it by SQL\n"
                    "  plan again"
                )

    def _write(self, connection: sa.Connection, *, serial: int, now: dt.datetime) -> None:
        self._write_apply(connection, serial=serial, now=now)
        plan = self.plan
        stamp = _Stamp(
            origin=plan.origin, serial=serial, plan=plan.digest, author=self.author, at=now, approval=self.approval
        )
        for kind in KINDS:
            _write_rows(connection, kind, [write for write in self.writes if write.change.kind == kind], stamp)
        write_versions(connection, [write.version(stamp) for write in self.writes])

    def _write_apply(self, connection: sa.Connection, *, serial: int, now: dt.datetime) -> None:
        plan = self.plan
        connection.execute(
            applies.insert().values(
                serial=serial,
                plan=plan.digest,
                token=self.token,
                origin=plan.origin.value,
                release=plan.release,
                git_commit=plan.git_commit,
                author=self.author,
                applied_at=now,
                created=plan.count(Action.CREATE),
                changed=plan.count(Action.UPDATE),
                deleted=plan.count(Action.DELETE),
                approval=self.approval,
                restored=plan.restores,
            )
        )

    def _applied(self, serial: int, at: dt.datetime) -> Applied:
        return Applied(
            serial=serial,
            at=at,
            created=self.plan.count(Action.CREATE),
            changed=self.plan.count(Action.UPDATE),
            deleted=self.plan.count(Action.DELETE),
        )


@dataclass(frozen=True, kw_only=True)
class _Stamp:
    """What all rows of an apply have in common."""

    origin: Origin
    serial: int
    plan: str
    author: str
    at: dt.datetime
    approval: str | None


@dataclass(frozen=True, kw_only=True)
class _Write:
    """One row that is written or deleted.

    Args:
        expected: the row as it must be found; None: there must be none.
    """

    change: Change
    expected: Row | None
    row: Row
    content: Content
    hash: str
    workstream: str | None

    @classmethod
    def of(cls, change: Change) -> _Write:
        rows = codec(KINDS[change.kind])
        content = (change.before if change.after is None else change.after) or {}
        row = rows.row(content)
        return cls(
            change=change,
            expected=None if change.before is None else rows.row(change.before),
            row=row,
            content=content,
            hash=rows.digest(row),
            workstream=rows.workstream(row),
        )

    def values(self, stamp: _Stamp) -> dict[str, Any]:
        """All columns of the row."""
        return {
            "location": self.change.location,
            "workstream": self.workstream,
            **dict(zip(codec(KINDS[self.change.kind]).names, self.row, strict=True)),
            "hash": self.hash,
            "origin": stamp.origin.value,
            "git_commit": self.change.git_commit,
            "author": stamp.author,
            "applied_at": stamp.at,
            "serial": stamp.serial,
            "plan": stamp.plan,
        }

    def identity(self) -> dict[str, Any]:
        """Values of :func:`_identity`."""
        rows = codec(KINDS[self.change.kind])
        values = {"location": self.change.location, **dict(zip(rows.names, self.row, strict=True))}
        return {f"of_{name}": values[name] for name in identity_columns(self.change.kind)}

    def version(self, stamp: _Stamp) -> dict[str, Any]:
        """The row's entry in history."""
        return {
            "serial": stamp.serial,
            "kind": self.change.kind,
            "location": self.change.location,
            "workstream": self.workstream,
            "address": self.change.address,
            "change": _CHANGES[self.change.action],
            "content": dumped(self.content),
            "hash": self.hash,
            "origin": stamp.origin.value,
            "git_commit": self.change.git_commit,
            "author": stamp.author,
            "applied_at": stamp.at,
            "approval": stamp.approval,
        }


def _keep_others_from_writing(connection: sa.Connection, kinds: Sequence[str]) -> None:
    """Keep people with SQL from changing rows between our look at them and our change; who reads does not wait.

    SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql" and kinds:
        shown = connection.dialect.identifier_preparer
        tables = ", ".join(shown.format_table(SPEC_TABLES[kind]) for kind in kinds)
        connection.exec_driver_sql(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")


def _write_rows(connection: sa.Connection, kind: str, writes: Sequence[_Write], stamp: _Stamp) -> None:
    """Change one control table, with one statement for each action."""
    table = SPEC_TABLES[kind]
    by_action = {action: [write for write in writes if write.change.action is action] for action in Action}
    if gone := by_action[Action.DELETE]:
        connection.execute(table.delete().where(*_identity(kind, table)), [write.identity() for write in gone])
    if changed := by_action[Action.UPDATE]:
        new: dict[str, Any] = {column.name: sa.bindparam(f"new_{column.name}") for column in table.columns}
        values = [
            write.identity() | {f"new_{name}": value for name, value in write.values(stamp).items()}
            for write in changed
        ]
        connection.execute(table.update().where(*_identity(kind, table)).values(new), values)
    if created := by_action[Action.CREATE]:
        connection.execute(table.insert(), [write.values(stamp) for write in created])


def reloads(plan: Plan) -> Iterator[tuple[Change, Mark]]:
    """Changes after which a table should be read again from its source."""
    for change, mark in plan.all_marks():
        if change is not None and mark.reload:
            yield change, mark


def _mark(before: str, token: str) -> str:
    return hashlib.sha256(f"{before}{token}".encode()).hexdigest()


def _identity(kind: str, table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == sa.bindparam(f"of_{name}") for name in identity_columns(kind)]
