"""What a run shows while it works, and at its end."""

from __future__ import annotations

import os
import subprocess
from io import StringIO
from typing import Any

import dagster as dg
import pytest
from rich.console import Console

from platform_core.cli import edp
from platform_core.cli.progress import RunDisplay, aside, failures, outcome_as_json, print_report
from platform_core.execution.outcomes import AssetOutcome, RunOutcome, Status, WorkspaceOutcome


def asset(name: str, status: Status = Status.OK, *, error: str = "", **metadata: Any) -> AssetOutcome:
    figures = {f"edp/{key}": value for key, value in metadata.items()}
    return AssetOutcome(dg.AssetKey(name.split(".")), status, metadata=figures, error=error, seconds=1.25)


def outcome(*assets: AssetOutcome) -> WorkspaceOutcome:
    return WorkspaceOutcome((), {entry.key: entry for entry in assets})


def shown(result: WorkspaceOutcome, *, width: int = 120) -> list[str]:
    file = StringIO()
    print_report(Console(file=file, width=width), result)
    return [line.rstrip() for line in file.getvalue().splitlines()]


LOADED = asset(
    "shop.bronze.sales",
    mode="full",
    read=12345,
    inserted=5,
    updated=4,
    deleted=3,
    unchanged=12333,
    late=0,
    version=7,
    committed=True,
)


def test_a_load_is_one_row_with_its_figures() -> None:
    heading, row = shown(outcome(LOADED))
    columns = ["mode", "read", "inserted", "updated", "deleted", "unchanged", "late", "commit", "seconds", "status"]
    assert heading.split() == ["ingested", *columns]
    assert row.split() == ["shop.bronze.sales", "full", "12,345", "5", "4", "3", "12,333", "0", "v7", "1.25", "ok"]


def test_no_figure_is_cut_on_a_narrow_terminal() -> None:
    assert shown(outcome(LOADED), width=40) == shown(outcome(LOADED))


def test_a_load_without_changes_has_no_commit() -> None:
    unchanged = asset("shop.bronze.sales", version=7, committed=False)
    assert shown(outcome(unchanged))[1].split() == ["shop.bronze.sales", "none", "1.25", "ok"]


def test_one_failure_of_several_assets_is_told_once() -> None:
    told = failures(
        [asset("shop.gold.a", Status.FAILED, error="no disk"), asset("shop.gold.b", Status.FAILED, error="no disk")]
    )
    assert told == ["shop.gold.a, shop.gold.b: no disk"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("source is gone\n  mend it", "shop.gold.a: source is gone\n  mend it"),
        ("shop.gold.a: no column x", "shop.gold.a: no column x"),
        (
            "step shop.gold.a (control/steps.yaml:3): no column x",
            "step shop.gold.a (control/steps.yaml:3): no column x",
        ),
        ("cannot open /lake/x (shop.gold.a)", "shop.gold.a: cannot open /lake/x (shop.gold.a)"),
    ],
)
def test_the_asset_is_named_once(error: str, told: str) -> None:
    assert failures([asset("shop.gold.a", Status.FAILED, error=error)]) == [told]


def test_long_messages_are_not_broken_over_lines() -> None:
    error = "word " * 60 + "end"
    assert shown(outcome(asset("shop.gold.a", Status.FAILED, error=error)))[-1] == f"shop.gold.a: {error}"


def test_json_holds_figures_as_numbers() -> None:
    runs = (RunOutcome("0123", "shop", dg.DagsterRunStatus.SUCCESS),)
    result = outcome_as_json(WorkspaceOutcome(runs, {LOADED.key: LOADED}))
    assert result["succeeded"]
    assert result["runs"] == [{"run_id": "0123", "job": "shop", "status": "SUCCESS"}]
    assert result["assets"][0]["figures"]["read"] == 12345


def test_a_location_that_was_left_out_is_no_success() -> None:
    assert not WorkspaceOutcome((), {LOADED.key: LOADED}, left_out=("crm",)).succeeded


def test_each_asset_is_told_once_where_there_is_no_terminal() -> None:
    file = StringIO()
    with RunDisplay(Console(file=file, width=80), total=2) as display:
        for status in (Status.RUNNING, Status.OK, Status.OK):
            display(asset("shop.bronze.sales", status))
        display(asset("shop.gold.a", Status.SKIPPED))
    assert file.getvalue() == "ok      shop.bronze.sales\nskipped shop.gold.a\n"


def test_quiet_means_nothing_at_all() -> None:
    file = StringIO()
    with RunDisplay(Console(file=file, width=80), total=1, quiet=True) as display:
        display(asset("shop.bronze.sales"))
        display.stopping()
    assert file.getvalue() == ""


@pytest.mark.parametrize(("show", "expected"), [(False, "after\n"), (True, "out\nerr\nchild\nafter\n")])
def test_what_runs_write_is_kept_apart_from_the_answer(
    show: bool, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with aside(show=show):
        os.write(1, b"out\n")
        os.write(2, b"err\n")
        subprocess.run(["echo", "child"], check=True)
    os.write(2, b"after\n")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", expected)


def test_every_command_has_an_example() -> None:
    import click

    context = click.Context(edp)
    commands = [edp.get_command(context, name) for name in edp.list_commands(context)]
    assert all(command is not None and "Example" in (command.help or "") for command in commands)
