"""Builds in Spark, up to Spark: what its session is asked to show, and what is taken from the tables that it left.

Spark itself is stood in for at its own interface; tests/dbt/spark_builds.py has it do the work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from platform_core.engines.dbt_spark import session_for_dbt
from platform_core.engines.messages import clean_text
from platform_core.engines.spark_sessions import LocalSpark
from platform_core.errors import StorageError
from platform_core.lake.delta import write
from platform_core.operations.dbt_deferral import Deferral
from platform_core.operations.dbt_manifest import DbtManifest, read_manifest
from platform_core.operations.dbt_spark import SparkWarehouse
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.environment import DbtChoice, EngineChoice
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef
from tests.dbt.conftest import SALES, Teams

pytestmark = pytest.mark.slow

REVENUE, TOP, BUILDS, HISTORY = (
    "model.sales.revenue",
    "model.sales.top",
    "model.sales.builds",
    "snapshot.sales.customer_history",
)
ROWS = pa.table({"id": [1]})


@dataclass
class Work:
    """A warehouse, and what Spark would find and leave."""

    warehouse: SparkWarehouse
    manifest: DbtManifest
    folder: Path

    def prepare(self, *wanted: str, full_refresh: bool = False) -> Deferral:
        return self.warehouse.prepare(self.manifest, wanted=wanted, full_refresh=full_refresh)

    @property
    def shown(self) -> dict[str, tuple[str, int | None]]:
        """Folder and version of what the session shows, by name."""
        asked = json.loads((self.folder / "session.json").read_bytes())
        return {f"{schema}.{name}": (folder, version) for schema, name, folder, version in asked["tables"]}

    def leave(self, *names: str) -> None:
        """What Spark does when a model is built."""
        for name in names:
            uri = str(self.folder / "tables" / "analytics.db" / name)
            ref = TableRef("shop", "analytics", name)
            write(ROWS.to_reader(), table=ref, uri=uri, storage_options={}, mode=WriteMode.OVERWRITE)


@pytest.fixture
def work(teams: Teams) -> Iterator[Work]:
    teams.environment = teams.environment.model_copy(
        update={
            "dbt": DbtChoice(target="spark"),
            "spark": EngineChoice(type="local", options={"config": {"spark.jars": "delta.jar"}}),
        }
    )
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    yield Work(SparkWarehouse(project, teams.platform()), manifest, project.state / project.name / "spark")


def test_spark_is_shown_the_tables_of_the_lake_where_they_lie(work: Work, teams: Teams) -> None:
    assert work.prepare(HISTORY) == Deferral()
    customers = teams.platform().lake.table(TableRef("shop", "silver", "customers"))
    assert work.shown == {"silver.customers": (customers, teams.version("silver.customers"))}
    options = json.loads((work.folder / "session.json").read_bytes())["options"]
    assert options["config"]["spark.jars"] == "delta.jar"
    # Rows that Spark spills stay in the project's own folder.
    assert options["config"]["spark.local.dir"] == str(work.folder / "scratch")


def test_a_source_that_only_a_test_looks_at_is_shown_too(work: Work) -> None:
    orders = TableRef("shop", "silver", "orders")
    work.warehouse.prepare(work.manifest, wanted=[HISTORY], tested=[orders, TableRef("shop", "gold", "revenue")])
    assert sorted(work.shown) == ["silver.customers", "silver.orders"]


def test_what_models_read_that_is_not_there_is_built_with_them(work: Work) -> None:
    assert work.prepare(TOP).built == {REVENUE, "model.sales.stg_orders", "seed.sales.rates"}
    work.leave("revenue")
    assert work.prepare(TOP).built == set()
    folder = str(work.folder / "tables" / "analytics.db" / "revenue")
    assert work.shown["analytics.revenue"] == (folder, 0)


def test_what_is_built_is_added_to_or_made_anew(work: Work) -> None:
    work.leave("revenue", "builds", "customer_history", "gone")
    left = work.folder / "tables" / "analytics.db"
    work.prepare(REVENUE, BUILDS, HISTORY)
    assert work.shown["analytics.builds"] == (str(left / "builds"), None)
    assert sorted(each.name for each in left.iterdir()) == ["builds", "customer_history"]
    work.prepare(BUILDS, HISTORY, full_refresh=True)
    # A snapshot keeps its history, as dbt has it.
    assert [each.name for each in left.iterdir()] == ["customer_history"]


def test_a_view_of_the_lake_is_copied_once_a_version(work: Work) -> None:
    class View(TableReader):
        version = 3
        schema = ROWS.schema

        def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
            return ROWS.to_reader()

    class ReadTwice(View):
        def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
            raise AssertionError("it was read again")

    ref = TableRef("shop", "silver", "seen")
    copy, version = work.warehouse._in_reach(ref, View())
    assert (Path(copy).parent.name, version) == ("seen", 0)
    assert work.warehouse._in_reach(ref, ReadTwice()) == (copy, version)


def test_rows_and_columns_are_those_that_spark_has_left(work: Work) -> None:
    work.prepare(HISTORY)
    work.leave("top")
    (work.folder / "columns.json").write_text(json.dumps([["analytics", "top", {"id": "bigint"}]]))
    with work.warehouse.built() as built:
        assert built.columns() == {("analytics", "top"): {"id": "bigint"}}
        assert built.rows(("analytics", "TOP")).read_all() == ROWS
        with pytest.raises(StorageError, match=r"analytics\.elsewhere was built, and is no Delta table"):
            built.rows(("analytics", "elsewhere"))


@dataclass
class Session:
    """As much of a Spark session as is asked for; a table that cannot be read is a view of something gone."""

    said: list[str] = field(default_factory=list)

    @property
    def catalog(self) -> Any:
        tables = [SimpleNamespace(name="top"), SimpleNamespace(name="gone")]
        return SimpleNamespace(
            listDatabases=lambda: [SimpleNamespace(name="analytics")], listTables=lambda schema: tables
        )

    def sql(self, statement: str) -> None:
        self.said.append(statement)

    def table(self, name: str) -> Any:
        if "gone" in name:
            raise RuntimeError
        bigint = SimpleNamespace(simpleString=lambda: "bigint")
        return SimpleNamespace(schema=SimpleNamespace(fields=[SimpleNamespace(name="id", dataType=bigint)]))


def asked(folder: Path) -> Path:
    tables = [["silver", "rides", "/lake/ri`des", 7], ["analytics", "builds", "/own/bu'ilds", None]]
    file = folder / "session.json"
    file.write_text(json.dumps({"options": {"master": "local[1]"}, "tables": tables}))
    return file


def test_a_session_shows_the_lake_as_views_and_what_is_added_to_as_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    monkeypatch.setattr(LocalSpark, "open", lambda self, *, name: session)
    errors = ModuleType("pyspark.errors")
    errors.AnalysisException = RuntimeError  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "pyspark.errors", errors)
    with session_for_dbt(asked(tmp_path)):
        assert session.said == [
            "CREATE SCHEMA IF NOT EXISTS `silver`",
            "CREATE VIEW `silver`.`rides` AS SELECT * FROM `delta`.`/lake/ri``des` VERSION AS OF 7",
            "CREATE SCHEMA IF NOT EXISTS `analytics`",
            "CREATE TABLE `analytics`.`builds` USING DELTA LOCATION '/own/bu\\'ilds'",
        ]
    assert json.loads((tmp_path / "columns.json").read_bytes()) == [["analytics", "top", {"id": "bigint"}]]


def test_why_there_is_no_session_is_a_line_of_dbts_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(SystemExit), session_for_dbt(asked(tmp_path)):
        pass
    line = json.loads(capsys.readouterr().out)
    assert line["info"]["level"] == "error"
    assert "needs pyspark" in line["info"]["msg"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Runtime Error\n  [TABLE_OR_VIEW_NOT_FOUND] The table `a`.`b` cannot be found.\n"
            "Try IF EXISTS. SQLSTATE: 42P01;\n'Project [*]\n+- LocalRelation [ada@example.org]",
            "Runtime Error\n  [TABLE_OR_VIEW_NOT_FOUND] The table `a`.`b` cannot be found.\n  Try IF EXISTS.",
        ),
        (
            "[CAST_INVALID_INPUT] The value 'ada@example.org' of the type \"STRING\" cannot be cast. SQLSTATE: 22018",
            "CAST_INVALID_INPUT: Spark's own text is left out, for it may hold row values",
        ),
        (
            "Runtime Error\n  An error occurred while calling o42.sql.\n: org.apache.spark.SparkException: ada",
            "Runtime Error\n  An error occurred while calling o42.sql.\n"
            "  Spark's own text is left out, for it may hold row values",
        ),
    ],
)
def test_what_spark_says_of_rows_is_left_out(said: str, told: str) -> None:
    assert clean_text(said) == told
