"""The field `developer` of an environment, and who uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_core.control.environment import load_environment
from platform_core.control.store.store import open_store
from platform_core.errors import ConfigError, PlanError
from platform_core.operations.platform import open_platform
from platform_core.settings import Settings, read_settings
from platform_core.specs.person import Person

FILE = "lake: {root: lake}\nsecrets: {type: environment}\ndeveloper: true\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "dagster_home"
    (home / "environments").mkdir(parents=True)
    (home / "environments" / "personal.yaml").write_text(FILE)
    return Settings(
        project=tmp_path, home=home, state=tmp_path / "state", environment="personal", user="anna", account="root"
    )


def test_the_lake_of_a_personal_environment_is_a_folder_of_the_shared_one(settings: Settings) -> None:
    lake = open_platform(load_environment(settings), state=settings.state).lake
    assert lake.shared == str(settings.state / "lake")
    assert lake.root == str(settings.state / "lake/_people/anna")


def test_who_states_nothing_is_who_runs_the_process(tmp_path: Path, settings: Settings) -> None:
    mine = Settings(**{**vars(settings), "user": None, "account": "bo"})
    assert load_environment(mine).person == Person("bo")


def test_an_account_that_many_share_is_refused_when_tables_are_to_be_made(settings: Settings) -> None:
    environment = load_environment(Settings(**{**vars(settings), "user": None}))
    with pytest.raises(ConfigError) as caught:
        open_platform(environment, state=settings.state)
    assert str(caught.value).replace(f"{settings.project}/", "") == (
        "dagster_home/environments/personal.yaml:1: environment 'personal' is a personal one, and it is not "
        "known whose tables are meant\n"
        "  looked at: EDP_USER, then the account of this process, which must not be one that many machines have "
        "(root, ubuntu, …)\n"
        "  set EDP_USER to your name, such as EDP_USER=anna"
    )


def test_the_user_reaches_child_processes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    assert read_settings(start=settings.project).user == "anna"


def test_who_is_not_stated_is_not_made_up_for_child_processes(settings: Settings) -> None:
    assert "EDP_USER" not in Settings(**{**vars(settings), "user": None}).variables()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "schedules: true\n",
            "'developer': a personal environment starts nothing by itself: remove 'schedules: true'",
        ),
        (
            "alerts: {channels: {phone: {type: ntfy, options: {url: 'https://ntfy.example.com', topic: a}}}}\n",
            "'developer': what one person tries out is nobody else's alarm: remove 'alerts'",
        ),
        (
            "control: {manifest: snapshot}\n",
            "'developer': a personal environment runs what its user's control files say: remove 'manifest'",
        ),
    ],
)
def test_what_a_personal_environment_cannot_be_is_a_fault_of_its_file(
    settings: Settings, more: str, expected: str
) -> None:
    (settings.environments / "personal.yaml").write_text(FILE + more)
    with pytest.raises(ConfigError) as caught:
        load_environment(settings)
    assert f"personal.yaml:3: {expected}" in str(caught.value)


def test_nothing_is_applied_in_a_personal_environment(settings: Settings) -> None:
    with pytest.raises(PlanError, match="it runs what the control files say, and nothing is applied in it"):
        open_store(load_environment(settings), state=settings.state)
