"""Kill loads at every named moment and at any other, load again, and count what must not happen.

``python -m tests.faults.campaign --kills 500`` writes ``benchmarks/results/faults.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from platform_core.faults import FaultPoint
from platform_core.lake.batch_sink import HELD_BYTES
from platform_core.secrets.files import create_masking_key
from tests.faults.forks import Forks, forking
from tests.faults.judging import Faults, Picture, Yard, judge, judge_wreck
from tests.faults.loading import LAND_ALWAYS, Job
from tests.faults.scenarios import SCENARIOS

REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"
LEASE_OF_THE_PAUSED = 1.0

REFUSALS = ("LeaseError", "Overtaken")
"""How a process ends that another has taken over from, unless it begins anew and finds nothing left to do."""

NOT_PAUSED = {
    FaultPoint.LEASE_RELEASE: "the process stops inside its transaction, and SQLite's one writer is stopped with it; "
    "PostgreSQL ends such a transaction after ten seconds",
    FaultPoint.LANDING_CLEANUP: "a load without changes has nothing left to commit",
}
"""Points at which no process is paused, and why."""


@dataclass(frozen=True)
class Strike:
    """One way to end a load.

    Args:
        first: whether it is the table's first load.
        held: whether the batch is compared in memory before it is landed.
        point: where; None: at a random time.
        nth: which time of that point.
    """

    scenario: str
    first: bool
    held: bool
    point: FaultPoint | None
    nth: int = 1

    def __str__(self) -> str:
        when = "at a random time" if self.point is None else f"{self.point}:{self.nth}"
        return (
            f"{self.scenario}, {'first' if self.first else 'later'} load, {'held' if self.held else 'landed'}, {when}"
        )

    @property
    def days(self) -> list[int]:
        day = 0 if self.first else 2
        # Only a load that changes nothing removes what it has landed.
        return [day, day] if self.point is FaultPoint.LANDING_CLEANUP else [day]


@dataclass
class Figures:
    """What came of a campaign.

    Args:
        kills: processes that were killed.
        paused: processes that were paused, taken over from, and let go on.
        spared: strikes that came too late, after the load had ended.
        hit: how often each point was the last thing a process reached, by scenario.
    """

    kills: int = 0
    at_random: int = 0
    paused: int = 0
    spared: int = 0
    hit: Counter[tuple[str, FaultPoint]] = field(default_factory=Counter)
    faults: Faults = field(default_factory=Faults)
    seconds: float = 0.0

    @property
    def points_hit(self) -> set[FaultPoint]:
        return {point for _, point in self.hit}


class Campaign:
    """Tables in a folder, and the process that loads them.

    Args:
        folder: everything is written there.
        seed: of the random times and choices.
    """

    def __init__(self, folder: Path, forks: Forks, *, seed: int) -> None:
        self.folder = folder
        self.forks = forks
        self.random = random.Random(seed)
        self.figures = Figures()
        self._twins: dict[tuple[str, bool, int], Picture] = {}
        self._baselines: dict[str, int] = {}
        self._seconds: dict[tuple[str, bool, bool], float] = {}
        self._reached: dict[tuple[str, bool, bool], dict[FaultPoint, int]] = {}
        self._numbers = itertools.count()

    def strikes(self) -> list[Strike]:
        """Every point, every time it is reached, in every load."""
        kinds = itertools.product(SCENARIOS, (False, True), (False, True))
        return [strike for name, first, held in kinds for strike in self._strikes(name, first=first, held=held)]

    def sample(self) -> list[Strike]:
        """Every point once in every scenario that reaches it: in later loads that land their rows while they read."""
        return [
            strike for name in SCENARIOS for strike in self._strikes(name, first=False, held=False) if strike.nth == 1
        ]

    def _strikes(self, name: str, *, first: bool, held: bool) -> list[Strike]:
        return [
            Strike(name, first, held, point, nth)
            for point, times in self.reached(name, first=first, held=held).items()
            for nth in range(1, times + 1)
        ]

    def reached(self, name: str, *, first: bool, held: bool) -> dict[FaultPoint, int]:
        """How often a load reaches each point, and removes what it landed."""
        key = (name, first, held)
        if key not in self._reached:
            counts: dict[FaultPoint, int] = {}
            for point in (None, FaultPoint.LANDING_CLEANUP):
                strike = Strike(name, first, held, point)
                with self._yard(strike) as yard:
                    job = self._job(yard, strike, count=True)
                    began = time.monotonic()
                    report = self.forks.done(job)
                    if point is None:
                        self._seconds[key] = time.monotonic() - began
                    counted = {FaultPoint(found): times for found, times in report.reached.items()}
                    if point is None:
                        counts = {found: times for found, times in counted.items() if found != "landing-cleanup"}
                    elif times := counted.get(point):
                        counts[point] = times
            self._reached[key] = counts
        return self._reached[key]

    def kill(self, strike: Strike) -> None:
        """Kill a load, look at what it left, load again and judge."""
        with self._yard(strike) as yard:
            began = time.monotonic()
            end = self.forks.start(self._job(yard, strike))
            if strike.point is None and not end.killed:
                self.figures.spared += 1
            elif not end.killed:
                raise AssertionError(
                    f"{strike}: ended by {end}, not killed: {self.forks.report(self._job(yard, strike))}"
                )
            else:
                self.figures.kills += 1
                self.figures.at_random += strike.point is None
                if strike.point is not None:
                    self.figures.hit[strike.scenario, strike.point] += 1
            faults = Faults()
            with _told(faults):
                judge_wreck(yard, faults)
                running = [row.batch_id for row in yard.log() if row.status == "running"]
                day = strike.days[-1]
                self.forks.done(self._rerun(yard, day))
                judge(yard, faults, day=day, twin=self._twin(strike, day), baseline=self._baseline(strike))
                crashed = {row.batch_id for row in yard.log() if row.status == "crashed"}
                faults.untold += len(set(running) - crashed)
            self.figures.faults.add(faults, at=str(strike))
            self.figures.seconds += time.monotonic() - began

    def pause(self, strike: Strike) -> None:
        """Pause a load until another has taken its table over, let it go on, and judge."""
        with self._yard(strike) as yard:
            began = time.monotonic()
            job = self._job(yard, strike, pause=True)
            end = self.forks.start(job)
            if not end.stopped:
                raise AssertionError(f"{strike}: ended by {end}, not stopped")
            faults = Faults()
            with _told(faults):
                orphaned = [row.batch_id for row in yard.log() if row.status == "running"]
                time.sleep(LEASE_OF_THE_PAUSED)
                self.forks.done(self._rerun(yard, 3))
                before = yard.commits()
                end = self.forks.resume(end.pid)
                report = self.forks.report(job)
                if report is None or (report.error and not any(name in report.error for name in REFUSALS)):
                    raise AssertionError(f"{strike}: ended by {end} after its pause: {report}")
                after = yard.commits()
                faults.zombies += sum(1 for batch_id in after[len(before) :] if batch_id in orphaned)
                faults.zombies += sum(1 for one, next_ in itertools.pairwise(after) if next_ < one)
                self.forks.done(self._rerun(yard, 3))
                # What the orphan committed before its pause has no twin.
                twin = None if set(before) & set(orphaned) else self._twin(strike, 3)
                judge(yard, faults, day=3, twin=twin, baseline=self._baseline(strike))
            self.figures.paused += 1
            self.figures.faults.add(faults, at=f"paused: {strike}")
            self.figures.seconds += time.monotonic() - began

    def random_strike(self) -> Strike:
        """A load that is killed at a time that nobody chose."""
        return Strike(
            self.random.choice([*SCENARIOS]), self.random.random() < 0.3, self.random.random() < 0.5, point=None
        )

    def _job(self, yard: Yard, strike: Strike, *, count: bool = False, pause: bool = False) -> Job:
        fault = kill_after = None
        if not count:
            if strike.point is None:
                usual = (
                    self.reached(strike.scenario, first=strike.first, held=strike.held)
                    and self._seconds[strike.scenario, strike.first, strike.held]
                )
                kill_after = self.random.uniform(0.05, 1.0) * float(usual)
            else:
                fault = f"{strike.point}:{'stop' if pause else 'kill'}:{strike.nth}"
        return Job(
            folder=str(yard.folder),
            scenario=strike.scenario,
            days=strike.days,
            fault=fault,
            kill_after=kill_after,
            held_bytes=HELD_BYTES if strike.held else LAND_ALWAYS,
            lease=LEASE_OF_THE_PAUSED if pause else 60.0,
            count=count,
        )

    def _rerun(self, yard: Yard, day: int) -> Job:
        return Job(folder=str(yard.folder), scenario=yard.scenario.name, days=[day], held_bytes=HELD_BYTES)

    def _twin(self, strike: Strike, day: int) -> Picture:
        """The table as it is where nothing disturbs its load."""
        key = (strike.scenario, strike.first, day)
        if key not in self._twins:
            with self._yard(strike) as yard:
                self.forks.done(self._rerun(yard, day))
                self._twins[key] = yard.picture(baseline=self._baseline(strike))
        return self._twins[key]

    def _baseline(self, strike: Strike) -> int:
        return 0 if strike.first else self._baselines[strike.scenario]

    @contextlib.contextmanager
    def _yard(self, strike: Strike) -> Iterator[Yard]:
        """A folder of its own for a strike, as two days have left it, or empty."""
        folder = self.folder / f"{next(self._numbers):06d}"
        scenario = SCENARIOS[strike.scenario]
        if strike.first:
            self._lay_out(folder)
        else:
            shutil.copytree(self._before(strike.scenario), folder)
        try:
            yield Yard(folder, scenario)
        finally:
            shutil.rmtree(folder)

    def _before(self, name: str) -> Path:
        folder = self.folder / f"before {name}"
        if name not in self._baselines:
            self._lay_out(folder)
            self.forks.done(Job(folder=str(folder), scenario=name, days=[0, 1]))
            self._baselines[name] = Yard(folder, SCENARIOS[name]).batch()
        return folder

    def _lay_out(self, folder: Path) -> None:
        # One masking key for all, or twins would differ.
        create_masking_key(self.folder / "secrets", "crm")
        shutil.copytree(self.folder / "secrets", folder / "secrets")


@contextlib.contextmanager
def _told(faults: Faults) -> Iterator[None]:
    """A load that fails where it should converge is counted, so that a campaign goes on."""
    try:
        yield
    except AssertionError as error:
        faults.different += 1
        faults.where.append(str(error))


@contextlib.contextmanager
def campaigning(folder: Path, *, seed: int) -> Iterator[Campaign]:
    """A campaign in a folder."""
    with forking(folder / "standard-error.txt") as forks:
        yield Campaign(folder, forks, seed=seed)


def fight(campaign: Campaign, *, kills: int) -> None:
    """Kill at every point and every time it is reached, pause at every point once, and strike at random otherwise."""
    strikes = campaign.strikes()
    campaign.random.shuffle(strikes)
    # Two fifths at random, so that the moments between the points get their share.
    named = strikes[: max(kills * 3 // 5, len(campaign.sample()))]
    chosen = {(strike.scenario, strike.point) for strike in named}
    named += [strike for strike in campaign.sample() if (strike.scenario, strike.point) not in chosen]
    for number, strike in enumerate(named, 1):
        campaign.kill(strike)
        _say(campaign, number, "named")
    for number, strike in enumerate(campaign.sample(), 1):
        if strike.point not in NOT_PAUSED:
            campaign.pause(strike)
            _say(campaign, number, "paused")
    # With few named strikes asked for, random ones fill up; those that come too late do not count.
    while campaign.figures.kills < kills:
        campaign.kill(campaign.random_strike())
        _say(campaign, campaign.figures.kills, "at random")


def _say(campaign: Campaign, number: int, what: str) -> None:
    if number % 50 == 0:
        click.echo(f"{number} {what}, {campaign.figures.seconds:.0f} s: {campaign.figures.faults.counts()}")


def report(campaign: Campaign, *, seed: int) -> str:
    """The figures as a page."""
    figures, faults = campaign.figures, campaign.figures.faults
    listed = len(FaultPoint)
    rows = {
        "processes killed with SIGKILL": figures.kills,
        "of them at a named point": figures.kills - figures.at_random,
        "of them at a random time": figures.at_random,
        "points hit / points listed": f"{len(figures.points_hit)} / {listed}",
        "processes paused, taken over from, and let go on": figures.paused,
        "rows lost": faults.lost,
        "rows duplicated": faults.duplicated,
        "rows falsely flagged deleted": faults.falsely_deleted,
        "torn landings accepted": faults.torn_accepted,
        "commits of processes that were taken over from": faults.zombies,
        "watermarks ahead of bronze": faults.watermark_ahead,
        "loads whose end the log does not tell": faults.untold,
        "tables unlike their undisturbed twin": faults.different,
        "seconds of kills, reruns and comparisons": f"{figures.seconds:.0f}",
        "seconds a kill": f"{figures.seconds / max(figures.kills + figures.paused, 1):.2f}",
    }
    lines = [
        "# Kill campaign",
        "",
        f"`python -m tests.faults.campaign --kills {figures.kills} --seed {seed}`. A load runs in a process of its own "
        "and is ended with SIGKILL; what it left is looked at, the table is loaded again, and compared with its "
        "source, with the load log and with a twin that nothing disturbed: rows, flags, times, history and "
        "watermark. Paused processes are stopped at a point, taken over from by a load of newer rows once their lease "
        "has run out, and "
        "let go on.",
        "",
        "| figure | value |",
        "|---|---:|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "Kills by point and table (first and later loads, compared in memory and landed while they are read):",
        "",
        f"| point | {' | '.join(SCENARIOS)} |",
        f"|---|{'---:|' * len(SCENARIOS)}",
        *(f"| {point} | {' | '.join(_cell(figures, name, point) for name in SCENARIOS)} |" for point in FaultPoint),
        "",
        "Not reached:",
        "",
        *(
            f"- {point} in {name}: {why}"
            for name, scenario in SCENARIOS.items()
            for point, why in scenario.beyond.items()
        ),
        "",
    ]
    return "\n".join(lines)


def _cell(figures: Figures, name: str, point: FaultPoint) -> str:
    return "—" if point in SCENARIOS[name].beyond else str(figures.hit[name, point])


def main() -> None:
    """Run a campaign and write its figures; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--output", type=Path, default=REPORT)
    arguments = parser.parse_args()
    click.echo(f"seed {arguments.seed}")
    shared = Path("/dev/shm")
    # A kill loses nothing that was written, wherever it was; memory is only faster.
    with (
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder,
        campaigning(Path(folder), seed=arguments.seed) as campaign,
    ):
        fight(campaign, kills=arguments.kills)
        arguments.output.write_text(report(campaign, seed=arguments.seed))
    found = campaign.figures.faults
    click.echo("\n".join([*found.where, report(campaign, seed=arguments.seed)]))
    sys.exit(1 if any(found.counts().values()) else 0)


if __name__ == "__main__":
    main()
