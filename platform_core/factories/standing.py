"""Reads from the event log how assets stand: what built them, what they had seen by then, and what became of it.

Each question is asked of the storage once, and for all assets together where the storage allows it. Positions are those
of the event log: they tell which of two events came first without a clock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import dagster as dg
from dagster import DagsterRunStatus

from platform_core.errors import InputsError

if TYPE_CHECKING:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
    from dagster._core.storage.event_log.base import AssetRecord

ACTIVE = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)
"""Runs that may still build what they set out to."""

UNCHANGED_SINCE = "edp/unchanged_since"
"""Tag of an observation that found nothing new: position of the one that first told the version."""

_POINTER = "dagster/input_event_pointer/"
_PAGE = 5_000
_LATE = 20
_TOLD = frozenset(
    {
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.STEP_START,
        dg.DagsterEventType.STEP_SUCCESS,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    }
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """The newest materialisation of an asset; of one that another system builds, the newest observation.

    Args:
        position: of its event; of an observation, of the first one that told the version which is there now.
        run_id: of the run that made it; empty where a person reported it.
        step: that made it; None where a person reported it.
        seen: position of the newest materialisation of each input when the step began.
    """

    position: int
    run_id: str
    step: str | None
    seen: Mapping[dg.AssetKey, int]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The newest observation of an asset that another system builds.

    Args:
        position: of the first observation in a row that told this version.
        version: as it was told; None: nothing was said of it.
        run_id: of the run that observed it; empty where a person or another system reported it.
        step: that observed it; None where it was reported.
        metadata: of the event.
    """

    position: int
    version: str | None
    run_id: str
    step: str | None
    metadata: Mapping[str, dg.MetadataValue]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What became of the steps of one run, so far.

    Args:
        steps: by asset, of those that it set out to build.
        begun: steps that began.
        succeeded: steps that ended well, checks included.
        failed: steps that failed for other reasons than a check.
        refused: steps that failed because their inputs were not fit: they looked at nothing.
        broke: whether any step failed, so that those that depend on it were skipped.
        checks: by asset, checks that it set out to evaluate, or did.
    """

    steps: Mapping[dg.AssetKey, str]
    begun: frozenset[str]
    succeeded: frozenset[str]
    failed: frozenset[str]
    refused: frozenset[str]
    broke: bool
    checks: Mapping[dg.AssetKey, frozenset[str]]

    def looked(self, step: str | None) -> bool:
        """Whether a step got to look at its inputs, or may have."""
        if step is None or step in self.begun:
            return step not in self.refused
        # A run that died before the step began counts as an attempt, or it would be started again for ever.
        return not self.broke


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The newest evaluation of a check.

    Args:
        name: of the check.
        run_id: of the run that evaluates it.
        passed: None: it is planned, and not evaluated yet.
        blocking: whether a failure keeps others from reading the asset; None: not known.
        position: of the materialisation that was judged; None: not known.
    """

    name: str
    run_id: str
    passed: bool | None
    blocking: bool | None
    position: int | None


