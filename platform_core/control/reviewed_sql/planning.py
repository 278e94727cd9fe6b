"""Plans reviewed SQL changes: what each would make of the rows, checked as control files are, and then taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from platform_core.control.authorship import git_commit
from platform_core.control.database import PATIENCE
from platform_core.control.plan.declared import STATE, read_declared
from platform_core.control.plan.difference import content_of
from platform_core.control.plan.making import (
    ANYWHERE,
    WITH_COLUMNS,
    Maker,
    Seen,
    check_environment,
    graph_of,
    read_manifests,
)
from platform_core.control.plan.overlay import Overlaid, git_content, recomputed
from platform_core.control.plan.plan import Origin, Plan
from platform_core.control.plan.validation import Fault, new_faults
from platform_core.control.references import Tables
from platform_core.control.report import Report
from platform_core.control.reviewed_sql.files import FOLDER, SqlChange, read_changes
from platform_core.control.reviewed_sql.record import AppliedChange, check_expiry, pending_of, read_applied
from platform_core.control.reviewed_sql.running import Outcome, keep_statements, run_statements
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.history import last_deleted
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.overrides import Override, read_overrides
from platform_core.control.store.rows import RowKey, read_locations, read_provenance, read_rows, read_state
from platform_core.control.store.store import ControlStore
from platform_core.control.workspace import Location, read_workspace
from platform_core.errors import ConfigError, ControlError, Issue, Place
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec

_LONGEST_CHECK = "5min"


@dataclass(frozen=True, kw_only=True)
class PlannedChange:
    """One change that is still to be applied, and what it does.

    Args:
        plan: what happens to rows.
        keys: rows whose overrides are written anew.
        overrides: theirs afterwards; those that the change makes have serial 0 until it is applied.
    """

    change: SqlChange
    plan: Plan
    keys: tuple[RowKey, ...]
    overrides: tuple[Override, ...]


@dataclass(frozen=True, kw_only=True)
class SqlStatus:
    """Reviewed changes of an environment.

    Args:
        applied: as the database remembers them.
        waiting: files that it does not know.
        issues: what is wrong with files, or does not fit between files and memory.
    """

    environment: str
    applied: tuple[AppliedChange, ...]
    waiting: tuple[SqlChange, ...]
    issues: tuple[Issue, ...]


class Scope:
    """The project and the environment that changes are looked at for; what its files say is read once."""

    def __init__(self, settings: Settings, environment: EnvironmentSpec, store: ControlStore) -> None:
        self.settings = settings
        self.environment = environment
        self.store = store
        self.folder = settings.project / FOLDER / settings.environment
        self.dialect = "sqlite" if store.database.is_sqlite else "postgres"
        self.commit = git_commit(self.folder) if self.folder.is_dir() else None
        self.read: Mapping[str, Tables] = {}
        self.roots: Mapping[str, Path | None] = {}

    def look(self) -> None:
        """Read what lies downstream; a hotfix must be possible while control files are broken."""
        try:
            self.read = read_declared(self.settings).read
            self.roots = {name: each.reading.root for name, each in self.read.items()}
        except ConfigError:
            self.roots = {each.name: each.control.parent for each in self._listed() if each.control is not None}

    def changes(self, report: Report) -> list[SqlChange]:
        """All files of the environment."""
        return read_changes(self.settings, dialect=self.dialect, report=report)

    def _listed(self) -> Iterable[Location]:
        try:
            return read_workspace(self.settings)
        except ConfigError:
            return ()


def sql_status(scope: Scope) -> SqlStatus:
    """What was applied and what waits.

    Raises:
        ControlError: the database cannot be reached.
    """
    report = Report(scope.settings.project)
    changes = scope.changes(report)
    applied = scope.store.read(read_applied)
    waiting = pending_of(changes, applied, folder=scope.folder, report=report)
    return SqlStatus(
        environment=scope.environment.name, applied=tuple(applied), waiting=tuple(waiting), issues=report.issues
    )


def plan_changes(scope: Scope, *, author: str, most: int | None = None) -> list[PlannedChange]:
    """What the changes that wait would do, one after the other; nothing is changed.

    Args:
        scope: looked at already.
        author: who asks.
        most: how many of them; None: all.

    Raises:
        ConfigError: a file is wrong, edited, missing, late or expired; a statement is refused; or what it makes of
            the rows would not pass as control files. Every fault with file and line.
        PlanError: the tables are another environment's.
        ControlError: the database cannot be reached.
    """
    report = Report(scope.settings.project)
    changes = scope.changes(report)
    report.raise_if_any()

    def work(connection: sa.Connection) -> list[PlannedChange]:
        if connection.dialect.name == "postgresql":
            # All rows are checked within the transaction, which takes a while where there are very many.
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_CHECK}'")
        planning = _Planning(scope, connection, author=author)
        pending = planning.pending(changes)[:most]
        whole = connection.begin_nested()
        try:
            return [planning.plan(change, is_last=change is pending[-1]) for change in pending]
        finally:
            if whole.is_active:
                whole.rollback()

    scope.store.prepare()
    return scope.store.database.transact(work, patience=PATIENCE)


class _Planning:
    """Plans changes within one transaction, each on what the one before made."""

    def __init__(self, scope: Scope, connection: sa.Connection, *, author: str) -> None:
        self.scope = scope
        self.connection = connection
        self.author = author
        self.state = read_state(connection)
        check_environment(self.state, scope.environment)
        self.known = tuple(read_locations(connection))
        self.today = scope.store.database.clock(connection).date()
        self.rows: dict[RowKey, Row] = read_rows(connection)
        self.hashes = {key: found.hash for key, found in read_provenance(connection).items()}
        self.overrides: dict[RowKey, list[Override]] = {}
        for each in read_overrides(connection):
            self.overrides.setdefault(each.key, []).append(each)
        self.gone = last_deleted(connection, kinds=WITH_COLUMNS)
        others = [name for name in self.known if name not in scope.read]
        self.graph = graph_of(scope.read, read_manifests(connection, others))

    def pending(self, changes: Sequence[SqlChange]) -> list[SqlChange]:
        """Those that wait.

        Raises:
            ConfigError: files and memory do not fit, or one has expired.
        """
        report = Report(self.scope.settings.project)
        found = pending_of(changes, read_applied(self.connection), folder=self.scope.folder, report=report)
        for change in found:
            check_expiry(change, today=self.today, report=report)
        report.raise_if_any()
        return found

    def plan(self, change: SqlChange, *, is_last: bool) -> PlannedChange:
        """Plan one, and leave the tables as it makes them for the next."""
        before = self.rows
        outcome = run_statements(self.connection, change, before)
        self._check_untouched_by_hand(change, outcome)
        after = _normalised(outcome)
        self._check(change, outcome, before, after)
        changed = [key for key in (before.keys() | after.keys()) if before.get(key) != after.get(key)]
        keys = sorted({*changed, *(key for key in outcome.renewed if key in self.overrides)})
        overrides = [each for key in keys for each in self._overrides(change, key, before, after, outcome)]
        plan = self._made(change, outcome, before, after)
        if not is_last:
            keep_statements(self.connection, change)
        self.rows = dict(after)
        for key in keys:
            self.overrides.pop(key, None)
            # What an earlier change of this plan wrote is not by hand.
            self.hashes.pop(key, None)
            if (row := after.get(key)) is not None:
                self.hashes[key] = _digest(key, row)
        for each in overrides:
            self.overrides.setdefault(each.key, []).append(each)
        return PlannedChange(change=change, plan=plan, keys=tuple(keys), overrides=tuple(overrides))

    def _check_untouched_by_hand(self, change: SqlChange, outcome: Outcome) -> None:
        """A row that somebody has changed past every channel is not what the reviewers of a change have seen."""
        issues = [
            Issue(
                Place(change.shown, outcome.line(key)),
                f"{key} was changed by hand, past git and reviewed changes",
                (
                    "see who differs from git, and how: edp drift",
                    "take it back, or put it into git first: edp plan, edp apply",
                ),
            )
            for key in outcome.touched
            if key in self.rows and self.hashes.get(key) != _digest(key, self.rows[key])
        ]
        if issues:
            raise ConfigError(issues)

    def _check(
        self, change: SqlChange, outcome: Outcome, before: Mapping[RowKey, Row], after: Mapping[RowKey, Row]
    ) -> None:
        """Whatever is wrong afterwards, and was not before, is the change's doing."""
        if new := new_faults(before, after, roots=self.scope.roots):
            raise ConfigError([_issue(change, outcome, fault) for fault in new])

    def _overrides(
        self,
        change: SqlChange,
        key: RowKey,
        before: Mapping[RowKey, Row],
        after: Mapping[RowKey, Row],
        outcome: Outcome,
    ) -> list[Override]:
        was = content_of(key, before[key]) if key in before else None
        now = content_of(key, after[key]) if key in after else None
        known = self.overrides.get(key, ())
        new = Override(
            key=key,
            path=(),
            git_value=None,
            value=None,
            owner=change.owner,
            expires=change.expires,
            reason=change.reason,
            file=change.name,
            serial=0,
        )
        renewed = outcome.renewed.get(key, frozenset())
        return list(recomputed(git_content(was, known), was, now, known=known, new=new, renewed=renewed))

    def _made(
        self, change: SqlChange, outcome: Outcome, before: Mapping[RowKey, Row], after: Mapping[RowKey, Row]
    ) -> Plan:
        seen = Seen(
            state=self.state,
            rows=before,
            locations=self.known,
            others={},
            gone=self.gone,
            overrides=(),
            other_rows={},
            today=self.today,
        )
        notes = [f"{change.shown}:{line}: no row meets the condition" for line in outcome.idle]
        if any(key.kind == "variable" for key in outcome.touched):
            notes.append(
                "values of variables are filled in already where they are used: change those fields, too, "
                "or nothing comes of it"
            )
        gone = {key.location for key in before} - {key.location for key in after}
        maker = Maker(after, seen, self.graph, places=_Places(change, outcome, self.scope.commit, self.known))
        return maker.plan(
            self.scope.environment,
            author=self.author,
            locations=sorted({key.location for key in (*before, *after)}),
            gone=sorted(gone),
            git_commit=self.scope.commit,
            notes=notes,
            over=Overlaid(rows=after, deleted={}),
            origin=Origin.SQL,
        )


