"""Open the Spark session that dbt-spark builds in, inside dbt's own process.

dbt-spark takes whatever session its process has, and opens a bare one where there is none.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlglot import exp

from platform_core.engines.messages import clean_text
from platform_core.engines.spark_sessions import LocalSpark, LocalSparkOptions
from platform_core.errors import PlatformError
from platform_core.plugins.interfaces import Secret

SPARK_VARIABLE = "EDP_DBT_SPARK"
"""Variable with the path of a file that says what session is wanted: its options, and the tables that it shows."""

COLUMNS_FILE = "columns.json"
"""Beside that file: schema, name, and type by column, of all tables and views that dbt has left."""

_DIALECT = "spark"


@contextmanager
def session_for_dbt(asked: Path) -> Iterator[None]:
    """A session for as long as the block lasts; what it shows then is written down.

    Args:
        asked: JSON with ``options`` as of :class:`LocalSparkOptions`, and ``tables``: schema, name, folder, and the
            version that a view shows; None: a table that is written.

    Raises:
        SystemExit: there is no session to be had; why is a line as dbt's log has them.
    """
    try:
        wanted = json.loads(asked.read_bytes())
        spark = LocalSpark(LocalSparkOptions(**wanted["options"]), secret=_no_secret).open(name="dbt")
        for schema, name, folder, version in wanted["tables"]:
            spark.sql(exp.Create(this=exp.table_(schema, quoted=True), kind="SCHEMA", exists=True).sql(_DIALECT))
            spark.sql(_shown(schema, name, folder, version))
    except Exception as error:  # noqa: BLE001 - Spark raises what it likes; told in dbt's log, and the build ends
        said = str(error) if isinstance(error, PlatformError) else f"Spark: {type(error).__name__}\n{error}"
        line = {"info": {"name": "SparkSession", "level": "error", "msg": clean_text(said)}, "data": {}}
        sys.stdout.write(json.dumps(line) + "\n")
        raise SystemExit(2) from None
    try:
        yield
    finally:
        (asked.parent / COLUMNS_FILE).write_text(json.dumps(list(_columns(spark))))


def _shown(schema: str, name: str, folder: str, version: int | None) -> str:
    """A statement that shows a Delta table: as it was at one version and read-only, or to be written."""
    table = exp.table_(name, db=schema, quoted=True)
    if version is None:
        place = [
            exp.FileFormatProperty(this=exp.Var(this="delta")),
            exp.LocationProperty(this=exp.Literal.string(folder)),
        ]
        made = exp.Create(this=table, kind="TABLE", properties=exp.Properties(expressions=place))
    else:
        rows = exp.table_(folder, db="delta", quoted=True)
        rows.set("version", exp.Version(this="VERSION", kind="AS OF", expression=exp.Literal.number(version)))
        made = exp.Create(this=table, kind="VIEW", expression=exp.select("*").from_(rows))
    return str(made.sql(_DIALECT))


def _columns(spark: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    refused = importlib.import_module("pyspark.errors").AnalysisException
    for schema in spark.catalog.listDatabases():
        for table in spark.catalog.listTables(schema.name):
            try:
                fields = spark.table(exp.table_(table.name, db=schema.name, quoted=True).sql(_DIALECT)).schema.fields
            except refused:
                # A view of something that is no more.
                continue
            yield schema.name, table.name, {field.name: field.dataType.simpleString() for field in fields}


def _no_secret(name: str) -> Secret:
    raise AssertionError(name)
