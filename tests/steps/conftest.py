"""A platform over an empty lake, and a package with the notebooks and functions of a team."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import SecretError
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.lake.paths import Lake
from platform_core.operations.platform import Platform
from platform_core.operations.process import LastSuccess, StepResult, process
from platform_core.plugins.interfaces import NoOptions, Secret, SecretStore
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef


class OneSecret(SecretStore):
    """A store with one secret."""

    def get(self, name: str) -> Secret:
        if name != "mobility/token":
            raise SecretError(f"no secret '{name}'")
        return Secret(name, b"t0ps3cret")


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    lake = str(tmp_path / "lake")
    environment = EnvironmentSpec(name="test", lake={"root": lake}, secrets={"type": "one"})
    secrets = OneSecret(NoOptions())
    return Platform(
        environment=environment,
        lake=Lake(lake),
        engine=LocalEngine(LocalOptions(memory_limit="300MB", threads=2, spill=str(tmp_path / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=tmp_path / "state", secrets=secrets),
        state=tmp_path / "state",
    )


@pytest.fixture
def put(platform: Platform) -> Callable[..., int]:
    """Write rows into a lake table; returns its version."""

    def put_rows(name: str, rows: pa.Table, *, batch: int | None = None, mode: WriteMode = WriteMode.OVERWRITE) -> int:
        ref = TableRef.parse(name, workstream="mobility")
        uri = platform.lake.table(ref)
        return write(rows.to_reader(), table=ref, uri=uri, storage_options={}, mode=mode, batch=batch).version

    return put_rows


@pytest.fixture
def rows(platform: Platform) -> Callable[[str], pa.Table | None]:
    """Read a lake table, sorted by its first column; None where there is none."""

    def read_rows(name: str) -> pa.Table | None:
        uri = platform.lake.table(TableRef.parse(name, workstream="mobility"))
        reader = DeltaTableReader.open(uri, storage_options={})
        if reader is None:
            return None
        table = reader.read().read_all()
        return table.sort_by(table.column_names[0])

    return read_rows


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Folder of a location's package."""
    root = tmp_path / "mobility_team"
    root.mkdir()
    (root / "__init__.py").touch()
    return root


@pytest.fixture
def run(platform: Platform, package: Path) -> Callable[..., StepResult]:
    """Run a step of the package; fields that are not given make it a notebook step of bronze.rides."""

    def run_step(*, on: Platform = platform, last: LastSuccess | None = None, **fields: Any) -> StepResult:
        spec = {
            "workstream": "mobility",
            "layer": "silver",
            "name": "forecast",
            "kind": "notebook",
            "notebook": "notebooks/forecast.ipynb",
            "depends_on": ("bronze.rides",),
        }
        made = ProcessingSpec(**{name: value for name, value in (spec | fields).items() if value is not None})
        return process(made, root=package, platform=on, last=last)

    return run_step
