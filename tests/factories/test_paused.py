"""What is paused is there, and nothing starts it but a person."""

from pathlib import Path

import dagster as dg
import pytest

from platform_core.definitions import build_definitions
from platform_core.settings import Settings

LOCATION = 'location: crm\nworkstreams:\n  - {name: crm, owners: ["team:crm"], schedule: {cron: "0 5 * * *"}}\n'
CONNECTIONS = "connections:\n  - {name: shop, type: sqlite, path: /shop.db}\n"
INGESTION = """
source: shop
tables:
  - {object: riders, mode: full, key: [id]}
  - {object: rides, mode: full, key: [id], paused: true}
"""
PROCESSING = """
steps:
  - {name: active, layer: silver, kind: sql, sql: a.sql, depends_on: [bronze.riders]}
  - {name: idle, layer: silver, kind: sql, sql: a.sql, depends_on: [bronze.riders], paused: true}
"""
REFRESH = """
dashboards:
  - {name: board, type: page, shows: [silver.active], tables: [{title: A, table: silver.active}], paused: true}
"""
PAUSED = [dg.AssetKey(["crm", *parts]) for parts in (("bronze", "rides"), ("silver", "idle"), ("dashboard", "board"))]
ACTIVE = [dg.AssetKey(["crm", *parts]) for parts in (("bronze", "riders"), ("silver", "active"))]


@pytest.fixture
def definitions(tmp_path: Path) -> dg.Definitions:
    control, home = tmp_path / "crm" / "control", tmp_path / "dagster_home"
    for folder in (control / "ingestion", control / "processing", home / "environments"):
        folder.mkdir(parents=True)
    texts = {"location": LOCATION, "connections": CONNECTIONS, "refresh": REFRESH}
    texts |= {"ingestion/shop": INGESTION, "processing/steps": PROCESSING}
    for name, text in texts.items():
        (control / f"{name}.yaml").write_text(text)
    (tmp_path / "crm" / "a.sql").write_text("SELECT 1 AS one FROM bronze.riders\n")
    (home / "environments" / "dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    settings = Settings(project=tmp_path, home=home, state=tmp_path / "state", environment="dev")
    return build_definitions(control, settings=settings)


def test_what_is_paused_is_neither_scheduled_nor_requested_and_can_be_run_by_hand(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    scheduled = definitions.resolve_job_def("crm").asset_layer.executable_asset_keys
    assert scheduled == set(ACTIVE)
    for key in PAUSED:
        assert graph.get(key).automation_condition is None
        assert graph.get(key).is_executable


def test_what_is_paused_says_so(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    assert [graph.get(key).tags.get("edp/paused") for key in (*PAUSED, *ACTIVE)] == ["true"] * 3 + [None] * 2
