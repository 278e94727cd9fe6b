"""What ``edp run`` asks of its runs, and refuses before it starts anything."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from platform_core.cli import run
from platform_core.errors import ConfigError
from platform_core.execution.outcomes import WorkspaceOutcome

Call = Callable[..., Result]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run configurations of the runs that the command started."""
    found: list[dict[str, Any]] = []

    @contextmanager
    def console() -> Iterator[Console]:
        yield Console(file=io.StringIO())

    def started(*_: object, run_config: dict[str, Any], **__: object) -> WorkspaceOutcome:
        found.append(run_config)
        return WorkspaceOutcome((), {})

    monkeypatch.setattr(run, "own_console", console)
    monkeypatch.setattr(run, "run_workspace", started)
    return found


def config(**given: Any) -> dict[str, Any]:
    return {"resources": {"platform": {"config": given}}}


@pytest.mark.usefixtures("project")
def test_options_become_the_configuration_of_every_run(call: Call, asked: list[dict[str, Any]]) -> None:
    call("run", "shop.gold.forecast")
    call("run", "--full-refresh", "shop.gold.forecast")
    call("run", "--since", "2026-01-01", "--until", "2026-01-31T12:00")
    assert asked == [
        {},
        config(full_refresh=True),
        config(since="2026-01-01T00:00:00+00:00", until="2026-01-31T12:00:00+00:00"),
    ]


@pytest.mark.usefixtures("project")
def test_a_range_without_an_end_ends_now_for_all_steps_alike(call: Call, asked: list[dict[str, Any]]) -> None:
    before = dt.datetime.now(dt.UTC)
    call("run", "--since", "2026-01-01")
    until = dt.datetime.fromisoformat(asked[0]["resources"]["platform"]["config"]["until"])
    assert before <= until <= dt.datetime.now(dt.UTC)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "command line: 'since' is no date or time: 'soon'"),
        (["--until", "2026-01-01"], "'until' needs 'since'"),
        (["--full-refresh", "--since", "2026-01-01"], "full refresh and a range exclude each other"),
    ],
)
def test_options_without_sense_start_nothing(
    call: Call, asked: list[dict[str, Any]], arguments: list[str], said: str
) -> None:
    result = call("run", *arguments)
    assert isinstance(result.exception, ConfigError) and said in str(result.exception)
    assert asked == []


@pytest.mark.usefixtures("project")
def test_what_failed_is_finished_as_it_was_begun(call: Call, asked: list[dict[str, Any]]) -> None:
    result = call("run", "--from-failure", "last", "--full-refresh")
    assert (result.exit_code, asked) == (2, [])
    assert "--from-failure goes on as the failed run began" in result.output
