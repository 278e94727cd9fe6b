"""Runs assets over all locations of a workspace in this process, without a running Dagster.

Each run holds the assets of one workstream, as its schedule would run them, and is recorded like any other:
the UI shows it, and it can be re-executed there. Runs follow each other in the order of their assets'
dependencies; what depends on a failure, here or in another location, is not run.

All runs of one call share a tag, and what the call had selected is another: so the rest of it can be finished
later, in locations too for which no run was started because of a failure elsewhere.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.storage.tags import (
    PARENT_RUN_ID_TAG,
    RESUME_RETRY_TAG,
    ROOT_RUN_ID_TAG,
    TAGS_TO_MAYBE_OMIT_ON_RETRY,
)

from platform_core.errors import PlatformError
from platform_core.execution.locations import LoadedLocation, WorkspaceGraph, dotted
from platform_core.execution.outcomes import (
    AssetOutcome,
    Progress,
    RunOutcome,
    Status,
    WorkspaceOutcome,
    failure_message,
    follow,
)

INVOCATION_TAG = "edp/invocation"
"""On every run of one call, and on what re-executes them: the call's id."""

SELECTION_TAG = "edp/selection"
"""Beside it: the selections of the call, as a JSON list."""

_STEPS_INTERRUPTED = "steps_interrupted"
"""What executors note in the event with which they heed an interrupt."""

