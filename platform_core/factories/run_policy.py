"""How Dagster runs the step of one entry: tags, pool and retries, and what a failure or a passed limit becomes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from platform_core.errors import Place, PlatformError, TimeLimitError
from platform_core.execution import cancel_requested, passed_limit
from platform_core.factories import translation
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.run_policy import Backoff, Jitter, Retries, RunPolicy

_BACKOFF = {Backoff.NONE: None, Backoff.LINEAR: dg.Backoff.LINEAR, Backoff.EXPONENTIAL: dg.Backoff.EXPONENTIAL}
_JITTER = {Jitter.NONE: None, Jitter.FULL: dg.Jitter.FULL, Jitter.PLUS_MINUS: dg.Jitter.PLUS_MINUS}


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a step is run.

    Args:
        tags: of the step, read by the executor.
        pool: which it waits for together with the steps of all runs.
        retries: None: it is not tried again.
        place: where that is declared.
    """

    tags: dict[str, str] = field(default_factory=dict)
    pool: str | None = None
    retries: dg.RetryPolicy | None = None
    place: Place | None = None


def running(
    policy: RunPolicy,
    *,
    workstream: WorkstreamSpec,
    isolated: bool = False,
    connection: ConnectionSpec | None = None,
    engine: str = translation.ENGINE,
) -> Running:
    """How the step of an entry is run.

    Args:
        policy: the entry.
        workstream: whose priority counts where the entry has none.
        isolated: whether it has a process of its own.
        connection: which the step uses; without one, or where that has no limit, it counts against the engine's.
        engine: on which the step runs.
    """
    return Running(
        tags=translation.op_tags(
            isolated=isolated,
            connection=connection,
            engine=engine,
            priority=workstream.priority if policy.priority is None else policy.priority,
            timeout=policy.timeout,
        ),
        pool=translation.pool(connection, engine=engine),
        retries=None if policy.retries is None else _retry_policy(policy.retries),
        place=policy.place,
    )


@contextmanager
def bounded(context: dg.AssetExecutionContext, how: Running) -> Iterator[None]:
    """Let the failures of a body be tried again that may pass by themselves, and name a limit that has passed.

    Raises:
        TimeLimitError: the body was ended because its time had passed.
        dagster.Failure: another try would not help; the cause is what was raised.
    """
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as error:
        limit = passed_limit(context)
        if limit is not None:
            declared = f"\n  declared at {how.place}" if how.place else ""
            raise TimeLimitError(
                f"step {context.op_execution_context.op_def.name} did not end within its limit of {limit:g} s and was "
                f"ended; what it had not committed is dropped{declared}\n"
                "  give it a longer 'timeout', or find out what it waits for"
            ) from None
        if how.retries is not None and not _may_pass(error, context):
            raise dg.Failure(str(error), allow_retries=False) from error
        raise


def _may_pass(error: BaseException, context: dg.AssetExecutionContext) -> bool:
    if isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt) or cancel_requested(context):
        return False
    return not isinstance(error, PlatformError) or error.may_pass


def _retry_policy(retries: Retries) -> dg.RetryPolicy:
    return dg.RetryPolicy(
        max_retries=retries.max,
        delay=retries.delay.total_seconds(),
        backoff=_BACKOFF[retries.backoff],
        jitter=_JITTER[retries.jitter],
    )
