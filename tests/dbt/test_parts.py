"""Entries that are a part of a project, and builds of what differs from what is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.errors import ConfigError
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import read_manifest
from platform_core.operations.dbt_project import parse
from platform_core.operations.dbt_state import (
    build_difference,
    deployed_folder,
    difference,
    forget,
    keep_deployed,
    personal,
)
from platform_core.specs.dbt import DbtSpec
from tests.dbt.conftest import SALES, Teams

pytestmark = pytest.mark.slow

TOP = DbtSpec(workstream="shop", name="top", project="sales", select=("top", "tag:nowhere"))
REVENUE = "model.sales.revenue"


@pytest.fixture(scope="module")
def shop(teams: Teams) -> Teams:
    """The sales project, with its revenue built."""
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    result = build(project, manifest=manifest, models=[REVENUE], tests=(), platform=teams.platform())
    assert result.failures == ()
    # What it reads was not in dbt's database yet, and was built with it.
    assert list(result.models) == [REVENUE]
    return teams


@pytest.fixture(scope="module")
def top(shop: Teams) -> Teams:
    """And the entry that selects one model of it."""
    project = shop.project(TOP)
    with pytest.raises(ConfigError, match="dbt project 'top' has no manifest"):
        read_manifest(TOP, folder=project.folder)
    built = project.manifest.stat().st_mtime_ns
    assert parse(project, lake=shop.platform().lake)
    assert not parse(project, lake=shop.platform().lake)
    # Of the manifest nothing had changed: entries of one project leave each other's alone.
    assert project.manifest.stat().st_mtime_ns == built
    return shop


def test_an_entry_may_select_models_by_dbts_own_words(top: Teams) -> None:
    manifest = read_manifest(TOP, folder=top.project(TOP).folder)
    assert [model.unique_id for model in manifest.models] == ["model.sales.top"]
    assert [str(ref) for ref in manifest.models[0].upstream] == ["shop.gold.revenue"]
    assert manifest.tests == ()


def test_what_an_entry_reads_of_the_others_is_the_published_table(top: Teams) -> None:
    project = top.project(TOP)
    manifest = read_manifest(TOP, folder=project.folder)
    before = top.version("gold.revenue")
    result = build(project, manifest=manifest, models=["model.sales.top"], tests=(), platform=top.platform())
    assert result.failures == ()
    assert list(result.models) == ["model.sales.top"]
    assert top.rows("gold.top") == [{"customer": "Bo", "total": 120.0}]
    assert top.version("gold.revenue") == before


def test_a_selection_of_nothing_is_refused(shop: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform_core.operations.dbt_project.selected", lambda *_, **__: frozenset())
    spec = DbtSpec(workstream="shop", name="none", project="sales", select=("tag:nowhere",))
    with pytest.raises(ConfigError, match="nothing of dbt project 'none' is selected"):
        parse(shop.project(spec), lake=shop.platform().lake)


def test_what_differs_from_the_deployed_is_built_beside_it(shop: Teams) -> None:
    environment = shop.environment
    folder = deployed_folder(environment, state=shop.state)
    project = shop.project(SALES)
    assert not difference(project, folder, lake=shop.platform().lake).deployed
    assert keep_deployed(project, folder)
    assert not keep_deployed(project, folder)

    model = project.folder / "models" / "marts" / "top.sql"
    model.write_text(model.read_text().replace(">= 100", ">= 50"))
    before = files(Path(environment.lake.root))
    ci = shop.platform("ci_812")
    assert ci.environment == personal(environment, "ci_812")
    own = shop.project(SALES, ci)
    found = difference(own, folder, lake=ci.lake)
    assert (found.models, found.deployed) == (("model.sales.top",), True)
    result = build_difference(own, found, platform=ci)
    assert result.failures == ()
    assert [str(ref) for ref in result.deferred] == ["shop.gold.revenue"]
    assert shop.rows("gold.top", person="ci_812") == [
        {"customer": "Ada", "total": 60.0},
        {"customer": "Bo", "total": 120.0},
    ]
    forget(ci)
    assert shop.reader("gold.top", person="ci_812") is None
    assert not own.state.exists()
    assert files(Path(environment.lake.root)) == before


def files(lake: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in lake.rglob("*") if path.is_file() and "_people" not in path.parts}
