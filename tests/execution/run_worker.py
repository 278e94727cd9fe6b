"""Execute one run in a process of its own, as the process of a run launcher does."""

import os

import dagster as dg
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._utils.interrupts import capture_interrupts

from tests.execution.graphs import reconstructable


def execute_one_run(graph: str, executor: str, home: str, run_id: str, markers: str, output: str) -> None:
    os.environ["MARKERS"] = markers
    written = os.open(output, os.O_CREAT | os.O_WRONLY)
    os.dup2(written, 1)
    os.dup2(written, 2)
    job = reconstructable(graph, executor)
    with capture_interrupts(), dg.DagsterInstance.from_config(home) as instance:
        run = instance.create_run_for_job(
            job.get_definition(),
            execution_plan=create_execution_plan(job),
            run_id=run_id,
            job_code_origin=job.get_python_origin(),
        )
        execute_run(job, run, instance)
