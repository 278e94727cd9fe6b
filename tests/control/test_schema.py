"""The JSON Schemas: they take what the loader takes, and refuse a typing error as it does."""

from __future__ import annotations

import copy
from textwrap import dedent
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from platform_core.control.schema import schemas
from platform_core.control.shapes import KIND_NAMES
from tests.control.conftest import GOOD

FILES = sorted(name for name in GOOD if name.startswith("control/"))


def kind_of(name: str) -> str:
    return name.split("/")[1].removesuffix(".yaml")


def faults(kind: str, value: Any) -> list[str]:
    return [error.message for error in Draft7Validator(schemas()[kind]).iter_errors(value)]


def test_there_is_one_for_every_kind_and_for_environments() -> None:
    assert set(schemas()) == {*KIND_NAMES, "environment"}


@pytest.mark.parametrize("kind", [*KIND_NAMES, "environment"])
def test_each_is_a_valid_schema(kind: str) -> None:
    Draft7Validator.check_schema(schemas()[kind])


@pytest.mark.parametrize("name", FILES)
def test_a_good_file_is_taken(name: str) -> None:
    assert faults(kind_of(name), yaml.safe_load(dedent(GOOD[name]))) == []


@pytest.mark.parametrize("name", FILES)
def test_a_typing_error_in_any_key_that_is_no_name_is_refused(name: str) -> None:
    good = yaml.safe_load(dedent(GOOD[name]))
    for path in key_paths(good):
        # Names of variables, columns and a step's own variables are free.
        if {"variables", "columns"} & set(path[:-1]) and path[-1] not in ("mask", "domain"):
            continue
        assert faults(kind_of(name), with_typing_error(good, path)), path


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        inner = value.items()
        own = [(*path, key) for key in value]
    elif isinstance(value, list):
        inner, own = enumerate(value), []
    else:
        return []
    return own + [found for key, each in inner for found in key_paths(each, (*path, key))]


def with_typing_error(value: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(value)
    container = changed
    for part in path[:-1]:
        container = container[part]
    container[f"{path[-1]}x"] = container.pop(path[-1])
    return changed


@pytest.mark.parametrize(
    ("connection", "taken"),
    [
        ({"name": "a", "type": "folder", "root": "x"}, True),
        ({"name": "a", "type": "folder"}, False),
        ({"name": "a", "type": "folder", "root": "x", "host": "y"}, False),
        ({"name": "a", "type": "server", "host": "x", "password": {"secret": "erp/a"}}, True),
        ({"name": "a", "type": "server", "host": "x", "password": "hunter2"}, False),
        ({"name": "a", "type": "server", "host": "x", "port": "5432", "password": {"secret": "erp/a"}}, False),
        ({"name": "a", "type": "server", "host": "x", "port": "${var.port}", "password": {"secret": "erp/a"}}, True),
        ({"name": "a", "type": "service", "tenant": "x"}, True),
        ({"name": "a", "type": "page"}, False),
        ({"name": "a", "type": "nothing"}, False),
    ],
)
def test_a_connection_has_the_options_of_its_type(connection: dict[str, Any], taken: bool) -> None:
    assert (faults("connections", {"connections": [connection]}) == []) is taken


@pytest.mark.parametrize(
    ("environment", "taken"),
    [
        ({"lake": {"root": "lake"}, "secrets": {"type": "files"}}, True),
        ({"lake": {"root": "lake"}, "secrets": {"type": "files", "options": {"root": "x"}}}, True),
        ({"lake": {"root": "lake"}, "secrets": {"type": "files", "options": {"rot": "x"}}}, False),
        ({"lake": {"root": "lake"}, "secrets": {"type": "vault"}}, False),
        ({"secrets": {"type": "files"}}, False),
    ],
)
def test_an_environment_has_the_options_of_its_plugins(environment: dict[str, Any], taken: bool) -> None:
    assert (faults("environment", environment) == []) is taken


@pytest.fixture(autouse=True)
def without_broken_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that cannot be loaded has no schema."""
    from platform_core.plugins import registry
    from tests.control.conftest import PLUGINS

    working = {
        kind: {name: entry for name, entry in entries.items() if entry.plugin is not None}
        for kind, entries in PLUGINS.items()
    }
    monkeypatch.setattr(registry, "_entries", working.__getitem__)
