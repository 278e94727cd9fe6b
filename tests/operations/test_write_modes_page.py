"""docs/how-to/write-modes.md, word for word: every step in it can be declared, runs, and does what the page says."""

from __future__ import annotations

import datetime as dt
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from platform_core.control.load import load_manifest
from platform_core.operations.platform import Platform
from platform_core.operations.process import LastSuccess, StepResult, process
from platform_core.operations.run_options import RunOptions, Window
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-modes.md"
TODAY = dt.datetime.now(dt.UTC).date()
LONG_AGO = dt.date(2026, 1, 5)
PACKAGE = "demo"
RIDES_SQL = "select ride_id, station_id, day from bronze.rides where _is_current"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manifest]:
    """The page's files as a location's package."""
    root = tmp_path / PACKAGE
    (declared,) = (block for block in blocks("yaml") if block.startswith("steps:"))
    (query,), (code,) = blocks("sql"), blocks("python")
    files = {
        "__init__.py": "",
        "steps.py": code,
        "sql/rides.sql": RIDES_SQL,
        "sql/daily_rides.sql": query,
        "control/location.yaml": "location: demo\nworkstreams:\n  - {name: mobility, owners: ['team:mobility']}\n",
        "control/connections.yaml": "connections:\n  - {name: erp, type: sqlite, path: '${env.state}/erp.db'}\n",
        "control/ingestion.yaml": "source: erp\ntables:\n"
        "  - {object: rides, mode: full, key: [ride_id]}\n  - {object: stations, mode: full, key: [station_id]}\n",
        "control/processing.yaml": declared,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = {name: sys.modules.pop(name) for name in (PACKAGE, f"{PACKAGE}.steps") if name in sys.modules}
    importlib.invalidate_caches()
    yield load_manifest(root / "control", environment="dev", state=tmp_path / "state")
    for name in (PACKAGE, f"{PACKAGE}.steps"):
        sys.modules.pop(name, None)
    sys.modules.update(known)


def rides(*rows: tuple[int, dt.date], batch: int) -> pa.Table:
    return pa.table(
        {
            "ride_id": pa.array([ride for ride, _ in rows], pa.int64()),
            "station_id": pa.array([1] * len(rows), pa.int64()),
            "day": pa.array([day for _, day in rows], pa.date32()),
            "_is_current": pa.array([True] * len(rows)),
            "_batch_id": pa.array([batch] * len(rows), pa.int64()),
        }
    )


def run(
    manifest: Manifest, platform: Platform, name: str, *, last: LastSuccess | None = None, **options: Any
) -> StepResult:
    (spec,) = (step for step in manifest.steps if step.name == name)
    asked = replace(platform, run=RunOptions(**options))
    return process(spec, root=manifest.root, platform=asked, last=last)


def test_every_step_of_the_page_can_be_declared_and_run(manifest: Manifest, platform: Platform, put: Any) -> None:
    put("bronze.rides", rides((1, TODAY), batch=1), batch=1)
    stations = pa.table({"station_id": [1], "name": ["Centraal"], "_is_current": [True], "_batch_id": [1]})
    put("bronze.stations", stations, batch=1)
    assert {str(step.write) for step in manifest.steps} == {str(mode) for mode in WriteMode}
    for step in manifest.steps:
        assert run(manifest, platform, step.name).rows == 1, step.name


@pytest.mark.parametrize("name", ["daily_rides", "daily_stations"])
def test_the_days_of_the_page_are_made_anew_by_changes_and_by_a_range(
    manifest: Manifest, platform: Platform, put: Any, rows: Any, name: str
) -> None:
    put("bronze.rides", rides((1, LONG_AGO), (2, TODAY), batch=1), batch=1)
    first = run(manifest, platform, name, full_refresh=True)
    put("bronze.rides", rides((3, TODAY), batch=2), mode=WriteMode.APPEND, batch=2)
    run(manifest, platform, name, last=first.success)
    made = {row["day"]: row["rides"] for row in rows(f"gold.{name}").to_pylist()}
    assert made[TODAY] == 2
    put("bronze.rides", rides((4, LONG_AGO), batch=3), mode=WriteMode.APPEND, batch=3)
    start = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    run(manifest, platform, name, window=Window(start=start, end=start + dt.timedelta(days=1)))
    made = {row["day"]: row["rides"] for row in rows(f"gold.{name}").to_pylist()}
    assert made == {LONG_AGO: 2, TODAY: 2}


def test_the_configuration_of_the_page_is_the_one_that_runs_take() -> None:
    from platform_core.factories.resource import run_config

    (asked,) = (block for block in blocks("yaml") if block.startswith("resources:"))
    assert yaml.safe_load(asked) == run_config(RunOptions(full_refresh=True))


def test_the_table_is_named_as_the_page_says(manifest: Manifest) -> None:
    assert manifest.steps[0].ref == TableRef("mobility", "silver", "rides")
