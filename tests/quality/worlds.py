"""A lake below one folder, and what is expected of its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import SecretError
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.lake.paths import Lake
from platform_core.operations.platform import Platform
from platform_core.operations.quality import ExpectationResult, QualityResult, evaluate
from platform_core.plugins.interfaces import NoOptions, Secret, SecretStore
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.expectation import quarantined
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef

TABLE = TableRef("shop", "silver", "orders")


class NoSecrets(SecretStore):
    """A store without secrets: nothing here needs one."""

    def get(self, name: str) -> Secret:
        raise SecretError(f"no secret '{name}'")


class World:
    """A lake below one folder, and what is expected of its tables."""

    def __init__(self, root: Path) -> None:
        environment = EnvironmentSpec(name="test", lake={"root": str(root / "lake")}, secrets={"type": "none"})
        secrets = NoSecrets(NoOptions())
        self.platform = Platform(
            environment=environment,
            lake=Lake(str(root / "lake")),
            engine=LocalEngine(LocalOptions(memory_limit="300MB", threads=2, spill=str(root / "spill"))),
            secrets=secrets,
            loads=open_loads(environment.control, state=root / "state", secrets=secrets),
            state=root / "state",
        )

    def put(self, rows: pa.Table, *, table: TableRef = TABLE) -> int:
        """Replace a table; returns its version."""
        uri = self.platform.lake.table(table)
        written = write(rows.to_reader(), table=table, uri=uri, storage_options={}, mode=WriteMode.OVERWRITE)
        return written.version

    def evaluate(self, *expectations: dict[str, Any], **how: Any) -> QualityResult:
        """What comes of expectations of the table, each as a person writes it."""
        return evaluate(expecting(*expectations), platform=self.platform, **how)

    def one(self, **expectation: Any) -> ExpectationResult:
        """What comes of one expectation."""
        (result,) = self.evaluate(expectation).results
        return result

    def rows(self, table: TableRef) -> list[dict[str, Any]]:
        """All rows of a table of the lake."""
        reader = DeltaTableReader.open(self.platform.lake.table(table), storage_options={})
        assert reader is not None, f"there is no table {table}"
        found: list[dict[str, Any]] = reader.read().read_all().to_pylist()
        return found

    def set_aside(self) -> list[dict[str, Any]]:
        """Rows of the side table."""
        return self.rows(quarantined(TABLE))


def expecting(*expectations: dict[str, Any]) -> ProcessingSpec:
    """A step that makes the table."""
    return ProcessingSpec(
        workstream=TABLE.workstream,
        layer=TABLE.layer,
        name=TABLE.name,
        kind="sql",
        sql="sql/orders.sql",
        expectations=expectations,
    )
