"""The environments that are deployed find their control database where docker/compose.yaml puts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.database_url import parse_url
from platform_core.control.environment import load_environment
from platform_core.plugins.registry import plugin
from platform_core.settings import Settings
from tests.topology.compose import read_services

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_the_control_database_is_the_server_of_the_deployment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = read_services(PROJECT / "docker" / "compose.yaml", {"EDP_POSTGRES_PASSWORD": "x"})
    home = PROJECT / "dagster_home"
    environment = load_environment(Settings(project=PROJECT, home=home, state=tmp_path, environment=name))
    control = environment.control
    url = parse_url(control.url, state=tmp_path)
    for service in services.values():
        if not service.command:
            continue
        given = service.environment
        assert (url.host, str(url.port)) == (given["EDP_POSTGRES_HOST"], given["EDP_POSTGRES_PORT"])
        assert (url.user, url.database) == (given["EDP_POSTGRES_USER"], given["EDP_POSTGRES_DATABASE"])
        monkeypatch.setenv("EDP_SECRET_PLATFORM_CONTROL", given["EDP_SECRET_PLATFORM_CONTROL"])
        store = plugin("secret store", environment.secrets.type)
        assert control.password is not None
        secret = store(store.Options(**environment.secrets.options)).get(control.password.secret)
        assert secret.reveal() == given["EDP_POSTGRES_PASSWORD"].encode()
