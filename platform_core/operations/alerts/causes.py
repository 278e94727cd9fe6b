"""Finds the few causes behind the many failures of a run, so that each is told once."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from platform_core.errors import DeletesStopped, InputsError, Unclassified
from platform_core.operations.alerts.facts import DASHBOARD, CheckOutcome, FailedStep, FinishedRun, Surroundings
from platform_core.operations.alerts.known import NOTHING, Known
from platform_core.specs.alerts import AlertEvent
from platform_core.specs.table import TableRef

MOST_CAUSES = 5
"""More causes than this in one run of a workstream are told as one."""

# What one trouble of a server, a disk or a secret does to many tables in the same way.
_SHARED = frozenset(
    {"SourceError", "SecretError", "SecretMissing", "StorageError", "ControlError", "PluginError", "OSError"}
)
_EVENTS = {
    DeletesStopped.__name__: ("deletes", AlertEvent.DELETE_STOP),
    Unclassified.__name__: ("privacy", AlertEvent.PRIVACY),
}
"""What is told as an event of its own, by the class of the error."""

_NUMBER = re.compile(r"[0-9]+")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing that went wrong, and what it did.

    Args:
        key: equal for the same cause in another run.
        what: names it: a table, or a connection.
        error_class: name of the error's class; empty where there is no error.
        error: text of one of its failures.
        failed: what failed by it, each with the time; tables, or checks as ``<table>#<check>``.
        refs: tables of ``failed``.
        skipped: what was planned and not tried because of it.
        affected: everything downstream, whether planned or not.
        job: of a run that failed as a whole.
        causes: how many causes it stands for.
    """

    key: str
    event: AlertEvent
    workstream: str
    what: str
    error_class: str
    error: str
    failed: Mapping[str, dt.datetime]
    refs: tuple[TableRef, ...]
    skipped: tuple[TableRef, ...] = ()
    affected: tuple[TableRef, ...] = ()
    job: str | None = None
    causes: int = 1
    minor: bool = False

    @property
    def dashboards(self) -> tuple[TableRef, ...]:
        """Dashboards that do not get new data by it."""
        own = [ref for ref in self.refs if ref.layer == DASHBOARD]
        return tuple(sorted({*own, *(ref for ref in self.affected if ref.layer == DASHBOARD)}))


def causes_of(
    run: FinishedRun, *, around: Surroundings, known: Known = NOTHING, most: int = MOST_CAUSES
) -> list[Cause]:
    """The causes of what went wrong in a run, in the order of their workstreams.

    Args:
        around: what lies around the tables.
        known: what open alerts are about: what did not run because of that has no cause of its own.
        most: causes of one workstream that are told one by one.
    """
    found = _of_steps(run, around=around, known=known) + _of_checks(run)
    if not found and not run.succeeded and not run.cancelled and not run.failed:
        found = [_of_the_run(run)]
    found = [_with_reach(cause, run, around) for cause in found]
    by_workstream: dict[str, list[Cause]] = {}
    for cause in found:
        by_workstream.setdefault(cause.workstream, []).append(cause)
    return [cause for _, causes in sorted(by_workstream.items()) for cause in _at_most(causes, most)]


def refused_its_inputs(step: FailedStep) -> bool:
    """Whether a step, or a dashboard, ended because of what it reads: the cause of that lies elsewhere."""
    return not step.mended and step.error_class == InputsError.__name__


def merged(causes: Sequence[Cause]) -> Cause:
    """Many causes of one workstream as one."""
    first = causes[0]
    refs = tuple(dict.fromkeys(ref for cause in causes for ref in cause.refs))
    failed = {name: at for cause in causes for name, at in cause.failed.items()}
    worst = next((cause for cause in causes if cause.event is AlertEvent.PRIVACY), first)
    return Cause(
        key=f"{first.workstream}/many",
        event=worst.event,
        workstream=first.workstream,
        what=first.workstream,
        error_class="",
        error="\n".join(f"{cause.what}: {_first_line(cause.error)}" for cause in causes[:MOST_CAUSES]),
        failed=failed,
        refs=refs,
        skipped=tuple(sorted({ref for cause in causes for ref in cause.skipped} - set(refs))),
        affected=tuple(sorted({ref for cause in causes for ref in cause.affected} - set(refs))),
        causes=sum(cause.causes for cause in causes),
    )


def _at_most(causes: list[Cause], most: int) -> list[Cause]:
    return causes if len(causes) <= most else [merged(causes)]


