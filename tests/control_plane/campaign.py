"""Kill applies and publications at every statement, at every point and at any time, and apply from many sides at once.

``python -m tests.control_plane.campaign --kills 200 --applies 200`` writes ``benchmarks/results/control-faults.md``.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.plan import Plan
from platform_core.control.snapshot.loading import load_snapshot
from platform_core.control.snapshot.publish import publish_snapshot
from platform_core.control.store.codec import Row, codec
from platform_core.control.store.history import rows_at
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.lock import current_lock
from platform_core.control.store.rows import RowKey, read_manifest, read_rows, read_state
from platform_core.control.store.tables import SPEC_TABLES, applies, history, state
from platform_core.errors import SnapshotError
from platform_core.faults import PublishPoint
from platform_core.specs.manifest import Manifest
from tests.control_plane.conftest import Databases, Project, Worker
from tests.services.postgres import PostgresServer, running_postgres

REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "control-faults.md"
LOCATIONS = ("crm", "finance")
MOST_STATEMENTS = 40
LONGEST_MILLISECONDS = 400
PROCESSES, THREADS = 4, 5


@dataclass
class KillFigures:
    """What came of the kills.

    Args:
        spared: strikes that came too late, after all was done.
        applied: kills after which the apply was through.
        nothing: kills after which nothing of it was there.
        half: what was neither, in words.
    """

    kills: Counter[str] = field(default_factory=Counter)
    spared: int = 0
    applied: int = 0
    nothing: int = 0
    half: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Kills:
    """A project whose applies and publications are killed, one after the other.

    Args:
        project: applied at serial 1.
    """

    def __init__(self, project: Project, *, seed: int) -> None:
        project.write_environment("dev", manifest="snapshot")
        self.project = project
        self.random = random.Random(seed)
        self.figures = KillFigures()
        self.store = project.store()
        self.environment = project.environment()
        self.worker: Worker = project.worker()
        self._publish()
        self._known = {self._serial(): self._manifests()}
        self._hours = 2

    def strikes(self, count: int) -> Iterator[str]:
        """Every statement, every point, and random times, until there were so many kills."""
        named = [f"statement:{nth}" for nth in range(1, MOST_STATEMENTS)]
        named += [f"{point}:kill:{nth}" for point in PublishPoint for nth in (1, 2)]
        self.random.shuffle(named)
        while True:
            for strike in named:
                for chosen in (strike, f"after:{self.random.randrange(1, LONGEST_MILLISECONDS)}"):
                    if self.figures.kills.total() >= count:
                        return
                    yield chosen

    def strike(self, strike: str) -> None:
        """Kill an update, look at what it left, and bring it to its end."""
        began = time.monotonic()
        plan = self._next_plan()
        before, serial = self._tables(), self._serial()
        answer = self.worker.ask(f"update {strike}")
        if answer == {"killed": -signal.SIGKILL}:
            self.figures.kills[strike.partition(":")[0].partition("-")[0]] += 1
            self._judge(strike, plan, before=before, serial=serial)
        else:
            assert answer == {"serial": serial + 1}, (strike, answer)
            self.figures.spared += 1
        if self._serial() == serial:
            # The plan is still good, and the dead process's lock is in nobody's way.
            assert self.project.apply(plan, approve="tested").serial == serial + 1
        self._publish()
        self._known[serial + 1] = self._manifests()
        self._expect(strike, self.store.read(current_lock) is None, "the lock was left")
        for location in LOCATIONS:
            found = self._published(location)
            self._expect(strike, found == (serial + 1, self._known[serial + 1][location]), "is not what was applied")
        self._close_others()
        self.figures.seconds += time.monotonic() - began

    def _close_others(self) -> None:
        """Close what plans and applies of the project's own have opened: a server takes no more than a hundred."""
        for store in self.project.opened:
            if store is not self.store:
                store.close()
        self.project.opened[:] = [self.store]

    def _judge(self, strike: str, plan: Plan, *, before: Any, serial: int) -> None:
        now = self._tables()
        if now == before:
            self.figures.nothing += 1
        else:
            self.figures.applied += 1
            self._expect(strike, self._serial() == serial + 1, "the serial did not move by one")
            self._expect(strike, self.project.plan().changes == (), "the tables are not what was planned")
            self._expect(strike, self._versions(serial + 1) == len(plan.changes), "history is not complete")
            rows = self.store.read(lambda connection: (rows_at(connection, serial=serial + 1), _normal(connection)))
            self._expect(strike, rows[0] == rows[1], "history tells other rows")
            self._known[serial + 1] = self._manifests()
        for location in LOCATIONS:
            published, manifest = self._published(location)
            whole = published in self._known and self._known[published][location] == manifest
            self._expect(strike, whole, f"the snapshot of {location} is torn")
            self._expect(strike, published >= serial, f"the snapshot of {location} went back")

    def _expect(self, strike: str, true: bool, otherwise: str) -> None:
        if not true:
            self.figures.half.append(f"{strike}: {otherwise}")

    def _next_plan(self) -> Plan:
        """Rows of several tables are changed, created and deleted."""
        self._hours = self._hours % 9 + 1
        project = self.project
        file = project.folder / "crm/control/ingestion.yaml"
        lines = [
            f"    lookback: {self._hours} hours" if "lookback:" in line else line
            for line in file.read_text().splitlines()
        ]
        file.write_text("\n".join(lines) + "\n")
        old, new = ("lists", "folders") if self._hours % 2 else ("folders", "lists")
        if f"name: {old}" not in (project.folder / "crm/control/connections.yaml").read_text():
            old, new = new, old
        project.edit("crm/control/connections.yaml", f"name: {old}", f"name: {new}")
        upkeep = f"policies:\n  - {{name: c{self._hours}, operation: compact}}\n"
        project.write("finance/control/upkeep.yaml", upkeep)
        plan = project.plan()
        project.write("plan.json", plan.as_json())
        return plan

    def _publish(self) -> None:
        publish_snapshot(self.environment, self.store, state=self.project.settings().state)

    def _published(self, location: str) -> tuple[int, Manifest | None]:
        folder, state_folder = self.project.folder / location, self.project.settings().state
        try:
            found = load_snapshot(folder, environment=self.environment, state=state_folder)
        except SnapshotError as error:
            self.figures.half.append(str(error))
            return -1, None
        # A snapshot that did not change keeps the serial that it was made at.
        return found.provenance.serial, found.manifest

    def _manifests(self) -> dict[str, Manifest]:
        def look(connection: sa.Connection) -> dict[str, Manifest]:
            folder, state_folder = self.project.folder, self.project.settings().state
            return {
                location: read_manifest(connection, location, root=folder / location, state=state_folder)
                for location in LOCATIONS
            }

        return self.store.read(look)

    def _serial(self) -> int:
        return self.store.read(read_state).serial

    def _tables(self) -> Any:
        def look(connection: sa.Connection) -> Any:
            return [
                sorted(map(repr, connection.execute(sa.select(table))))
                for table in (*SPEC_TABLES.values(), applies, history, state)
            ]

        return self.store.read(look)

    def _versions(self, serial: int) -> int:
        query = sa.select(sa.func.count()).where(history.c.serial == serial)
        return int(self.store.read(lambda connection: connection.execute(query).scalar_one()))


