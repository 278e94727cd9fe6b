"""A process that has everything imported and no thread yet: each job applies migrations in a fork of it.

A job may meet a fault there and be killed. Starting Python and importing what a migration needs takes longer than most
migrations do.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

IMPORTED = (
    "deltalake",
    "deltalake.transaction",
    "duckdb",
    "platform_core.control.ddl_lake",
    "platform_core.engines.local",
    "platform_core.operations.ddl",
    "platform_core.secrets.files",
    "psycopg",
    "pyarrow.fs",
    "pyarrow.parquet",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "sqlglot",
)


def serve() -> None:
    """Read lists of jobs from standard input, run those of a list at once, and answer with their exit codes."""
    for name in IMPORTED:
        import_module(name)
    _say("ready")
    for line in sys.stdin:
        started = [_start(job) for job in json.loads(line)]
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
        _say(json.dumps(ended))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _start(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        Path(job["result"]).write_text(json.dumps({"made": _apply(job), "error": ""}))
        code = 0
    except Exception as error:  # noqa: BLE001 - the test shows it
        Path(job["result"]).write_text(json.dumps({"made": [], "error": str(error) or traceback.format_exc()}))
    finally:
        os._exit(code)


def _apply(job: dict[str, Any]) -> list[tuple[str, int]]:
    from platform_core.control.database import open_database
    from platform_core.faults import arm
    from platform_core.operations.ddl import DdlLocation, DdlScope, apply_ddl
    from platform_core.operations.platform import open_platform
    from platform_core.specs.environment import EnvironmentSpec

    root = Path(job["root"])
    environment = EnvironmentSpec.model_validate_json(job["environment"])
    platform = open_platform(environment, state=root / "state")
    database = open_database(environment.control, state=root / "state", secrets=platform.secrets)
    location = DdlLocation(name="mobility", root=root / "mobility", workstreams=("mobility",))
    scope = DdlScope(project=root, locations=(location,))
    if job["fault"]:
        arm(job["fault"])
    done = apply_ddl(scope, platform=platform, database=database, author="a process", approve=job["approve"])
    return [(str(each.migration.migration), each.statements) for each in done]


if __name__ == "__main__":
    serve()
