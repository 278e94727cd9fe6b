"""The project that is run: so many tables, a step for each, and one dashboard of all that the steps make."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest.ours import MEMORY_LIMIT
from benchmarks.ingest.small_tables import CONNECTION, LOCATION, TABLE
from benchmarks.instance_file import write_instance_file

if TYPE_CHECKING:
    import dagster as dg

ROOT = Path(__file__).parents[2]
WORKSTREAM = "bench"
DASHBOARD = "page"
JOB = "everything"

_ENVIRONMENT = """name: bench
lake: {{root: lake}}
secrets: {{type: environment}}
engine: {{type: local, options: {{memory_limit: {memory}, spill: "${{env.state}}/spill"}}}}
"""
_STEP = """  - name: {name}
    layer: gold
    kind: sql
    sql: sql/{name}.sql
"""
_SQL = """SELECT status, count(*) AS orders, sum(quantity) AS items
FROM bronze.{name}
WHERE _is_current
GROUP BY status
"""
_REFRESH = """dashboards:
  - name: {dashboard}
    type: page
    title: Orders
    shows: [{shows}]
    figures:
      - {{title: Orders, table: gold.{first}, column: orders, aggregate: sum, format: ",.0f"}}
"""


def names(tables: int) -> list[str]:
    """Names of the tables, at the source and in each layer."""
    return [f"table_{number:03}" for number in range(tables)]


def write_project(folder: Path, *, tables: int, source: Mapping[str, Any]) -> Path:
    """Write the project and make it that of this process and its children; returns the folder of its control files."""
    package, home = folder / "bench", folder / "home"
    control = package / "control"
    for made in (control / "ingestion", package / "sql", home / "environments"):
        made.mkdir(parents=True)
    write_instance_file(home)
    (home / "environments" / "bench.yaml").write_text(_ENVIRONMENT.format(memory=MEMORY_LIMIT))
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (control / "location.yaml").write_text(LOCATION)
    (control / "connections.yaml").write_text(CONNECTION.format(**source))
    listed = names(tables)
    (control / "ingestion" / "shop.yaml").write_text(
        "source: shop\ntables:\n" + "".join(TABLE.format(name=name) for name in listed)
    )
    (control / "processing.yaml").write_text("steps:\n" + "".join(_STEP.format(name=name) for name in listed))
    for name in listed:
        (package / "sql" / f"{name}.sql").write_text(_SQL.format(name=name))
    shows = ", ".join(f"gold.{name}" for name in listed)
    (control / "refresh.yaml").write_text(_REFRESH.format(dashboard=DASHBOARD, shows=shows, first=listed[0]))
    os.environ.update(
        EDP_PROJECT=str(folder),
        EDP_STATE=str(folder / "state"),
        EDP_DAGSTER_STATE=str(folder / "state" / "dagster"),
        DAGSTER_HOME=str(home),
        EDP_ENVIRONMENT="bench",
        PYTHONPATH=str(ROOT),
    )
    return control


def job(control: str, executor: str) -> dg.JobDefinition:
    """The job over everything, by an executor of the name that ``benchmarks.executor`` gives it; step processes, too,
    build it anew."""
    import dagster as dg

    from benchmarks.executor.graphs import executor_named
    from platform_core import build_definitions

    built = build_definitions(Path(control))
    return dg.Definitions(
        assets=built.assets,
        jobs=[dg.define_asset_job(JOB, selection="*")],
        resources=built.resources,
        executor=executor_named(executor),
    ).resolve_job_def(JOB)
