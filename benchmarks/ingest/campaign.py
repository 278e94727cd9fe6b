"""All contenders over one size of table, in turns, each result checked against the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.ingest import applying, checking, ours, peers
from benchmarks.ingest.measuring import Taken, measured
from benchmarks.ingest.source import LIVE, Source, live_on

DAYS = {"first": "day1", "second": "day2", "nothing": "day1", "tenth": "tenth"}
"""The state of the source that each piece of work finds."""

OURS, MERGE = "ours", "delta-rs merge"
TOLD = "ours, changes told by the source"
"""Reads what changed, and the keys of all other rows."""

BEST = ("connectorx stream", "cdc")


def dlt_name(backend: str, strategy: str) -> str:
    return f"dlt {strategy}, {backend}"


DLT = {dlt_name(backend, strategy): (backend, strategy) for backend in peers.BACKENDS for strategy in peers.STRATEGIES}
CONTENDERS = (OURS, TOLD, *DLT, MERGE)
_MOST_ROWS_OF_SLOWEST = 200_000


def worth_trying(rows: int) -> list[str]:
    """The contenders of a size; dlt's slowest backend is several times slower than its others and tried on few rows."""
    return [name for name in CONTENDERS if rows <= _MOST_ROWS_OF_SLOWEST or DLT.get(name, ("",))[0] != "sqlalchemy"]


