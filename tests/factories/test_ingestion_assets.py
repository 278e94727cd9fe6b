"""Bronze tables and their histories as Dagster assets."""

import sqlite3
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.factories.ingestion import build_ingestion_assets
from platform_core.factories.resource import PLATFORM
from platform_core.lake.paths import Lake
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec, MaskingRule
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest

RIDERS = dg.AssetKey(["crm", "bronze", "riders"])
HISTORY = dg.AssetKey(["crm", "bronze", "riders_history"])
SOURCE = dg.AssetKey(["crm", "source", "erp__Riders"])


class Opened:
    """Stands where the resource would read settings."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def open(self, context: dg.AssetExecutionContext) -> Platform:
        return self.platform.for_step(context.log, lambda: False)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    environment = EnvironmentSpec(name="test", lake={"root": str(tmp_path / "lake")}, secrets={"type": "environment"})
    secrets = EnvironmentSecrets(NoOptions())
    return Platform(
        environment=environment,
        lake=Lake(str(tmp_path / "lake")),
        engine=LocalEngine(LocalOptions(memory_limit="256MB", threads=1, spill=str(tmp_path / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=tmp_path / "state", secrets=secrets),
        state=tmp_path / "state",
    )


@pytest.fixture
def run(tmp_path: Path, platform: Platform) -> Any:
    """Load a table of an SQLite file in a Dagster run; returns the run's materialisations by key."""
    file = tmp_path / "erp.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table Riders (RiderID integer primary key, FullName text)")
        connection.execute("insert into Riders values (1, 'Anna'), (2, 'Bob')")
    connection.close()

    def load(**options: Any) -> dict[dg.AssetKey, Any]:
        workstream = WorkstreamSpec(name="crm", owners=("team:crm",))
        manifest = Manifest(
            root=tmp_path,
            location=LocationSpec(name="crm", workstreams=(workstream,)),
            connections=(ConnectionSpec(name="erp", workstream="crm", type="sqlite", options={"path": str(file)}),),
            ingestions=(
                IngestionSpec(
                    workstream="crm",
                    source="erp",
                    object="Riders",
                    table="riders",
                    mode="full",
                    key=("RiderID",),
                    columns={"FullName": ColumnSpec(masking=MaskingRule(mask="full"))},
                    **options,
                ),
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assets = build_ingestion_assets(manifest)
            result = dg.materialize(
                assets, resources={PLATFORM: dg.ResourceDefinition.hardcoded_resource(Opened(platform))}
            )
        assert result.success
        events = result.get_asset_materialization_events()
        return {event.asset_key: event.materialization.metadata for event in events if event.asset_key}

    return load


def test_a_load_is_told_with_its_run_in_the_load_log(run: Any, platform: Platform) -> None:
    metadata = run()[RIDERS]
    (row,) = platform.loads.recent()
    assert row.run_id
    assert (metadata["edp/batch"].value, metadata["edp/inserted"].value, metadata["edp/quarantined"].value) == (1, 2, 0)


def test_columns_are_described_and_traced_under_both_of_their_names(run: Any) -> None:
    metadata = run()[RIDERS]
    columns = {column.name: column for column in metadata["dagster/column_schema"].value.columns}
    assert columns["full_name"].tags == {"personal": "", "mask": "full"}
    lineage = metadata["dagster/column_lineage"].value.deps_by_column
    assert lineage["full_name"] == [dg.TableColumnDep(asset_key=SOURCE, column_name="FullName")]


def test_the_history_is_an_asset_behind_its_table(run: Any) -> None:
    made = run(snapshot_history=True)
    assert list(made) == [RIDERS, HISTORY]
    assert made[HISTORY]["edp/batch"].value == 1
    assert "_valid_from" in [column.name for column in made[HISTORY]["dagster/column_schema"].value.columns]
