"""The tables of reviewed changes and overrides are those that queries expect."""

from __future__ import annotations

import sqlalchemy as sa

from platform_core.control.store.tables import overrides, sql_changes
from tests.control_plane.test_schema import one_name
from tests.reviewed_sql.conftest import Changes


def test_the_tables_are_those_that_queries_expect(changes: Changes) -> None:
    def look(connection: sa.Connection) -> None:
        schema = "control" if connection.dialect.name == "postgresql" else None
        for table in (sql_changes, overrides):
            found = {
                each["name"]: (one_name(each["type"].compile(connection.dialect)), each["nullable"])
                for each in sa.inspect(connection).get_columns(table.name, schema=schema)
            }
            assert found == {
                each.name: (one_name(each.type.compile(connection.dialect)), each.nullable) for each in table.columns
            }

    changes.project.store().read(look)
