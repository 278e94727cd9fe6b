"""A diamond of five assets in two locations, and what really happens to them: the oracle of the specification."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

LOADED = ("a", "b")
"""Location 1: tables loaded from sources."""

INPUTS = {"c": ("a", "b"), "d": ("a",), "e": ("c", "d")}
"""Location 2: two steps and a dashboard, with what each reads."""

DASHBOARD = "e"
MOST_TICKS = 6
"""The diamond is two steps deep: whatever is still requested after so many ticks is requested for ever."""


class State(StrEnum):
    """What the last attempt to build an asset left behind."""

    NEVER = "never built"
    GOOD = "good"
    FAILED = "failed"
    BAD = "failed its blocking check"


class Outcome(StrEnum):
    """How the next attempt to build an asset ends."""

    OK = "succeeds"
    FAILS = "fails"
    BAD = "fails its blocking check"


@dataclass
class Truth:
    """What really happened, known without any event log.

    Args:
        version: how often each asset was built.
        state: what the last attempt left behind.
        attempted: versions of the inputs that the last attempt of an asset had read.
        broken: sentences about what should not have happened.
    """

    version: dict[str, int] = field(default_factory=lambda: dict.fromkeys("abcde", 0))
    state: dict[str, State] = field(default_factory=lambda: dict.fromkeys("abcde", State.NEVER))
    attempted: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in "abcde"})
    broken: list[str] = field(default_factory=list)

    def read(self, name: str) -> None:
        """A step begins to read its inputs."""
        for source in INPUTS.get(name, ()):
            if self.state[source] is not State.GOOD:
                self.broken.append(f"{name} ran on {source}, which {self.state[source]}")
        if name == DASHBOARD and not self.belong_together():
            self.broken.append("the dashboard shows c and d of different states of a")
        self.attempted[name] = {source: self.version[source] for source in INPUTS.get(name, ())}

    def built(self, name: str, *, outcome: Outcome) -> None:
        """An attempt has committed a table."""
        self.version[name] += 1
        self.state[name] = State.GOOD if outcome is Outcome.OK else State.BAD

    def plan(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """A run sets out to build assets: the versions of what each is to read from elsewhere."""
        together = set(names)
        return {
            name: {source: self.version[source] for source in INPUTS.get(name, ()) if source not in together}
            for name in together
        }

    def not_built(self, name: str, *, planned: dict[str, int]) -> None:
        """A run that set out to build an asset has ended, and did not.

        A failed attempt counts from when its run was planned: what arrived between that and its start may be tried
        once more, and no more than that.
        """
        self.state[name] = State.FAILED
        for source, version in planned.items():
            self.attempted[name][source] = min(self.attempted[name].get(source, 0), version)

    def rechecked(self, name: str) -> None:
        """The check alone was run again, and passed."""
        if self.state[name] is State.BAD:
            self.state[name] = State.GOOD

    def requested(self, names: Iterable[str]) -> None:
        """Conditions ask for runs."""
        for name in names:
            if not self.is_wanted(name):
                self.broken.append(f"{name} was requested though nothing is new, or not all inputs are good")

    def belong_together(self) -> bool:
        """Whether what the dashboard shows is made from one state of what both steps read."""
        return self.attempted["c"].get("a") == self.attempted["d"].get("a")

    def is_wanted(self, name: str) -> bool:
        """Whether an asset has to be built: all inputs are good, and one (a dashboard: each) is new to it."""
        sources = INPUTS[name]
        new = [self.version[source] > self.attempted[name].get(source, 0) for source in sources]
        enough = all(new) and self.belong_together() if name == DASHBOARD else any(new)
        return enough and all(self.state[source] is State.GOOD for source in sources)


class World(ABC):
    """The diamond with an event log: what can happen to it, and what the conditions then ask for."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.outcomes: dict[str, Outcome] = {}
        self.late = False
        self._failed: tuple[str, ...] = ()
        """What the last run that failed left to do."""

    @abstractmethod
    def run(self, *names: str) -> None:
        """Run assets of one location in one run, to its end."""

    @abstractmethod
    def recheck(self, name: str) -> None:
        """Run the check of an asset alone; it passes."""

    @abstractmethod
    def requested(self) -> frozenset[str]:
        """What the conditions of location 2 ask for now."""

    def tick(self) -> frozenset[str]:
        """Evaluate the conditions once, and run what they ask for in one run."""
        names = self.requested()
        self.truth.requested(names)
        if names:
            self.run(*sorted(names))
        return names

    def settle(self) -> list[frozenset[str]]:
        """Tick until nothing is asked for."""
        ticks: list[frozenset[str]] = []
        while names := self.tick():
            ticks.append(names)
            if len(ticks) == MOST_TICKS:
                self.truth.broken.append(f"{', '.join(sorted(names))} requested for ever")
                break
        return ticks

    def meets(self, what: str) -> None:
        """Let one thing of :data:`HAPPENINGS` happen."""
        match what:
            case "a loads" | "b loads":
                self.run(what[0])
            case "a fails" | "b fails":
                self.outcomes[what[0]] = Outcome.FAILS
                self.run(what[0])
            case "a is bad" | "b is bad":
                self.outcomes[what[0]] = Outcome.BAD
                self.run(what[0])
            case "a and b load":
                self.run("a", "b")
            case "a is checked again":
                self.recheck("a")
            case "c is checked again":
                self.recheck("c")
            case "c will fail" | "d will fail" | "e will fail":
                self.outcomes[what[0]] = Outcome.FAILS
            case "c will be bad" | "d will be bad":
                self.outcomes[what[0]] = Outcome.BAD
            case "c by hand" | "d by hand" | "e by hand":
                self.run(what[0])
            case "schedule":
                self.run("c", "d", "e")
            case "from failure":
                if self._failed:
                    self.run(*self._failed)
            case "a loads late":
                self.late = True
            case "tick":
                self.tick()
            case _:
                raise ValueError(what)

    def _ends(self, plan: dict[str, dict[str, int]], built: Iterable[str], bad: Iterable[str]) -> None:
        """A run has ended; ``bad`` were built and failed their check."""
        made = set(built)
        for name, planned in plan.items():
            if name not in made:
                self.truth.not_built(name, planned=planned)
        if left := tuple(name for name in sorted(plan) if name not in made or name in set(bad)):
            self._failed = left


HAPPENINGS = {
    "a loads": "a load of a succeeds",
    "b loads": "a load of b succeeds",
    "a and b load": "one run loads both",
    "a fails": "a load of a fails",
    "b fails": "a load of b fails",
    "a is bad": "a is loaded, and fails its blocking check",
    "b is bad": "b is loaded, and fails its blocking check",
    "a is checked again": "a person runs the check of a alone, and it passes",
    "c is checked again": "a person runs the check of c alone, and it passes",
    "c will fail": "the next attempt of c fails",
    "d will fail": "the next attempt of d fails",
    "e will fail": "the next attempt of e fails: the dashboard service is down",
    "c will be bad": "the next attempt of c builds it, and its blocking check fails",
    "d will be bad": "the next attempt of d builds it, and its blocking check fails",
    "c by hand": "a person runs c alone",
    "d by hand": "a person runs d alone",
    "e by hand": "a person refreshes the dashboard",
    "schedule": "the schedule of location 2 runs c, d and e in one run",
    "from failure": "a person runs the last failed run again, from failure",
    "a loads late": "a load of a ends while the next run of location 2 is at work, after its first step has read",
    "tick": "conditions are evaluated, and what they ask for is run",
}

ALIKE = frozenset({"b is bad", "d will be bad"})
"""What differs from another happening by its asset only: it is played in long orders, not in every short one."""
