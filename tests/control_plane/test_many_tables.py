"""FAULTS C13: what loading and planning take grows with the tables, and no faster.

Seconds are for the benchmark (``python -m benchmarks.control_plane``, 10,000 tables); here calls of functions are
counted, which no other process on the machine changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.load import load_manifest
from tests.control_plane.conftest import Databases, Project

FEW, MANY = 100, 400


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    databases = Databases(None, tmp_path / "templates")
    yield databases.project(tmp_path / "project", state="prepared")
    databases.close()


def declare(project: Project, tables: int) -> None:
    """So many tables in the ingestion file of location crm."""
    entries = [
        f"  - {{object: o{number}, table: t{number}, mode: full, key: [id], columns: {{name: {{}}}}}}"
        for number in range(tables)
    ]
    text = "\n".join(["workstream: crm", "source: crm", "tables:", *entries, ""])
    project.write("crm/control/ingestion/many.yaml", text)


def calls(work: Callable[[], Any]) -> int:
    """How many functions of Python are called, the first time over left out: it fills caches."""
    work()
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def grows(project: Project, work: Callable[[], Any]) -> float:
    """By how much the calls for a table grow from few tables to many."""
    each = []
    for tables in (FEW, MANY):
        declare(project, tables)
        each.append(calls(work) / tables)
    return each[1] / each[0]


def test_c13_loading_the_files_takes_no_more_for_each_of_many_tables(project: Project) -> None:
    control = project.folder / "crm" / "control"
    assert grows(project, lambda: load_manifest(control, environment="dev", state=project.settings().state)) < 1.2


def test_c13_planning_takes_no_more_for_each_of_many_tables(project: Project) -> None:
    assert grows(project, project.plan) < 1.2


def test_c13_planning_one_change_of_many_tables_takes_no_more_for_each_of_them(project: Project) -> None:
    def applied_and_changed() -> int:
        project.apply()
        project.edit("crm/control/ingestion/many.yaml", "object: o7,", "object: o7, description: A,")
        return calls(project.plan)

    each = []
    for tables in (FEW, MANY):
        declare(project, tables)
        each.append(applied_and_changed() / tables)
    assert each[1] < 1.2 * each[0]