class _Places:
    """Rows and values stand where the statement stands that wrote them."""

    def __init__(self, change: SqlChange, outcome: Outcome, commit: str | None, known: Iterable[str]) -> None:
        self.commits: Mapping[str, str | None] = dict.fromkeys(known, commit)
        self._change = change
        self._outcome = outcome

    def place(self, key: RowKey, path: Sequence[str] = ()) -> str | None:
        """File and line."""
        line = self._outcome.line(key, path)
        return str(Place(self._change.shown, line)) if line else None


def _digest(key: RowKey, row: Row) -> str:
    rows = codec(KINDS[key.kind])
    return rows.digest(rows.normal(row))


def _normalised(outcome: Outcome) -> dict[RowKey, Row]:
    """The rows, those that were touched written as control files would give them; what is no spec stays as it is."""
    found = dict(outcome.rows)
    for key in outcome.touched:
        if key not in found:
            continue
        rows = codec(KINDS[key.kind])
        try:
            spec = rows.decode(found[key], root=ANYWHERE, state=STATE)
        except ControlError:
            # Said with all else that is wrong.
            continue
        found[key] = rows.encode(spec, root=ANYWHERE, state=STATE)
    return found


def _issue(change: SqlChange, outcome: Outcome, fault: Fault) -> Issue:
    line = outcome.line(fault.key, fault.path) if fault.key else 0
    if not line and len(change.statements) == 1:
        line = change.statements[0].line
    message = str(replace(fault, hints=()))
    return Issue(Place(change.shown, line), f"afterwards {message}", fault.hints)
