"""Which migrations an environment still lacks, and what each of their statements will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlglot import exp

from platform_core.control.ddl_catalog import Catalog, Maker
from platform_core.control.ddl_files import Migration, Statement, read_migrations
from platform_core.control.ddl_history import Applied, Pending, pending_of
from platform_core.control.ddl_lake import touched
from platform_core.control.ddl_parsing import SqlFault
from platform_core.control.report import Report
from platform_core.errors import MigrationError
from platform_core.operations.ddl_lake import LakeTarget
from platform_core.operations.ddl_serving import ServingTarget, open_serving
from platform_core.operations.platform import Platform
from platform_core.specs.ddl import LAKE, Meaning
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class DdlLocation:
    """A code location whose migrations are here.

    Args:
        root: folder of its package.
        workstreams: names that it declares.
    """

    name: str
    root: Path
    workstreams: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DdlScope:
    """Whose migrations are looked at.

    Args:
        project: folder that files are shown relative to.
        locations: all of the workspace, in its order.
        chosen: names of those whose migrations are planned; None: all.
        makers: what writes the tables that are declared.
    """

    project: Path
    locations: tuple[DdlLocation, ...]
    chosen: frozenset[str] | None = None
    makers: Mapping[TableRef, Maker] = field(default_factory=dict)

    def is_chosen(self, location: str) -> bool:
        """Whether migrations of a location are planned."""
        return self.chosen is None or location in self.chosen

    @property
    def workstreams(self) -> tuple[str, ...]:
        """Workstreams of the chosen locations."""
        return tuple(
            name for location in self.locations if self.is_chosen(location.name) for name in location.workstreams
        )


@dataclass(frozen=True, kw_only=True)
class PlannedStatement:
    """One statement, and what it will do.

    Args:
        meaning: None where it is made already.
    """

    statement: Statement
    meaning: Meaning | None


@dataclass(frozen=True, kw_only=True)
class PlannedMigration:
    """One migration that an environment lacks, whole or in part."""

    pending: Pending
    statements: tuple[PlannedStatement, ...]

    @property
    def migration(self) -> Migration:
        """The file."""
        return self.pending.migration

    @property
    def destroys(self) -> tuple[str, ...]:
        """What is lost by it, in words."""
        return tuple(each.meaning.destroys for each in self.statements if each.meaning and each.meaning.destroys)

    @property
    def needs_approval(self) -> bool:
        """Whether a person must give a reason, and has not yet for this text."""
        before = self.pending.before
        approved = before is not None and before.approved is not None and before.checksum == self.migration.checksum
        return bool(self.destroys) and not approved


@dataclass(frozen=True, kw_only=True)
class DdlPlan:
    """What an environment lacks.

    Args:
        migrations: in the order in which they will be applied.
        left_out: migrations of databases that the environment says it does not have.
    """

    environment: str
    migrations: tuple[PlannedMigration, ...]
    left_out: tuple[Migration, ...] = ()

    @property
    def workstreams(self) -> list[str]:
        """Workstreams that it changes, by name."""
        return sorted({each.migration.workstream for each in self.migrations})


class Targets:
    """The lake and the serving databases of an environment."""

    def __init__(self, platform: Platform) -> None:
        self.lake = LakeTarget(platform)
        self._platform = platform
        self._databases: dict[str, ServingTarget | None] = {}

    def database(self, name: str) -> ServingTarget | None:
        """A serving database; None where the environment says that it has none of this name.

        Raises:
            KeyError: the environment does not know it.
            MigrationError: its URL is wrong.
        """
        if name not in self._databases:
            platform = self._platform
            self._databases[name] = open_serving(
                name,
                platform.environment.databases[name],
                environment=platform.environment.name,
                secrets=platform.secrets,
                state=platform.state,
                person=platform.environment.person,
            )
        return self._databases[name]

    def close(self) -> None:
        """Close the connections of all databases."""
        for database in self._databases.values():
            if database is not None:
                database.close()


def read_files(scope: DdlScope, report: Report) -> list[Migration]:
    """All migrations of all locations."""
    return [
        migration
        for location in scope.locations
        for migration in read_migrations(
            location.root, location=location.name, workstreams=location.workstreams, report=report
        )
    ]


def made_plan(scope: DdlScope, history: Sequence[Applied], *, targets: Targets, environment: str) -> DdlPlan:
    """What an environment lacks, checked statement by statement against the schema as it will be then.

    Args:
        history: all that is remembered of the environment.

    Raises:
        MigrationError: every fault of the files, with file and line.
        StorageError, ControlError: a table or database cannot be looked at.
    """
    report = Report(scope.project)
    files = read_files(scope, report)
    chosen = [each for each in files if scope.is_chosen(each.location)]
    own = [row for row in history if row.workstream in scope.workstreams]
    _raise(report)
    pending = pending_of(chosen, own, environment=environment, report=report)
    _raise(report)
    usable, left_out = _with_target(pending, targets, environment, report)
    _raise(report)
    checked = _Checking(scope, files, targets).in_order(usable, report)
    _raise(report)
    return DdlPlan(environment=environment, migrations=tuple(checked), left_out=tuple(left_out))


def _with_target(
    pending: Sequence[Pending], targets: Targets, environment: str, report: Report
) -> tuple[list[Pending], list[Migration]]:
    usable: list[Pending] = []
    left_out: list[Migration] = []
    for each in pending:
        migration = each.migration
        if migration.target == LAKE:
            usable.append(each)
            continue
        try:
            found = targets.database(migration.target)
        except KeyError:
            known = [LAKE, *targets.lake.platform.environment.databases]
            report.add(
                migration.file,
                1,
                f"target '{migration.target}' is not known in environment '{environment}'",
                *report.choice("targets", migration.target, known),
                f"name it in the environment's file: databases: {{{migration.target}: {{url: …}}}} (url: null where "
                "an environment has none)",
            )
            continue
        if found is None:
            left_out.append(migration)
        else:
            usable.append(each)
    return usable, left_out


class _Checking:
    """Tries the pending migrations on copies of the schema, in an order in which each finds what it needs."""

    def __init__(self, scope: DdlScope, files: Sequence[Migration], targets: Targets) -> None:
        self._targets = targets
        tables, views = (frozenset(_made(files, kind)) for kind in ("TABLE", "VIEW"))
        live, shared = targets.lake.live, targets.lake.shared
        lake = Catalog(live, makers=scope.makers, views=views, tables=tables, shared=shared)
        self._catalogs: dict[str, Catalog] = {LAKE: lake}

    def in_order(self, pending: Sequence[Pending], report: Report) -> list[PlannedMigration]:
        """All of them, each checked; what cannot be goes to the report.

        A workstream's migrations keep their order; where one needs what another workstream makes, it waits.
        """
        queues: dict[str, list[Pending]] = {}
        for each in pending:
            queues.setdefault(each.migration.workstream, []).append(each)
        found: list[PlannedMigration] = []
        while any(queues.values()):
            faults = []
            for queue in queues.values():
                if not queue:
                    continue
                try:
                    found.append(self._checked(queue[0]))
                except _Refused as fault:
                    faults.append(fault)
                    continue
                queue.pop(0)
                break
            else:
                for refused in faults:
                    refused.tell(report)
                return found
        return found

    def _checked(self, pending: Pending) -> PlannedMigration:
        migration = pending.migration
        catalog = self._catalog(migration).copy()
        if migration.target == LAKE:
            statements = self._in_lake(pending, catalog)
        else:
            statements = self._in_database(migration, catalog)
        self._catalogs[migration.target] = catalog
        return PlannedMigration(pending=pending, statements=tuple(statements))

    def _catalog(self, migration: Migration) -> Catalog:
        target = migration.target
        if target not in self._catalogs:
            database = self._database(target)
            views = frozenset(database.views(migration.workstream))
            self._catalogs[target] = Catalog(database.live, makers={}, views=views, shared=database.shared)
        return self._catalogs[target]

    def _in_lake(self, pending: Pending, catalog: Catalog) -> list[PlannedStatement]:
        migration, found = pending.migration, []
        lake = self._targets.lake
        for statement in migration.statements:
            meaning = None
            if not self._is_made(pending, statement):
                try:
                    meaning = lake.meaning(statement, migration=migration, catalog=catalog)
                except SqlFault as fault:
                    raise _Refused(migration, statement, fault) from None
            found.append(PlannedStatement(statement=statement, meaning=meaning))
        return found

    def _is_made(self, pending: Pending, statement: Statement) -> bool:
        """Whether a statement is made; where no word was kept of it, the tables tell."""
        if statement.position <= pending.done:
            return True
        if isinstance(statement.node, exp.Drop):
            # That something is not there proves nothing, but where this very statement was under way.
            under_way = pending.before is not None and statement.position == pending.done + 1
            return under_way and self._targets.lake.is_made(pending.migration, statement)
        return self._targets.lake.is_made(pending.migration, statement)

    def _in_database(self, migration: Migration, catalog: Catalog) -> list[PlannedStatement]:
        database = self._database(migration.target)
        if database.holds(migration):
            return [PlannedStatement(statement=statement, meaning=None) for statement in migration.statements]
        found = []
        for statement in migration.statements:
            try:
                meaning = database.meaning(statement, migration=migration, catalog=catalog)
            except SqlFault as fault:
                raise _Refused(migration, statement, fault) from None
            found.append(PlannedStatement(statement=statement, meaning=meaning))
        return found

    def _database(self, target: str) -> ServingTarget:
        found = self._targets.database(target)
        if found is None:
            raise KeyError(target)
        return found


class _Refused(Exception):  # noqa: N818 - not an error yet: another workstream may make what is missing
    """A statement does not fit the schema as far as it is known."""

    def __init__(self, migration: Migration, statement: Statement, fault: SqlFault) -> None:
        self._migration = migration
        self._statement = statement
        self._fault = fault
        super().__init__(fault.message)

    def tell(self, report: Report) -> None:
        line = self._statement.line + self._fault.line
        report.add(self._migration.file, line, self._fault.message, *self._fault.hints)


def _made(files: Sequence[Migration], kind: str) -> list[TableRef]:
    """Names of all tables, or views, of the lake that migrations make."""
    found = []
    for migration in files:
        for statement in migration.statements:
            node = statement.node
            if migration.target == LAKE and isinstance(node, exp.Create) and node.args["kind"] == kind:
                ref = touched(statement, workstream=migration.workstream)
                if ref is not None:
                    found.append(ref)
    return found


def _raise(report: Report) -> None:
    if report:
        raise MigrationError("\n".join(str(issue) for issue in report.issues))
