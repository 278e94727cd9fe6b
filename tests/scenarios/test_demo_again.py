"""The demo interrupted, played again, and played once more when nothing is new."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.conftest import PROJECT, Demo, environment, run_edp

pytestmark = pytest.mark.slow

UNSTABLE = {"_modified_at", "_batch_id"}
"""Columns that tell when a row was loaded, which differs between two plays of the same day."""


@dataclass(frozen=True)
class Story:
    """Day one, interrupted at its first loaded table, then played to its end, then played again.

    Args:
        interrupted: exit code and output of the interrupted demo.
        played: the same of the next.
        again: the same of the one after it.
        before: version of each bronze table before that last one.
        after: version of each bronze table after it.
    """

    state: Path
    interrupted: tuple[int, str]
    played: tuple[int, str]
    again: tuple[int, str]
    before: dict[str, int]
    after: dict[str, int]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    state = tmp_path_factory.mktemp("interrupted") / "state"
    assert run_edp("setup", state=state).returncode == 0
    interrupted = _interrupt_demo(state)
    played = run_edp("demo", "--until", "1", state=state)
    before = _versions(state)
    again = run_edp("demo", "--until", "1", state=state)
    return Story(
        state,
        interrupted,
        (played.returncode, played.stdout + played.stderr),
        (again.returncode, again.stdout + again.stderr),
        before,
        _versions(state),
    )


def _interrupt_demo(state: Path) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "platform_core.cli", "demo", "--until", "1"],
        env=environment(state),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("ok "):
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, "".join(said) + rest


def _versions(state: Path) -> dict[str, int]:
    lake = state / "lake"
    tables = [log.parent for log in lake.glob("*/bronze/*/_delta_log")]
    return {str(table.relative_to(lake)): DeltaTable(table).version() for table in tables}


def _rows(table: Path) -> list[str]:
    rows = DeltaTable(table).to_pyarrow_table().to_pylist()
    return sorted(repr({name: value for name, value in row.items() if name not in UNSTABLE}) for row in rows)


def test_the_interrupted_demo_says_how_to_go_on(story: Story) -> None:
    code, output = story.interrupted
    assert code == 130
    assert output.endswith(" ended CANCELED\n  to finish the rest: edp demo\n")
    assert "Traceback" not in output


def test_played_again_it_ends_with_the_same_rows_as_if_never_interrupted(story: Story, demo: Demo) -> None:
    code, output = story.played
    assert code == 0, output
    expected = demo.days[1].lake
    tables = sorted(log.parent.relative_to(expected) for log in expected.glob("*/*/*/_delta_log"))
    assert len(tables) > 12
    for table in tables:
        # Personal columns are hashed with a key of each state folder.
        if table.parts[:2] not in (("crm", "bronze"), ("crm", "silver")):
            assert _rows(story.state / "lake" / table) == _rows(expected / table), table


def test_when_nothing_is_new_every_row_is_unchanged_and_bronze_gets_no_commit(story: Story) -> None:
    code, output = story.again
    assert code == 0, output
    assert output.startswith("Nothing new at the sources")
    assert story.before == story.after
    assert len(story.after) == 7
    lines = [line.split() for line in output.splitlines() if ".bronze." in line and not line.startswith("ok ")]
    assert len(lines) == 7
    for _, _, _, inserted, updated, deleted, _, _, commit, _, status in lines:
        assert (inserted, updated, deleted, commit, status) == ("0", "0", "0", "none", "ok")