@dataclass
class RaceFigures:
    """What came of applies from many sides.

    Args:
        acknowledged: applies of which somebody was told that they are done.
        lost: those that are not in history, or that another one overwrote.
        doubled: those that are in history more than once.
    """

    processes: int
    threads: int
    acknowledged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0


def race(project: Project, *, processes: int, threads: int, applies_each: int) -> RaceFigures:
    """Let threads of several processes count one row up by applies, and look for every one of them in history."""
    figures = RaceFigures(processes, threads)
    first = project.store().read(read_state).serial
    began = time.monotonic()
    answers = project.worker().ask(f"race {processes} count {threads} {applies_each}")
    figures.seconds = time.monotonic() - began
    assert all(answer.get("failed") == [] for answer in answers), answers
    done = sorted(tuple(each) for answer in answers for each in answer["done"])
    figures.acknowledged = len(done)
    for answer in answers:
        figures.refused.update(answer["refused"])
    written = sorted(_counted(project))
    figures.doubled = len(written) - len(set(written))
    figures.lost = len(set(done) - set(written)) + len(done) - len({serial for serial, _ in done})
    serials = project.store().read(
        lambda connection: list(connection.execute(sa.select(applies.c.serial).order_by(applies.c.serial)).scalars())
    )
    assert serials == list(range(1, first + len(done) + 1))
    assert [number for _, number in written] == list(range(1, len(done) + 1))
    return figures


