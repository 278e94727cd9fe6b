"""Tell the Dagster instance how many steps of all runs may use a connection or the engine at a time."""

from collections.abc import Mapping

import dagster as dg


def declare_limits(instance: dg.DagsterInstance, limits: Mapping[str, int | None]) -> None:
    """Make the limits of pools what is declared; what an instance has of other pools stays as it is.

    Dagster keeps limits in its storage, where nobody would change them when the declaration changes: so each run says
    what it knows, and a run of an older declaration that starts later says that until the next run.

    Args:
        limits: by the name of the pool; None: there is no limit.
    """
    storage = instance.event_log_storage
    if not limits or not storage.supports_global_concurrency_limits:
        return
    found = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    for name, limit in limits.items():
        if limit is None:
            if name in found:
                storage.delete_concurrency_limit(name)
        elif found.get(name) != limit:
            storage.set_concurrency_slots(name, limit)