def _of_steps(run: FinishedRun, *, around: Surroundings, known: Known) -> list[Cause]:
    known = known.and_also(tables=[ref for step in run.failed if not refused_its_inputs(step) for ref in step.makes])
    groups: dict[str, list[FailedStep]] = {}
    events: dict[str, AlertEvent] = {}
    for step in run.failed:
        if step.mended or (refused_its_inputs(step) and known.explains(step.makes, around=around)):
            continue
        key, event = _key(step, run, around)
        groups.setdefault(key, []).append(step)
        events[key] = event
    return [_cause(key, events[key], steps, run, around) for key, steps in groups.items()]


def _key(step: FailedStep, run: FinishedRun, around: Surroundings) -> tuple[str, AlertEvent]:
    refs = step.makes
    if not refs:
        return f"{run.job}/step/{step.step}", AlertEvent.FAILED
    first = refs[0]
    own = f"{first.workstream}/{first.layer}/{first.name}"
    if step.error_class in _EVENTS:
        said, event = _EVENTS[step.error_class]
        return f"{own}/{said}", event
    connection = around.connections.get(first)
    if step.error_class in _SHARED:
        where = f"{first.workstream}/connection/{connection}" if connection else f"{first.workstream}/all"
        return f"{where}/{step.error_class}/{_reason(step)}", AlertEvent.FAILED
    return f"{own}/failed", AlertEvent.FAILED


def _reason(step: FailedStep) -> str:
    """The first line of an error without what tells one table's from another's, as a short hash."""
    line = _QUOTED.sub("''", _first_line(step.error))
    for ref in step.makes:
        # As a word of its own: a table may be called 'a'.
        line = re.sub(rf"\b{re.escape(ref.name)}\b", "", line.replace(str(ref), ""), flags=re.IGNORECASE)
    line = _SPACES.sub(" ", _NUMBER.sub("0", line)).strip().lower()
    return hashlib.sha256(line.encode()).hexdigest()[:12]


def _cause(key: str, event: AlertEvent, steps: Sequence[FailedStep], run: FinishedRun, around: Surroundings) -> Cause:
    # Of steps that fail side by side, another one is first each time.
    steps = sorted(steps, key=lambda step: (step.makes, step.step))
    refs = tuple(dict.fromkeys(ref for step in steps for ref in step.makes))
    first = steps[0]
    connection = around.connections.get(refs[0]) if refs and "/connection/" in key else None
    failed = {str(ref): step.at for step in steps for ref in step.makes} or {first.step: first.at}
    blocked = [check.name for check in run.checks if not check.passed and check.blocking and check.table in refs]
    error = f"blocking check failed: {', '.join(sorted(set(blocked)))}" if blocked else first.error
    return Cause(
        key=key,
        event=event,
        workstream=refs[0].workstream if refs else run.job,
        what=f"connection {connection}" if connection else (str(refs[0]) if refs else first.step),
        error_class=first.error_class,
        error=error,
        failed=failed,
        refs=refs,
        job=None if refs else run.job,
    )


def _of_checks(run: FinishedRun) -> list[Cause]:
    """Checks that failed and block nothing; one cause a table."""
    broken = {ref for step in run.failed for ref in step.makes}
    by_table: dict[TableRef, list[CheckOutcome]] = {}
    for check in run.checks:
        if not check.passed and check.table not in broken:
            by_table.setdefault(check.table, []).append(check)
    return [
        Cause(
            key=f"{table.workstream}/{table.layer}/{table.name}/checks",
            event=AlertEvent.FAILED,
            workstream=table.workstream,
            what=str(table),
            error_class="",
            error=f"checks failed: {', '.join(sorted({check.name for check in checks}))}",
            failed={check.called: check.at for check in checks},
            refs=(table,),
            minor=True,
        )
        for table, checks in sorted(by_table.items())
    ]


def _of_the_run(run: FinishedRun) -> Cause:
    planned = run.skipped
    workstream = planned[0].workstream if planned else run.job
    return Cause(
        key=f"{workstream}/run/{run.job}",
        event=AlertEvent.FAILED,
        workstream=workstream,
        what=f"run of {run.job}",
        error_class="",
        error=run.error or "the run failed before any step did",
        failed={},
        refs=(),
        skipped=planned,
        job=run.job,
    )


def _with_reach(cause: Cause, run: FinishedRun, around: Surroundings) -> Cause:
    starts: Iterable[TableRef] = cause.refs or cause.skipped
    below = around.downstream(starts)
    if not cause.refs or cause.minor:
        return replace(cause, affected=tuple(sorted(below)) if not cause.minor else ())
    skipped = tuple(ref for ref in run.skipped if ref in below)
    return replace(cause, skipped=skipped, affected=tuple(sorted(below)))


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
