"""Makes a plan: control files, or an earlier state, against the control tables; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from platform_core.control.plan.collection import collection_paused
from platform_core.control.plan.declared import STATE, Declared, read_declared
from platform_core.control.plan.making import (
    ANYWHERE,
    Maker,
    Seen,
    check_environment,
    graph_of,
    look_at,
    read_manifests,
)
from platform_core.control.plan.overlay import Overlaid, ended_override, overlaid
from platform_core.control.plan.plan import EndReason, Plan
from platform_core.control.plan.validation import new_faults
from platform_core.control.references import Tables
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.history import require_apply, rows_at
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey, read_locations
from platform_core.control.store.store import ControlStore
from platform_core.errors import ConfigError, PlanError
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest


def plan_from_git(
    settings: Settings,
    environment: EnvironmentSpec,
    store: ControlStore,
    *,
    author: str,
    locations: Sequence[str] = (),
) -> Plan:
    """What must be done so that the control tables hold what the control files declare.

    Args:
        locations: whose rows are looked at; empty: all of the workspace, and those that have left it.

    Raises:
        ConfigError: control files are wrong.
        PlanError: the tables are another environment's.
        ControlError: the database cannot be reached.
    """
    with collection_paused():
        declared = read_declared(settings, locations=locations)
        return plan_from_declared(declared, environment, store, author=author, everything=not locations)


def plan_from_declared(
    declared: Declared, environment: EnvironmentSpec, store: ControlStore, *, author: str, everything: bool
) -> Plan:
    """As :func:`plan_from_git`, of control files that were read already.

    Args:
        everything: whether locations that are in the tables and not in the workspace are deleted.
    """
    asked = frozenset(declared.manifests)

    def look(connection: sa.Connection) -> Seen:
        known = read_locations(connection)
        left = {name for name in known if name not in declared.listed} if everything else set()
        return look_at(connection, store, planned=asked | left, known=known, read=declared.read.keys())

    tables = store.read(look)
    check_environment(tables.state, environment)
    graph = graph_of(declared.read, tables.others)
    over = overlaid(declared.rows, tables.overrides, today=tables.today, locations=asked)
    if over.standing:
        _check_overlaid(over, declared, tables)
    maker = Maker(over.rows, tables, graph, places=declared, deleted=over.deleted)
    notes = [f"location {name} is not looked at: its control files are not here" for name in declared.unchecked]
    notes += [
        f"dbt project {each.entry.spec.workstream}.{each.entry.spec.name} is not parsed: its models are missing from "
        "the reach; run edp setup --manifests"
        for read in declared.read.values()
        for each in read.dbt
        if not each.known
    ]
    planned = sorted(asked | (set(tables.locations) if everything else set()))
    commits = {commit for commit in declared.commits.values() if commit}
    return maker.plan(
        environment,
        author=author,
        locations=planned,
        gone=sorted({key.location for key in tables.rows} - asked),
        git_commit=commits.pop() if len(commits) == 1 else None,
        notes=notes,
        over=over,
    )


def plan_rollback(
    settings: Settings, environment: EnvironmentSpec, store: ControlStore, *, serial: int, author: str
) -> Plan:
    """What must be done so that the control tables hold what they held after an earlier apply.

    The reach is taken from the control files where they can be read, else from the tables: an undo must be possible
    while they are broken.

    Raises:
        PlanError: there is no such apply.
        ControlError: a row of it is no spec of this version of the code.
    """
    notes = ["git still holds what is taken back: change it there, too, or the next plan brings it again"]
    try:
        read: Mapping[str, Tables] = read_declared(settings).read
    except ConfigError:
        read = {}
        notes.append("control files cannot be read: dbt models are missing from the reach; see edp check")

    def look(connection: sa.Connection) -> tuple[Seen, dict[RowKey, Row], str | None, Mapping[str, Manifest]]:
        known = read_locations(connection)
        tables = look_at(connection, store, planned=known, known=known, read=read.keys())
        others = {} if read else read_manifests(connection, known)
        if serial == 0:
            return tables, {}, None, others
        commit = require_apply(connection, serial).git_commit
        return tables, rows_at(connection, serial=serial), commit, others

    tables, wanted, commit, others = store.read(look)
    check_environment(tables.state, environment)
    for key, row in wanted.items():
        codec(KINDS[key.kind]).decode(row, root=ANYWHERE, state=STATE)
    maker = Maker(wanted, tables, graph_of(read, others))
    later = [each for each in tables.overrides if each.serial > serial or each.key not in wanted]
    ended = tuple(ended_override(each, EndReason.ROLLED_BACK) for each in later)
    return maker.plan(
        environment,
        author=author,
        locations=sorted({key.location for key in (*tables.rows, *wanted)}),
        gone=sorted({key.location for key in tables.rows} - {key.location for key in wanted}),
        git_commit=commit,
        notes=notes,
        restores=serial,
        over=Overlaid(rows=wanted, ended=ended, deleted={}),
    )


def _check_overlaid(over: Overlaid, declared: Declared, tables: Seen) -> None:
    """Make sure that what git says and what overrides hold fit together.

    Raises:
        PlanError: they do not; both were right alone.
    """
    roots = {name: each.reading.root for name, each in declared.read.items()}
    # A row of another location that somebody has spoiled by hand is not the override's doing.
    faults = new_faults({**tables.other_rows, **declared.rows}, {**tables.other_rows, **over.rows}, roots=roots)
    if not faults:
        return
    lines = ["what git says does not fit with overrides that still hold:"]
    lines += [f"  {fault}".replace("\n", "\n  ") for fault in faults]
    lines += [
        f"  override: {each.kind} {each.address} {each.field} by {each.file}, {each.owner}, until {each.expires}"
        for each in over.standing
    ]
    lines.append(
        "  let git follow the override (edp drift export), or end it by a reviewed SQL change that sets what git said"
    )
    raise PlanError("\n".join(lines))