@dataclass
class Standing:
    """The event log, as one decision or one tick sees it."""

    instance: dg.DagsterInstance
    _entries: dict[dg.AssetKey, tuple[Built | None, str | None]] = field(default_factory=dict)
    _older: dict[tuple[dg.AssetKey, int], Built | None] = field(default_factory=dict)
    _courses: dict[str, Course] = field(default_factory=dict)
    _planned: dict[dg.AssetKey, int] = field(default_factory=dict)
    _checked: dict[dg.AssetKey, tuple[Checked, ...]] = field(default_factory=dict)

    def unknown(self, keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
        """Those that nothing was read of yet."""
        return [key for key in dict.fromkeys(keys) if key not in self._entries]

    def read(self, keys: Iterable[dg.AssetKey]) -> None:
        """Read the newest materialisation and run of assets, in one query."""
        if missing := self.unknown(keys):
            self.take(missing, self.instance.get_asset_records(missing))

    def take(self, keys: Iterable[dg.AssetKey], records: Iterable[AssetRecord | None]) -> None:
        """Take what somebody else has read already; keys without a record were never built."""
        self._entries |= dict.fromkeys(keys, (None, None))
        for record in records:
            if record is not None:
                entry = record.asset_entry
                made = entry.last_materialization_record
                built = _built(made) if made else _observed(self.instance, entry.asset_key)
                self._entries[entry.asset_key] = (built, entry.last_run_id)

    def built(self, key: dg.AssetKey) -> Built | None:
        """The newest materialisation; None where there is none."""
        self.read([key])
        return self._entries[key][0]

    def made_at(self, key: dg.AssetKey, position: int) -> Built | None:
        """The materialisation at a position; None where it is not kept any more, or another system's."""
        built = self.built(key)
        if built is not None and built.position == position:
            return built
        if (key, position) not in self._older:
            wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=[position])
            records = self.instance.fetch_materializations(wanted, limit=1).records
            self._older[key, position] = _built(records[0]) if records else None
        return self._older[key, position]

    def made_together(self, made: Built, key: dg.AssetKey) -> Built | None:
        """The materialisation of another asset that the same step made; None where it made none."""
        if made.step is None or self.course(made.run_id).steps.get(key) != made.step:
            return None
        newest = self.built(key)
        if newest is None or newest.run_id == made.run_id:
            return newest
        before = dg.AssetRecordsFilter(asset_key=key, before_storage_id=made.position)
        records = self.instance.fetch_materializations(before, limit=1).records
        found = _built(records[0]) if records else None
        return found if found and found.run_id == made.run_id else None

    def attempt(self, key: dg.AssetKey) -> str | None:
        """The newest run that set out to build the asset and did not; None where the newest one built it."""
        self.read([key])
        built, run_id = self._entries[key]
        if not run_id or (built and built.run_id == run_id):
            return None
        # What was reported since then counts for more than what a run had set out to.
        reported = built is not None and built.step is None and built.position > self.planned(key)
        return None if reported else run_id

    def planned(self, key: dg.AssetKey) -> int:
        """Position at which a run last set out to build the asset; 0 where none ever did."""
        if key not in self._planned:
            found = self.instance.event_log_storage.get_latest_planned_materialization_info(key)
            self._planned[key] = found.storage_id if found else 0
        return self._planned[key]

    @cached_property
    def _active(self) -> Mapping[str, dg.DagsterRun]:
        runs = self.instance.get_runs(dg.RunsFilter(statuses=list(ACTIVE)))
        return {run.run_id: run for run in runs}

    def is_active(self, run_id: str) -> bool:
        """Whether a run may still build something."""
        return run_id in self._active

    def building(self, key: dg.AssetKey, *, but: str | None = None) -> str | None:
        """An active run that has set out to build the asset and has not done so; None where there is none.

        Args:
            key: the asset.
            but: a run that is left out.
        """
        built = self.built(key)
        passed = {but, built.run_id if built else None}
        runs = (run for run_id, run in self._active.items() if run_id not in passed)
        return next((run.run_id for run in runs if key in self._aims(run)), None)

    def building_before(self, key: dg.AssetKey, own: str) -> str | None:
        """An active run that has set out to build the asset, has not done so, and began before another one."""
        if own not in self._active or self.building(key, but=own) is None:
            return None
        built = self.built(key)
        rivals = [
            run_id
            for run_id, run in self._active.items()
            if run_id == own or (key in self._aims(run) and not (built and built.run_id == run_id))
        ]
        records = self.instance.get_run_records(dg.RunsFilter(run_ids=rivals), ascending=True)
        first = min(records, key=lambda record: record.storage_id).dagster_run.run_id
        return None if first == own else first

    def _aims(self, run: dg.DagsterRun) -> frozenset[dg.AssetKey]:
        """What a run has set out to build; a run that only evaluates checks builds nothing."""
        if run.asset_selection is not None:
            return frozenset(run.asset_selection)
        if (known := _AIMS.get(run.run_id)) is not None:
            return known
        planned = self._events(run.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED})
        aims = frozenset(event.asset_key for event in planned if event.asset_key)
        if run.status is DagsterRunStatus.STARTED:  # all of it was said before that
            _AIMS.keep(run.run_id, aims)
        return aims

    def course(self, run_id: str) -> Course:
        """What became of the steps of a run."""
        course = self._courses.get(run_id) or _ENDED.get(run_id)
        if course is None:
            active = self.is_active(run_id)
            course = _course(self._events(run_id, _TOLD))
            if not active:
                _ENDED.keep(run_id, course)
        self._courses[run_id] = course
        return course

    def checked(self, key: dg.AssetKey, *, names: Iterable[str] = ()) -> tuple[Checked, ...]:
        """The newest evaluation of each check that the run which built the asset knew of.

        Args:
            key: the asset.
            names: further checks of it.
        """
        if key not in self._checked:
            built = self.built(key)
            known = self.course(built.run_id).checks.get(key, frozenset()) if built and built.run_id else frozenset()
            keys = [dg.AssetCheckKey(key, name) for name in sorted({*known, *names})]
            latest = self.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys) if keys else {}
            self._checked[key] = tuple(_checked(record) for record in latest.values())
        return self._checked[key]

    def evaluated(self, key: dg.AssetKey, name: str) -> Checked | None:
        """The newest evaluation of a check that was carried out; None where none of late was."""
        history = self.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, name), limit=_LATE
        )
        return next((found for record in history if (found := _checked(record)).passed is not None), None)

    def _events(self, run_id: str, of_type: Iterable[dg.DagsterEventType]) -> Iterable[dg.DagsterEvent]:
        cursor: str | None = None
        while True:
            page = self.instance.get_records_for_run(run_id, cursor=cursor, of_type=set(of_type), limit=_PAGE)
            for record in page.records:
                if (event := record.event_log_entry.dagster_event) is not None:
                    yield event
            if not page.has_more:
                return
            cursor = page.cursor


