"""Whatever happens in git, by SQL and to applies: the tables are what was applied, and history tells how."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.control_plane.conftest import Databases
from tests.control_plane.machine import ControlPlane
from tests.control_plane.model import Figures
from tests.state_machine import play, rules_of

STEPS = {"sqlite": 500, "postgresql": 120}
STEPS_OF_A_PROJECT = 50
RULES = rules_of(ControlPlane)


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
        members = {"databases": databases, "figures": figures, "folder": tmp_path}
        again = f"CONTROL_SEED={chosen} plays it again, first of all; CONTROL_SHRINK=1 makes it short"
        began = time.perf_counter()
        play(
            type("SeededControlPlane", (ControlPlane,), members),
            chosen=chosen,
            steps=STEPS_OF_A_PROJECT,
            shrinks=control_shrinks,
            again=again,
        )
        figures.seconds += time.perf_counter() - began
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
