"""Makes the storage of the Dagster instance, or brings it up to date, so that many processes may then open it.

Processes that open an empty SQLite home at the same time each try to create it; some of them fail, and the home
stays broken. So one process does it, under a lock that the caller holds.
"""

from contextlib import redirect_stdout
from io import StringIO

import dagster as dg


def prepare_storage(*, migrate: bool) -> None:
    """Open each storage of the instance of this process, which creates what is missing, and ask each one something.

    Raises whatever the storage's driver raises; messages of drivers may hold connection values.

    Args:
        migrate: bring a storage that was made by another version up to date.
    """
    with dg.DagsterInstance.get() as instance:
        if migrate:
            # It prints a line for each step that it might have to take.
            with redirect_stdout(StringIO()):
                instance.upgrade()
        instance.get_runs_count()
        instance.get_latest_materialization_events([])
        instance.fetch_materializations(dg.AssetKey("probe"), limit=1)
        instance.all_instigator_state()
