"""Which secrets are referred to, wherever a reference stands, and by whom they may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.secret_names import secret_names
from platform_core.control.workspace import examine
from platform_core.settings import Settings
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import EnvironmentSpec


def test_references_are_found_at_any_depth_and_in_any_form() -> None:
    environment = EnvironmentSpec(
        name="dev",
        lake={"root": "lake", "storage_options": {"key": {"secret": "platform/lake"}, "account": "a"}},
        secrets={"type": "environment"},
        control={"url": "postgresql+psycopg://u@h/d", "password": {"secret": "platform/control"}},
    )
    assert sorted(secret_names(environment)) == ["platform/control", "platform/lake"]
    written = {"auth": [{"token": {"secret": "crm/a"}}, SecretRef(secret="crm/b")], "secret": 1, "x": {"secret": 2}}
    assert sorted(secret_names(written)) == ["crm/a", "crm/b"]


@pytest.mark.parametrize(
    "connection",
    [
        "{name: c, type: files, root: /x, storage_options: {key: {secret: hr/salaries}}}",
        "{name: c, type: files, root: /x, storage_options: {deep: {er: [{secret: hr/salaries}]}}}",
        "{name: c, type: postgres, host: h, database: d, user: u, password: {secret: hr/salaries}}",
    ],
)
def test_e13_a_secret_of_another_workstream_is_refused_wherever_it_is_named(
    tmp_path: Path, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "workspace.yaml": "load_from:\n  - python_module: {module_name: e11_shop.definitions, location_name: shop}\n",
        "dagster_home/environments/dev.yaml": "lake: {root: lake}\nsecrets: {type: environment}\n",
        "e11_shop/__init__.py": "",
        "e11_shop/definitions.py": "",
        "e11_shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
        "e11_shop/control/connections.yaml": f"connections:\n  - {connection}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = Settings(project=tmp_path, home=tmp_path / "dagster_home", state=tmp_path / ".edp", environment="dev")
    told = [str(issue) for issue in examine(settings).report.issues]
    assert any("secret 'hr/salaries' is not one of workstream 'shop'" in line for line in told), told
