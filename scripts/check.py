"""Run every check of the project, a line for each, then what the failed ones said; exit 1 if any failed.

Names on the command line choose checks; none: all of them. No check needs a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Check:
    """One command that must succeed.

    Args:
        command: program, looked for beside this Python first, and arguments.
        remedy: what to do when it fails, where its own words do not say.
    """

    command: tuple[str, ...]
    remedy: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a check went."""

    passed: bool
    seconds: float
    output: str


def project_checks() -> dict[str, Check]:
    """Every check by name: the slow ones first, so that the others fill the time beside them."""
    locations = sorted(path.parent for path in PROJECT.glob("code_locations/*/*/definitions.py"))
    packages = [str(path.relative_to(PROJECT)) for path in locations]
    dockerfiles = [str(path.relative_to(PROJECT)) for path in sorted(PROJECT.glob("docker/**/*Dockerfile"))]
    validate = ("dagster", "definitions", "validate", "--workspace", "workspace.yaml", "--log-level", "warning")
    schema = ("check-jsonschema", "--builtin-schema")
    return {
        "types": Check(("mypy", "--no-error-summary", "platform_core", "scripts", "benchmarks", *packages)),
        "definitions": Check(validate),
        "dbt": Check(("edp", "setup", "--manifests")),
        "layers": Check(("lint-imports", "--no-logo")),
        "control": Check(("edp", "check")),
        "format": Check(("ruff", "format", "--check", "."), remedy="make format"),
        "lint": Check(("ruff", "check", "."), remedy="make format mends some of these"),
        "schemas": Check(("edp", "schema", "--check")),
        "reference": Check(("edp", "docs", "--check")),
        "faults": Check(("python", "scripts/faults_table.py", "--check"), remedy="python scripts/faults_table.py"),
        "dockerfiles": Check(("hadolint", *dockerfiles)),
        "compose": Check((*schema, "vendor.compose-spec", "docker/compose.yaml")),
        "pipeline": Check((*schema, "vendor.gitlab-ci", ".gitlab-ci.yml")),
    }


def run_check(check: Check) -> Outcome:
    """Run one check; its program is part of this environment, or it fails."""
    started = time.monotonic()
    program = BIN / check.command[0]
    try:
        done = subprocess.run(  # noqa: S603  # the commands stand above
            [program, *check.command[1:]],
            cwd=PROJECT,
            env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
        passed, output = done.returncode == 0, done.stdout
    except FileNotFoundError:
        passed, output = False, f"there is no {program}\n  make setup\n"
    except subprocess.TimeoutExpired:
        passed, output = False, f"did not end within {TIMEOUT_SECONDS} s\n"
    return Outcome(passed, time.monotonic() - started, output)


def run_checks(checks: Mapping[str, Check], *, workers: int) -> dict[str, Outcome]:
    """Run checks side by side, and show how each went as soon as it is known."""
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(run_check, check): name for name, check in checks.items()}
        for future in as_completed(running):
            name, outcome = running[future], future.result()
            outcomes[name] = outcome
            _say(f"{'ok' if outcome.passed else 'FAILED':<8}{name:<14}{outcome.seconds:6.1f} s")
    return outcomes


def main(names: Sequence[str]) -> int:
    """Run the named checks, or all; returns the exit code."""
    checks = project_checks()
    if unknown := [name for name in names if name not in checks]:
        _say(f"unknown check: {', '.join(unknown)}\n  known checks: {', '.join(checks)}")
        return 1
    chosen = {name: check for name, check in checks.items() if not names or name in names}
    outcomes = run_checks(chosen, workers=max(2, os.cpu_count() or 2))
    failed = [name for name in chosen if not outcomes[name].passed]
    for name in failed:
        _say(f"\n--- {name}: {' '.join(chosen[name].command)}\n{outcomes[name].output.rstrip()}")
        if remedy := chosen[name].remedy:
            _say(f"  {remedy}")
    _say(f"\n{len(failed)} of {len(chosen)} checks failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
