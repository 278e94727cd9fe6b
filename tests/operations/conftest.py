"""A platform over an empty lake, and a way to put tables into it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import SecretError
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.lake.paths import Lake
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions, Secret, SecretStore
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

Put = Callable[..., int]
Rows = Callable[[str], pa.Table]


class NoSecrets(SecretStore):
    """A store without secrets: steps and dbt need none."""

    def get(self, name: str) -> Secret:
        raise SecretError(f"no secret '{name}'")


def platform_at(root: Path) -> Platform:
    """A platform with all that it writes below one folder."""
    lake = str(root / "lake")
    environment = EnvironmentSpec(name="test", lake={"root": lake}, secrets={"type": "none"})
    secrets = NoSecrets(NoOptions())
    return Platform(
        environment=environment,
        lake=Lake(lake),
        engine=LocalEngine(LocalOptions(memory_limit="300MB", threads=2, spill=str(root / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=root / "state", secrets=secrets),
        state=root / "state",
    )


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return platform_at(tmp_path)


def put_into(
    platform: Platform, name: str, rows: pa.Table, *, mode: WriteMode = WriteMode.OVERWRITE, batch: int | None = None
) -> int:
    """Write rows into a lake table; returns its version."""
    ref = TableRef.parse(name, workstream="mobility")
    uri = platform.lake.table(ref)
    return write(rows.to_reader(), table=ref, uri=uri, storage_options={}, mode=mode, batch=batch).version


@pytest.fixture
def put(platform: Platform) -> Put:
    """Write rows into a lake table; returns its version."""
    return partial(put_into, platform)


@pytest.fixture(scope="session")
def apart() -> SimpleNamespace:
    """What fixtures of a wider scope need: `platform_at(root)` and `put_into(platform, name, rows)`."""
    return SimpleNamespace(platform_at=platform_at, put_into=put_into)


@pytest.fixture
def rows(platform: Platform) -> Rows:
    """Read a lake table, sorted by its first column."""

    def read_rows(name: str) -> pa.Table:
        uri = platform.lake.table(TableRef.parse(name, workstream="mobility"))
        reader = DeltaTableReader.open(uri, storage_options={})
        assert reader is not None, f"there is no table {name}"
        table = reader.read().read_all()
        return table.sort_by(table.column_names[0])

    return read_rows
