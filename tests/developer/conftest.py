"""A lake that everybody shares, with tables in it, and platforms of people who develop on it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.lake.delta import DeltaTableReader, write
from platform_core.operations.ingest import ingest
from platform_core.operations.load_result import LoadResult
from platform_core.operations.platform import Platform, open_platform
from platform_core.operations.process import LastSuccess, StepResult, process
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec, LoadMode
from platform_core.specs.person import PEOPLE, Person
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef

RIDES = IngestionSpec(
    workstream="mobility", source="city", object="rides", table="rides", mode=LoadMode.FULL, key=("ride_id",)
)
SHORT = "SELECT ride_id, station FROM bronze.rides WHERE _is_current AND minutes < 30"
LONGEST = "SELECT station, max(ride_id) AS newest FROM silver.short_rides GROUP BY station"


@dataclass
class House:
    """One lake, one control database, one source, and whoever works with them.

    Args:
        root: holds the lake, the state folders, the source and the SQL files.
    """

    root: Path
    opened: list[Platform] = field(default_factory=list)

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    def environment(self, person: str | None = None, **fields: Any) -> EnvironmentSpec:
        """The environment of everybody, or of one person."""
        spec = EnvironmentSpec(
            **{
                "name": "shared" if person is None else "personal",
                "lake": {"root": str(self.lake)},
                "secrets": {"type": "environment"},
                "engine": {"type": "local", "options": {"memory_limit": "300MB", "threads": 2}},
                "control": {"url": f"sqlite:///{self.root / 'control.db'}"},
                "developer": person is not None,
                **fields,
            }
        )
        return spec.used_by(None if person is None else Person(person))

    def platform(self, person: str | None = None, **fields: Any) -> Platform:
        """A platform as one process of that person opens it."""
        found = open_platform(self.environment(person, **fields), state=self.root / "state")
        self.opened.append(found)
        return found

    def ride(self, *rides: tuple[int, str, int]) -> None:
        """Put rides into the source: number, station, minutes."""
        with closing(sqlite3.connect(self.root / "city.db")) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS rides (ride_id INTEGER, station TEXT, minutes INTEGER)")
            connection.executemany("INSERT INTO rides VALUES (?, ?, ?)", rides)

    def load(self, platform: Platform, **fields: Any) -> LoadResult:
        """Load the rides into bronze."""
        connection = ConnectionSpec(
            name="city", workstream="mobility", type="sqlite", options={"path": str(self.root / "city.db")}
        )
        return ingest(RIDES.model_copy(update=fields), connection=connection, platform=platform)

    def step(
        self, platform: Platform, name: str, sql: str, *, last: LastSuccess | None = None, **fields: Any
    ) -> StepResult:
        """Run a SQL step of the workstream `mobility`; its table is `layer.name`."""
        file = self.root / f"{name}.sql"
        file.write_text(sql)
        layer, table = name.split(".")
        spec = ProcessingSpec(
            **{"workstream": "mobility", "layer": layer, "name": table, "kind": "sql", "sql": file.name, **fields}
        )
        return process(spec, root=self.root, platform=platform, last=last)

    def put(self, platform: Platform, name: str, rows: pa.Table) -> None:
        """Write rows into a table as a step does."""
        ref = TableRef.parse(name, workstream="mobility")
        write(rows.to_reader(), table=ref, uri=platform.lake.table(ref), storage_options={}, mode=WriteMode.OVERWRITE)

    def rows(self, name: str, *, person: str | None = None) -> list[dict[str, Any]] | None:
        """Rows of the table that lies with everybody's, or with one person's; None where there is none."""
        root = self.lake if person is None else self.lake / PEOPLE / person
        ref = TableRef.parse(name, workstream="mobility")
        reader = DeltaTableReader.open(str(root.joinpath(*ref)), storage_options={})
        return None if reader is None else sorted(reader.read().read_all().to_pylist(), key=repr)

    def fingerprint(self, below: str = "") -> dict[str, str]:
        """SHA-256 by path of every file of the lake that is nobody's own, or of all below a folder."""
        top = self.lake / below
        return {
            str(file.relative_to(top)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(top.rglob("*"))
            if file.is_file() and (below or file.relative_to(self.lake).parts[0] != PEOPLE)
        }


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A lake with the shared `bronze.rides` and `silver.short_rides`, each of two rows that are wanted."""
    found = House(tmp_path)
    found.ride((1, "north", 5), (2, "south", 20), (3, "south", 90))
    shared = found.platform()
    found.load(shared)
    found.step(shared, "silver.short_rides", SHORT)
    yield found
    for platform in found.opened:
        platform.loads.close()


@pytest.fixture
def unchanged(house: House) -> Iterator[Callable[[], None]]:
    """Asserts, at the end of the test too, that no byte of the shared tables has changed since it began."""
    before = house.fingerprint()

    def check() -> None:
        assert house.fingerprint() == before

    yield check
    check()
