"""Two teams with a dbt project each over one lake; what they build is shared by the tests, for dbt is slow to start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.factories.dbt import build_dbt_assets
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.lake.paths import Lake
from platform_core.operations.dbt_project import DbtProject, open_project, parse
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.person import Person
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

PROJECTS = Path(__file__).parent / "projects"
SALES = DbtSpec(workstream="shop", name="sales", project="sales", owners=("team:sales",))
BOARD = DbtSpec(workstream="finance", name="board", project="board", owners=("team:board",))
WORKSTREAMS = (
    WorkstreamSpec(name="shop", owners=("team:shop",)),
    WorkstreamSpec(name="finance", owners=("team:finance",)),
)


@pytest.fixture(scope="module", autouse=True)
def _forks(request: pytest.FixtureRequest) -> None:
    """A start of dbt takes seconds, and most of it is imports; a start as it is has tests of its own."""
    if not request.node.path.stem.startswith("spark"):
        request.getfixturevalue("dbt_in_forks")


@dataclass
class Teams:
    """Where everything of the two teams lies."""

    root: Path
    instance: dg.DagsterInstance
    environment: EnvironmentSpec = field(init=False)

    def __post_init__(self) -> None:
        self.environment = EnvironmentSpec(
            name="test", lake={"root": str(self.root / "lake")}, secrets={"type": "environment"}
        )

    @property
    def state(self) -> Path:
        return self.root / "state"

    def platform(self, person: str | None = None) -> Platform:
        who = None if person is None else Person(person)
        secrets = EnvironmentSecrets(NoOptions())
        environment = self.environment
        if who is not None:
            environment = environment.model_copy(update={"developer": True}).used_by(who)
        return Platform(
            environment=environment,
            lake=Lake.of(environment.lake.root, who, storage_options={}),
            engine=LocalEngine(LocalOptions(spill=str(self.root / "spill"))),
            secrets=secrets,
            loads=open_loads(environment.control, state=self.state, secrets=secrets, person=who),
            state=self.state,
        )

    def project(self, spec: DbtSpec, platform: Platform | None = None) -> DbtProject:
        environment = (platform or self.platform()).environment
        return open_project(spec, root=self.root, state=self.state, person=environment.person, choice=environment.dbt)

    def put(self, name: str, columns: dict[str, list[Any]]) -> None:
        ref = TableRef.parse(name, workstream="shop")
        uri = self.platform().lake.table(ref)
        rows = pa.table(columns).to_reader()
        write(rows, table=ref, uri=uri, storage_options={}, mode=WriteMode.OVERWRITE)

    def rows(self, name: str, person: str | None = None) -> list[dict[str, Any]]:
        reader = self.reader(name, person)
        assert reader is not None, f"there is no table {name}"
        table = reader.read().read_all()
        found: list[dict[str, Any]] = table.sort_by(table.column_names[0]).to_pylist()
        return found

    def version(self, name: str) -> int | None:
        reader = self.reader(name)
        return None if reader is None else reader.version

    def reader(self, name: str, person: str | None = None) -> DeltaTableReader | None:
        ref = TableRef.parse(name, workstream="shop")
        return DeltaTableReader.open(self.platform(person).lake.table(ref), storage_options={})

    def assets(self, *specs: DbtSpec) -> list[dg.AssetsDefinition]:
        location = LocationSpec(name="shop", workstreams=WORKSTREAMS)
        manifest = Manifest(root=self.root, location=location, dbt=specs)
        return [assets for spec in specs for assets in build_dbt_assets(spec, manifest=manifest)]

    def run(self, *assets: dg.AssetsDefinition, **more: Any) -> dg.ExecuteInProcessResult:
        platform = self.platform()
        resource = SimpleNamespace(open=lambda context: platform.for_step(context.log, lambda: False))
        return dg.materialize(
            [*assets], resources={"platform": resource}, instance=self.instance, raise_on_error=False, **more
        )


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where each module works, and a copy to begin it with: customers and orders in the lake, both projects parsed.

    One place for all, because dbt parses anew where paths have changed.
    """
    root = tmp_path_factory.mktemp("teams")
    now, copy = root / "now", root / "copy"
    shutil.copytree(PROJECTS, now, ignore=shutil.ignore_patterns("target", "logs"))
    with dg.DagsterInstance.ephemeral() as instance:
        teams = Teams(now, instance)
        teams.put("silver.customers", {"customer_id": [1, 2], "name": ["Ada", "Bo"]})
        teams.put("silver.orders", {"order_id": [1, 2, 3], "customer_id": [1, 2, 1], "amount": [10.0, 60.0, 20.0]})
        for spec in (SALES, BOARD):
            assert parse(teams.project(spec), lake=teams.platform().lake)
    shutil.copytree(now, copy)
    return now, copy


@pytest.fixture(scope="module")
def teams(parsed: tuple[Path, Path]) -> Iterator[Teams]:
    """The two teams, before anything was built."""
    now, copy = parsed
    shutil.rmtree(now)
    shutil.copytree(copy, now)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Teams(now, instance)
