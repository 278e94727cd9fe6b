"""Looks at the control database and at the databases that tables are served from; nothing in them is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from platform_core.control.database import Database, open_database
from platform_core.control.migrations import waiting_migrations
from platform_core.control.plan.release import platform_release
from platform_core.control.store.history import read_applies
from platform_core.control.store.layout import waiting_columns
from platform_core.control.store.lock import Lock, current_lock
from platform_core.control.store.rows import read_state
from platform_core.errors import MigrationError
from platform_core.operations.ddl_serving import open_serving
from platform_core.operations.doctor_clock import clock_finding
from platform_core.operations.doctor_findings import Check, Finding, Machine, Subject, Verdict
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.environment import DatabaseSpec, EnvironmentSpec

_PATIENCE = 3.0
_SLOW = 0.25
"""Seconds of one round trip: a load makes about ten of them."""


def database_checks(
    environment: EnvironmentSpec, *, secrets: SecretStore, state: Path, machine: Machine
) -> Iterator[Check]:
    """Whether the control database can be used and what it stands at, and whether serving databases are reached."""
    control = open_database(environment.control, state=state, secrets=secrets)
    about = Subject(area="control database", name="reached", looked_at=str(control.url))
    yield Check(about=about, look=lambda: _control(about, control, environment, machine))
    for name, spec in environment.databases.items():
        yield _serving(name, spec, environment, secrets=secrets, state=state)


def _control(about: Subject, database: Database, environment: EnvironmentSpec, machine: Machine) -> Iterator[Finding]:
    file = database.url.file
    if file is not None and not file.is_file():
        yield about.finding(
            Verdict.WARNING, "there is no such file yet", advice=f"make it: edp setup --env {environment.name}"
        )
        return
    try:
        yield from _asked(about, database, environment, machine)
    finally:
        database.close()


def _asked(about: Subject, database: Database, environment: EnvironmentSpec, machine: Machine) -> Iterator[Finding]:
    database.look(lambda connection: connection.execute(sa.select(1)), patience=_PATIENCE)
    began = time.monotonic()
    before = machine.now()
    there = database.look(database.clock, patience=_PATIENCE)
    after = machine.now()
    seconds = time.monotonic() - began
    yield about.finding(
        Verdict.OK if seconds < _SLOW else Verdict.WARNING,
        f"a transaction takes {seconds * 1000:,.0f} ms",
        advice="" if seconds < _SLOW else "every load waits for it about ten times: use a database that is nearer",
    )
    yield clock_finding("control database", there, (before, after), looked_at=about.looked_at)
    try:
        waiting = database.look(lambda connection: _waiting(connection, about.looked_at), patience=_PATIENCE)
    except MigrationError as error:
        yield about.failure(error, name="schema")
        return
    if waiting:
        yield about.finding(
            Verdict.WARNING,
            f"older than this code by {_counted(len(waiting), 'change')}: {', '.join(waiting[:5])}"
            + (" and more" if len(waiting) > 5 else ""),
            name="schema",
            advice=f"the first command that needs it brings it up to date; now: edp setup --env {environment.name}",
        )
        return
    yield about.finding(Verdict.OK, "that of this code", name="schema")
    yield from database.look(lambda connection: [*_stands_at(about, connection, environment)], patience=_PATIENCE)


def _waiting(connection: sa.Connection, shown: str) -> list[str]:
    # Columns are looked at where the tables that tell of them are there.
    return waiting_migrations(connection, shown=shown) or waiting_columns(connection, shown=shown)


def _stands_at(about: Subject, connection: sa.Connection, environment: EnvironmentSpec) -> Iterator[Finding]:
    stands = read_state(connection)
    last = next(iter(read_applies(connection, limit=1)), None)
    if stands.environment not in (None, environment.name):
        yield about.finding(
            Verdict.FAILED,
            f"it holds what is applied to environment '{stands.environment}'",
            name="environment",
            advice=f"give '{environment.name}' a database of its own: control.url of the environment",
        )
    if last is None:
        told = "nothing is applied yet"
        yield about.finding(Verdict.OK, told, name="serial")
    else:
        told = f"{last.serial}, applied {last.applied_at:%Y-%m-%d %H:%M:%S} UTC by {last.author}"
        own = platform_release()
        yield about.finding(Verdict.OK, told, name="serial")
        if last.release != own:
            yield about.finding(
                Verdict.WARNING,
                f"the last apply was made by release {last.release}, this is {own}",
                name="release",
                advice="plans are applied by the release that made them: use one release for an environment",
            )
    yield _lock(about, current_lock(connection), environment)


def _lock(about: Subject, lock: Lock | None, environment: EnvironmentSpec) -> Finding:
    if lock is None:
        return about.finding(Verdict.OK, "free", name="lock")
    if lock.holder.is_gone():
        return about.finding(Verdict.OK, f"left behind by {lock}; the next apply takes it over", name="lock")
    return about.finding(
        Verdict.WARNING,
        f"held by {lock}",
        name="lock",
        advice=f"wait until it has ended; if it surely never will: edp unlock {lock.id} --env {environment.name}",
    )


def _serving(
    name: str, spec: DatabaseSpec, environment: EnvironmentSpec, *, secrets: SecretStore, state: Path
) -> Check:
    looked_at = "databases of the environment" if spec.url is None else f"databases.{name}.url of the environment"
    about = Subject(area="serving database", name=name, looked_at=looked_at)

    def look() -> Iterator[Finding]:
        target = open_serving(name, spec, environment=environment.name, secrets=secrets, state=state)
        if target is None:
            yield about.finding(Verdict.OK, "this environment has none")
            return
        began = time.monotonic()
        try:
            # Any question will do that needs no table of ours.
            target.views(environment.name)
        finally:
            target.close()
        yield about.finding(Verdict.OK, f"lets us in ({(time.monotonic() - began) * 1000:,.0f} ms)")

    return Check(about=about, look=look)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
