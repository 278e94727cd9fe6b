"""`make check` runs everything and shows every failure, not the first one only."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check.py"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("edp_check_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def _python(code: str) -> tuple[str, ...]:
    return (Path(sys.executable).name, "-c", code)


def test_every_failure_is_shown_with_what_it_said_and_what_to_do(check, monkeypatch, capsys) -> None:
    chosen = {
        "good": check.Check(_python("print('fine')")),
        "bad": check.Check(_python("import sys; sys.exit('first fault')"), remedy="mend it"),
        "worse": check.Check(_python("raise SystemExit('second fault')")),
    }
    monkeypatch.setattr(check, "project_checks", lambda: chosen)

    code = check.main([])

    shown = capsys.readouterr().out
    assert code == 1
    assert "ok      good" in shown
    assert "FAILED  bad" in shown
    assert "first fault\n  mend it" in shown
    assert "second fault" in shown
    assert "fine" not in shown
    assert shown.endswith("2 of 3 checks failed: bad, worse\n")


def test_all_good_is_said_in_one_line_and_ends_with_zero(check, monkeypatch, capsys) -> None:
    monkeypatch.setattr(check, "project_checks", lambda: {"good": check.Check(_python("pass"))})

    assert check.main([]) == 0
    assert capsys.readouterr().out.endswith("all checks passed\n")


def test_a_check_whose_program_is_missing_fails(check, monkeypatch, capsys) -> None:
    monkeypatch.setattr(check, "project_checks", lambda: {"gone": check.Check(("no-such-program",))})

    assert check.main([]) == 1
    assert "make setup" in capsys.readouterr().out


def test_a_check_that_hangs_fails(check, monkeypatch, capsys) -> None:
    monkeypatch.setattr(check, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(check, "project_checks", lambda: {"slow": check.Check(_python("import time; time.sleep(60)"))})

    assert check.main([]) == 1
    assert "did not end within" in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_the_known_ones(check, capsys) -> None:
    assert check.main(["tpyes"]) == 1

    shown = capsys.readouterr().out
    assert "unknown check: tpyes" in shown
    assert "types" in shown


def test_every_program_of_the_project_s_checks_is_installed_here(check) -> None:
    checks = check.project_checks()

    assert {"format", "lint", "types", "layers", "control", "definitions", "schemas", "dockerfiles"} <= set(checks)
    assert [name for name, one in checks.items() if not (check.BIN / one.command[0]).is_file()] == []
    assert "docker/Dockerfile" in checks["dockerfiles"].command


@pytest.mark.parametrize(
    ("program", "arguments", "file", "broken"),
    [
        ("hadolint", (), "Dockerfile", "FROM python:latest\nRUN cd /app\n"),
        ("check-jsonschema", ("--builtin-schema", "vendor.compose-spec"), "compose.yaml", "services: {a: {imag: x}}\n"),
        ("check-jsonschema", ("--builtin-schema", "vendor.gitlab-ci"), "ci.yml", "test: {script: 3}\n"),
    ],
)
def test_the_linters_of_containers_and_pipeline_do_refuse_a_broken_file(tmp_path, program, arguments, file, broken):
    (tmp_path / file).write_text(broken)

    command = [Path(sys.executable).parent / program, *arguments, tmp_path / file]

    assert subprocess.run(command, capture_output=True).returncode == 1
