"""A location with migrations, an environment that they are applied in, and ways to look at what they made."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.control.database import Database, open_database
from platform_core.control.ddl_catalog import Maker
from platform_core.errors import MigrationError
from platform_core.operations.ddl import DdlLocation, DdlPlan, DdlScope, DdlStatus, apply_ddl, ddl_status, plan_ddl
from platform_core.operations.ddl_plan import PlannedMigration
from platform_core.operations.platform import Platform, open_platform
from platform_core.specs.environment import (
    ControlSpec,
    DatabaseSpec,
    EngineChoice,
    EnvironmentSpec,
    LakeSpec,
    PluginChoice,
)
from platform_core.specs.table import TableRef
from tests.conftest import PROJECT
from tests.control_database.conftest import postgres_place

STATIONS = """
    CREATE TABLE gold.stations (
      station_id BIGINT NOT NULL COMMENT 'key of the operator',
      name VARCHAR,
      capacity INTEGER,
      price DECIMAL(6, 2)
    );
    """


@dataclass
class World:
    """One location `mobility` with a workstream of that name, and one environment.

    Args:
        root: holds the package, the lake and the state.
        control: the control database of the environment.
    """

    root: Path
    control: ControlSpec = field(default_factory=ControlSpec)
    databases: Mapping[str, DatabaseSpec] = field(default_factory=dict)
    makers: dict[TableRef, Maker] = field(default_factory=dict)
    name: str = "test"
    opened: list[Database] = field(default_factory=list)

    @property
    def package(self) -> Path:
        return self.root / "mobility"

    def file(self, name: str, *, workstream: str = "mobility") -> Path:
        return self.package / "ddl" / workstream / name

    def write(self, name: str, sql: str, *, workstream: str = "mobility") -> Path:
        """Write a migration; its text is dedented."""
        file = self.file(name, workstream=workstream)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(sql).lstrip("\n"))
        return file

    @property
    def environment(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            name=self.name,
            lake=LakeSpec(root=str(self.root / "lake")),
            secrets=PluginChoice(type="files", options={"path": str(self.root / "secrets")}),
            engine=EngineChoice(type="local", options={"memory_limit": "300MB", "threads": 2}),
            control=self.control,
            databases=dict(self.databases),
        )

    @property
    def platform(self) -> Platform:
        return open_platform(self.environment, state=self.root / "state")

    @property
    def database(self) -> Database:
        platform = self.platform
        found = open_database(self.control, state=self.root / "state", secrets=platform.secrets)
        self.opened.append(found)
        return found

    @property
    def scope(self) -> DdlScope:
        folders = self.package / "ddl"
        workstreams = (
            {"mobility"} | {each.name for each in folders.iterdir() if each.is_dir()}
            if folders.is_dir()
            else {"mobility"}
        )
        location = DdlLocation(
            name="mobility", root=self.package, workstreams=tuple(sorted(workstreams & {"mobility", "crm"}))
        )
        return DdlScope(project=self.root, locations=(location,), makers=self.makers)

    def plan(self) -> DdlPlan:
        return plan_ddl(self.scope, platform=self.platform, database=self.database)

    def apply(self, *, approve: str | None = None, author: str = "Ada <ada@example.com>") -> list[str]:
        """Apply what is missing; returns what was said of each statement."""
        said: list[str] = []
        apply_ddl(
            self.scope, platform=self.platform, database=self.database, author=author, approve=approve, tell=said.append
        )
        return said

    def status(self) -> DdlStatus:
        return ddl_status(self.scope, platform=self.platform, database=self.database)

    def refusal(self, *, approve: str | None = None) -> str:
        """What is said where applying is refused, with the folder left out."""
        with pytest.raises(MigrationError) as caught:
            self.apply(approve=approve)
        return str(caught.value).replace(f"{self.root}/", "")

    def only(self) -> PlannedMigration:
        """The one migration that is planned."""
        (found,) = self.plan().migrations
        return found

    def uri(self, name: str) -> str:
        return self.platform.lake.table(TableRef.parse(name, workstream="mobility"))

    def delta(self, name: str) -> DeltaTable:
        return DeltaTable(self.uri(name))

    def fill(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Append rows as another writer would."""
        table = self.delta(name)
        schema = pa.schema(table.schema().to_arrow())
        plain = pa.schema([pa.field(each.name, each.type) for each in schema])
        write_deltalake(table, pa.Table.from_pylist(rows, schema=plain), mode="append")

    def by_delta(self, name: str) -> list[dict[str, Any]]:
        """All rows, as delta-rs reads them."""
        found = pa.table(self.delta(name).scan())
        return sorted(found.to_pylist(), key=repr)

    def by_duckdb(self, name: str) -> list[dict[str, Any]]:
        """All rows, as DuckDB reads the table's own files, whatever else lies beside them."""
        files = self.delta(name).file_uris()
        if not files:
            return []
        with duckdb.connect() as connection:
            rows = connection.sql("SELECT * FROM read_parquet($1, hive_partitioning = true)", params=[files])
            return sorted(rows.to_arrow_table().to_pylist(), key=repr)

    def columns(self, name: str) -> dict[str, str]:
        """Type of each column as Delta's log has it; a ! stands behind one that cannot be null."""
        fields = json.loads(self.delta(name).schema().to_json())["fields"]
        return {each["name"]: str(each["type"]) + ("" if each["nullable"] else "!") for each in fields}

    def job(self, *, fault: str = "", approve: str | None = None) -> Job:
        """Applying in a process of its own, which may meet a fault."""
        fields = self.environment.model_dump(mode="json")
        fields["control"]["lease"] = f"{self.control.lease.seconds} seconds"
        return Job(
            root=str(self.root),
            environment=json.dumps(fields),
            fault=fault,
            approve=approve,
            result=str(self.root / f"result-{uuid.uuid4().hex}"),
        )


