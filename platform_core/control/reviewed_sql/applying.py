"""Applies reviewed SQL changes: each one is one apply, in one transaction, under the lock that all applies take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace

import sqlalchemy as sa

from platform_core.control.plan.applying import Applied, checked_approval, commit_plan
from platform_core.control.reviewed_sql.planning import PlannedChange, Scope, plan_changes
from platform_core.control.reviewed_sql.record import write_applied
from platform_core.control.store.lock import locked
from platform_core.control.store.overrides import replace_overrides


@dataclass(frozen=True, kw_only=True)
class Done:
    """One change that was applied."""

    planned: PlannedChange
    applied: Applied


def apply_changes(
    scope: Scope,
    *,
    author: str,
    approval: str | None = None,
    tell: Callable[[Done], None] = lambda _: None,
) -> list[Done]:
    """Apply the changes that wait, in order.

    All are planned and checked before the first is applied. Each is one transaction; where one fails after all, those
    before it stay applied, and the next try goes on with it.

    Args:
        scope: looked at already.
        author: who applies them.
        approval: a person's reason, where one of them needs it.
        tell: hears of each one that is applied.

    Raises:
        ConfigError, PlanError, ControlError: as of :func:`plan_changes` and of every apply.
    """
    scope.store.prepare()
    done: list[Done] = []
    with locked(scope.store.database, purpose="applying reviewed SQL changes", author=author) as lock:
        planned = plan_changes(scope, author=author)
        reason = checked_approval([each.plan for each in planned], approval)
        for place, one in enumerate(planned):
            if place:
                # Planned once more, on the tables as the one before has left them.
                [one] = plan_changes(scope, author=author, most=1)
                checked_approval([one.plan], reason)
            applied = commit_plan(
                one.plan,
                scope.store,
                lock,
                author=author,
                approval=reason if one.plan.needs_approval else None,
                along=_along(one, author=author),
                is_last=place == len(planned) - 1,
            )
            done.append(Done(planned=one, applied=applied))
            tell(done[-1])
    return done


def _along(planned: PlannedChange, *, author: str) -> Callable[[sa.Connection, int, dt.datetime], None]:
    """What an apply of a change writes beside the rows."""

    def write(connection: sa.Connection, serial: int, now: dt.datetime) -> None:
        write_applied(connection, planned.change, author=author, serial=serial, now=now)
        found = [each if each.serial else replace(each, serial=serial) for each in planned.overrides]
        replace_overrides(connection, planned.keys, found)

    return write
