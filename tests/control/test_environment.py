"""An environment's file: read strictly, paths resolved, an unknown name told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from platform_core.control.environment import load_environment
from platform_core.errors import ConfigError
from platform_core.settings import Settings
from platform_core.specs.base import SecretRef

GOOD = "lake: {root: lake}\nsecrets: {type: files}\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = tmp_path / "dagster_home"
    (home / "environments").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Settings(project=tmp_path, home=home, state=tmp_path / "state", environment="dev")


def write(settings: Settings, text: str, name: str = "dev") -> None:
    (settings.environments / f"{name}.yaml").write_text(text)


def faults(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        load_environment(settings)
    return str(caught.value)


def test_the_file_names_the_environment(settings: Settings) -> None:
    write(settings, GOOD)
    environment = load_environment(settings)
    assert environment.name == "dev"
    assert environment.place is not None
    assert environment.schedules is False


@pytest.mark.parametrize(
    ("root", "resolved"),
    [
        ("lake", "{state}/lake"),
        ("./a/lake", "{state}/a/lake"),
        ("${env.state}/lake", "{state}/lake"),
        ("/srv/lake", "/srv/lake"),
        ("abfss://lake@account.dfs.core.windows.net/x", "abfss://lake@account.dfs.core.windows.net/x"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_a_relative_lake_counts_from_the_state_folder(settings: Settings, root: str, resolved: str) -> None:
    write(settings, f"lake: {{root: '{root}'}}\nsecrets: {{type: files}}\n")
    assert load_environment(settings).lake.root == resolved.replace("{state}", str(settings.state))


def test_paths_in_options_of_plugins_count_from_the_state_folder(settings: Settings) -> None:
    write(
        settings,
        "lake: {root: lake}\nsecrets: {type: files, options: {root: keys}}\n"
        "engine: {type: local, options: {threads: 4, spill_folder: spill}}\n",
    )
    environment = load_environment(settings)
    assert environment.secrets.options == {"root": str(settings.state / "keys")}
    assert environment.engine.options == {"threads": 4, "spill_folder": str(settings.state / "spill")}


@pytest.mark.parametrize(
    ("control", "url"),
    [
        ("", "sqlite:///{state}/control.db"),
        ("control: {url: 'sqlite:///a/b.db'}\n", "sqlite:///{state}/a/b.db"),
        ("control: {url: 'sqlite:///${env.state}/b.db'}\n", "sqlite:///{state}/b.db"),
        ("control: {url: 'sqlite:////srv/b.db'}\n", "sqlite:////srv/b.db"),
        ("control: {url: 'postgresql+psycopg://edp@db/edp'}\n", "postgresql+psycopg://edp@db/edp"),
    ],
)
def test_a_relative_control_database_counts_from_the_state_folder(settings: Settings, control: str, url: str) -> None:
    write(settings, GOOD + control)
    assert load_environment(settings).control.url == url.replace("{state}", str(settings.state))


def test_what_is_secret_is_read_as_the_name_of_a_secret(settings: Settings) -> None:
    write(
        settings,
        "lake:\n  root: lake\n  storage_options: {account_name: edp, account_key: {secret: platform/lake}}\n"
        "secrets: {type: files}\n"
        "control: {url: 'postgresql://edp@db/edp', password: {secret: platform/control}, lease: 2 minutes}\n",
    )
    environment = load_environment(settings)
    assert environment.lake.storage_options == {"account_name": "edp", "account_key": SecretRef(secret="platform/lake")}
    assert environment.control.password == SecretRef(secret="platform/control")
    assert environment.control.lease == timedelta(minutes=2)


def test_an_unknown_name_is_told_with_the_known_ones(settings: Settings) -> None:
    write(settings, GOOD, "prod")
    settings = Settings(project=settings.project, home=settings.home, state=settings.state, environment="prd")
    assert faults(settings) == (
        "dagster_home/environments/prd.yaml: unknown environment 'prd'\n"
        "  known environments: prod\n"
        "  did you mean 'prod'?"
    )


@pytest.mark.parametrize("name", ["../dev", "dev/../../etc/passwd", "", "DEV", "a\0b"])
def test_a_name_that_is_a_path_is_unknown(settings: Settings, name: str) -> None:
    write(settings, GOOD)
    settings = Settings(project=settings.project, home=settings.home, state=settings.state, environment=name)
    assert "unknown environment" in faults(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "dagster_home/environments/dev.yaml: the file is empty\n  it should begin like: lake: {root: lake}"),
        (
            "lake: {root: lake}\n",
            "dagster_home/environments/dev.yaml:1: 'secrets' is missing\n  The secret store.",
        ),
        (
            GOOD + "schedule: true\n",
            "dagster_home/environments/dev.yaml:3: unknown key 'schedule'\n"
            "  known keys: alerts, control, databases, dbt, developer, engine, lake, logs, max_concurrent, name, "
            "schedules, secret_warning, secrets, spark\n"
            "  did you mean 'schedules'?",
        ),
        (
            GOOD + "name: prod\n",
            "dagster_home/environments/dev.yaml:3: name is 'prod', the file's is 'dev'\n  make them equal",
        ),
        (
            GOOD + "max_concurrent: many\n",
            "dagster_home/environments/dev.yaml:3: 'max_concurrent': expected a whole number, got a text",
        ),
        (
            "lake: {root: lake}\nsecrets: {type: file}\n",
            "dagster_home/environments/dev.yaml:2: unknown secret store 'file'\n"
            "  known secret stores: files\n"
            "  did you mean 'files'?",
        ),
        (
            GOOD + "engine:\n  type: local\n  options:\n    thread: 2\n",
            "dagster_home/environments/dev.yaml:6: unknown key 'thread'\n"
            "  known keys: spill_folder, threads\n"
            "  did you mean 'threads'?",
        ),
        (
            GOOD + "control:\n  url: postgresql://edp:hunter2@db/edp\n",
            "dagster_home/environments/dev.yaml:4: url holds a password: keep it in the secret store and name it in "
            "'password: {secret: <name>}'",
        ),
        (
            GOOD + "control:\n  password: {secret: platform/control}\n",
            "dagster_home/environments/dev.yaml:4: SQLite takes no password\n"
            "  remove it, or name a PostgreSQL database in url",
        ),
        (
            GOOD + "control: {password: hunter2}\n",
            "dagster_home/environments/dev.yaml:3: 'password': expected {secret: <workstream>/<name>}, got a text\n"
            "  a secret's value is never written in a file; the name is looked up in the secret store",
        ),
        (
            GOOD + "control:\n  lease: 0 seconds\n",
            "dagster_home/environments/dev.yaml:4: a lease must hold for a second at least; a minute is usual",
        ),
        (
            GOOD + "control:\n  urll: sqlite:///control.db\n",
            "dagster_home/environments/dev.yaml:4: unknown key 'urll'\n"
            "  known keys: lease, manifest, max_deletes, password, snapshots, url\n"
            "  did you mean 'url'?",
        ),
        (
            "lake:\n  root: lake\n  storage_options:\n    account_key: 5\nsecrets: {type: files}\n",
            "dagster_home/environments/dev.yaml:4: 'account_key': expected a text or {secret: <workstream>/<name>}, "
            "got a whole number\n"
            "  a secret's value is never written in a file; the name is looked up in the secret store",
        ),
        (
            "lake: {root: '${env.home}/lake'}\nsecrets: {type: files}\n",
            "dagster_home/environments/dev.yaml:1: unknown variable 'env.home'\n  known variables: env.state",
        ),
    ],
)
def test_a_wrong_file_is_told_with_its_line(settings: Settings, text: str, expected: str) -> None:
    write(settings, text)
    assert faults(settings) == expected
