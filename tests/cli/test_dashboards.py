"""``edp dashboards``: what each dashboard shows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from platform_core.control.environment import load_environment
from platform_core.control.loads import open_loads
from platform_core.control.refresh_log import RefreshRow
from platform_core.operations.platform import open_secrets
from platform_core.plugins.interfaces import ShownTable
from platform_core.settings import read_settings
from platform_core.specs.table import TableRef

AT = dt.datetime(2026, 11, 21, 6, 0, tzinfo=dt.UTC)
BOARDS = (
    "dashboards:\n"
    "  - {name: orders, type: page, shows: [bronze.orders], tables: [{title: A, table: bronze.orders}]}\n"
    "  - {name: later, type: page, shows: [bronze.orders], tables: [{title: A, table: bronze.orders}]}\n"
)


@pytest.fixture
def recorded(project: Path) -> Path:
    """Of two dashboards one was refreshed, and failed since."""
    (project / "cli_shop/control/refresh.yaml").write_text(BOARDS)
    settings = read_settings(environment=None)
    environment = load_environment(settings)
    loads = open_loads(environment.control, state=settings.state, secrets=open_secrets(environment.secrets))
    row = RefreshRow(
        dashboard=TableRef("shop", "dashboard", "orders"),
        status="succeeded",
        run_id="1234",
        as_of=AT,
        started_at=AT,
        ended_at=AT + dt.timedelta(minutes=5),
        cut={"shop.bronze.orders": ShownTable(version=12, batch=7, made_at=AT)},
        moved=("shop.bronze.orders",),
    )
    loads.refresh_log().record(row)
    failed = {"status": "failed", "error": "the service is away\n  look there", "ended_at": AT + dt.timedelta(hours=1)}
    loads.refresh_log().record(RefreshRow(**(vars(row) | failed)))
    loads.close()
    return project


def test_it_shows_versions_batches_and_the_last_failure(recorded: Path, call: Callable[..., Result]) -> None:
    result = call("dashboards")
    assert result.output.splitlines() == [
        "shop.orders (page): as of 2026-11-21 06:00:00 UTC, refreshed 2026-11-21 06:05:00 UTC",
        "  shop.bronze.orders  version 12, batch 7, made 2026-11-21 06:00:00 UTC",
        "  newer when it ended: shop.bronze.orders",
        "  failed 2026-11-21 07:00:00 UTC: the service is away",
        "shop.later (page): not refreshed yet",
    ]


def test_as_json_it_has_the_whole_cut(recorded: Path, call: Callable[..., Result]) -> None:
    (found,) = json.loads(call("dashboards", "shop.orders", "--json").output)
    assert found["tables"] == {
        "shop.bronze.orders": {"version": 12, "batch": 7, "made_at": "2026-11-21T06:00:00+00:00"}
    }
    assert found["as_of"] == "2026-11-21T06:00:00+00:00"
    assert found["last_attempt"]["status"] == "failed"


def test_an_unknown_name_is_told_with_the_one_that_was_meant(recorded: Path, call: Callable[..., Result]) -> None:
    result = call("dashboards", "shop.order")
    assert result.exit_code == 2
    assert "did you mean 'shop.orders'?" in result.output


def test_a_cut_that_there_is_not_is_refused_where_it_is_declared(project: Path, call: Callable[..., Result]) -> None:
    wrong = BOARDS.replace("shows:", "cut: consistant, shows:", 1)
    (project / "cli_shop/control/refresh.yaml").write_text(wrong)
    result = call("check")
    assert "cli_shop/control/refresh.yaml:2: unknown cut 'consistant'\n  known: consistent, latest" in result.output
