"""Migrations of a serving database: what is there now, and one migration as one transaction.

The database itself keeps which migrations it holds, in a table that is written in the same transaction: where the
process ends between that commit and the entry in the control database, the next attempt finds it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema

from platform_core.control.database_url import DatabaseUrl, parse_url
from platform_core.control.ddl_catalog import Catalog, Shape
from platform_core.control.ddl_files import Migration, Statement
from platform_core.control.ddl_serving import ServingColumn, meaning_in_database
from platform_core.errors import ControlError, MigrationError, PlatformError, PluginError, redacted
from platform_core.faults import DdlPoint, reach
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.ddl import Meaning
from platform_core.specs.environment import DatabaseSpec
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef

_SCHEMA = "edp"
_applied = sa.Table(
    "ddl_applied",
    sa.MetaData(schema=_SCHEMA),
    sa.Column("workstream", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)

# Any number that nobody else uses for an advisory lock of the same database.
_LOCK = 4_037_112_202
_CONNECT_SECONDS = 10
_LOCK_TIMEOUT = "30s"
_LONGEST_SCHEMA = 63
# Syntax, unknown or doubled objects, types, things that lean on others: of these the text names objects alone.
_SPEAKS_OF_OBJECTS = ("42", "0A", "2BP", "3F", "3D", "28", "55")


@dataclass(frozen=True)
class ServingTarget:
    """A serving database of one environment, as migrations see it; connected when it is first asked."""

    name: str
    url: DatabaseUrl
    spec: DatabaseSpec
    secrets: SecretStore = field(repr=False)
    person: Person | None = None
    _engines: list[sa.Engine] = field(default_factory=list, repr=False, compare=False)

    def live(self, ref: TableRef) -> Shape | None:
        """The table or view that is there now; None where there is none.

        Raises:
            ControlError: the database cannot be reached.
        """
        return self._found(self._schema(ref.layer), ref.name)

    def shared(self, ref: TableRef) -> Shape | None:
        """The shared table or view, which a person's views may read; None where there is none, or nobody asks.

        Raises:
            ControlError: the database cannot be reached.
        """
        return None if self.person is None else self._found(ref.layer, ref.name)

    def _schema(self, workstream: str) -> str:
        """Schema of a workstream in this database, a person's or everybody's."""
        schema = workstream if self.person is None else self.person.scoped(workstream)
        if len(schema) > _LONGEST_SCHEMA:
            raise MigrationError(
                f"schema '{schema}' would be longer than {_LONGEST_SCHEMA} characters, which PostgreSQL cuts off\n"
                "  set EDP_USER to a shorter name"
            )
        return schema

    def _found(self, schema: str, name: str) -> Shape | None:
        with self._connected() as connection:
            looked = sa.inspect(connection)
            is_view = name in looked.get_view_names(schema)
            if not is_view and not looked.has_table(name, schema=schema):
                return None
            columns = tuple(
                ServingColumn(
                    column["name"], str(column["type"].compile(dialect=connection.dialect)), bool(column["nullable"])
                )
                for column in looked.get_columns(name, schema=schema)
            )
            reads = tuple(self._reads(connection, schema, name)) if is_view else ()
            return Shape(is_view=is_view, columns=columns, reads=reads)

    def views(self, workstream: str) -> list[TableRef]:
        """Views of a workstream's schema."""
        schema = self._schema(workstream)
        with self._connected() as connection:
            names = sa.inspect(connection).get_view_names(schema)
            return [TableRef(self.name, workstream, name) for name in names]

    def meaning(self, statement: Statement, *, migration: Migration, catalog: Catalog) -> Meaning:
        """What a statement does; SqlFault where it may not be said, or does not fit."""
        return meaning_in_database(
            statement, workstream=migration.workstream, target=self.name, catalog=catalog, schema=self._schema
        )

    def holds(self, migration: Migration) -> bool:
        """Whether the database holds a migration.

        Raises:
            MigrationError: it holds another text of it.
            ControlError: the database cannot be reached.
        """
        with self._connected() as connection:
            return self._holds(connection, migration)

    def run(self, migration: Migration, statements: Sequence[str], *, author: str) -> bool:
        """Run all statements of a migration in one transaction; false where the database held it already.

        Raises:
            MigrationError: a statement was refused; nothing was changed.
            ControlError: the database cannot be reached.
        """
        with self._connected() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            if self._holds(connection, migration):
                return False
            self._make_room(connection, migration.workstream)
            for statement, sql in zip(migration.statements, statements, strict=True):
                self._run(connection, migration, statement, sql)
            row = {
                "workstream": self._schema(migration.workstream),
                "number": migration.number,
                "name": migration.name,
                "checksum": migration.checksum,
                "author": author,
            }
            connection.execute(sa.insert(_applied).values(row))
            reach(DdlPoint.SERVING_BEFORE_COMMIT)
            connection.commit()
        reach(DdlPoint.SERVING_AFTER_COMMIT)
        return True

    def close(self) -> None:
        """Close the connections."""
        while self._engines:
            self._engines.pop().dispose()

    def _holds(self, connection: sa.Connection, migration: Migration) -> bool:
        if not sa.inspect(connection).has_table(_applied.name, schema=_SCHEMA):
            return False
        query = sa.select(_applied.c.checksum, _applied.c.author).where(
            _applied.c.workstream == self._schema(migration.workstream), _applied.c.number == migration.number
        )
        found = connection.execute(query).one_or_none()
        if found is not None and found.checksum != migration.checksum:
            raise MigrationError(
                f"{migration.shown}: migration {migration.number:04d} was edited after it had been applied\n"
                f"  looked at: {_SCHEMA}.{_applied.name} of {self.url}; applied by {found.author}\n"
                "  put its text back, and make the change in a new migration"
            )
        return found is not None

    def _make_room(self, connection: sa.Connection, workstream: str) -> None:
        looked = sa.inspect(connection)
        for schema in (_SCHEMA, self._schema(workstream)):
            # A user who may not make schemas can use one that was made for it.
            if not looked.has_schema(schema):
                connection.execute(CreateSchema(schema))
        _applied.create(connection, checkfirst=True)

    def _run(self, connection: sa.Connection, migration: Migration, statement: Statement, sql: str) -> None:
        reach(DdlPoint.BEFORE_STATEMENT)
        failure = ""
        try:
            # The driver's own cursor: without parameters it takes the text as it is, per cent signs too.
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(sql)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like; only what was checked passes
            failure = _said(error)
        if failure:
            raise MigrationError(
                f"{migration.shown}:{statement.line}: the database refused statement {statement.position}; "
                f"nothing of the migration was applied\n  {failure}\n  looked at: {self.url}"
            )
        reach(DdlPoint.AFTER_STATEMENT)

    def _reads(self, connection: sa.Connection, schema: str, name: str) -> Iterator[TableRef]:
        for row in connection.execute(_VIEW_READS, {"schema": schema, "name": name}):
            ref = TableRef(row.table_schema, row.table_schema, row.table_name)
            workstream = ref.workstream if self.person is None else self.person.plain(ref).workstream
            yield TableRef(self.name, workstream, row.table_name)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """A transaction that is given up unless the block commits it."""
        told = ""
        try:
            with self._opened().connect() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                connection.exec_driver_sql("SET LOCAL search_path = pg_catalog")
                yield connection
        except PlatformError:
            raise
        except (sa.exc.SQLAlchemyError, OSError) as error:
            told = _said(getattr(error, "orig", None) or error)
        # Raised outside of the block: a driver's error remembers the password.
        if told:
            raise ControlError(
                f"database '{self.name}': {told}\n  looked at: {self.url}\n"
                f"  look at the server and its log, and at databases.{self.name} of the environment"
            )

    def _opened(self) -> sa.Engine:
        if not self._engines:
            self._engines.append(self._engine())
        return self._engines[0]

    def _engine(self) -> sa.Engine:
        try:
            import psycopg  # noqa: F401 - asked for its presence
        except ImportError:
            raise PluginError(
                f"database '{self.name}' needs psycopg, which is not installed\n"
                "  install it: pip install 'edp-platform-core[control]'"
            ) from None
        url = self.url
        engine = sa.create_engine(
            sa.URL.create(
                "postgresql+psycopg",
                username=url.user,
                host=url.host,
                port=url.port,
                database=url.database,
                query=dict(url.options),
            ),
            poolclass=sa.pool.NullPool,
            connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "edp ddl"},
            hide_parameters=True,
        )
        reference = self.spec.password
        if reference is not None:

            def give(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
                parameters["password"] = self.secrets.get(reference.secret).reveal().decode()

            sa.event.listen(engine, "do_connect", give)
        return engine


def open_serving(
    name: str,
    spec: DatabaseSpec,
    *,
    environment: str,
    secrets: SecretStore,
    state: Path,
    person: Person | None = None,
) -> ServingTarget | None:
    """A serving database of an environment, not yet connected; None where the environment says that it has none.

    Args:
        person: whose schemas are meant; None: everybody's.

    Raises:
        MigrationError: its URL means no PostgreSQL database, or holds a password.
    """
    if spec.url is None:
        return None
    try:
        url = parse_url(spec.url, state=state)
        if url.file is not None:
            raise ValueError("must begin with postgresql+psycopg://: tables are served from PostgreSQL")
    except ValueError as error:
        # The URL itself is not shown: it may hold a password.
        raise MigrationError(f"environment '{environment}': databases.{name}.url {error}") from None
    return ServingTarget(name, url, spec, secrets, person)


_VIEW_READS = sa.text(
    "SELECT DISTINCT table_schema, table_name FROM information_schema.view_table_usage "
    "WHERE view_schema = :schema AND view_name = :name"
)


def _said(error: BaseException) -> str:
    """What may be said of a driver's error: its text only where that speaks of objects and never of rows."""
    state = str(getattr(error, "sqlstate", None) or "")
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if message and state.startswith(_SPEAKS_OF_OBJECTS):
        return f"{message} [{state}]"
    return redacted(error)