@dataclass
class Campaign:
    """The turns over one size.

    Args:
        folder: scratch; what is left in it is of no use.
        peer_python: interpreter that has the peers' packages.
        keep: given what was measured so far, after each measurement: hours may be lost otherwise.
        taken: what was measured, by work and contender.
    """

    source: Source
    password: str = field(repr=False)
    folder: Path
    peer_python: str
    keep: Callable[[dict[str, Any]], None] = field(repr=False)
    taken: dict[str, dict[str, list[Taken]]] = field(default_factory=dict)

    def first(self, contender: str) -> bool:
        """The first load, which every later turn of the contender starts from; whether it went well."""
        shutil.rmtree(self._run, ignore_errors=True)
        shutil.rmtree(self._kept(contender), ignore_errors=True)
        taken = self._measured(contender, "first")
        if taken.ended:
            shutil.rmtree(self._run, ignore_errors=True)
        else:
            self._run.rename(self._kept(contender))
        return not taken.ended

    def turn(self, contender: str, work: str, *, keep: Path | None = None, after: Path | None = None) -> Taken:
        """One load after the first one.

        Args:
            keep: where the folder goes afterwards; None: it is removed.
            after: the folder as another load left it; None: as the first one did.
        """
        shutil.rmtree(self._run, ignore_errors=True)
        cloned(after or self._kept(contender), self._run)
        taken = self._measured(contender, work)
        if keep is None:
            shutil.rmtree(self._run)
        else:
            self._run.rename(keep)
        return taken

    def note(self, work: str, contender: str, taken: Taken) -> None:
        """Keep a figure, and say it."""
        self.taken.setdefault(work, {}).setdefault(contender, []).append(taken)
        self.keep(self.plain())
        took = f"{taken.seconds:.2f} s ({taken.processor:.2f} s of processor), {taken.megabytes:.0f} MB"
        told = taken.ended or f"{took}, {taken.wrong or 'right'}"
        print(f"{time.strftime('%H:%M:%S')} {self.source.rows:,} rows, {work}, {contender}: {told}", file=sys.stderr)

    def plain(self) -> dict[str, Any]:
        """What was measured so far, as plain JSON."""
        return {
            work: {name: [taken.as_json() for taken in each] for name, each in by_name.items()}
            for work, by_name in self.taken.items()
        }

    def copy_binary(self) -> None:
        """The rows out of the server and to nowhere: what no reader can be faster than."""
        source = self.source
        place = f"host={source.host} port={source.port} user={source.user} dbname={source.database}"
        used, began = os.times(), time.perf_counter()
        subprocess.run(
            [Path(source.binaries) / "psql", place, "-qc", "COPY day2.orders TO STDOUT (FORMAT binary)"],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PGPASSWORD": self.password},
            check=True,
        )
        seconds, after = time.perf_counter() - began, os.times()
        processor = after.children_user + after.children_system - used.children_user - used.children_system
        self.note("copy", "COPY … BINARY to nowhere", Taken(seconds=seconds, processor=processor))

    def apply(self, loaded: Path, contestant: str) -> None:
        """Apply what our second load landed to the table as our first load left it.

        Args:
            loaded: folder of a second load of ours.
        """
        shutil.rmtree(self._run, ignore_errors=True)
        cloned(self._kept(OURS) / "lake/bench/bronze/orders", self._run / "table")
        (landed,) = sorted((loaded / "lake/bench/landing/orders").iterdir())[-1:]
        (self._run / "second").symlink_to(landed)
        work = {"contender": "apply", "work": contestant, "folder": str(self._run)}
        taken = measured(work, python=sys.executable, secrets={})
        if not taken.ended:
            taken = replace(taken, wrong=applying.fault(self._run, contestant))
        self.note("apply", contestant, taken)
        shutil.rmtree(self._run)

    @property
    def _run(self) -> Path:
        return self.folder / "run"

    def _kept(self, contender: str) -> Path:
        # dlt's merges begin alike, so that one first load serves them all.
        name = f"dlt {DLT[contender][0]}" if contender in DLT else contender
        return self.folder / name.replace(" ", "-")

    def _measured(self, contender: str, work: str) -> Taken:
        day = "day2" if contender == TOLD and work == "nothing" else DAYS[work]
        asked: dict[str, Any] = {
            "work": work,
            "day": LIVE if contender == TOLD else day,
            "folder": str(self._run),
            "source": {name: value for name, value in asdict(self.source).items() if name != "expected"},
        }
        secrets = {"PGPASSWORD": self.password}
        python = self.peer_python
        if contender in (OURS, TOLD):
            python, secrets = sys.executable, ours.variables(self.password)
            asked |= {"contender": OURS, "told": contender == TOLD}
        elif contender == MERGE:
            asked["contender"] = MERGE
        else:
            backend, strategy = DLT[contender]
            if work in ("first", "tenth"):
                strategy = "upsert"
            incremental = work in ("first", "tenth")
            asked |= {
                "contender": "dlt",
                "options": {"backend": backend, "strategy": strategy, "incremental": incremental},
            }
        taken = measured(asked, python=python, secrets=secrets)
        shutil.rmtree(f"{self._run}-warm", ignore_errors=True)
        if not taken.ended:
            taken = replace(taken, wrong=self._fault(contender, work, day, taken))
        self.note(work, contender, taken)
        return taken

    def _fault(self, contender: str, work: str, day: str, taken: Taken) -> str:
        if contender not in (OURS, TOLD):
            return checking.fault_of_peer(self._run, self.source, work=work, day=day, flags=contender == MERGE)
        step = checking.sample_step(self.source.expected[day]["rows"])
        originals = self._asked(f"SELECT id, email, name FROM {day}.orders WHERE id % {step} = 0")
        return checking.fault_of_ours(
            self._run,
            self.source,
            work=work,
            day=day,
            gone=self.source.gone if day == "day2" else 0,
            figures=taken.figures,
            originals=originals,
        )

    def go_on(self) -> None:
        """Make the day's changes in the table that an application changes."""
        with self._cursor() as cursor:
            live_on(cursor, self.source.rows)

    def _asked(self, sql: str) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        from adbc_driver_postgresql import dbapi

        source = self.source
        url = f"postgresql://{source.user}:{self.password}@{source.host}:{source.port}/{source.database}"
        with closing(dbapi.connect(url, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
            yield cursor


def cloned(folder: Path, to: Path) -> None:
    """A copy of a folder in which data files, which nobody changes in place, are shared."""

    def copy(source: str, target: str) -> str:
        if source.endswith(".parquet"):
            Path(target).hardlink_to(source)
            return target
        return str(shutil.copy2(source, target))

    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, to, copy_function=copy)


def fastest(campaign: Campaign, *, right: bool) -> str | None:
    """dlt's fastest configuration of the second load.

    Args:
        right: only those whose result equals the source.
    """
    found = {
        name: min(turn.seconds for turn in turns)
        for name, turns in campaign.taken.get("second", {}).items()
        if name in DLT and not any(turn.ended or (right and turn.wrong) for turn in turns)
    }
    return min(found, key=lambda name: found[name]) if found else None


def run(campaign: Campaign, contenders: list[str], *, repeat: int, all_dlt: bool) -> None:
    """All works of one size.

    Args:
        all_dlt: try every configuration of dlt once, and go on with the fastest that is right and the fastest at all.
    """
    chosen = [name for name in contenders if name not in DLT]
    tried = [name for name in contenders if name in DLT]
    if all_dlt:
        for backend in peers.BACKENDS:
            names = [name for name in tried if DLT[name][0] == backend]
            if names and campaign.first(names[0]):
                for name in names:
                    campaign.turn(name, "second")
        best = [fastest(campaign, right=True), fastest(campaign, right=False)]
        tried = [name for name in dict.fromkeys(best) if name]
    else:
        tried = [name for name in tried if campaign.first(name)]
    for name in chosen:
        if not campaign.first(name):
            chosen = [other for other in chosen if other != name]
    if TOLD in chosen:
        campaign.go_on()
    _turns(campaign, [*chosen, *tried], repeat=repeat)


def _turns(campaign: Campaign, contenders: list[str], *, repeat: int) -> None:
    loaded, told = campaign.folder / "loaded", campaign.folder / "told"
    for turn in range(repeat):
        campaign.copy_binary()
        for contender in _in_turn(contenders, turn):
            keep = {OURS: loaded, TOLD: told}.get(contender)
            if keep is not None:
                shutil.rmtree(keep, ignore_errors=True)
            campaign.turn(contender, "second", keep=keep)
        if OURS in contenders:
            for contestant in _in_turn([*applying.CONTESTANTS, applying.WRITE], turn):
                campaign.apply(loaded, contestant)
        for work in ("nothing", "tenth"):
            peers_done: set[str] = set()
            for contender in _in_turn([name for name in contenders if name != MERGE], turn):
                backend = DLT.get(contender, ("",))[0]
                if contender == TOLD:
                    if work == "nothing":
                        campaign.turn(contender, work, after=told)
                elif work == "nothing" or backend not in peers_done:
                    campaign.turn(contender, work)
                    peers_done |= {backend} - {""}


def _in_turn(names: list[str], turn: int) -> Iterator[str]:
    """Forwards and backwards by turns: who comes later finds a warmer machine, or a busier one."""
    yield from names if turn % 2 == 0 else reversed(names)
