"""A process that applies the reviewed SQL changes of a project, each time in a fork that kills itself at a statement.

Standard input gives the number of the statement before which the fork dies, a line each; standard output answers.
"""

from __future__ import annotations

import sys
from typing import Any

from platform_core.control.reviewed_sql.applying import apply_changes
from platform_core.control.reviewed_sql.planning import Scope
from tests.control_plane.worker import AUTHOR, Fork, Worker, kill_before, say


def applied(worker: Worker, nth: int) -> Any:
    store = worker.store()
    store.prepare()
    scope = Scope(worker.settings, worker.environment, store)
    scope.look()
    kill_before(nth)
    return {"serials": [done.applied.serial for done in apply_changes(scope, author=AUTHOR)]}


if __name__ == "__main__":
    project = Worker(sys.argv[1])
    for line in sys.stdin:
        say(Fork(lambda nth=int(line): applied(project, nth)).answer())  # type: ignore[misc]
