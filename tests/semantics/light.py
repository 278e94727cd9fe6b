"""The diamond over a light event log: tens of thousands of sequences can be played; it is held to Dagster elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dagster as dg

from platform_core.factories.cuts import mixed
from platform_core.factories.readiness import due, unfit
from platform_core.factories.standing import Built, Checked, Course, Standing
from tests.semantics.world import DASHBOARD, INPUTS, Outcome, World

KEYS = {name: dg.AssetKey(name) for name in "abcde"}
CHECK = "good"


@dataclass
class LightRun:
    """What the log holds of one run."""

    names: tuple[str, ...]
    active: bool = True
    broke: bool = False
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def course(self) -> Course:
        return Course(
            steps={KEYS[name]: name for name in self.names},
            begun=frozenset(self.begun),
            succeeded=frozenset(self.ended),
            failed=frozenset(self.failed),
            refused=frozenset(self.refused),
            broke=self.broke,
            checks={KEYS[name]: frozenset({CHECK}) for name in self.names},
        )


class LightStanding(Standing):
    """Answers out of dictionaries what :class:`Standing` asks of Dagster's storage."""

    def __init__(self) -> None:
        self.position = 0
        self.runs: dict[str, LightRun] = {}
        self.last: dict[dg.AssetKey, str] = {}
        self.plans: dict[dg.AssetKey, int] = {}
        self.made: dict[dg.AssetKey, Built] = {}
        self.all_made: dict[tuple[dg.AssetKey, int], Built] = {}
        self.checks: dict[dg.AssetKey, list[Checked]] = {}

    def next(self) -> int:
        self.position += 1
        return self.position

    def built(self, key: dg.AssetKey) -> Built | None:
        return self.made.get(key)

    def read(self, keys: Iterable[dg.AssetKey]) -> None:
        """Everything is read already."""

    def made_at(self, key: dg.AssetKey, position: int) -> Built | None:
        return self.all_made.get((key, position))

    def attempt(self, key: dg.AssetKey) -> str | None:
        run_id, made = self.last.get(key), self.made.get(key)
        return None if run_id is None or (made and made.run_id == run_id) else run_id

    def planned(self, key: dg.AssetKey) -> int:
        return self.plans.get(key, 0)

    def is_active(self, run_id: str) -> bool:
        return self.runs[run_id].active

    def building(self, key: dg.AssetKey, *, but: str | None = None) -> str | None:
        made = self.made.get(key)
        passed = {but, made.run_id if made else None}
        active = (run_id for run_id, run in self.runs.items() if run.active and run_id not in passed)
        return next((run_id for run_id in active if key.path[0] in self.runs[run_id].names), None)

    def course(self, run_id: str) -> Course:
        return self.runs[run_id].course()

    def checked(self, key: dg.AssetKey, *, names: Iterable[str] = ()) -> tuple[Checked, ...]:
        return tuple(self.checks.get(key, ())[-1:])

    def evaluated(self, key: dg.AssetKey, name: str) -> Checked | None:
        return next((each for each in reversed(self.checks.get(key, ())) if each.passed is not None), None)


def declared(key: dg.AssetKey) -> Mapping[str, bool]:
    """What location 2 knows of checks: those of location 1 it does not."""
    return {CHECK: True} if key.path[0] in INPUTS else {}


class LightWorld(World):
    """The diamond over dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.log = LightStanding()

    def requested(self) -> frozenset[str]:
        coming: set[dg.AssetKey] = set()
        for name, sources in INPUTS.items():
            if due(
                KEYS[name],
                inputs=[KEYS[source] for source in sources],
                every=name == DASHBOARD,
                together=name == DASHBOARD,
                coming=coming,
                standing=self.log,
                checks=declared,
            ):
                coming.add(KEYS[name])
        return frozenset(key.path[0] for key in coming)

    def recheck(self, name: str) -> None:
        if (made := self.log.made.get(KEYS[name])) is not None:
            self._evaluate(name, made, "recheck", passed=True)
            self.truth.rechecked(name)

    def run(self, *names: str) -> None:
        plan = self.truth.plan(names)
        run_id = f"run {len(self.log.runs)}"
        run = self.log.runs[run_id] = LightRun(names)
        for name in names:
            self.log.plans[KEYS[name]] = self.log.next()
            self.log.last[KEYS[name]] = run_id
            self.log.checks.setdefault(KEYS[name], []).append(
                Checked(name=CHECK, run_id=run_id, passed=None, blocking=None, position=None)
            )
        good: set[str] = set()
        for name in names:
            if all(source in good for source in INPUTS.get(name, ()) if source in names):
                self._step(name, run_id, run, good)
        run.active = False
        built = [name for name in names if (made := self.log.made.get(KEYS[name])) and made.run_id == run_id]
        self._ends(plan, built, set(built) - good)

    def _step(self, name: str, run_id: str, run: LightRun, good: set[str]) -> None:
        run.begun.add(name)
        sources = [KEYS[source] for source in INPUTS.get(name, ())]
        found = [unfit(key, standing=self.log, checks=declared, own_run=run_id) for key in sources]
        apart = name == DASHBOARD and mixed(sources, standing=self.log) is not None
        if apart or any(
            each and (each.failed or name == DASHBOARD or each.reason == "was never built") for each in found
        ):
            run.refused.add(name)
            run.broke = True
            return
        seen = {key: self.log.made[key].position for key in sources}
        self.truth.read(name)
        if self.late and name in INPUTS:
            self.late = False
            self.run("a")
        outcome = self.outcomes.pop(name, Outcome.OK)
        if outcome is Outcome.FAILS:
            run.failed.add(name)
            run.broke = True
            return
        made = Built(position=self.log.next(), run_id=run_id, step=name, seen=seen)
        self.log.made[KEYS[name]] = self.log.all_made[KEYS[name], made.position] = made
        self.log.last[KEYS[name]] = run_id
        self.truth.built(name, outcome=outcome)
        self._evaluate(name, made, run_id, passed=outcome is Outcome.OK)
        run.ended.add(name)
        if outcome is Outcome.OK:
            good.add(name)
        else:
            run.broke = True

    def _evaluate(self, name: str, made: Built, run_id: str, *, passed: bool) -> None:
        self.log.checks.setdefault(KEYS[name], []).append(
            Checked(name=CHECK, run_id=run_id, passed=passed, blocking=True, position=made.position)
        )
