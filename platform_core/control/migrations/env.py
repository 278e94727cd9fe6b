"""Run by Alembic: applies revisions on the connection that it is given, within that connection's transaction."""

from __future__ import annotations

from alembic import context

_given = context.config.attributes
context.configure(
    connection=_given["connection"],
    version_table_schema=_given["version_table_schema"],
    on_version_apply=_given["on_version_apply"],
)
context.run_migrations()
