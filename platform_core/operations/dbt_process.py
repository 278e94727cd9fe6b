"""Run dbt as a child process that ends when the process that started it is gone.

Called as ``python -m platform_core.operations.dbt_process <dbt's arguments>`` with a pipe as standard input, whose
other end the starting process holds: it closes however that process ends, and a dbt left alone could go on for hours.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

from platform_core.settings import environment_value


def main() -> None:
    """Run dbt with this process's arguments."""
    threading.Thread(target=_end_with_the_starter, name="starter-watch", daemon=True).start()
    from dbt.cli.main import cli

    from platform_core.engines.dbt_spark import SPARK_VARIABLE, session_for_dbt

    asked = environment_value(SPARK_VARIABLE)
    with nullcontext() if asked is None else session_for_dbt(Path(asked)):
        cli()


def _end_with_the_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    # Nothing to tidy up: what a run has not published does not exist, and DuckDB recovers its own file.
    os._exit(130)


if __name__ == "__main__":
    main()
