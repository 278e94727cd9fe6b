"""Runs assets over all locations of a workspace in this process, without a running Dagster.

Each run holds the assets of one workstream, as its schedule would run them, and is recorded like any other:
the UI shows it, and it can be re-executed there. Runs follow each other in the order of their assets'
dependencies; what depends on a failure, here or in another location, is not run.
"""

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module
from dagster._utils.error import SerializableErrorInfo

from platform_core.errors import ConfigError, Issue, Place, PlatformError


class Status(StrEnum):
    """How an asset fared."""

    WAITING = "waiting"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class AssetOutcome:
    """How one asset fared in a run.

    Args:
        key: the asset.
        status: at the end one of ok, failed, skipped.
        metadata: of its materialisation, as plain values.
        error: the message of its failure, or what it waited for.
        run_id: the run it was part of; empty if none was started for it.
        seconds: time its step took; 0 if it did not run.
    """

    key: dg.AssetKey
    status: Status = Status.WAITING
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    run_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class RunOutcome:
    """One run that was started."""

    run_id: str
    job: str
    status: dg.DagsterRunStatus


@dataclass(frozen=True)
class WorkspaceOutcome:
    """Everything that one call ran."""

    runs: tuple[RunOutcome, ...]
    assets: Mapping[dg.AssetKey, AssetOutcome]

    @property
    def succeeded(self) -> bool:
        """Whether every selected asset was built and every run ended well."""
        return all(asset.status is Status.OK for asset in self.assets.values()) and all(
            run.status is dg.DagsterRunStatus.SUCCESS for run in self.runs
        )


_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
"""Run config that keeps events off the terminal, where progress is shown; the event log has them all."""

Progress = Callable[[AssetOutcome], None]
"""Called whenever an asset's status changes."""


@dataclass(frozen=True)
class LoadedLocation:
    """A code location, loaded into this process."""

    name: str
    repository: dg.RepositoryDefinition
    pointer: ModuleCodePointer

    def job(self, name: str) -> ReconstructableJob:
        """A job that child processes can load again."""
        return ReconstructableJob(ReconstructableRepository(self.pointer), name)

    def origin(self, job: str) -> RemoteJobOrigin:
        """What lets the UI find the job of a run again, to re-execute it."""
        # What `dagster dev` makes of the same entry of workspace.yaml; the UI compares the two by name.
        target = LoadableTargetOrigin(executable_path=sys.executable, module_name=self.pointer.module)
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=self.name)
        return RemoteJobOrigin(RemoteRepositoryOrigin(location, self.repository.name), job)


def load_location(name: str, module: str) -> LoadedLocation:
    """Import a location's module and build its definitions.

    Raises:
        ConfigError: its control files are wrong.
        PlatformError: the module holds no definitions, or more than one.
    """
    targets = loadable_targets_from_python_module(module, None)
    if len(targets) != 1:
        raise PlatformError(f"module '{module}' of location '{name}' must define exactly one dg.Definitions")
    pointer = ModuleCodePointer(module, targets[0].attribute, None)
    return LoadedLocation(name, ReconstructableRepository(pointer).get_definition(), pointer)


