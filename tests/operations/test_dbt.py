"""A dbt project over the lake: its manifest, its runs, and what is published."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import ConfigError, StepError
from platform_core.lake.delta import open_table
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import DbtManifest, read_manifest
from platform_core.operations.dbt_project import DbtProject, open_project, parse
from platform_core.operations.dbt_results import DbtResult
from platform_core.operations.platform import Platform
from platform_core.specs.dbt import DbtSpec

PROJECT = Path(__file__).parent / "dbt_project"
TOTALS, BEST = "model.shop.totals", "model.shop.best"
SECRET = "ada@example.org"

pytestmark = pytest.mark.usefixtures("dbt_in_forks")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, apart: Any) -> tuple[Path, Path]:
    """Where each test works, and a copy to begin it with: project, lake and state after one good run."""
    root = tmp_path_factory.mktemp("shop")
    now, copy = root / "now", root / "copy"
    shutil.copytree(PROJECT, now / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    platform = apart.platform_at(now)
    project = open_project(spec(), root=now, state=platform.state)
    assert parse(project, lake=platform.lake)
    put_orders(partial(apart.put_into, platform), 10.0, 60.0)
    assert run(project, platform).failures == ()
    shutil.copytree(now, copy)
    return now, copy


@pytest.fixture
def platform(kept: tuple[Path, Path], apart: Any) -> Platform:
    """The shop as the good run left it, at the same place for each test: dbt parses anew when its paths change."""
    now, copy = kept
    shutil.rmtree(now)
    shutil.copytree(copy, now)
    found: Platform = apart.platform_at(now)
    return found


@pytest.fixture
def project(platform: Platform) -> DbtProject:
    return open_project(spec(), root=platform.state.parent, state=platform.state)


def spec(**fields: Any) -> DbtSpec:
    return DbtSpec(**{"workstream": "shop", "name": "analytics", "project": "dbt"} | fields)


def put_orders(put: Callable[..., int], *amounts: float) -> None:
    """Put two customers, Ada and Bo, and orders of every other one of them into the lake."""
    put("shop.silver.customers", pa.table({"customer_id": [1, 2], "name": ["Bo", "Ada"]}))
    ids = list(range(1, len(amounts) + 1))
    rows = {"order_id": ids, "customer_id": [2 - number % 2 for number in ids], "amount": list(amounts)}
    put("shop.silver.orders", pa.table(rows))


def run(project: DbtProject, platform: Platform, *, models: list[str] | None = None) -> DbtResult:
    manifest = read_manifest(project.spec, folder=project.folder)
    chosen = models if models is not None else [model.unique_id for model in manifest.models]
    tests = [test.unique_id for test in manifest.tests] if models is None else []
    return build(project, manifest=manifest, models=chosen, tests=tests, platform=platform)


def version(platform: Platform, name: str) -> int | None:
    table = open_table(f"{platform.lake.root}/shop/gold/{name}", storage_options={})
    return None if table is None else int(table.version())


def test_the_manifest_tells_models_tests_and_sources(project: DbtProject) -> None:
    manifest: DbtManifest = read_manifest(project.spec, folder=project.folder)
    models = {str(model.ref): model for model in manifest.models}
    assert list(models) == ["shop.staging.stg_orders", "shop.gold.totals", "shop.gold.best"]
    assert [str(ref) for ref in models["shop.gold.totals"].upstream] == [
        "shop.silver.customers",
        "shop.staging.stg_orders",
    ]
    assert [model.published for model in manifest.models] == [False, True, True]
    assert models["shop.gold.totals"].columns["customer"] == "Name of the customer."
    tests = {test.name: test for test in manifest.tests}
    # Another project may have a test of this name on the same table.
    assert str(tests["shop_analytics__source_not_null_shop_orders_order_id"].on) == "shop.silver.orders"
    assert str(tests["no_total_is_too_small"].on) == "shop.gold.totals"
    assert not tests["not_null_totals_total"].blocking


def test_a_missing_manifest_says_what_builds_it(project: DbtProject) -> None:
    project.manifest.unlink()
    with pytest.raises(ConfigError, match=r"has no manifest\n.*\n  edp setup"):
        read_manifest(project.spec, folder=project.folder)


def test_a_manifest_is_stale_once_a_file_is_newer(project: DbtProject) -> None:
    assert not project.stale()
    model = project.folder / "models" / "marts" / "best.sql"
    os.utime(model)
    assert project.stale()


def test_a_fresh_manifest_is_not_built_again(project: DbtProject, platform: Platform) -> None:
    built = project.manifest.stat().st_mtime_ns
    assert not parse(project, lake=platform.lake)
    assert project.manifest.stat().st_mtime_ns == built


def test_a_project_that_dbt_cannot_read_is_refused_with_its_words(project: DbtProject, platform: Platform) -> None:
    (project.folder / "models" / "marts" / "best.sql").write_text("select * from {{ ref('nowhere') }}")
    before = project.manifest.read_bytes()
    with pytest.raises(ConfigError, match="nowhere"):
        parse(project, lake=platform.lake)
    assert project.manifest.read_bytes() == before
    assert [path.name for path in (project.folder / "target").iterdir() if path.name.startswith("parse-")] == []


def test_a_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dbt_project\.yml"):
        open_project(spec(), root=tmp_path, state=tmp_path)


def test_a_mart_that_is_a_view_cannot_be_published(project: DbtProject) -> None:
    raw = json.loads(project.manifest.read_bytes())
    raw["nodes"][BEST]["config"]["materialized"] = "view"
    project.manifest.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="'best' cannot be published: it is materialized as view"):
        read_manifest(project.spec, folder=project.folder)


@pytest.mark.slow
def test_marts_are_built_from_the_newest_lake_tables_and_published(
    project: DbtProject, platform: Platform, put: Any, rows: Any
) -> None:
    put_orders(put, 10.0, 60.0, 20.0)
    result = run(project, platform)
    assert result.failures == ()
    assert rows("shop.gold.totals").to_pydict() == {"customer": ["Ada", "Bo"], "orders": [1, 2], "total": [60.0, 30.0]}
    assert rows("shop.gold.best").to_pydict() == {"customer": ["Ada"], "total": [60.0]}
    assert open_table(f"{platform.lake.root}/shop/staging/stg_orders", storage_options={}) is None
    assert (result.models[TOTALS].rows, result.models[TOTALS].version, version(platform, "totals")) == (2, 1, 1)
    assert result.models["model.shop.stg_orders"].rows is None
    assert {node.status for node in result.tests.values()} == {"pass"}
    assert result.models[TOTALS].columns == {"customer": "VARCHAR", "orders": "BIGINT", "total": "DOUBLE"}
    lineage = result.models[TOTALS].column_lineage
    assert {column: [(str(ref), name) for ref, name in origins] for column, origins in lineage.items()} == {
        "customer": [("shop.silver.customers", "name")],
        "orders": [],
        "total": [("shop.staging.stg_orders", "amount")],
    }
    written = {path.name for path in project.folder.iterdir()}
    assert written == {".gitignore", "dbt_project.yml", "models", "profiles.yml", "tests", "target"}
    assert {path.name for path in (project.folder / "target").iterdir()} == {"manifest.json", "partial_parse.msgpack"}


@pytest.mark.slow
def test_a_failing_test_keeps_what_was_published(project: DbtProject, platform: Platform, put: Any, rows: Any) -> None:
    put_orders(put, 10.0, -60.0)
    result = run(project, platform)
    assert list(result.models) == ["model.shop.stg_orders"]
    assert result.tests["test.shop.no_total_is_too_small"].status == "fail"
    assert "shop.gold.totals: not all of its tests passed; what was published before stays" in result.failures
    assert "shop.gold.best: skipped; what was published before stays" in result.failures
    assert rows("shop.gold.totals")["total"].to_pylist() == [60.0, 10.0]
    assert (version(platform, "totals"), version(platform, "best")) == (0, 0)


@pytest.mark.slow
def test_one_model_may_be_built_alone_from_newer_sources(
    project: DbtProject, platform: Platform, put: Any, rows: Any
) -> None:
    put_orders(put, 10.0, 60.0, 20.0)
    result = run(project, platform, models=[TOTALS])
    assert result.failures == ()
    assert list(result.models) == [TOTALS]
    assert set(result.tests) == {
        test.unique_id for test in read_manifest(project.spec, folder=project.folder).tests if TOTALS in test.reads
    }
    assert rows("shop.gold.totals")["total"].to_pylist() == [60.0, 30.0]
    assert (version(platform, "totals"), version(platform, "best")) == (1, 0)


@pytest.mark.slow
def test_a_missing_source_table_is_named(project: DbtProject, platform: Platform) -> None:
    shutil.rmtree(Path(platform.lake.root) / "shop" / "silver" / "orders")
    result = run(project, platform)
    assert result.models == {}
    assert any("table shop.silver.orders does not exist yet" in failure for failure in result.failures)


@pytest.mark.slow
def test_an_error_of_a_model_tells_no_value(project: DbtProject, platform: Platform, put: Any) -> None:
    put("shop.silver.customers", pa.table({"customer_id": [1, 2], "name": ["1", SECRET]}))
    model = project.folder / "models" / "marts" / "totals.sql"
    model.write_text(model.read_text().replace("c.name as customer", "cast(c.name as integer) as customer"))
    logged: list[str] = []
    log = platform.log.getChild("dbt")
    log.addFilter(lambda record: bool(logged.append(record.getMessage())) or True)
    result = run(project, replace(platform, log=log))
    assert any("Conversion Error" in failure for failure in result.failures)
    assert SECRET not in "".join([*result.failures, *logged])


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def slow(project: DbtProject) -> Path:
    """Make the last mart take for ever, once it has begun; gives a file that exists from then on."""
    sql = "select customer, total from {{ ref('totals') }}, (select count(*) from range(100000000) a, range(100000) b"
    (project.folder / "models" / "marts" / "best.sql").write_text(sql + " where hash(a.range) = hash(b.range + 1))")
    begun = project.target / "run" / "shop" / "models" / "marts" / "best.sql"
    begun.unlink()
    return begun


@pytest.mark.slow
def test_a_cancelled_run_ends_dbt_and_publishes_nothing(project: DbtProject, platform: Platform) -> None:
    begun = slow(project)
    with pytest.raises(StepError, match="cancelled; nothing was published"):
        run(project, replace(platform, cancelled=begun.is_file))
    assert version(platform, "totals") == 0
    # The database is free again: nothing of dbt is left.
    with project.locked(cancelled=lambda: True, log=print):
        import duckdb

        duckdb.connect(str(project.database)).close()


@pytest.mark.slow
def test_a_killed_run_takes_dbt_with_it_and_leaves_what_was_published(
    project: DbtProject, platform: Platform, tmp_path: Path
) -> None:
    begun = slow(project)
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "from platform_core.control.loads import open_loads\n"
        "from platform_core.engines.local import LocalEngine, LocalOptions\n"
        "from platform_core.lake.paths import Lake\n"
        "from platform_core.operations.dbt import build\n"
        "from platform_core.operations.dbt_manifest import read_manifest\n"
        "from platform_core.operations.dbt_project import open_project\n"
        "from platform_core.operations.platform import Platform\n"
        "from platform_core.specs.dbt import DbtSpec\n"
        "from platform_core.specs.environment import ControlSpec\n"
        f"root = Path({str(platform.state.parent)!r})\n"
        "platform = Platform(environment=None, lake=Lake(str(root / 'lake')), engine=LocalEngine(LocalOptions()),\n"
        "                    secrets=None, loads=open_loads(ControlSpec(), state=root / 'state', secrets=None),\n"
        "                    state=root / 'state')\n"
        "spec = DbtSpec(workstream='shop', name='analytics', project='dbt')\n"
        "project = open_project(spec, root=root, state=platform.state)\n"
        "manifest = read_manifest(project.spec, folder=project.folder)\n"
        "build(project, manifest=manifest, models=list(manifest.model_by_id), tests=[], platform=platform)\n"
    )
    worker = subprocess.Popen([sys.executable, str(script)])
    wait_for(begun.is_file)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert (version(platform, "totals"), version(platform, "best")) == (0, 0)

    # Whoever has the lock may open the database: dbt has ended, though nobody ended it.
    end = time.monotonic() + 30
    with project.locked(cancelled=lambda: time.monotonic() > end, log=print):
        import duckdb

        duckdb.connect(str(project.database)).close()


def test_two_runs_of_one_project_follow_each_other(project: DbtProject) -> None:
    order: list[str] = []
    first_in, first_out = threading.Event(), threading.Event()

    def first() -> None:
        with project.locked(log=lambda _: None):
            first_in.set()
            first_out.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait(10)
    with project.locked(log=lambda _: first_out.set()):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_dbt_process_gets_few_variables(project: DbtProject, platform: Platform, monkeypatch: Any) -> None:
    monkeypatch.setenv("A_PASSWORD", SECRET)
    lake = replace(platform.lake, storage_options={"account_key": SECRET})
    environment = project.environment(lake)
    assert "A_PASSWORD" not in environment
    # dbt keeps values of variables with this prefix out of its logs.
    assert [name for name, value in environment.items() if SECRET in value] == ["DBT_ENV_SECRET_LAKE_OPTIONS"]
    assert SECRET not in " ".join(project.command("build", target=project.target))
