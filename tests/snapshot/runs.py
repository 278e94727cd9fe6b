"""A process that runs assets of a project as different people would, and tells the tags of each run.

It is started in the project's folder, whose packages it must find before those that are installed here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from dagster._core.execution.api import create_execution_plan, execute_run_iterator

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import apply_plan
from platform_core.control.plan.planning import plan_from_git
from platform_core.control.snapshot.publish import publish_snapshot
from platform_core.control.store.store import open_store
from platform_core.execution.locations import LoadedLocation, load_location
from platform_core.execution.workspace import WorkspaceRunner
from platform_core.settings import read_settings

ORDERS = dg.AssetKey(["crm", "bronze", "orders"])


def create(
    location: LoadedLocation, instance: dg.DagsterInstance, *, tags: Mapping[str, str], job: str = "__ASSET_JOB"
) -> dg.DagsterRun:
    """A run of one asset, as the UI makes it."""
    recon = location.job(job).get_subset(op_selection=None, asset_selection=frozenset({ORDERS}))
    return instance.create_run_for_job(
        job_def=recon.get_definition(),
        execution_plan=create_execution_plan(
            recon, tags=dict(tags), repository_load_data=recon.repository.repository_load_data
        ),
        tags=dict(tags),
        asset_selection=frozenset({ORDERS}),
    )


def execute(location: LoadedLocation, run: dg.DagsterRun, instance: dg.DagsterInstance) -> dict[str, str]:
    """Its tags, once it has succeeded."""
    list(execute_run_iterator(location.job(run.job_name), run, instance))
    done = instance.get_run_by_id(run.run_id)
    assert done is not None
    assert done.status is dg.DagsterRunStatus.SUCCESS, [entry.message for entry in instance.all_logs(run.run_id)]
    return {name: value for name, value in done.tags.items() if name in ("edp/serial", "edp/git_commit")}


def apply_and_publish() -> None:
    """Take the table away, in what is applied and in what is published."""
    settings = read_settings()
    environment = load_environment(settings)
    store = open_store(environment, state=settings.state)
    (settings.project / "crm/control/ingestion.yaml").unlink()
    (settings.project / "finance/control/processing.yaml").unlink()
    (settings.project / "finance/control/refresh.yaml").unlink()
    apply_plan(
        plan_from_git(settings, environment, store, author="x"), environment, store, author="x", approval="tested"
    )
    publish_snapshot(environment, store, state=settings.state)
    store.close()


def as_people_do(location: LoadedLocation, instance: dg.DagsterInstance) -> dict[str, dict[str, str]]:
    """Materialised in the UI, repeated from a run of long ago, and by `edp run`."""
    told = {
        "ad hoc": execute(location, create(location, instance, tags={}), instance),
        "repeated": execute(location, create(location, instance, tags={"edp/git_commit": "old"}), instance),
    }
    runner = WorkspaceRunner([location], instance=instance)
    [run] = runner.execute(runner.plan(["crm.bronze.orders"]), progress=lambda _: None).runs
    done = instance.get_run_by_id(run.run_id)
    assert done is not None
    return told | {"edp run": {name: done.tags[name] for name in told["ad hoc"]}}


def overtaken(location: LoadedLocation, instance: dg.DagsterInstance) -> dict[str, dict[str, str]]:
    """Launched before something was published, and executed after it."""
    waiting = create(location, instance, tags={})
    apply_and_publish()
    return {"overtaken": execute(location, waiting, instance)}


def main(instance_folder: str, how: str) -> None:
    location = load_location("crm", "crm.definitions", folder=Path.cwd())
    with dg.DagsterInstance.local_temp(instance_folder) as instance:
        told = overtaken(location, instance) if how == "overtaken" else as_people_do(location, instance)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
