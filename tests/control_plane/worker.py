"""A process that works on a project as it is told, each time in a fork that may be killed at a statement.

Commands come as lines of standard input, answers go to standard output as JSON, a line each:

``prepare [<nth>]``: bring the control tables up to date.
``apply [<nth>]``: apply ``<project>/plan.json``.
``race <count> <command>``: do it in so many forks, all of which begin at once.
``hold``: take the lock, tell its id, and keep it until this process is killed.

Before statement nth, counted from 1, a fork kills itself without a word.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything is forked, so that no fork pays for it.
import alembic.command  # noqa: F401
import psycopg  # noqa: F401
import sqlalchemy as sa

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.plan import read_plan
from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.store.lock import locked
from platform_core.control.store.store import ControlStore, open_store
from platform_core.errors import PlatformError
from platform_core.settings import Settings

AUTHOR = "Worker <worker@example.com>"


def say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def kill_before(nth: int) -> None:
    left = [nth]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    sa.event.listen(sa.Engine, "commit", count)


class Worker:
    def __init__(self, folder: str) -> None:
        project = Path(folder)
        self.settings = Settings(project=project, home=project / "home", state=project / "state", environment="dev")
        self.environment = load_environment(self.settings)

    def store(self) -> ControlStore:
        return open_store(self.environment, state=self.settings.state)

    def prepare(self, nth: str = "0") -> Any:
        kill_before(int(nth))
        return {"added": self.store().prepare()}

    def apply(self, nth: str = "0") -> Any:
        store = self.store()
        store.prepare()
        kill_before(int(nth))
        plan = read_plan(self.settings.project / "plan.json")
        return {"serial": apply_plan(plan, self.environment, store, author=AUTHOR, approval="tested").serial}

    def hold(self) -> Any:
        store = self.store()
        store.prepare()
        with locked(store.database, purpose="a test", author=AUTHOR) as lock:
            say(lock.id)
            time.sleep(600)

    def race(self, count: str, command: str) -> Any:
        gate, opened = os.pipe()

        def wait_and_do() -> Any:
            os.close(opened)
            os.read(gate, 1)
            return getattr(self, command)()

        forks = [Fork(wait_and_do) for _ in range(int(count))]
        os.close(opened)
        os.close(gate)
        return [fork.answer() for fork in forks]


class Fork:
    """A fork of this process that does one thing."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            os.write(write, json.dumps(self._done(work)).encode())
            os._exit(0)
        os.close(write)

    def answer(self) -> Any:
        """What it answered, or the signal that killed it."""
        with os.fdopen(self._read) as pipe:
            text = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        return json.loads(text) if text else {"killed": os.waitstatus_to_exitcode(status)}

    def _done(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except PlatformError as error:
            return {"refused": str(error)}
        except BaseException:  # noqa: BLE001 - told to whoever asked
            return {"failed": traceback.format_exc()}


def main(folder: str) -> None:
    worker = Worker(folder)
    platform_release()
    specs_digest()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command in ("race", "hold"):
            say(getattr(worker, command)(*arguments))
        else:
            say(Fork(lambda: getattr(worker, command)(*arguments)).answer())  # noqa: B023 - done before the next line


if __name__ == "__main__":
    main(sys.argv[1])
