"""A process that works on a project as it is told, each time in a fork that may be killed at a statement.

Commands come as lines of standard input, answers go to standard output as JSON, a line each:

``prepare [<nth>]``: bring the control tables up to date.
``apply [<nth>]``: apply ``<project>/plan.json``.
``update <strike>``: apply it and publish, and be killed where the strike says: ``statement:<nth>``, a point of
publishing with the action (``publish-pointed:kill:1``), or ``after:<milliseconds>``.
``count <threads> <applies>``: in each of so many threads get so many applies through, each of which makes the number in
one row greater by one; plan again when refused.
``race <count> <command> ...``: do it in so many forks, all of which begin at once.
``hold``: take the lock, tell its id, and keep it until this process is killed.

Before statement nth, counted from 1, a fork kills itself without a word.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before anything is forked, so that no fork pays for it.
import alembic.command  # noqa: F401
import psycopg  # noqa: F401
import sqlalchemy as sa

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.declared import Declared, read_declared
from platform_core.control.plan.plan import read_plan
from platform_core.control.plan.planning import plan_from_declared
from platform_core.control.plan.release import platform_release, specs_digest
from platform_core.control.snapshot.publish import publish_snapshot
from platform_core.control.store.codec import codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.lock import locked
from platform_core.control.store.rows import RowKey, read_rows
from platform_core.control.store.store import ControlStore, open_store
from platform_core.errors import PlanError, PlatformError
from platform_core.faults import arm
from platform_core.settings import Settings

AUTHOR = "Worker <worker@example.com>"

COUNTER = RowKey("workstream", "crm", "crm")
"""The row whose description the workers count up."""


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


def kill_after(milliseconds: int) -> None:
    def wait_and_kill() -> None:
        time.sleep(milliseconds / 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_kill, daemon=True).start()


class Counting:
    """Threads of one process that count one row up, each by plans and applies of its own."""

    def __init__(self, worker: Worker, declared: Declared) -> None:
        self._worker = worker
        self._declared = declared
        self._place = codec(KINDS[COUNTER.kind]).names.index("description")
        self.done: list[tuple[int, int]] = []
        self.refused: Counter[str] = Counter()
        self.failed: list[str] = []

    def work(self, applies: int) -> None:
        try:
            store = self._worker.store()
            for _ in range(applies):
                while not self._count_on(store):
                    time.sleep(random.uniform(0.0, 0.3))
            store.close()
        except BaseException:  # noqa: BLE001 - told to whoever asked
            self.failed.append(traceback.format_exc())

    def _count_on(self, store: ControlStore) -> bool:
        number = self._number(store.read(lambda connection: read_rows(connection, kinds=[COUNTER.kind]))[COUNTER])
        row = list(self._declared.rows[COUNTER])
        row[self._place] = str(number + 1)
        declared = replace(self._declared, rows={**self._declared.rows, COUNTER: tuple(row)})
        environment = self._worker.environment
        plan = plan_from_declared(declared, environment, store, author=AUTHOR, everything=True)
        if [change.fields[0].before for change in plan.changes] != [str(number) if number else ""]:
            # Another one was faster, and the plan would take back what it did, as anybody who reads it can see.
            self.refused["planned anew"] += 1
            return False
        try:
            applied = apply_plan(plan, environment, store, author=AUTHOR)
        except PlanError as error:
            known = [why for why in ("locked by", "have moved") if why in str(error)]
            self.refused[known[0] if known else str(error)] += 1
            return False
        self.done.append((applied.serial, number + 1))
        return True

    def _number(self, row: tuple[Any, ...]) -> int:
        return int(row[self._place] or 0)


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

    def update(self, strike: str) -> Any:
        store = self.store()
        store.prepare()
        plan = read_plan(self.settings.project / "plan.json")
        what, _, when = strike.partition(":")
        if what == "statement":
            kill_before(int(when))
        elif what == "after":
            kill_after(int(when))
        else:
            arm(strike)
        applied = apply_plan(plan, self.environment, store, author=AUTHOR, approval="tested")
        publish_snapshot(self.environment, store, state=self.settings.state)
        return {"serial": applied.serial}

    def count(self, threads: str, applies: str) -> Any:
        counting = Counting(self, read_declared(self.settings))
        workers = [threading.Thread(target=counting.work, args=(int(applies),)) for _ in range(int(threads))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"done": counting.done, "refused": counting.refused, "failed": counting.failed}

    def hold(self) -> Any:
        store = self.store()
        store.prepare()
        with locked(store.database, purpose="a test", author=AUTHOR) as lock:
            say(lock.id)
            time.sleep(600)

    def race(self, count: str, command: str, *arguments: str) -> Any:
        gate, opened = os.pipe()

        def wait_and_do() -> Any:
            os.close(opened)
            os.read(gate, 1)
            return getattr(self, command)(*arguments)

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
