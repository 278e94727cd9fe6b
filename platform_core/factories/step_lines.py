"""Writes the log of each step to this process's log file, where the environment wants one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import dagster as dg

from platform_core.errors import redacted
from platform_core.factories import translation
from platform_core.factories.resource import opened_platform
from platform_core.operations.log_files import StepLines, log_file

Rest = ParamSpec("Rest")
Yielded = TypeVar("Yielded")
Compute = Callable[Concatenate[dg.AssetExecutionContext, Rest], Iterator[Yielded]]


def with_step_lines(compute: Compute[Rest, Yielded]) -> Compute[Rest, Yielded]:
    """The same body of a step, its log written to the file as well."""

    @wraps(compute)
    def logged(context: dg.AssetExecutionContext, /, *rest: Rest.args, **more: Rest.kwargs) -> Iterator[Yielded]:
        with step_lines(context):
            yield from compute(context, *rest, **more)

    return logged


@contextmanager
def step_lines(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Write what a step logs within the block, its begin and its end included."""
    lines = _lines(context)
    if lines is None:
        yield
        return
    began = time.monotonic()
    lines.say("info", "step begins")
    context.log.addHandler(lines)
    try:
        yield
    except BaseException as error:
        seconds = round(time.monotonic() - began, 3)
        lines.say("error", "step failed", error_class=type(error).__name__, error=redacted(error), seconds=seconds)
        raise
    finally:
        context.log.removeHandler(lines)
    lines.say("info", "step ends", seconds=round(time.monotonic() - began, 3))


def _lines(context: dg.AssetExecutionContext) -> StepLines | None:
    platform = opened_platform()
    logs = platform.environment.logs
    if logs is None:
        return None
    try:
        file = log_file(platform.state, logs)
    except OSError as error:
        context.log.warning("no log file is written: %s", redacted(error))
        return None
    refs = sorted(str(ref) for key in context.selected_asset_keys if (ref := translation.table_ref(key)) is not None)
    about = {
        "environment": platform.environment.name,
        "job": context.run.job_name,
        "run": context.run.run_id,
        "step": context.op_execution_context.op_def.name,
        "table": refs[0] if len(refs) == 1 else None,
        "serial": context.run.tags.get(translation.SERIAL_TAG),
    }
    return StepLines(file, about, level=logs.level)
