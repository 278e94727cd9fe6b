"""Whether an environment has what a target of a dbt project builds in; `edp check` and builds ask the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_core.specs.environment import EnvironmentSpec

_ADAPTERS = ("databricks", "duckdb", "postgres", "spark")

_REACHED_BY_DATABRICKS = ("abfss://", "gs://", "s3://")


def target_fault(output: Mapping[str, Any], environment: EnvironmentSpec) -> tuple[str, ...] | None:
    """What is wrong with a target in an environment: a message and its hints; None: nothing.

    Args:
        output: the target as ``profiles.yml`` has it.
    """
    adapter = str(output.get("type"))
    if adapter == "duckdb":
        return None
    if adapter not in _ADAPTERS:
        return f"the platform cannot publish from adapter '{adapter}'", f"known adapters: {', '.join(_ADAPTERS)}"
    if environment.developer:
        return (
            "a personal environment builds in DuckDB, where everybody has a file of their own",
            "leave dbt.target out of its file",
        )
    if adapter == "spark":
        return _spark(output, environment)
    return _databricks(environment) if adapter == "databricks" else _postgres(environment)


def _databricks(environment: EnvironmentSpec) -> tuple[str, ...] | None:
    if environment.dbt.databricks is None:
        return (
            "its target is of type databricks, and the environment does not say where that is",
            f"looked at: dbt.databricks in the file of environment {environment.name}",
        )
    if not environment.lake.root.startswith(_REACHED_BY_DATABRICKS):
        return (
            "its target is of type databricks, which cannot reach the lake",
            f"looked at: lake.root in the file of environment {environment.name}; it must begin with "
            f"{', '.join(_REACHED_BY_DATABRICKS)}",
        )
    return None


def _postgres(environment: EnvironmentSpec) -> tuple[str, ...] | None:
    declared = environment.databases.get(environment.dbt.database or "")
    if declared is not None and declared.url is not None:
        return None
    known = ", ".join(sorted(environment.databases)) or "none"
    return (
        "its target is of type postgres, and the environment does not say which database that is",
        f"looked at: dbt.database in the file of environment {environment.name}; databases there: {known}",
    )


def _spark(output: Mapping[str, Any], environment: EnvironmentSpec) -> tuple[str, ...] | None:
    if output.get("method") != "session":
        return (
            f"its target is of type spark by method '{output.get('method')}', by which the lake cannot be read",
            "method: session is a Spark in dbt's own process; a cluster is reached with type databricks",
        )
    if environment.spark is None or environment.spark.type != "local":
        return (
            "its target is of type spark, and the environment names no Spark for this machine",
            f"looked at: spark in the file of environment {environment.name}; an example: spark: {{type: local}}",
        )
    return None
