"""Execute one notebook with papermill, in a process that ends when the one that started it is gone.

Called as ``python -m platform_core.operations.notebook_process``. The first line of its standard input says what to
do; the rest of it is held open by the starter, however that ends. The last line of standard output tells what came of
it. Errors of cells are told by their class: their text may quote rows, and stands in the executed copy alone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

_FAREWELL_SECONDS = 5.0


def main() -> None:
    """Do what standard input says."""
    # The kernel inherits descriptor 1, and so does whatever a library prints.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGTERM, _leave)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_starter, name="starter-watch", daemon=True).start()
    outcome = _executed(job)
    told.write(json.dumps(outcome) + "\n")
    told.close()


def _executed(job: dict[str, Any]) -> dict[str, Any]:
    papermill = importlib.import_module("papermill")
    failed: type[Any] = importlib.import_module("papermill.exceptions").PapermillExecutionError
    try:
        papermill.execute_notebook(
            job["notebook"],
            job["executed"],
            parameters=job["parameters"],
            cwd=job["folder"],
            # This environment's own kernel, whatever the notebook was last saved with.
            kernel_name="python3",
            # A busy machine is no reason to give up.
            start_timeout=600,
            progress_bar=False,
            log_output=False,
        )
    except failed as error:
        # Written for readers by whoever raised it; of any other class the text may quote a row.
        text = error.evalue if error.ename == "StepError" else None
        return {"cell": error.exec_count, "class": error.ename, "text": text}
    except Exception as error:  # noqa: BLE001 - papermill, nbclient and the kernel raise what they like
        return {"class": type(error).__name__}
    return {}


def _leave(_signal: int, _frame: object) -> None:
    raise SystemExit(130)


def _end_with_the_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    # As if asked to: on its way out nbclient ends the kernel, too.
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_FAREWELL_SECONDS)
    # A kernel whose starter is gone ends by itself.
    os._exit(130)


if __name__ == "__main__":
    main()
