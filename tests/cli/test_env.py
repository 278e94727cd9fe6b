"""``edp env``, and ``edp check --env all``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result


@pytest.fixture
def environments(project: Path) -> Path:
    """Three environments, and a variable that differs between two of them."""
    folder = project / "dagster_home/environments"
    folder.joinpath("staging.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\nmax_concurrent: 2\n")
    folder.joinpath("prod.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\nschedules: true\n")
    control = project / "cli_shop/control"
    control.joinpath("variables.yaml").write_text(
        "variables:\n  erp: {default: '${env.state}/erp.db', prod: /srv/erp.db}\n"
    )
    control.joinpath("connections.yaml").write_text("connections:\n  - {name: erp, type: sqlite, path: '${var.erp}'}\n")
    return project


def test_environments_are_listed_and_the_one_in_use_is_marked(environments: Path, call: Callable[..., Result]) -> None:
    assert call("env", "list").output == "* dev\n  prod\n  staging\n"


def test_two_environments_differ_in_their_files_and_in_what_variables_make(
    environments: Path, call: Callable[..., Result]
) -> None:
    result = call("env", "diff", "staging", "prod")
    assert result.exit_code == 0
    assert result.output == (
        "environment\n"
        "  max_concurrent: 2 -> 8\n"
        "  schedules: false -> true\n"
        "connection shop.erp\n"
        '  options.path: "${env.state}/erp.db" -> "/srv/erp.db"\n'
    )
    assert json.loads(call("env", "diff", "staging", "prod", "--json").output)[-1] == {
        "where": "connection shop.erp",
        "field": "options.path",
        "one": "${env.state}/erp.db",
        "other": "/srv/erp.db",
    }


def test_an_environment_does_not_differ_from_itself(environments: Path, call: Callable[..., Result]) -> None:
    assert call("env", "diff", "prod", "prod").output == "prod and prod do not differ\n"


def test_an_environment_without_a_file_is_refused(environments: Path, call: Callable[..., Result]) -> None:
    result = call("env", "diff", "staging", "prd")
    assert "did you mean 'prod'?" in str(result.exception)


def test_a_fourth_environment_is_one_new_file(environments: Path, call: Callable[..., Result]) -> None:
    folder = environments / "dagster_home/environments"
    folder.joinpath("acceptance.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    assert call("check", "--env", "acceptance").exit_code == 0
    assert "environments: acceptance, dev, prod, staging" in call("check", "--env", "all").output


def test_check_all_names_a_variable_without_a_value_and_the_environments_that_lack_it(
    environments: Path, call: Callable[..., Result]
) -> None:
    control = environments / "cli_shop/control"
    control.joinpath("variables.yaml").write_text("variables:\n  erp: {prod: /srv/erp.db, dev: /srv/dev.db}\n")
    assert call("check").exit_code == 0
    result = call("check", "--env", "all")
    assert result.exit_code == 1
    assert result.output == (
        "cli_shop/control/connections.yaml:2: variable 'var.erp' has no value in this environment\n"
        "  give it one, or a default\n"
        "  environment: staging\n"
        "\n"
        "1 problem in 1 file\n"
        "environments: dev, prod, staging\n"
    )
    told = json.loads(call("check", "--env", "all", "--json").output)
    assert {name: each["ok"] for name, each in told.items()} == {"dev": True, "prod": True, "staging": False}


def test_check_all_shows_a_fault_of_every_environment_once(environments: Path, call: Callable[..., Result]) -> None:
    environments.joinpath("cli_shop/control/processing.yaml").write_text("")
    result = call("check", "--env", "all")
    assert result.output.count("the file is empty") == 1
    assert "environment:" not in result.output
