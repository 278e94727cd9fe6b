"""What is known of a finished run, and of what lies around the tables in it."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from platform_core.control.alert_records import StepRow
from platform_core.specs.table import TableRef

DASHBOARD = "dashboard"
"""Layer of the references of dashboards."""


@dataclass(frozen=True, kw_only=True)
class FailedStep:
    """A step that failed.

    Args:
        step: its name.
        makes: what it was to make.
        error_class: name of the error's class.
        error: its text, without row values.
        at: when it failed, UTC.
        mended: whether another run has made all of it since.
    """

    step: str
    makes: tuple[TableRef, ...]
    error_class: str
    error: str
    at: dt.datetime
    mended: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """How one check of a table came out.

    Args:
        blocking: whether what reads the table waits for it.
        at: when, UTC.
    """

    table: TableRef
    name: str
    passed: bool
    blocking: bool
    at: dt.datetime

    @property
    def called(self) -> str:
        """Names the check among all."""
        return f"{self.table}#{self.name}"


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run of one location came to.

    Args:
        succeeded: whether the run as a whole did.
        cancelled: whether somebody stopped it.
        started_at: UTC; None where it never did.
        ended_at: UTC.
        failed: steps that failed.
        built: what was made, each with the time.
        skipped: what was planned and not tried.
        checks: outcomes of checks.
        error: why it failed as a whole, where no step did; without row values.
        steps: for the log of steps.
    """

    run_id: str
    job: str
    location: str
    succeeded: bool
    ended_at: dt.datetime
    cancelled: bool = False
    started_at: dt.datetime | None = None
    failed: tuple[FailedStep, ...] = ()
    built: Mapping[TableRef, dt.datetime] = field(default_factory=dict)
    skipped: tuple[TableRef, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    error: str = ""
    steps: tuple[StepRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShownDashboard:
    """A dashboard and the age of what it shows; or a table, and when it was built.

    Args:
        as_of: of its data, UTC; None where it was never refreshed, or does not say.
    """

    ref: TableRef
    as_of: dt.datetime | None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What tables are made from, read from and owned by.

    Args:
        inputs: what each table, step, model and dashboard reads, of all locations that are known.
        connections: ``<workstream>.<connection>`` by the table that is read from it.
        owners: who answers for what; the workstream's owners under its name with an empty layer and name.
    """

    inputs: Mapping[TableRef, Sequence[TableRef]] = field(default_factory=dict)
    connections: Mapping[TableRef, str] = field(default_factory=dict)
    owners: Mapping[TableRef, tuple[str, ...]] = field(default_factory=dict)

    def downstream(self, of: Iterable[TableRef]) -> set[TableRef]:
        """Everything that is made from these, directly or not; themselves left out."""
        readers: dict[TableRef, list[TableRef]] = {}
        for ref, inputs in self.inputs.items():
            for each in inputs:
                readers.setdefault(each, []).append(ref)
        return _reached(of, readers)

    def upstream(self, of: Iterable[TableRef]) -> set[TableRef]:
        """Everything that these are made from, directly or not; themselves left out."""
        return _reached(of, self.inputs)

    def owners_of(self, refs: Iterable[TableRef]) -> tuple[str, ...]:
        """Who answers for any of these: its own owners, else those of its workstream."""
        found: dict[str, None] = {}
        for ref in refs:
            declared = self.owners.get(ref) or self.owners.get(workstream_owner(ref.workstream), ())
            found.update(dict.fromkeys(declared))
        return tuple(found)


def workstream_owner(workstream: str) -> TableRef:
    """Key of a workstream's owners in :attr:`Surroundings.owners`."""
    return TableRef(workstream, "", "")


def _reached(of: Iterable[TableRef], next_: Mapping[TableRef, Sequence[TableRef]]) -> set[TableRef]:
    starts = set(of)
    seen = set(starts)
    waiting = deque(starts)
    while waiting:
        for each in next_.get(waiting.popleft(), ()):
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return seen - starts