@dataclass(frozen=True)
class Job:
    """What one process is to apply, and where it says what came of it."""

    root: str
    environment: str
    fault: str
    approve: str | None
    result: str


@dataclass(frozen=True)
class Ended:
    """How a process ended; its exit code is negative where it was killed."""

    code: int
    made: list[tuple[str, int]]
    error: str


class Appliers:
    """Runs jobs in processes that are forked from one that has everything imported."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *jobs: Job) -> list[Ended]:
        """Run jobs at once, and wait for all."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [_ended(job, code) for job, code in zip(jobs, codes, strict=True)]

    def one(self, job: Job) -> Ended:
        return self.run(job)[0]


def _ended(job: Job, code: int) -> Ended:
    file = Path(job.result)
    return Ended(code, **json.loads(file.read_text())) if file.exists() else Ended(code, [], "")


@pytest.fixture(scope="session")
def appliers() -> Iterator[Appliers]:
    """Processes that apply migrations."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ddl.applying"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Appliers(process)
    finally:
        process.kill()
        process.communicate()


def both_read(world: World, name: str, rows: list[dict[str, Any]]) -> None:
    """delta-rs and DuckDB agree on the rows of a table."""
    wanted = sorted(rows, key=repr)
    assert world.by_delta(name) == wanted
    assert world.by_duckdb(name) == wanted


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty lake, and a control database in SQLite."""
    found = World(tmp_path)
    yield found
    for each in found.opened:
        each.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """As `world`, with a control database of each kind."""
    found = World(tmp_path)
    if request.param == "postgresql":
        found.control = postgres_place(tmp_path, request.getfixturevalue("postgres_server")).control
    yield found
    for each in found.opened:
        each.close()


@pytest.fixture
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """As `world`, with a serving database `serving` in PostgreSQL."""
    control = postgres_place(tmp_path, request.getfixturevalue("postgres_server")).control
    found = World(tmp_path, databases={"serving": DatabaseSpec(url=control.url, password=control.password)})
    yield found
    for each in found.opened:
        each.close()
