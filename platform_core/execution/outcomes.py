"""What becomes of assets in runs that this process executes, told event by event."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_shared.error import SerializableErrorInfo


class Status(StrEnum):
    """How an asset fared."""

    WAITING = "waiting"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


_CLEAR = (DagsterExecutionInterruptedError.__name__,)
"""Exceptions of which the name adds nothing to what their text says."""


@dataclass
class AssetOutcome:
    """How one asset fared in a run.

    Args:
        key: the asset.
        status: at the end one of ok, failed, skipped.
        metadata: of its materialisation, as plain values.
        error: the message of its failure; empty if it did not fail.
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
    """One run that was started.

    Args:
        error: why the run as a whole failed, where no step did; else empty.
    """

    run_id: str
    job: str
    status: dg.DagsterRunStatus
    error: str = ""


@dataclass(frozen=True)
class WorkspaceOutcome:
    """Everything that one call ran.

    Args:
        runs: those that were started, in their order.
        assets: every selected one.
        left_out: locations that could not be loaded although everything was asked for.
    """

    runs: tuple[RunOutcome, ...]
    assets: Mapping[dg.AssetKey, AssetOutcome]
    left_out: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether everything that was asked for was built, and every run ended well."""
        return (
            not self.left_out
            and all(asset.status is Status.OK for asset in self.assets.values())
            and all(run.status is dg.DagsterRunStatus.SUCCESS for run in self.runs)
        )

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop before it was through."""
        return any(run.status is dg.DagsterRunStatus.CANCELED for run in self.runs)


Progress = Callable[[AssetOutcome], None]
"""Called whenever an asset's status changes."""


def follow(event: dg.DagsterEvent, outcomes: list[AssetOutcome]) -> Iterator[AssetOutcome]:
    """Change the outcomes of one step's assets as an event tells; yields those that changed."""
    if event.event_type is dg.DagsterEventType.STEP_START:
        for outcome in outcomes:
            outcome.status = Status.RUNNING
            yield outcome
    elif event.event_type in (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION):
        made: dg.AssetMaterialization | dg.AssetObservation = (
            event.asset_observation_data.asset_observation
            if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION
            else event.step_materialization_data.materialization
        )
        for outcome in outcomes:
            if outcome.key == made.asset_key:
                outcome.metadata = {name: entry.value for name, entry in made.metadata.items()}
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
                outcome.error = failure_message(event.step_failure_data.error)
            yield outcome


def failure_message(error: SerializableErrorInfo | None) -> str:
    """What a person should read of a failure: the innermost cause, without Dagster's wrapping."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "failed"
    text = error.message.strip()
    name, _, rest = text.partition(": ")
    return rest if rest and (name.startswith("platform_core.") or name in _CLEAR) else text
