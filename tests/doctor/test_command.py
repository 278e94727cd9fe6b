"""`edp doctor` as a person and a pipeline call it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time

from tests.conftest import PROJECT, environment
from tests.doctor.conftest import Project
from tests.forked import run_forked


def doctor(project: Project, *arguments: str) -> tuple[int, str]:
    """Exit code, and what was written."""
    home = project.folder / "home"
    if not (home / "dagster.yaml").exists():
        shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", home)
    variables = environment(
        project.settings.state, EDP_PROJECT=str(project.folder), DAGSTER_HOME=str(home), PYTHONPATH=str(project.folder)
    )
    done = run_forked(("doctor", "--env", "staging", *arguments), env=variables, cwd=project.folder, timeout=120)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_all_is_told_and_the_code_is_0_where_nothing_failed(project: Project) -> None:
    code, output = doctor(project)
    assert code == 0, output
    assert output.startswith("environment staging\n")
    assert "\n  ok       lake: takes files" in output
    assert "  warning  storage: there is none yet\n           looked at: " in output
    assert not (project.settings.state / "dagster").exists()
    assert output.splitlines()[-1].endswith(" ok, 1 warning, 0 failed")


def test_what_failed_is_told_with_what_to_do_and_the_code_is_1(project: Project) -> None:
    shutil.rmtree(project.settings.state / "lists")
    code, output = doctor(project)
    assert code == 1
    assert "  failed   shop.lists: files: root" in output
    assert "           correct the connection's 'root'" in output


def test_a_pipeline_reads_it_as_json(project: Project) -> None:
    code, output = doctor(project, "--json")
    found = json.loads(output)
    assert (code, found["environment"], found["good"]) == (0, "staging", True)
    assert {"area", "name", "verdict", "told", "looked_at", "advice"} == set(found["findings"][0])
    assert {each["verdict"] for each in found["findings"]} == {"ok", "warning"}


def test_a_server_that_never_answers_ends_no_later_than_the_limit(project: Project) -> None:
    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://edp@127.0.0.1:{silent.getsockname()[1]}/edp"
        project.write_environment(f"control: {{url: '{url}'}}")
        began = time.monotonic()
        code, output = doctor(project, "--limit", "1")
        seconds = time.monotonic() - began
    assert code == 1
    assert "  failed   reached: no answer within 1 seconds" in output
    assert "  ok       lake: takes files" in output
    assert seconds < 20


def test_a_storage_that_names_a_variable_that_is_not_set_says_which(project: Project) -> None:
    assert "EDP_POSTGRES_HOST" not in os.environ
    shutil.copy(PROJECT / "docker" / "dagster.yaml", project.folder / "home")
    code, output = doctor(project)
    assert code == 1
    assert "EDP_POSTGRES_HOST is not set" in output


def test_a_daemon_that_is_silent_matters_where_things_start_by_themselves(project: Project) -> None:
    doctor(project)
    variables = environment(
        project.settings.state, EDP_PROJECT=str(project.folder), DAGSTER_HOME=str(project.folder / "home"),
        PYTHONPATH=str(project.folder),
    )  # fmt: skip
    done = run_forked(("setup", "--env", "staging"), env=variables, cwd=project.folder, timeout=120)
    assert done.returncode == 0, done.stderr
    code, output = doctor(project)
    assert code == 0, output
    assert "  ok       storage: holds 0 runs\n  ok       daemon: never ran; schedules and sensors" in output
    project.write_environment("schedules: true")
    code, output = doctor(project)
    assert code == 1
    assert "  failed   daemon: never ran; nothing starts by itself" in output
