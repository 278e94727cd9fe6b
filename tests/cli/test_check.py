"""``edp check``."""

from __future__ import annotations

import json
import subprocess
import sys


def test_good_files_are_counted(project, call) -> None:
    result = call("check")
    assert result.output == "checked 4 files: 1 location, 1 connection, 2 tables, 1 step\n"
    assert result.exit_code == 0


def test_faults_are_listed_and_the_exit_code_is_one(project, call) -> None:
    file = project / "cli_shop/control/ingestion.yaml"
    file.write_text(file.read_text().replace("mask: full", "mask: ful").replace("source: erp", "source: epr"))
    result = call("check")
    assert result.exit_code == 1
    assert result.output == (
        "cli_shop/control/ingestion.yaml:1: unknown connection 'epr'\n"
        "  known connections of workstream 'shop': erp\n"
        "  did you mean 'erp'?\n"
        "cli_shop/control/ingestion.yaml:4: unknown mask 'ful'\n"
        "  known masks: full, hash, null, partial, truncate, year\n"
        "  did you mean 'full'?\n"
        "\n"
        "2 problems in 1 file\n"
    )


def test_json_holds_every_fault(project, call) -> None:
    (project / "cli_shop/control/processing.yaml").write_text("")
    result = call("check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "ok": False,
        "files": 4,
        "declared": {"location": 0, "connection": 0, "table": 0, "step": 0, "dbt_project": 0, "dashboard": 0},
        "unchecked": [],
        "issues": [
            {
                "file": "cli_shop/control/processing.yaml",
                "line": None,
                "message": "the file is empty",
                "hints": [
                    "it should begin like: steps: [{name: orders, layer: silver, kind: sql, sql: sql/orders.sql}]"
                ],
            }
        ],
    }


def test_one_location_or_folder_can_be_checked(project, call) -> None:
    for target in ("shop", "cli_shop", "cli_shop/control"):
        assert call("check", target).exit_code == 0
    result = call("check", "shopp")
    assert result.exit_code == 1
    assert "did you mean 'shop'?" in result.output


def test_an_unknown_environment_is_told(project, call) -> None:
    result = call("check", "--env", "prd")
    assert result.exit_code == 1
    assert result.output.startswith("dagster_home/environments/prd.yaml: unknown environment 'prd'\n")


def test_outside_a_project_there_is_one_clear_message(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platform_core.cli", "check"], cwd=tmp_path, capture_output=True, text=True, env={}
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no workspace.yaml here or in any folder above" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_imports_neither_dagster_nor_dbt_nor_the_location(project) -> None:
    program = (
        "import sys; from platform_core.cli.check import command\n"
        "try: command([])\n"
        "finally: print(sorted({'dagster', 'dbt', 'pyspark', 'cli_shop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["checked 4 files: 1 location, 1 connection, 2 tables, 1 step", "[]"]
