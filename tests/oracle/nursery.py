"""A process that loads tables in children and lets them be killed: forked without threads, so at little cost."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ENDS = {0: None, 3: "DeletesStopped", 4: "SchemaError", 5: "LoadError", 6: "other"}
"""What the exit status of a child says."""

KILLED = "killed"


class Nursery:
    """Keeps the process and asks it for children."""

    def __init__(self, folder: Path, project: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.oracle.nursery", str(folder)],
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def load(self, **wanted: Any) -> str | None:
        """Load in a child; returns how it ended: None, the error's class, or KILLED."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(pickle.dumps(wanted)).decode() + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return KILLED if status < 0 else ENDS[status]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _load(folder: Path, wanted: dict[str, Any]) -> int:
    from platform_core.errors import DeletesStopped, LoadError, SchemaError
    from platform_core.faults import arm
    from platform_core.operations.ingest import ingest
    from tests.oracle.source import ModelSource, connection, platform_at

    platform = platform_at(folder, spill=f"spill-{os.getpid()}")
    spec = wanted["spec"]
    ModelSource.tables[spec.object] = wanted["rows"]
    arm(wanted["fault"])
    try:
        ingest(spec, connection=connection(wanted["source"]), platform=platform, started_at=wanted["started_at"])
    except DeletesStopped:
        return 3
    except SchemaError:
        return 4
    except LoadError:
        return 5
    except Exception:  # noqa: BLE001 - whatever it is, the test is told
        traceback.print_exc()
        return 6
    return 0


def main() -> None:
    import deltalake  # noqa: F401 - imported once, for all children
    import duckdb  # noqa: F401
    import polars_hash  # noqa: F401
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import platform_core.operations.ingest  # noqa: F401
    from tests.oracle.source import use_sources

    use_sources()
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 6
            try:
                status = _load(folder, pickle.loads(base64.b64decode(line)))
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)  # noqa: T201 - it is how the parent is told


if __name__ == "__main__":
    main()