def _counted(project: Project) -> Iterator[tuple[int, int]]:
    """Serial and number of each version that counted on."""
    found = project.sql(
        "SELECT serial, content FROM control.history "
        "WHERE kind = 'workstream' AND address = 'crm' AND change = 'changed' ORDER BY id"
    )
    for serial, content in found:
        yield serial, int((json.loads(content) if isinstance(content, str) else content)["description"])


def _normal(connection: sa.Connection) -> dict[RowKey, Row]:
    return {key: codec(KINDS[key.kind]).normal(row) for key, row in read_rows(connection).items()}


def report(found: dict[str, tuple[KillFigures, RaceFigures]], *, seed: int, kills: int, total: int) -> str:
    """The figures as a page."""
    names = list(found)
    killed = [figures for figures, _ in found.values()]
    raced = [figures for _, figures in found.values()]
    reasons = sorted({reason for figures in raced for reason in figures.refused})
    rows: list[tuple[str, list[Any]]] = [
        ("processes killed with SIGKILL", [each.kills.total() for each in killed]),
        ("of them before a statement or commit", [each.kills["statement"] for each in killed]),
        ("of them at a point of publishing", [each.kills["publish"] for each in killed]),
        ("of them at a random time", [each.kills["after"] for each in killed]),
        ("after which nothing was applied", [each.nothing for each in killed]),
        ("after which all was applied", [each.applied for each in killed]),
        ("half-applied, half-published, or torn", [len(each.half) for each in killed]),
        ("seconds of kills, looks and repairs", [f"{each.seconds:.0f}" for each in killed]),
        ("concurrent applies that were acknowledged", [each.acknowledged for each in raced]),
        ("processes × threads", [f"{each.processes} × {each.threads}" for each in raced]),
        *((f"refused or given up: {reason}", [each.refused[reason] for each in raced]) for reason in reasons),
        ("lost updates", [each.lost for each in raced]),
        ("applied twice", [each.doubled for each in raced]),
        ("seconds of the race", [f"{each.seconds:.0f}" for each in raced]),
    ]
    lines = [
        "# Kills and races of the control plane",
        "",
        f"`python -m tests.control_plane.campaign --kills {kills} --applies {total} --seed {seed}`; half of the kills "
        "and all of the applies on each database. An apply of rows that are created, changed and deleted, and the "
        "publication after it, run in a process that is ended with SIGKILL; then tables, history and snapshots must be "
        "those of before or those of after, and the same plan must lead to the end. In a race each apply makes a "
        "number in one row greater by one, read before it was planned; whoever is refused plans again. Each number "
        "must stand in history once, at the serial that was acknowledged.",
        "",
        f"| figure | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
        *(f"| {name} | {' | '.join(map(str, values))} |" for name, values in rows),
        "",
    ]
    return "\n".join(lines)


@contextmanager
def databases(server: PostgresServer | None) -> Iterator[Databases]:
    """Control databases in folders that are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        found = Databases(server, Path(folder))
        try:
            yield found
        finally:
            found.close()


def fight(made: Databases, folder: Path, *, kills: int, total: int, seed: int) -> tuple[KillFigures, RaceFigures]:
    """Kill, then race, each in a project of its own."""
    fought = Kills(made.project(folder / "kills", state="applied"), seed=seed)
    for strike in fought.strikes(kills):
        fought.strike(strike)
    raced = race(
        made.project(folder / "race", state="applied"),
        processes=PROCESSES,
        threads=THREADS,
        applies_each=max(1, total // (PROCESSES * THREADS)),
    )
    return fought.figures, raced


def main() -> None:
    """Run a campaign and write its figures; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--applies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--output", type=Path, default=REPORT)
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    found: dict[str, tuple[KillFigures, RaceFigures]] = {}
    options = {"kills": (arguments.kills + 1) // 2, "total": arguments.applies, "seed": arguments.seed}
    with tempfile.TemporaryDirectory() as folder:
        with databases(None) as made:
            found["SQLite"] = fight(made, Path(folder) / "sqlite", **options)
            sys.stdout.write(f"SQLite: {found['SQLite']}\n")
            sys.stdout.flush()
        with running_postgres() as server, databases(server) as made:
            found["PostgreSQL"] = fight(made, Path(folder) / "postgresql", **options)
    text = report(found, seed=arguments.seed, kills=arguments.kills, total=arguments.applies)
    arguments.output.write_text(text)
    sys.stdout.write(text)
    faults = [fault for killed, _ in found.values() for fault in killed.half]
    faults += [
        f"{raced.lost} lost, {raced.doubled} doubled" for _, raced in found.values() if raced.lost or raced.doubled
    ]
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
