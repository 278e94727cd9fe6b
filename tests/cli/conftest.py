"""A project of one location on disk, and the commands called as a person would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

FILES = {
    "workspace.yaml": "load_from:\n  - python_module: {module_name: cli_shop.definitions, location_name: shop}\n",
    "dagster_home/environments/dev.yaml": "lake: {root: lake}\nsecrets: {type: environment}\n",
    "cli_shop/__init__.py": "",
    "cli_shop/definitions.py": "",
    "cli_shop/steps.py": "def train(context): ...\n",
    "cli_shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
    "cli_shop/control/connections.yaml": "connections:\n  - {name: erp, type: sqlite, path: '${env.state}/erp.db'}\n",
    "cli_shop/control/ingestion.yaml": (
        "source: erp\ntables:\n"
        "  - {object: orders, mode: incremental, key: [order_id], cursor: updated_at}\n"
        "  - {object: customers, mode: full, key: [customer_id], columns: {name: {mask: full}}}\n"
    ),
    "cli_shop/control/processing.yaml": (
        "steps:\n  - {name: forecast, layer: gold, kind: python, function: 'cli_shop.steps:train', "
        "depends_on: [bronze.orders]}\n"
    ),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("EDP_PROJECT", "EDP_STATE", "EDP_ENVIRONMENT", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def call() -> Callable[..., Result]:
    """Call one command by its module's name."""

    def run(name: str, *arguments: str) -> Result:
        from importlib import import_module

        return CliRunner().invoke(import_module(f"platform_core.cli.{name}").command, arguments)

    return run