_UNFINISHED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a call sets out to do.

    Args:
        keys: every asset that it is going to build.
        parents: runs of which it re-executes what failed or was skipped, oldest first.
        tags: of its runs.
        run_config: of its runs.
    """

    keys: frozenset[dg.AssetKey]
    parents: tuple[dg.DagsterRun, ...] = ()
    tags: Mapping[str, str]
    run_config: Mapping[str, Any] = field(default_factory=dict)


class WorkspaceRunner:
    """Plans and executes runs over several locations.

    Args:
        locations: loaded locations; a key built by one may be an input in another.
        instance: where runs and events are recorded.
    """

    def __init__(self, locations: Sequence[LoadedLocation], *, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._locations = {location.name: location for location in locations}
        self._graph = WorkspaceGraph(locations)

    def plan(self, selections: Iterable[str] = (), *, run_config: Mapping[str, Any] | None = None) -> Work:
        """Build what selections name, or everything; see :meth:`WorkspaceGraph.select`.

        Args:
            selections: what to build.
            run_config: of all runs.

        Raises:
            ConfigError: a selection names nothing.
        """
        texts = list(selections)
        tags = {INVOCATION_TAG: uuid4().hex[:8], SELECTION_TAG: json.dumps(texts)}
        return Work(keys=self._graph.select(texts), tags=tags, run_config=run_config or {})

    def plan_rest(self, run_id: str | None = None) -> Work:
        """Finish what a call had set out to do: what failed, was skipped or was not begun, and nothing else.

        Of a run that was started elsewhere (by a schedule, in the UI) it is the rest of that run alone.

        Args:
            run_id: a run of that call, or its first letters; None: the newest run that failed or was cancelled.

        Returns:
            Work without any key where nothing is left to do.

        Raises:
            PlatformError: there is no such run, it has not ended, or what it held is no longer declared.
        """
        run = self._newest_unfinished() if run_id is None else self._find_run(run_id)
        if run is None:
            return Work(keys=frozenset(), tags={})
        if not run.is_finished:
            raise PlatformError(
                f"run {run.run_id[:8]} has not ended, it is {run.status.value}\n"
                "  wait for it, or terminate it in the UI"
            )
        family = self._family(run)
        redone = {member.parent_run_id for member in family}
        parents = tuple(member for member in family if member.status in _UNFINISHED and member.run_id not in redone)
        rest = {key for parent in parents for key in self._rest_of(parent)}
        if INVOCATION_TAG in run.tags:
            begun = [member for member in family if member.status is not dg.DagsterRunStatus.NOT_STARTED]
            done = {key for member in begun for keys in self._planned(member).values() for key in keys}
            rest |= self._graph.select(json.loads(run.tags[SELECTION_TAG])) - done
        tags = {name: run.tags[name] for name in (INVOCATION_TAG, SELECTION_TAG) if name in run.tags}
        return Work(keys=frozenset(rest), parents=parents, tags=tags, run_config=run.run_config)

    def execute(
        self, work: Work, *, progress: Progress, stopping: Callable[[], None] = lambda: None
    ) -> WorkspaceOutcome:
        """Do it, one run for each workstream's share that can run next.

        An interrupt (Ctrl-C, SIGTERM) cancels the run under way, and no other is started.

        Args:
            work: as planned by this object.
            progress: told of each change of status.
            stopping: called when an interrupt came, before running steps are waited for.
        """
        outcomes = {key: AssetOutcome(key) for key in sorted(work.keys)}
        runs: list[RunOutcome] = []

        def outcome() -> WorkspaceOutcome:
            return WorkspaceOutcome(tuple(runs), outcomes)

        for parent in work.parents:
            if not outcome().cancelled:
                job, run = self._create_reexecution(parent)
                runs.append(self._execute(job, run, outcomes, progress, stopping))
        remaining = {key for key, asset in outcomes.items() if not asset.run_id}
        while remaining and not outcome().cancelled:
            bad = [key for key, asset in outcomes.items() if asset.status in (Status.FAILED, Status.SKIPPED)]
            blocked = self._graph.made_from(bad) & remaining
            _skip(blocked, outcomes, progress)
            remaining -= blocked
            if remaining:
                stage = self._graph.next_stage(remaining)
                job, run = self._create_run(stage, work)
                runs.append(self._execute(job, run, outcomes, progress, stopping))
                remaining -= stage
        _skip(remaining, outcomes, progress)
        return outcome()

    def _newest_unfinished(self) -> dg.DagsterRun | None:
        return next(iter(self._instance.get_runs(dg.RunsFilter(statuses=list(_UNFINISHED)), limit=1)), None)

    def _find_run(self, run_id: str) -> dg.DagsterRun:
        if run := self._instance.get_run_by_id(run_id):
            return run
        runs = [run for run in self._instance.get_runs(limit=1000) if run.run_id.startswith(run_id)]
        if len(runs) != 1:
            raise PlatformError(
                f"{'no run' if not runs else 'more than one run'} begins with '{run_id}'\n"
                "  give the id of a run as the UI or `edp run` shows it, or 'last'"
            )
        return runs[0]

    def _family(self, run: dg.DagsterRun) -> list[dg.DagsterRun]:
        """The runs of the call that a run was part of, else the run and what re-executed it; oldest first."""
        if INVOCATION_TAG in run.tags:
            filters = dg.RunsFilter(tags={INVOCATION_TAG: run.tags[INVOCATION_TAG]})
            return list(self._instance.get_runs(filters))[::-1]
        group = self._instance.get_run_group(run.run_id)
        members = {member.run_id: member for member in group[1]} if group else {}
        return list((members | {run.run_id: run}).values())

    def _rest_of(self, parent: dg.DagsterRun) -> list[dg.AssetKey]:
        """What re-executing a run from its failure would build."""
        planned = self._planned(parent)
        steps, _ = KnownExecutionState.build_resume_retry_reexecution(self._instance, parent_run=parent)
        keys = [key for step in steps for key in planned.get(step, ())]
        if gone := sorted(key for key in keys if key not in self._graph.home):
            raise PlatformError(
                f"run {parent.run_id[:8]} cannot be finished: it held what is no longer declared\n"
                f"  {', '.join(map(dotted, gone))}\n"
                "  `edp run` builds what is declared now"
            )
        return keys

    def _create_reexecution(self, parent: dg.DagsterRun) -> tuple[ReconstructableJob, dg.DagsterRun]:
        location = self._location_of(parent)
        recon: Any = location.job(parent.job_name)
        if parent.asset_selection:
            recon = recon.get_subset(op_selection=None, asset_selection=parent.asset_selection)
        steps, state = KnownExecutionState.build_resume_retry_reexecution(self._instance, parent_run=parent)
        tags = {name: value for name, value in parent.tags.items() if name not in TAGS_TO_MAYBE_OMIT_ON_RETRY}
        root = parent.root_run_id or parent.run_id
        # By these the UI shows the two as one group.
        tags |= {RESUME_RETRY_TAG: "true", PARENT_RUN_ID_TAG: parent.run_id, ROOT_RUN_ID_TAG: root}
        plan = create_execution_plan(
            recon,
            step_keys_to_execute=steps,
            known_state=state,
            tags=tags,
            repository_load_data=recon.repository.repository_load_data,
        )
        run = self._instance.create_run_for_job(
            job_def=recon.get_definition(),
            execution_plan=plan,
            run_config=parent.run_config,
            tags=tags,
            asset_selection=parent.asset_selection,
            root_run_id=root,
            parent_run_id=parent.run_id,
            remote_job_origin=location.origin(parent.job_name),
            job_code_origin=recon.get_python_origin(),
        )
        return recon, run

    def _location_of(self, run: dg.DagsterRun) -> LoadedLocation:
        origin = run.remote_job_origin
        name = origin.location_name if origin is not None else None
        if name not in self._locations:
            known = ", ".join(sorted(self._locations))
            raise PlatformError(
                f"run {run.run_id[:8]} of location '{name}' cannot be finished: it is not loaded\n"
                f"  loaded locations: {known}"
            )
        return self._locations[name]

    def _create_run(self, stage: set[dg.AssetKey], work: Work) -> tuple[ReconstructableJob, dg.DagsterRun]:
        key = min(stage)
        location, job = self._graph.home[key], key.path[0]
        recon = location.job(job).get_subset(op_selection=None, asset_selection=frozenset(stage))
        definition = recon.get_definition()
        tags = {**definition.tags, **work.tags}
        run = self._instance.create_run_for_job(
            job_def=definition,
            # It tells processes of single steps what was loaded here.
            execution_plan=create_execution_plan(
                recon,
                run_config=work.run_config,
                tags=tags,
                repository_load_data=recon.repository.repository_load_data,
            ),
            run_config=work.run_config,
            tags=tags,
            asset_selection=frozenset(stage),
            remote_job_origin=location.origin(job),
            job_code_origin=recon.get_python_origin(),
        )
        return location.job(job), run

    def _execute(
        self,
        job: ReconstructableJob,
        run: dg.DagsterRun,
        outcomes: dict[dg.AssetKey, AssetOutcome],
        progress: Progress,
        stopping: Callable[[], None],
    ) -> RunOutcome:
        steps = self._planned(run)
        keys = [key for step in steps.values() for key in step]
        for key in keys:
            outcomes.setdefault(key, AssetOutcome(key)).run_id = run.run_id
        error = ""
        for event in execute_run_iterator(job, run, self._instance):
            for outcome in follow(event, [outcomes[key] for key in steps.get(event.step_key or "", ())]):
                progress(outcome)
            if _is_asked_to_stop(event):
                # Without a request on record, Dagster takes an interrupt for a crash and the run for failed.
                self._instance.report_run_canceling(run, "Interrupted from the keyboard or by a signal.")
                stopping()
            if event.event_type is dg.DagsterEventType.RUN_FAILURE:
                error = failure_message(event.job_failure_data.error)
        _skip((key for key in keys if outcomes[key].status in (Status.WAITING, Status.RUNNING)), outcomes, progress)
        failed = any(outcomes[key].status is Status.FAILED for key in keys)
        finished = self._instance.get_run_by_id(run.run_id)
        status = finished.status if finished else dg.DagsterRunStatus.FAILURE
        return RunOutcome(run.run_id, run.job_name, status, "" if failed else error)

    def _planned(self, run: dg.DagsterRun) -> dict[str, list[dg.AssetKey]]:
        """Asset keys by the step that builds them."""
        steps: dict[str, list[dg.AssetKey]] = {}
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
            event = entry.get_dagster_event()
            if event.asset_key is not None and event.step_key is not None:
                steps.setdefault(event.step_key, []).append(event.asset_key)
        return steps


def _is_asked_to_stop(event: dg.DagsterEvent) -> bool:
    return (
        event.event_type is dg.DagsterEventType.ENGINE_EVENT and _STEPS_INTERRUPTED in event.engine_event_data.metadata
    )


def _skip(keys: Iterable[dg.AssetKey], outcomes: Mapping[dg.AssetKey, AssetOutcome], progress: Progress) -> None:
    for key in sorted(keys):
        outcomes[key].status = Status.SKIPPED
        progress(outcomes[key])
