"""Runs what a step is made by: a function, a notebook, or a function that is given a Spark session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa

from platform_core.operations.notebook_step import executed
from platform_core.operations.platform import Platform
from platform_core.operations.python_step import call, loaded
from platform_core.operations.spark_step import SparkFunction, session_of
from platform_core.operations.step_context import StepContext
from platform_core.specs.processing import ProcessingSpec, StepKind


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a step makes, while it makes it.

    Args:
        rows: None where it makes no table.
        notebook: the executed copy; None where the step is no notebook.
    """

    rows: pa.RecordBatchReader | None
    notebook: Path | None = None


@contextmanager
def begun(spec: ProcessingSpec, context: StepContext, *, root: Path, platform: Platform, where: str) -> Iterator[Body]:
    """Begin a step that is no query; whatever it runs is ended when the block is left.

    Args:
        spec: of the step.
        context: what it works with.
        root: folder of the team's code.
        platform: the environment.
        where: the step, for messages.

    Raises:
        StepError: it failed; rows raise it, too, while they are taken.
        PluginError: what its kind needs is not installed, or the environment has no Spark.
    """
    if spec.kind is StepKind.NOTEBOOK:
        with executed(
            spec, context, root=root, state=platform.state, cancelled=platform.cancelled, where=where
        ) as notebook:
            yield Body(rows=notebook.rows, notebook=notebook.copy)
    elif spec.kind is StepKind.SPARK:
        with session_of(spec, platform=platform, where=where) as spark:
            function = cast("SparkFunction", loaded(str(spec.function), where=where))
            yield Body(rows=call(lambda given: spark.rows(function, given), context, root=root, where=where))
    else:
        yield Body(rows=call(loaded(str(spec.function), where=where), context, root=root, where=where))
