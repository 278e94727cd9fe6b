"""A person sees what is their own, and goes back to everybody's tables by dropping it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from platform_core.cli import edp
from platform_core.errors import LeaseError, PlanError
from platform_core.operations.own_tables import drop_own, own_tables
from platform_core.specs.table import TableRef
from tests.developer.conftest import SHORT, House

RIDES = TableRef("mobility", "bronze", "rides")
SHORT_RIDES = TableRef("mobility", "silver", "short_rides")


def made(house: House, person: str | None) -> list[tuple[str, bool]]:
    return [(str(each.ref), each.shared) for each in own_tables(house.platform(person))]


def test_what_a_person_has_made_is_listed_with_what_everybody_has_too(house: House) -> None:
    anna = house.platform("anna")
    assert made(house, "anna") == []
    house.load(anna)
    house.step(anna, "silver.short_rides", SHORT)
    house.step(anna, "gold.mine", "SELECT * FROM silver.short_rides")
    house.load(house.platform("bo"))
    assert made(house, "anna") == [
        ("mobility.bronze.rides", True),
        ("mobility.gold.mine", False),
        ("mobility.silver.short_rides", True),
    ]


def test_a_dropped_table_is_everybodys_again(house: House, unchanged: Callable[[], None]) -> None:
    anna = house.platform("anna")
    house.load(anna)
    house.step(anna, "silver.short_rides", SHORT)
    drop_own(anna, [RIDES])
    unchanged()
    assert not (house.lake / "_people/anna/mobility/landing/rides").exists()
    assert made(house, "anna") == [("mobility.silver.short_rides", True)]
    assert house.step(anna, "silver.short_rides", SHORT).deferred == (RIDES,)
    # And it can be built anew.
    assert house.load(anna).inserted == 3


def test_a_table_that_is_being_loaded_is_not_dropped(house: House) -> None:
    anna = house.platform("anna")
    house.load(anna)
    ticket = anna.loads.begin(
        RIDES,
        mode="full",
        above=1,
        run_id=None,
        wait=anna.environment.control.lease * 0,
        log=anna.log,
        cancelled=anna.cancelled,
    )
    with ticket:
        with pytest.raises(LeaseError, match="is being loaded by"):
            drop_own(house.platform("anna"), [RIDES])
        ticket.finish(status="succeeded", figures={})
    assert house.rows("bronze.rides", person="anna")


def test_in_an_environment_of_everybody_nothing_is_ones_own(house: House, unchanged: Callable[[], None]) -> None:
    shared = house.platform()
    with pytest.raises(PlanError, match="nobody has tables of their own"):
        own_tables(shared)
    with pytest.raises(PlanError, match="nobody has tables of their own"):
        drop_own(shared, [RIDES])


@pytest.fixture
def call(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls `edp` as Anna, in a project over the house's lake; returns what it says."""
    environments = house.root / "dagster_home" / "environments"
    environments.mkdir(parents=True)
    (house.root / "workspace.yaml").write_text("load_from: []\n")
    everybody = f"lake: {{root: {house.lake}}}\nsecrets: {{type: environment}}\n"
    (environments / "dev.yaml").write_text(everybody)
    (environments / "personal.yaml").write_text(everybody + "developer: true\n")
    for name, value in {"EDP_PROJECT": house.root, "EDP_STATE": house.root / "state", "EDP_USER": "anna"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("DAGSTER_HOME", "EDP_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(edp, arguments)
        return result.output + (f"{result.exception}\n" if result.exception else "")

    return run


def test_the_command_lists_and_drops(house: House, call: Callable[..., str], unchanged: Callable[[], None]) -> None:
    assert call("own", "list", "--env", "personal") == (
        "anna has made nothing yet: every table is read from everybody's lake\n"
    )
    anna = house.platform("anna")
    house.step(anna, "silver.short_rides", SHORT)
    house.step(anna, "gold.mine", "SELECT * FROM silver.short_rides")
    assert call("own", "list", "--env", "personal") == (
        "mobility.gold.mine  (only yours)\nmobility.silver.short_rides\n"
    )
    assert "'mobility.bronze.rides' is not among what you have made" in call(
        "own", "drop", "mobility.bronze.rides", "--env", "personal"
    )
    assert call("own", "drop", "--all", "--env", "personal") == (
        "mobility.gold.mine: dropped\nmobility.silver.short_rides: dropped; the shared one is read again\n"
    )
    assert made(house, "anna") == []


def test_drop_wants_to_be_told_what(call: Callable[..., str]) -> None:
    assert "name the tables, or say --all" in call("own", "drop", "--env", "personal")


def test_environments_are_listed_with_those_that_are_personal(call: Callable[..., str]) -> None:
    assert call("env", "list") == "* dev\n  personal  (personal: each user's own tables)\n"


def test_what_tells_a_personal_environment_apart_is_shown(call: Callable[..., str]) -> None:
    assert call("env", "diff", "dev", "personal") == "environment\n  developer: false -> true\n"


@pytest.mark.parametrize("what", ["rotate", "retire"])
def test_masking_keys_are_not_changed_from_a_personal_environment(
    call: Callable[..., str], house: House, what: str
) -> None:
    control = house.root / "mobility" / "control"
    control.mkdir(parents=True)
    control.joinpath("location.yaml").write_text(
        "location: mobility\nworkstreams: [{name: mobility, owners: ['team:mobility']}]\n"
    )
    (house.root / "mobility" / "__init__.py").write_text("")
    house.root.joinpath("workspace.yaml").write_text(
        "load_from:\n  - python_module: {module_name: mobility.definitions, location_name: mobility}\n"
    )
    told = call("keys", what, "mobility", "--env", "personal")
    assert "environment 'personal' is a personal one, and its masking keys are everybody's" in told


def test_a_personal_environment_can_be_checked_by_a_machine(
    call: Callable[..., str], monkeypatch: pytest.MonkeyPatch, house: House
) -> None:
    monkeypatch.delenv("EDP_USER")
    monkeypatch.setenv("LOGNAME", "root")
    assert "environments: dev, personal" in call("check", "--env", "all")
    file = Path(house.root / "dagster_home/environments/personal.yaml")
    file.write_text(file.read_text() + "schedules: true\n")
    told = call("check", "--env", "all")
    assert "personal.yaml:3: 'developer': a personal environment starts nothing by itself" in told
