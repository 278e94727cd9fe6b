"""What `edp setup` prepares, and that it may be called by anyone at any time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from platform_core.secrets.files import create_masking_key
from platform_core.secrets.vault import VaultSecrets
from tests.conftest import PROJECT, Edp, environment
from tests.forked import Forked, run_forked, start_forked

_RACERS = 6
_HOMES = 3

_RACE = """
import os
import sys
import time
from pathlib import Path

import dagster as dg

from platform_core.cli.setup import set_up
from platform_core.settings import read_settings

@dg.asset
def table():
    return None

folder, racers, homes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for home in range(homes):
    # All start at the same moment.
    (folder / f"ready-{home}-{os.getpid()}").touch()
    while len(list(folder.glob(f"ready-{home}-*"))) < racers:
        time.sleep(0.05)
    os.environ["EDP_STATE"] = str(folder / f"state{home}")
    set_up(read_settings(), say=lambda line: print(home, line))
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([table], instance=instance).success
"""

_WITHOUT_PAUSES = """
import time

# dagster-postgres asks a dozen times, and pauses in between.
time.sleep = lambda seconds: None

from platform_core.cli import main

main()
"""

_LOOK = """
import os
import sys

import dagster as dg

for home in sys.argv[1:]:
    os.environ["EDP_DAGSTER_STATE"] = home
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        instance.all_instigator_state()
        print("runs", instance.get_runs_count())
"""


def _python(code: str, state: Path, *arguments: str) -> Forked:
    process = start_forked(arguments, env=environment(state), cwd=PROJECT, code=code)
    process.stdin.close()
    return process


def test_it_makes_run_storage_and_a_key_for_each_workstream_that_only_the_owner_can_read(edp: Edp, tmp_path) -> None:
    done = edp("setup")

    assert done.returncode == 0, done.stderr
    state = tmp_path / "state"
    assert f"created run storage in {state / 'dagster'}" in done.stdout
    assert (state / "dagster/history/runs.db").is_file()
    files = [state / "vault.key", state / "vault/secrets.vault"]
    assert [file for file in files if file.stat().st_mode & 0o077] == []
    listed = json.loads(edp("secrets", "list", "--json").stdout)
    assert {"crm/masking_key", "mobility/masking_key"} <= {each["name"] for each in listed}
    assert state.stat().st_mode & 0o077 == 0


def test_a_second_call_does_nothing_and_says_nothing(edp: Edp, tmp_path) -> None:
    edp("setup")
    keys = {key: key.read_bytes() for key in (tmp_path / "state").glob("vault*/*.vault")}

    done = edp("setup")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert keys
    assert {key: key.read_bytes() for key in keys} == keys


def test_keys_of_an_installation_without_a_vault_are_taken_over(edp: Edp, tmp_path) -> None:
    create_masking_key(tmp_path / "state/secrets", "crm")
    key = (tmp_path / "state/secrets/crm/masking_key").read_bytes().strip()

    done = edp("setup")

    assert "took over 1 secret from" in done.stdout
    options = VaultSecrets.Options(
        path=str(tmp_path / "state/vault/secrets.vault"), key_file=str(tmp_path / "state/vault.key")
    )
    assert VaultSecrets(options).get("crm/masking_key").reveal() == key


def test_a_home_that_lost_a_database_is_made_whole(edp: Edp, tmp_path) -> None:
    edp("setup")
    (tmp_path / "state/dagster/schedules/schedules.db").unlink()

    done = edp("setup")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state/dagster/schedules/schedules.db").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_six_processes_that_start_on_an_empty_home_all_work_and_leave_it_healthy(tmp_path) -> None:
    arguments = (str(tmp_path), str(_RACERS), str(_HOMES))

    processes = [_python(_RACE, tmp_path, *arguments) for _ in range(_RACERS)]
    results = [(process.communicate(timeout=500), process.returncode) for process in processes]

    assert [code for _, code in results] == [0] * _RACERS, "\n".join(err for (_, err), _ in results)
    for home in range(_HOMES):
        assert sum(f"{home} created run storage" in out for (out, _), _ in results) == 1
    look = _python(_LOOK, tmp_path, *(str(tmp_path / f"state{home}/dagster") for home in range(_HOMES)))
    out, err = look.communicate(timeout=120)
    assert look.returncode == 0, err
    assert out.count(f"runs {_RACERS}\n") == _HOMES


def _home(folder: Path, text: str) -> str:
    (folder / "environments").mkdir(parents=True)
    (folder / "dagster.yaml").write_text(text)
    return str(folder)


def test_an_unset_variable_of_the_instance_file_is_named(edp: Edp, tmp_path) -> None:
    home = _home(tmp_path / "home", yaml.safe_dump({"storage": {"sqlite": {"base_dir": {"env": "EDP_NOWHERE"}}}}))

    done = edp("setup", DAGSTER_HOME=home)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{home}/dagster.yaml: environment variable EDP_NOWHERE is not set",
        "  set it, then try again",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("storage: [unclosed", "dagster.yaml:1: is not YAML"),
        ("", "dagster.yaml: must hold a mapping"),
        ("- a", "dagster.yaml: must hold a mapping"),
    ],
)
def test_a_broken_instance_file_is_one_clear_message(edp: Edp, tmp_path, text, message) -> None:
    done = edp("setup", DAGSTER_HOME=_home(tmp_path / "home", text))

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_instance_file_is_one_clear_message(edp: Edp, tmp_path) -> None:
    done = edp("setup", DAGSTER_HOME=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/dagster.yaml: there is no such file")


def test_a_database_that_cannot_be_reached_is_named_without_what_the_driver_says(edp: Edp, tmp_path) -> None:
    deployed = (PROJECT / "docker/dagster.yaml").read_text()
    variables = {
        "EDP_POSTGRES_HOST": "127.0.0.1",
        "EDP_POSTGRES_PORT": "1",
        "EDP_POSTGRES_DATABASE": "dagster",
        "EDP_POSTGRES_USER": "dagster",
        "EDP_POSTGRES_PASSWORD": "hunter2",
    }

    variables["DAGSTER_HOME"] = _home(tmp_path / "home", deployed)
    done = run_forked(
        ["setup"],
        env=environment(tmp_path / "state", **variables),
        cwd=PROJECT,
        timeout=120,
        code=_WITHOUT_PAUSES,
    )

    assert done.returncode == 1
    assert "the run storage cannot be opened: DagsterPostgresException from OperationalError" in done.stderr
    assert "check host, port, database, user and password" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_embedded_database_says_what_can_be_done(edp: Edp, tmp_path) -> None:
    damaged = tmp_path / "state/dagster/history/runs.db"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("not a database, and long enough to be looked at as one" * 100)

    done = edp("setup")

    assert done.returncode == 1
    assert f"if {tmp_path / 'state/dagster'} was damaged, move it away" in done.stderr
