"""Files of the deployment that repeat each other agree, and keep what they promise about safety."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.topology.compose import Service, environment_references, interpolate, read_image, read_services

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"


def _yaml(path: str) -> Any:
    return yaml.safe_load((PROJECT / path).read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return read_services(DOCKER / "compose.yaml", {"EDP_POSTGRES_PASSWORD": "x"})


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    """Module by location name, from the embedded workspace."""
    entries = [entry["python_module"] for entry in _yaml("workspace.yaml")["load_from"]]
    return {entry["location_name"]: entry["module_name"] for entry in entries}


def _option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_every_location_has_a_code_server_that_loads_its_module(services, modules) -> None:
    served = {
        _option(service.command, "--location-name"): _option(service.command, "-m")
        for service in services.values()
        if "code-server" in service.command
    }

    assert served == modules


def test_the_deployed_workspace_names_the_same_locations_where_their_code_servers_listen(services, modules) -> None:
    known = services["webserver"].environment
    entries = [entry["grpc_server"] for entry in _yaml("docker/workspace.yaml")["load_from"]]

    assert [entry["location_name"] for entry in entries] == list(modules)
    for entry in entries:
        server = services[known[entry["host"]["env"]]]
        assert _option(server.command, "--location-name") == entry["location_name"]
        assert _option(server.command, "-p") == known[entry["port"]["env"]] == _option(server.health, "-p")


def test_the_pipeline_validates_the_same_locations(modules) -> None:
    (matrix,) = _yaml(".gitlab-ci.yml")["definitions"]["parallel"]["matrix"]

    assert matrix["LOCATION"] == list(modules)


def test_the_deployed_instance_differs_from_the_embedded_one_in_its_storage_only() -> None:
    embedded, deployed = _yaml("dagster_home/dagster.yaml"), _yaml("docker/dagster.yaml")

    assert embedded.pop("storage")["custom"]["class"] == "EmbeddedStorage"
    assert list(deployed.pop("storage")) == ["postgres"]
    assert deployed == embedded


def test_every_variable_that_an_instance_file_names_is_set_for_every_process(services) -> None:
    given = read_image(DOCKER / "Dockerfile").environment
    wanted = environment_references(DOCKER / "dagster.yaml")

    assert wanted
    for service in services.values():
        if service.command:
            assert wanted <= {*given, *service.environment}, service.name


def test_webserver_and_daemon_know_where_every_code_server_is(services) -> None:
    wanted = environment_references(DOCKER / "workspace.yaml")

    for name in ("webserver", "daemon"):
        assert wanted <= set(services[name].environment)


def test_one_version_of_uv_installs_everywhere() -> None:
    (image,) = re.findall(r"^ARG UV_VERSION=(\S+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    (script,) = re.findall(r"^UV_VERSION=(\S+)$", (PROJECT / "scripts/install").read_text(), flags=re.MULTILINE)

    assert image == script


def test_only_the_webserver_is_published_and_on_the_loopback_address_only(services) -> None:
    published = {name: service.declared["ports"] for name, service in services.items() if "ports" in service.declared}

    assert list(published) == ["webserver"]
    assert all(port.startswith("127.0.0.1:") for port in published["webserver"])


def test_every_service_is_confined(services) -> None:
    for service in services.values():
        declared = service.declared
        assert declared["read_only"] is True, service.name
        assert "no-new-privileges:true" in declared["security_opt"], service.name
        assert {"cpus", "memory", "pids"} <= set(declared["deploy"]["resources"]["limits"]), service.name
        if service.command:
            assert declared["cap_drop"] == ["ALL"], service.name
            assert declared["user"] == "10001:10001", service.name


def test_every_lasting_service_has_a_health_check_and_waits_for_the_one_shot_init(services) -> None:
    for service in services.values():
        if service.name == "init":
            assert service.declared["restart"] == "no"
            assert service.needs == {"postgres": "service_healthy"}
            continue
        assert service.health, service.name
        if service.name != "postgres":
            assert service.needs["init"] == "service_completed_successfully", service.name


def test_the_password_comes_from_outside_and_must_be_given() -> None:
    with pytest.raises(KeyError, match="EDP_POSTGRES_PASSWORD"):
        read_services(DOCKER / "compose.yaml", {})


def test_the_image_holds_every_folder_it_needs_and_runs_as_nobody_special() -> None:
    image = read_image(DOCKER / "Dockerfile")
    targets = {target for _, target in image.copies}
    allowed = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]

    assert targets >= {"platform_core", "code_locations", "dbt_projects", "dagster_home", "workspace.yaml", "uv.lock"}
    assert ("docker/dagster.yaml", "dagster_home/dagster.yaml") in image.copies
    assert sorted(allowed) == sorted(source for source, _ in image.copies)
    assert "\nUSER 10001:10001" in image.text
    assert all((PROJECT / source).exists() for source, _ in image.copies)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("${A}", "1"), ("${B:-x}", "x"), ("${A:-x}", "1"), ("$${A}", "${A}"), ("p:${A}:${A}", "p:1:1")],
)
def test_references_are_replaced_as_compose_does(text, expected) -> None:
    assert interpolate(text, {"A": "1"}) == expected
