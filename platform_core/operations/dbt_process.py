"""Run dbt as a child process that ends when the process that started it is gone.

Called as ``python -m platform_core.operations.dbt_process <dbt's arguments>`` with a pipe as standard input, whose
other end the starting process holds: it closes however that process ends, and a dbt left alone could go on for hours.
"""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Run dbt with this process's arguments."""
    threading.Thread(target=_end_with_the_starter, name="starter-watch", daemon=True).start()
    from dbt.cli.main import cli

    cli()


def _end_with_the_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    # Nothing to tidy up: what a run has not published does not exist, and DuckDB recovers its own file.
    os._exit(130)


if __name__ == "__main__":
    main()
