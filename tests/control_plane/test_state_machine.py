"""Whatever happens in git, by SQL and to applies: the tables are what was applied, and history tells how."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.control_plane.conftest import Databases
from tests.control_plane.machine import ControlPlane, Figures

STEPS = {"sqlite": 500, "postgresql": 120}
STEPS_OF_A_PROJECT = 50
PROJECTS_OF_A_SEED = 9
"""From the eleventh on, Hypothesis would play variations of what it has played already."""

RULES = {name for name in dir(ControlPlane) if hasattr(getattr(ControlPlane, name), "hypothesis_stateful_rule")}


def play(databases: Databases, folder: Path, figures: Figures, *, chosen: int, shrinks: bool) -> None:
    """Play a few projects; the first difference from the model ends it."""
    members = {"databases": databases, "figures": figures, "folder": folder}
    machine: type[RuleBasedStateMachine] = type("SeededControlPlane", (ControlPlane,), members)
    began = time.perf_counter()
    try:
        run_state_machine_as_test(
            seed(chosen)(machine),
            settings=settings(
                max_examples=PROJECTS_OF_A_SEED,
                stateful_step_count=STEPS_OF_A_PROJECT,
                deadline=None,
                derandomize=False,
                database=None,
                print_blob=True,
                phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as error:
        error.add_note(f"CONTROL_SEED={chosen} plays it again, first of all; CONTROL_SHRINK=1 makes it short")
        raise
    finally:
        figures.seconds += time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_control_tables_equal_the_model(
    databases: Databases,
    tmp_path: Path,
    control_seed: int,
    control_scale: int,
    control_shrinks: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures()
    with capsys.disabled():
        sys.stdout.write(
            f"\ncontrol plane: {databases.name}, seed {control_seed} (CONTROL_SEED={control_seed} plays it)\n"
        )
    steps, chosen = STEPS[databases.name] * control_scale, control_seed
    while figures.steps < steps:
        before = figures.steps
        play(databases, tmp_path, figures, chosen=chosen, shrinks=control_shrinks)
        assert figures.steps > before
        chosen += 1
    with capsys.disabled():
        sys.stdout.write("".join(f"control plane: {line}\n" for line in figures.lines()))
    assert set(figures.rules) <= RULES
    assert figures.ends["done"] > 0
    if databases.name == "sqlite":
        assert set(figures.rules) == RULES
        assert figures.kills["in the middle"] > 0
        assert figures.overrides.total() > 0
        assert figures.ends["refused: have moved"] > 0