def newest_observation(instance: dg.DagsterInstance, key: dg.AssetKey) -> Observed | None:
    """How an asset that another system builds was seen last; None where it never was."""
    # Records of assets do not hold it.
    for record in instance.fetch_observations(key, limit=1).records:
        told = record.asset_observation
        if told is None:
            return None
        tags = told.tags or {}
        since = tags.get(UNCHANGED_SINCE, "")
        return Observed(
            position=int(since) if since.isdecimal() else record.storage_id,
            version=told.data_version,
            run_id=record.run_id,
            step=record.event_log_entry.step_key,
            metadata=told.metadata,
        )
    return None


def _observed(instance: dg.DagsterInstance, key: dg.AssetKey) -> Built | None:
    seen = newest_observation(instance, key)
    return None if seen is None else Built(position=seen.position, run_id=seen.run_id, step=seen.step, seen={})


T = TypeVar("T")


class _Remembered(Generic[T]):
    """What never changes again about the last runs that were asked for, for all threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, T] = {}

    def get(self, run_id: str) -> T | None:
        return self._runs.get(run_id)

    def keep(self, run_id: str, found: T) -> None:
        with self._lock:
            while len(self._runs) >= _MOST_RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[run_id] = found


_MOST_RUNS = 256
_AIMS: _Remembered[frozenset[dg.AssetKey]] = _Remembered()
_ENDED: _Remembered[Course] = _Remembered()


def _built(record: dg.EventLogRecord) -> Built:
    entry = record.event_log_entry
    tags = (entry.asset_materialization.tags if entry.asset_materialization else None) or {}
    return Built(
        position=record.storage_id,
        run_id=record.run_id,
        step=entry.step_key,
        seen={
            dg.AssetKey.from_user_string(name.removeprefix(_POINTER)): int(value) if value.isdigit() else 0
            for name, value in tags.items()
            if name.startswith(_POINTER)
        },
    )


def _course(events: Iterable[dg.DagsterEvent]) -> Course:
    steps: dict[dg.AssetKey, str] = {}
    checks: dict[dg.AssetKey, set[str]] = {}
    of_type: dict[dg.DagsterEventType, set[str]] = {kind: set() for kind in _TOLD}
    failed, refused = set(), set()
    for event in events:
        step = event.step_key or ""
        of_type[event.event_type].add(step)
        match event.event_type:
            case dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED if event.asset_key:
                steps[event.asset_key] = step
            case dg.DagsterEventType.STEP_FAILURE:
                classes = _classes(event)
                if InputsError.__name__ in classes:
                    refused.add(step)
                elif _CHECK_FAILED not in classes:
                    failed.add(step)
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                checks.setdefault(evaluation.asset_key, set()).add(evaluation.check_name)
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                planned = event.asset_check_planned_data
                checks.setdefault(planned.asset_key, set()).add(planned.check_name)
    return Course(
        steps=steps,
        begun=frozenset(of_type[dg.DagsterEventType.STEP_START]),
        # What only a check has failed was built to its end; the check is asked for its newest result.
        succeeded=frozenset(
            of_type[dg.DagsterEventType.STEP_SUCCESS] | of_type[dg.DagsterEventType.STEP_FAILURE] - failed - refused
        ),
        failed=frozenset(failed),
        refused=frozenset(refused),
        broke=bool(of_type[dg.DagsterEventType.STEP_FAILURE]),
        checks={key: frozenset(names) for key, names in checks.items()},
    )


_CHECK_FAILED = "DagsterAssetCheckFailedError"


def _classes(event: dg.DagsterEvent) -> set[str]:
    """Names of the classes of an error and of its causes."""
    error = event.step_failure_data.error
    found: set[str] = set()
    while error is not None:
        found.add(error.cls_name or "")
        error = error.cause
    return found


def _checked(record: AssetCheckExecutionRecord) -> Checked:
    event = record.event.dagster_event if record.event else None
    if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return Checked(name=record.key.name, run_id=record.run_id, passed=None, blocking=None, position=None)
    evaluation = event.asset_check_evaluation_data
    judged = evaluation.target_materialization_data
    blocks = evaluation.blocking and evaluation.severity is dg.AssetCheckSeverity.ERROR
    return Checked(
        name=record.key.name,
        run_id=record.run_id,
        passed=evaluation.passed,
        blocking=bool(evaluation.blocking) if evaluation.passed else bool(blocks),
        position=judged.storage_id if judged else None,
    )