class WorkspaceRunner:
    """Plans and executes runs over several locations.

    Args:
        locations: loaded locations; a key built by one may be an input in another.
        instance: where runs and events are recorded.
    """

    def __init__(self, locations: Sequence[LoadedLocation], *, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._home: dict[dg.AssetKey, LoadedLocation] = {}
        self._inputs: dict[dg.AssetKey, set[dg.AssetKey]] = {}
        for location in locations:
            graph = location.repository.asset_graph
            for key in graph.executable_asset_keys:
                self._home[key] = location
                self._inputs[key] = set(graph.get(key).parent_keys)
        for key, inputs in self._inputs.items():
            self._inputs[key] = {parent for parent in inputs if parent in self._home}

    @property
    def keys(self) -> frozenset[dg.AssetKey]:
        """Every asset that can be run."""
        return frozenset(self._home)

    def select(self, selections: Iterable[str]) -> frozenset[dg.AssetKey]:
        """The assets that selections name.

        Args:
            selections: each a workstream, a table (``workstream.layer.name``), with ``+`` before it for
                everything it is made from and after it for everything made from it, or an expression of
                Dagster's asset selection language; none at all: everything.

        Raises:
            ConfigError: a selection names nothing.
        """
        texts = list(selections)
        if not texts:
            return self.keys
        issues, selected = [], set[dg.AssetKey]()
        for text in texts:
            found = self._select_one(text)
            selected |= found
            if not found:
                issues.append(_nothing_selected(text, self.keys))
        if issues:
            raise ConfigError(issues)
        return frozenset(selected)

    def run(
        self, selected: frozenset[dg.AssetKey], *, progress: Progress, tags: Mapping[str, str] | None = None
    ) -> WorkspaceOutcome:
        """Run assets, one run for each workstream's share that can run next.

        Args:
            selected: keys to run.
            progress: told of each change of status.
            tags: put on every run.
        """
        outcomes = {key: AssetOutcome(key) for key in sorted(selected)}
        runs: list[RunOutcome] = []
        remaining = set(selected)
        while remaining:
            self._skip_dependents(remaining, outcomes, progress)
            stage = self._next_stage(remaining)
            if not stage:
                break
            key = min(stage)
            location, job = self._home[key], key.path[0]
            run = self._create_run(location, job, stage, tags or {})
            runs.append(self._execute(location.job(job), run, outcomes, progress))
            remaining -= stage
            if runs[-1].status is dg.DagsterRunStatus.CANCELED:
                raise KeyboardInterrupt
        return WorkspaceOutcome(tuple(runs), outcomes)

    def resume(self, run_id: str, *, progress: Progress) -> WorkspaceOutcome:
        """Re-execute what failed or was skipped in a run, and nothing else.

        Args:
            run_id: a finished run, or its first letters.
            progress: told of each change of status.

        Raises:
            PlatformError: there is no such run, or its job is not in this workspace.
        """
        parent = self._find_run(run_id)
        locations = {location.name: location for location in self._home.values()}
        origin = parent.remote_job_origin
        if origin is None or origin.location_name not in locations:
            raise PlatformError(f"run {parent.run_id} belongs to no location of this workspace")
        location = locations[origin.location_name]
        recon: Any = location.job(parent.job_name)
        if parent.asset_selection:
            recon = recon.get_subset(op_selection=None, asset_selection=parent.asset_selection)
        steps, state = KnownExecutionState.build_resume_retry_reexecution(self._instance, parent_run=parent)
        plan = create_execution_plan(recon, _QUIET, step_keys_to_execute=steps, known_state=state, tags=parent.tags)
        run = self._instance.create_run_for_job(
            job_def=recon.get_definition(),
            execution_plan=plan,
            run_config=_QUIET,
            tags=dict(parent.tags),
            asset_selection=parent.asset_selection,
            root_run_id=parent.root_run_id or parent.run_id,
            parent_run_id=parent.run_id,
            remote_job_origin=location.origin(parent.job_name),
            job_code_origin=recon.get_python_origin(),
        )
        outcomes: dict[dg.AssetKey, AssetOutcome] = {}
        outcome = self._execute(recon, run, outcomes, progress)
        return WorkspaceOutcome((outcome,), outcomes)

    def latest_failed_run(self) -> str:
        """Id of the newest failed or cancelled run; PlatformError where there is none."""
        statuses = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
        records = self._instance.get_run_records(dg.RunsFilter(statuses=statuses), limit=1)
        if not records:
            raise PlatformError("no run has failed; there is nothing to resume")
        return records[0].dagster_run.run_id

    def _find_run(self, run_id: str) -> dg.DagsterRun:
        if run := self._instance.get_run_by_id(run_id):
            return run
        runs = [run for run in self._instance.get_runs(limit=1000) if run.run_id.startswith(run_id)]
        if len(runs) != 1:
            raise PlatformError(f"{'no run' if not runs else 'more than one run'} begins with '{run_id}'")
        return runs[0]

    def _select_one(self, text: str) -> set[dg.AssetKey]:
        name = text.strip("+")
        found = {key for key in self._home if key.path[0] == name or ".".join(key.path) == name}
        if found:
            if text.startswith("+"):
                found |= self._reachable(found, self._inputs)
            if text.endswith("+"):
                found |= self._reachable(found, self._dependents())
            return found
        try:
            selection = dg.AssetSelection.from_string(text)
        except dg.DagsterInvalidAssetSelectionError:
            return set()
        graphs = {id(location): location.repository.asset_graph for location in self._home.values()}
        return {
            key
            for graph in graphs.values()
            for key in selection.resolve(graph, allow_missing=True)
            if key in self._home
        }

    def _dependents(self) -> dict[dg.AssetKey, set[dg.AssetKey]]:
        dependents: dict[dg.AssetKey, set[dg.AssetKey]] = {}
        for key, inputs in self._inputs.items():
            for parent in inputs:
                dependents.setdefault(parent, set()).add(key)
        return dependents

    @staticmethod
    def _reachable(start: set[dg.AssetKey], edges: Mapping[dg.AssetKey, set[dg.AssetKey]]) -> set[dg.AssetKey]:
        seen: set[dg.AssetKey] = set()
        frontier = list(start)
        while frontier:
            for neighbour in edges.get(frontier.pop(), ()):
                if neighbour not in seen:
                    seen.add(neighbour)
                    frontier.append(neighbour)
        return seen

    def _next_stage(self, remaining: set[dg.AssetKey]) -> set[dg.AssetKey]:
        """The largest share of one workstream whose inputs are done or in the share itself."""
        shares: dict[tuple[str, str], set[dg.AssetKey]] = {}
        for key in remaining:
            shares.setdefault((self._home[key].name, key.path[0]), set()).add(key)
        stages = {name: self._closed(share, remaining) for name, share in shares.items()}
        return stages[max(stages, key=lambda name: (len(stages[name]), name))]

    def _closed(self, share: set[dg.AssetKey], remaining: set[dg.AssetKey]) -> set[dg.AssetKey]:
        blocked = {key for key in share if any(p in remaining and p not in share for p in self._inputs[key])}
        return share - blocked - (self._reachable(blocked, self._dependents()) & share)

    def _skip_dependents(
        self, remaining: set[dg.AssetKey], outcomes: dict[dg.AssetKey, AssetOutcome], progress: Progress
    ) -> None:
        bad = {key for key, outcome in outcomes.items() if outcome.status in (Status.FAILED, Status.SKIPPED)}
        for key in sorted(self._reachable(bad, self._dependents()) & remaining):
            outcomes[key].status = Status.SKIPPED
            remaining.discard(key)
            progress(outcomes[key])

    def _create_run(
        self, location: LoadedLocation, job: str, stage: set[dg.AssetKey], tags: Mapping[str, str]
    ) -> dg.DagsterRun:
        recon = location.job(job).get_subset(op_selection=None, asset_selection=frozenset(stage))
        definition = recon.get_definition()
        return self._instance.create_run_for_job(
            job_def=definition,
            run_config=_QUIET,
            tags={**definition.tags, **tags},
            asset_selection=frozenset(stage),
            remote_job_origin=location.origin(job),
            job_code_origin=recon.get_python_origin(),
        )

    def _execute(
        self,
        job: ReconstructableJob,
        run: dg.DagsterRun,
        outcomes: dict[dg.AssetKey, AssetOutcome],
        progress: Progress,
    ) -> RunOutcome:
        steps = self._planned(run.run_id)
        for key in (key for keys in steps.values() for key in keys):
            outcomes.setdefault(key, AssetOutcome(key)).run_id = run.run_id
        for event in execute_run_iterator(job, run, self._instance):
            for outcome in _apply(event, [outcomes[key] for key in steps.get(event.step_key or "", ())]):
                progress(outcome)
        for key in (key for keys in steps.values() for key in keys):
            if outcomes[key].status in (Status.WAITING, Status.RUNNING):
                outcomes[key].status = Status.SKIPPED
                progress(outcomes[key])
        finished = self._instance.get_run_by_id(run.run_id)
        status = finished.status if finished else dg.DagsterRunStatus.FAILURE
        return RunOutcome(run.run_id, run.job_name, status)

    def _planned(self, run_id: str) -> dict[str, list[dg.AssetKey]]:
        """Asset keys by the step that builds them."""
        steps: dict[str, list[dg.AssetKey]] = {}
        for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
            event = entry.get_dagster_event()
            if event.asset_key is not None and event.step_key is not None:
                steps.setdefault(event.step_key, []).append(event.asset_key)
        return steps


def _apply(event: dg.DagsterEvent, outcomes: list[AssetOutcome]) -> Iterator[AssetOutcome]:
    """Change the outcomes of one step as an event tells; yields those that changed."""
    if event.event_type is dg.DagsterEventType.STEP_START:
        for outcome in outcomes:
            outcome.status = Status.RUNNING
            yield outcome
    elif event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
        materialization = event.step_materialization_data.materialization
        for outcome in outcomes:
            if outcome.key == materialization.asset_key:
                outcome.metadata = {name: entry.value for name, entry in materialization.metadata.items()}
                outcome.status = Status.OK
                yield outcome
    elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
        for outcome in outcomes:
            outcome.seconds = event.step_success_data.duration_ms / 1000
            yield outcome
    elif event.event_type is dg.DagsterEventType.STEP_FAILURE:
        for outcome in outcomes:
            # Of a step that builds several, those that were built stay built.
            if len(outcomes) == 1 or outcome.status is not Status.OK:
                outcome.status = Status.FAILED
                outcome.error = _message(event.step_failure_data.error)
            yield outcome


def _message(error: SerializableErrorInfo | None) -> str:
    """What a person should read of a step's failure: the innermost cause, without Dagster's wrapping."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "failed"
    text = error.message.strip()
    name, _, rest = text.partition(": ")
    return rest if name.startswith("platform_core.") and rest else text


def _nothing_selected(text: str, keys: Iterable[dg.AssetKey]) -> Issue:
    known = sorted({".".join(key.path) for key in keys} | {key.path[0] for key in keys})
    close = difflib.get_close_matches(text.strip("+"), known, n=1)
    hints = [f"did you mean '{close[0]}'?"] if close else []
    return Issue(Place(Path(text)), "selects nothing", (*hints, "`edp list` shows what is declared"))
