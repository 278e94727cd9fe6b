"""The right to build a dbt project: one build at a time, on whatever machine; others queue."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from platform_core.control.loads import Ticket
from platform_core.lake.delta import batch_of, open_table
from platform_core.operations.dbt_manifest import Model
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.platform import Platform
from platform_core.specs.table import TableRef

MODE = "dbt build"
"""How builds stand in the load log."""

_LAYER = "dbt"
_LONGEST = dt.timedelta(days=7)
"""How long a build queues: until it is cancelled or its run has lasted too long, which others decide."""


@contextmanager
def leased_build(
    project: DbtProject, *, models: Iterable[Model], platform: Platform, run_id: str | None
) -> Iterator[Ticket]:
    """Take the lease of a project, and a row of the load log with it.

    The batch id of the build is larger than any that the models to be published hold: whoever was overtaken, and does
    not know it, finds a larger one there and publishes nothing.

    Args:
        models: that are to be built.

    Raises:
        LeaseError: somebody else has been building it for a week.
        LoadError: the run was cancelled while it waited.
        ControlError: the control database cannot be reached: without a lease nothing is built.
    """
    lake = platform.lake
    held = [
        batch_of(open_table(lake.table(model.ref), storage_options=lake.storage_options))
        for model in models
        if model.published
    ]
    ticket = platform.loads.begin(
        TableRef(project.spec.workstream, _LAYER, project.spec.name),
        mode=MODE,
        above=max(held, default=0),
        run_id=run_id,
        wait=_LONGEST,
        log=platform.log,
        cancelled=platform.cancelled,
    )
    with ticket:
        yield ticket
