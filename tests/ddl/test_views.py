"""Views of the lake: what they may read, and who can read them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from platform_core.errors import StepError
from platform_core.operations.inputs import open_input
from platform_core.operations.process import process
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.table import TableRef
from tests.ddl.conftest import STATIONS, World

LARGE = TableRef("mobility", "gold", "large")
VIEW = (
    "CREATE VIEW gold.large COMMENT 'more than ten' AS\nSELECT station_id, name FROM gold.stations WHERE capacity > 10;"
)


@pytest.fixture
def viewed(world: World) -> World:
    """A table of three stations, and a view of the large ones."""
    world.write("0001_stations.sql", STATIONS)
    world.write("0002_large.sql", VIEW)
    world.apply()
    world.fill(
        "gold.stations",
        [{"station_id": n, "name": f"S{n}", "capacity": 5 * n, "price": None} for n in (1, 2, 3)],
    )
    return world


def _rows(world: World, ref: TableRef) -> list[dict[str, object]]:
    reader = open_input(ref, platform=world.platform)
    assert reader is not None
    return reader.read().read_all().to_pylist()


def test_the_platform_reads_a_view_as_a_table(viewed: World) -> None:
    assert _rows(viewed, LARGE) == [{"station_id": 3, "name": "S3"}]


def test_a_view_shows_the_rows_of_now(viewed: World) -> None:
    reader = open_input(LARGE, platform=viewed.platform)
    assert reader is not None
    before = reader.version

    viewed.fill("gold.stations", [{"station_id": 9, "name": "S9", "capacity": 90, "price": None}])

    again = open_input(LARGE, platform=viewed.platform)
    assert again is not None
    assert again.version > before
    assert len(_rows(viewed, LARGE)) == 2


def test_some_columns_of_a_view_can_be_read(viewed: World) -> None:
    reader = open_input(LARGE, platform=viewed.platform)
    assert reader is not None

    assert reader.read(columns=("name",)).read_all().to_pylist() == [{"name": "S3"}]


def test_a_step_reads_a_view_over_a_view(viewed: World) -> None:
    viewed.write("0003_names.sql", "CREATE VIEW gold.names AS SELECT upper(name) AS name FROM gold.large;")
    viewed.apply()
    (viewed.package / "q.sql").write_text(
        "SELECT v.name, s.capacity FROM gold.names v JOIN gold.stations s ON s.name = v.name"
    )
    spec = ProcessingSpec(workstream="mobility", layer="gold", name="joined", kind="sql", sql="q.sql")

    result = process(spec, root=viewed.package, platform=viewed.platform, last=None)

    assert result.rows == 1
    assert viewed.by_delta("gold.joined") == [{"name": "S3", "capacity": 15}]
    assert result.read_batches == {}
    assert set(result.read_versions) == {"mobility.gold.names", "mobility.gold.stations"}


def test_a_python_step_reads_a_view_but_knows_no_newer_rows_of_it(viewed: World) -> None:
    (viewed.package / "__init__.py").touch()
    from platform_core.operations.step_context import StepContext

    spec = ProcessingSpec(
        workstream="mobility", layer="gold", name="x", kind="python", function="a.b:c", depends_on=("gold.large",)
    )
    reader = open_input(LARGE, platform=viewed.platform)
    assert reader is not None
    context = StepContext(spec, inputs={LARGE: reader}, platform=viewed.platform, last=None)
    try:
        assert context.inputs["gold.large"].arrow().num_rows == 1
        assert context.inputs["gold.large"].relation().fetchall() == [(3, "S3")]
        with pytest.raises(StepError, match=r"changed rows of mobility\.gold\.large cannot be told"):
            context.changed_rows("gold.large")
        with pytest.raises(StepError, match="it is a view; read the tables below it"):
            context.inputs["gold.large"].newer_than(1)
    finally:
        context.close()


def test_the_file_in_the_lake_is_a_select_that_anyone_can_run(viewed: World) -> None:
    content = json.loads((Path(viewed.uri("gold.large")) / "_view.json").read_text())

    assert content["sql"] == 'SELECT station_id, name FROM "mobility".gold.stations WHERE capacity > 10'
    assert content["comment"] == "more than ten"
    assert content["reads"] == ["mobility.gold.stations"]


def test_a_view_is_replaced_commented_and_dropped(viewed: World) -> None:
    viewed.write(
        "0003_more.sql",
        "CREATE OR REPLACE VIEW gold.large AS SELECT name FROM gold.stations;\nCOMMENT ON VIEW gold.large IS 'all';",
    )
    viewed.apply()
    assert len(_rows(viewed, LARGE)) == 3
    content = json.loads((Path(viewed.uri("gold.large")) / "_view.json").read_text())
    assert (content["comment"], content["revision"]) == ("all", 3)

    viewed.write("0004_drop.sql", "DROP VIEW gold.large;")
    viewed.apply(approve="nobody reads it")

    assert open_input(LARGE, platform=viewed.platform) is None
    assert not Path(viewed.uri("gold.large")).exists()


def test_a_column_that_a_view_reads_cannot_go(viewed: World) -> None:
    viewed.write("0003_rename.sql", "ALTER TABLE gold.stations RENAME COLUMN capacity TO places;")

    said = viewed.refusal()

    assert said.startswith(
        "mobility/ddl/mobility/0003_rename.sql:1: view 'mobility.gold.large' reads "
        "'mobility.gold.stations' and would fail:"
    )
    assert said.endswith("drop mobility.gold.large before, and create it again behind")


def test_a_table_that_a_view_reads_cannot_be_dropped(viewed: World) -> None:
    viewed.write("0003_drop.sql", "DROP TABLE gold.stations;")

    assert viewed.refusal(approve="x") == (
        "mobility/ddl/mobility/0003_drop.sql:1: view 'mobility.gold.large' reads 'mobility.gold.stations'\n"
        "  drop mobility.gold.large before"
    )


def test_an_unknown_column_of_a_view_is_told_when_it_is_planned(world: World) -> None:
    world.write("0001_stations.sql", STATIONS)
    world.write("0002_large.sql", "CREATE VIEW gold.large AS\nSELECT nme FROM gold.stations;")

    said = world.refusal()

    assert said.startswith('mobility/ddl/mobility/0002_large.sql:1: Binder Error: Referenced column "nme" not found')
    assert not Path(world.uri("gold.stations")).exists()


def test_a_view_of_a_table_that_is_not_built_yet_is_made_unchecked(world: World) -> None:
    from platform_core.control.ddl_catalog import Maker

    world.makers[TableRef("mobility", "gold", "rides")] = Maker.REPLACED
    world.write("0001_view.sql", "CREATE VIEW gold.v AS SELECT * FROM gold.rides;")

    (statement,) = world.only().statements

    assert statement.meaning is not None
    assert statement.meaning.notes == ("its columns were not checked: a table that it reads was not built yet",)


def test_a_view_of_another_workstream_waits_for_what_that_makes(world: World) -> None:
    world.write(
        "0001_riders.sql", "CREATE VIEW gold.riders AS SELECT rider_id FROM mobility.gold.rides;", workstream="crm"
    )
    world.write("0001_rides.sql", "CREATE TABLE gold.rides (rider_id BIGINT);", workstream="mobility")

    assert [str(each.migration) for each in world.plan().migrations] == ["mobility/0001_rides", "crm/0001_riders"]
    world.apply()
    assert _rows(world, TableRef("crm", "gold", "riders")) == []


def test_views_that_read_each_other_are_refused(viewed: World) -> None:
    viewed.write("0003_a.sql", "CREATE VIEW gold.a AS SELECT name FROM gold.large;")
    viewed.apply()
    viewed.write("0004_b.sql", "CREATE OR REPLACE VIEW gold.large AS SELECT name FROM gold.a;")

    assert "view 'mobility.gold.large' reads 'mobility.gold.a', which reads 'mobility.gold.large'" in viewed.refusal()


def test_a_dashboard_shows_a_view_as_of_the_newest_table_below(viewed: World) -> None:
    from platform_core.operations.refresh import refresh
    from platform_core.specs.refresh import RefreshSpec

    spec = RefreshSpec(
        workstream="mobility",
        name="large",
        type="page",
        shows=("gold.large",),
        options={"tables": [{"title": "Large", "table": "gold.large"}]},
    )

    outcome = refresh(spec, connection=None, root=viewed.package, platform=viewed.platform)

    assert outcome.as_of.tzinfo == dt.UTC
    below = viewed.delta("gold.stations").version()
    assert outcome.versions == {"mobility.gold.large": 1 + below, "mobility.gold.stations": below}
