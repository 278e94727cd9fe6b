"""What a person has not built is read from the shared tables, without a copy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from platform_core.errors import StepError
from platform_core.lake.views import make_view
from platform_core.operations.inputs import open_inputs
from platform_core.operations.process import LastSuccess, StepContext, process
from platform_core.operations.refresh import refresh
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.ddl import CreateView, Stamp
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef
from tests.developer.conftest import LONGEST, SHORT, House

RIDES = TableRef("mobility", "bronze", "rides")
SHORT_RIDES = TableRef("mobility", "silver", "short_rides")
STAMP = Stamp(workstream="mobility", number=1, statement=1, digest="0" * 64)


def test_a_step_reads_the_shared_table_and_makes_the_persons_own(house: House, unchanged: Callable[[], None]) -> None:
    result = house.step(house.platform("anna"), "silver.short_rides", SHORT)
    assert result.deferred == (RIDES,)
    assert house.rows("silver.short_rides", person="anna") == house.rows("silver.short_rides")
    assert house.rows("bronze.rides", person="anna") is None


def test_what_the_person_has_built_goes_before_the_shared_table(house: House) -> None:
    anna = house.platform("anna")
    house.ride((4, "west", 1))
    house.load(anna)
    result = house.step(anna, "silver.short_rides", SHORT)
    assert result.deferred == ()
    assert [row["ride_id"] for row in house.rows("silver.short_rides", person="anna") or ()] == [1, 2, 4]
    assert [row["ride_id"] for row in house.rows("silver.short_rides") or ()] == [1, 2]


def test_a_table_that_nobody_has_is_told_with_both_places(house: House) -> None:
    with pytest.raises(StepError) as caught:
        house.step(house.platform("anna"), "gold.x", "SELECT 1 AS one FROM gold.none")
    assert (
        f"table mobility.gold.none does not exist yet\n  looked at: {house.lake}/_people/anna/mobility/gold/none, "
        f"then {house.lake}/mobility/gold/none"
    ) in str(caught.value)


def test_batches_of_the_shared_table_say_nothing_of_the_persons_own(house: House) -> None:
    anna = house.platform("anna")
    read = house.step(anna, "silver.short_rides", SHORT)
    assert dict(read.read_batches) == {"mobility.bronze.rides (shared)": 1}
    seen: list[int] = []

    def count(context: StepContext) -> None:
        seen.append(context.changed_rows("bronze.rides").read_all().num_rows)

    last = LastSuccess(started_at=dt.datetime.now(dt.UTC), read_batches=read.read_batches)
    spec = ProcessingSpec(
        workstream="mobility",
        layer="silver",
        name="counted",
        kind="python",
        function="count",
        depends_on=("bronze.rides",),
    )
    for _ in range(2):
        opened = open_inputs(spec.inputs, platform=anna)
        count(StepContext(spec, inputs=opened.readers, platform=anna, last=last))
        house.load(anna)
    # Of the shared table nothing is new; of the person's own, whose batches count from one, everything is.
    assert seen == [0, 3]


def test_an_append_goes_on_when_its_input_becomes_the_persons_own(house: House) -> None:
    anna = house.platform("anna")
    sql = "SELECT ride_id FROM bronze.rides"
    assert house.step(anna, "gold.seen", sql, write="append").committed
    assert not house.step(anna, "gold.seen", sql, write="append").committed
    house.load(anna)
    assert house.step(anna, "gold.seen", sql, write="append").committed


def test_a_shared_view_reads_the_persons_own_table(house: House) -> None:
    shared, anna = house.platform(), house.platform("anna")
    view = TableRef("mobility", "gold", "stations")
    sql = 'SELECT DISTINCT station FROM "mobility"."silver"."short_rides"'
    change = CreateView(table=view, sql=sql, reads=(SHORT_RIDES,), comment="")
    make_view(change, uri=shared.lake.table(view), storage_options={}, stamp=STAMP)
    before = house.step(anna, "gold.a", "SELECT * FROM gold.stations")
    assert before.deferred == (view, SHORT_RIDES)
    house.put(anna, "silver.short_rides", pa.table({"ride_id": [9], "station": ["mine"]}))
    after = house.step(anna, "gold.a", "SELECT * FROM gold.stations")
    assert after.deferred == (view,)
    assert house.rows("gold.a", person="anna") == [{"station": "mine"}]


def test_a_table_that_appears_while_a_step_opens_its_inputs_is_the_next_ones(house: House) -> None:
    shared, anna = house.platform(), house.platform("anna")
    view = TableRef("mobility", "gold", "stations")
    sql = 'SELECT count(*) AS rides FROM "mobility"."silver"."short_rides"'
    change = CreateView(table=view, sql=sql, reads=(SHORT_RIDES,), comment="")
    make_view(change, uri=shared.lake.table(view), storage_options={}, stamp=STAMP)

    def refs() -> list[TableRef]:
        return [SHORT_RIDES, view]

    class Appearing(list[TableRef]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield SHORT_RIDES
            house.put(anna, "silver.short_rides", pa.table({"ride_id": [9], "station": ["mine"]}))
            yield view

    opened = open_inputs(Appearing(), platform=anna)
    assert opened.deferred == (view, SHORT_RIDES)
    assert opened.readers[view].read().read_all().to_pylist() == [{"rides": 2}]
    assert open_inputs(refs(), platform=anna).deferred == (view,)


def test_a_page_of_the_persons_own_shows_the_shared_tables(house: House, unchanged: Callable[[], None]) -> None:
    spec = RefreshSpec(
        workstream="mobility",
        name="board",
        type="page",
        shows=["silver.short_rides"],
        options={"tables": [{"title": "Rides", "table": "silver.short_rides"}]},
    )
    outcome = refresh(spec, connection=None, root=house.root, platform=house.platform("anna"))
    assert outcome.deferred == (SHORT_RIDES,)
    assert dict(outcome.versions) == {"mobility.silver.short_rides (shared)": 0}
    assert (house.lake / "_people/anna/mobility/dashboard/board/index.html").is_file()


def test_in_an_environment_of_everybody_nothing_is_deferred(house: House) -> None:
    shared = house.platform()
    house.put(house.platform("anna"), "gold.mine", pa.table({"one": [1]}))
    assert house.step(shared, "gold.longest", LONGEST).deferred == ()
    with pytest.raises(StepError, match=r"mobility\.gold\.mine does not exist yet\n  looked at: [^,]*\n"):
        house.step(shared, "gold.y", "SELECT * FROM gold.mine")


def test_what_another_person_has_built_is_not_seen(house: House) -> None:
    house.put(house.platform("anna"), "gold.mine", pa.table({"one": [1]}))
    with pytest.raises(StepError, match=r"mobility\.gold\.mine does not exist yet"):
        house.step(house.platform("bo"), "gold.y", "SELECT * FROM gold.mine")


def test_a_python_step_is_told_what_is_deferred(house: House, tmp_path: Path) -> None:
    anna = house.platform("anna")
    spec = ProcessingSpec(
        workstream="mobility",
        layer="silver",
        name="copied",
        kind="python",
        function=f"{__name__}:copied",
        depends_on=("silver.short_rides",),
    )
    result = process(spec, root=tmp_path, platform=anna, last=None)
    assert result.deferred == (SHORT_RIDES,)
    assert house.rows("silver.copied", person="anna") == house.rows("silver.short_rides")


def copied(context: StepContext) -> pa.Table:
    """The function of the step above."""
    table = context.inputs["silver.short_rides"]
    assert table.deferred
    assert isinstance(table._reader, TableReader)
    return table.arrow()
