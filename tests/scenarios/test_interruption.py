"""Ctrl-C in the middle of a run: what is said, what is left, and how it goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Ran, Workspace

pytestmark = pytest.mark.slow

FILES = {
    "shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
    "shop/control/connections.yaml": """\
        connections:
          - {name: till, type: sqlite, path: '${env.state}/../till.db'}
        """,
    "shop/control/ingestion.yaml": "source: till\ntables:\n  - {object: sales, mode: full, key: [sale_id]}\n",
    "shop/control/processing.yaml": """\
        steps:
          - {name: stubborn, layer: silver, kind: python, function: 'shop.steps:stubborn', depends_on: [bronze.sales]}
          - {name: after, layer: gold, kind: sql, sql: sql/after.sql}
        """,
    "shop/sql/after.sql": "select id from silver.stubborn\n",
    "shop/steps.py": """\
        import time
        from pathlib import Path

        import pyarrow as pa

        MARKER = Path(__file__).with_name("was_here")


        def stubborn(context):
            yield pa.record_batch({"id": [1]})
            if not MARKER.exists():
                MARKER.touch()
                time.sleep(300)
            yield pa.record_batch({"id": [2]})
        """,
}
"""A step that has handed over half of its rows, and then, the first time, does not heed a request to stop."""


@dataclass(frozen=True)
class Story:
    """A run that was interrupted twice, as by a person in a hurry, and the one that finished it.

    Args:
        code: exit code of the interrupted `edp run`.
        output: what it wrote to standard output and error.
        seconds: from the second interrupt to its end.
        written: whether it left a table of the interrupted step.
        finished: `edp run --from-failure last` after it.
    """

    code: int
    output: str
    seconds: float
    written: bool
    finished: Ran


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    workspace = Workspace.create(tmp_path_factory.mktemp("project"), FILES)
    workspace.sql("till.db", "create table sales (sale_id integer primary key)", "insert into sales values (1)")
    process = subprocess.Popen(
        workspace.command("run"),
        env=workspace.environment(PYTHONUNBUFFERED="1"),
        cwd=workspace.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_for(workspace.root / "shop/was_here", process)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("stopping"):
                break
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        seconds = time.monotonic() - began
    finally:
        process.kill()
    written = (workspace.state / "lake/shop/silver/stubborn/_delta_log").exists()
    finished = workspace.run("--from-failure", "last")
    yield Story(process.returncode, "".join(said) + rest, seconds, written, finished)


def _wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_exit_code_is_that_of_an_interrupted_process(story: Story) -> None:
    assert story.code == 130


def test_the_first_ctrl_c_is_answered_at_once_and_the_second_ends_the_wait(story: Story) -> None:
    assert "stopping: running steps have a few seconds to end; Ctrl-C once more ends them now\n" in story.output
    assert story.seconds < 5


def test_the_run_is_cancelled_not_failed_and_it_is_said_how_to_go_on(story: Story) -> None:
    *_, state, hint = story.output.splitlines()
    assert state.endswith(" of shop ended CANCELED")
    assert hint == f"  to finish the rest: edp run --from-failure {state.split()[1]}"
    assert "Traceback" not in story.output


def test_no_half_of_a_table_is_left(story: Story) -> None:
    assert not story.written


def test_the_rest_is_then_finished_and_nothing_else(story: Story) -> None:
    assert story.finished.code == 0
    assert story.finished.statuses == {"shop.silver.stubborn": "ok", "shop.gold.after": "ok"}
    assert story.finished.figures("shop.gold.after")["rows"] == 2
