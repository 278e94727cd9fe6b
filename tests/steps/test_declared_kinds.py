"""What is wrong with a step of any kind is told by `edp check`, with file and line."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.checks import check_reading
from platform_core.control.load import load_manifest
from platform_core.control.reading import read_control
from platform_core.control.references import check_between
from platform_core.control.report import Report
from platform_core.errors import ConfigError
from platform_core.specs.manifest import Manifest
from tests.steps.notebooks import notebook, save

LOCATION = "location: mobility\nworkstreams: [{name: mobility, owners: [team:mobility]}]\n"
CONNECTIONS = """\
connections:
  - {name: drop, type: files, root: /srv/drop}
  - {name: prices, type: rest, base_url: "https://prices.example.com/v1"}
  - {name: lake, type: delta, root: /srv/lake}
  - {name: erp, type: sqlite, path: /srv/erp.db}
"""
FILE = "control/processing/steps.yaml"
FORECAST = "  - {name: forecast, layer: gold, kind: notebook, notebook: notebooks/forecast.ipynb}\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Load a location of these steps, as they stand below ``steps:``."""
    monkeypatch.chdir(tmp_path)
    control = tmp_path / "mobility" / "control"
    (control / "processing").mkdir(parents=True)
    (control / "location.yaml").write_text(LOCATION)
    (control / "connections.yaml").write_text(CONNECTIONS)

    def load_steps(steps: str, *, more: dict[str, str] | None = None) -> Manifest:
        (control / "processing/steps.yaml").write_text("steps:\n" + textwrap.dedent(steps).strip("\n") + "\n")
        for name, text in (more or {}).items():
            (tmp_path / "mobility" / name).write_text(text)
        return load_manifest(control, environment="dev", state=tmp_path / "state")

    return load_steps


@pytest.fixture
def faults(load: Callable[..., Manifest]) -> Callable[..., str]:
    """What is wrong with these steps."""

    def faults_of(steps: str, **more: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            load(steps, **more)
        return str(caught.value)

    return faults_of


def at(line: int, message: str) -> str:
    return f"mobility/{FILE}:{line}: {message}"


KINDS = """
- {name: drop, layer: external, kind: external, source: drop, object: "*.csv", fresh: 2 days, every: 10 minutes}
- {name: prices, layer: external, kind: external, source: prices, object: tariffs, compare: content}
- {name: theirs, layer: external, kind: external, source: lake, object: gold/tariffs}
- {name: shared, layer: external, kind: external}
- name: fares
  layer: silver
  kind: sql
  sql: fares.sql
  depends_on: [external.drop]
- {name: features, layer: silver, kind: spark, function: mobility_features:step, depends_on: [external.prices]}
"""
FILES = {"fares.sql": "SELECT * FROM external.shared\n"}


def test_every_kind_can_be_declared(load: Callable[..., Manifest], tmp_path: Path) -> None:
    (tmp_path / "mobility_features.py").write_text("def step(context, spark): ...\n")
    steps = {spec.name: spec for spec in load(KINDS, more=FILES).steps}
    assert [steps[name].kind for name in ("drop", "fares", "features")] == ["external", "sql", "spark"]
    # What a query reads is found in it; what it waits for is added.
    assert steps["fares"].depends_on == ("external.shared", "external.drop")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("kind: notebook", "a step of kind notebook needs 'notebook'"),
        ("kind: spark", "a step of kind spark needs 'function'"),
        ("kind: notebook, notebook: a.ipynb, function: a:b", "a step of kind notebook has no 'function'"),
        ("kind: python, function: a:b, fresh: 1 day", "a step of kind python has no 'fresh'"),
        ("kind: external", "what another system owns stands in layer 'external'"),
        ("kind: external, layer: external, sql: a.sql", "a step of kind external has no 'sql'"),
        ("kind: external, layer: external, write: append", "a step of kind external has no 'write'"),
        ("kind: external, layer: external, depends_on: [bronze.a]", "a step of kind external has no 'depends_on'"),
        ("kind: external, layer: external, source: drop", "'source' and 'object' go together"),
        ("kind: external, layer: external, object: a", "'source' and 'object' go together"),
        ("kind: external, layer: external, compare: content", "'compare' needs 'source'"),
        ("kind: sql, sql: a.sql, layer: external", "layer 'external' belongs to the platform"),
    ],
)
def test_keys_must_fit_the_kind(faults: Callable[..., str], fields: str, message: str) -> None:
    layer = "" if "layer:" in fields else "layer: gold, "
    assert at(2, message) in faults(f"- {{name: a, {layer}{fields}}}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("source: nobody, object: a", "unknown connection 'nobody'"),
        (
            "source: erp, object: a",
            "connection 'erp' is of type sqlite, which cannot tell whether something has changed",
        ),
        ("source: lake, object: a, compare: content", "'compare: content' is nothing that a connection of type delta"),
        ("source: lake, object: a, compare: looks", "unknown compare 'looks'"),
        ("source: drop, object: ../up.csv", "'../up.csv': "),
        ("source: prices, object: 'a?b=1'", "'a?b=1': the object must be a path below the connection's base URL"),
        ("source: lake, object: /srv/a", "'/srv/a': the object must be a path below the connection's root"),
        ("every: 5 seconds", "'every': must be 30 seconds or more"),
        ("fresh: soon", "'fresh': must read like '2 hours'"),
    ],
)
def test_an_external_asset_must_be_one_that_can_be_looked_at(
    faults: Callable[..., str], fields: str, message: str
) -> None:
    assert at(2, message) in faults(f"- {{name: a, layer: external, kind: external, {fields}}}")


def test_types_that_can_be_observed_are_named(faults: Callable[..., str]) -> None:
    told = faults("- {name: a, layer: external, kind: external, source: erp, object: a}")
    assert "types that can: delta, files, rest" in told


def test_a_query_cannot_read_what_is_looked_at_only(faults: Callable[..., str]) -> None:
    told = faults(KINDS, more={"fares.sql": "SELECT * FROM external.theirs\n"})
    assert at(9, "the query reads 'external.theirs', which is looked at only") in told


def test_a_dashboard_cannot_show_what_is_looked_at_only(faults: Callable[..., str], tmp_path: Path) -> None:
    board = (
        "dashboards:\n  - {name: b, type: page, shows: [external.drop], tables: [{title: T, table: external.drop}]}\n"
    )
    told = faults(KINDS, more=FILES | {"control/refresh.yaml": board})
    assert "control/refresh.yaml:2: 'external.drop' is looked at only: it is no table of the lake" in told


def test_a_step_of_another_location_can_depend_on_it_and_a_dashboard_there_cannot_show_it(
    load: Callable[..., Manifest], tmp_path: Path
) -> None:
    (tmp_path / "mobility_features.py").write_text("def step(context, spark): ...\n")
    load(KINDS, more=FILES)
    crm = tmp_path / "crm" / "control"
    crm.mkdir(parents=True)
    (crm / "location.yaml").write_text(LOCATION.replace("mobility", "crm"))
    (crm / "processing.yaml").write_text(
        "steps:\n  - {name: a, layer: silver, kind: python, function: crm_a:step, "
        "depends_on: [mobility.external.drop]}\n"
    )
    (tmp_path / "crm_a.py").write_text("def step(context): ...\n")
    (crm / "refresh.yaml").write_text(
        "dashboards:\n  - {name: b, type: page, shows: [mobility.external.drop], "
        "tables: [{title: T, table: mobility.external.drop}]}\n"
    )
    report = Report(tmp_path)
    read = [
        check_reading(read_control(folder, environment="dev", state=tmp_path, report=report), report)
        for folder in (tmp_path / "mobility" / "control", crm)
    ]
    check_between(read, report, about=read)
    with pytest.raises(ConfigError) as caught:
        report.raise_if_any()
    (issue,) = caught.value.issues
    assert "refresh.yaml:2: 'mobility.external.drop' is looked at only" in str(issue)


def forecast(tmp_path: Path, content: object) -> None:
    save(tmp_path / "mobility" / "notebooks" / "forecast.ipynb", content)


def test_a_good_notebook_passes(load: Callable[..., Manifest], tmp_path: Path) -> None:
    forecast(tmp_path, notebook('step = notebook_step("mobility.gold.forecast")', parameters="horizon: int = 7"))
    steps = load(FORECAST.replace("}", ", variables: {horizon: 14}}")).steps
    assert steps[0].variables == {"horizon": 14}


def test_a_notebook_that_is_not_there_is_told_with_a_name_that_is(faults: Callable[..., str], tmp_path: Path) -> None:
    save(tmp_path / "mobility/notebooks/forecasts.ipynb", notebook())
    told = faults(FORECAST)
    assert at(2, "there is no notebook 'notebooks/forecast.ipynb'") in told
    assert "did you mean 'notebooks/forecasts.ipynb'" in told


def test_a_notebook_lies_in_the_package(faults: Callable[..., str], tmp_path: Path) -> None:
    save(tmp_path / "outside.ipynb", notebook())
    assert at(2, "'../outside.ipynb' lies outside") in faults(FORECAST.replace("notebooks/forecast", "../outside"))


R_KERNEL = {**notebook(), "metadata": {"kernelspec": {"language": "R"}}}
TWICE = notebook()
TWICE["cells"] = [*TWICE["cells"], *TWICE["cells"]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (notebook("x = 1", parameters=None), "has no cell tagged 'parameters'"),
        (TWICE, "has 2 cells tagged 'parameters'"),
        (notebook(parameters="%matplotlib inline\nhorizon = 1"), "is not plain Python"),
        (notebook(parameters="horizn = 1"), "variable 'horizon' is no parameter of"),
        (notebook('step = edp.notebook_step("mobility.gold.other")'), "asks for step 'mobility.gold.other'"),
        (R_KERNEL, "is a notebook of R"),
        ({"cells": [], "nbformat": 3}, "is no notebook of format 4"),
        ([], "is no notebook of format 4"),
    ],
)
def test_what_is_wrong_with_a_notebook_is_told_before_it_runs(
    faults: Callable[..., str], tmp_path: Path, content: object, message: str
) -> None:
    forecast(tmp_path, content)
    told = faults(FORECAST.replace("}", ", variables: {horizon: 14}}"))
    assert f"mobility/{FILE}:2: " in told
    assert message in told


def test_a_file_that_is_no_json_is_no_notebook(faults: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mobility" / "notebooks").mkdir()
    (tmp_path / "mobility" / "notebooks" / "forecast.ipynb").write_text("import pandas")
    assert "is no notebook: it is not JSON" in faults(FORECAST)


def test_a_cell_with_magics_is_no_fault(load: Callable[..., Manifest], tmp_path: Path) -> None:
    forecast(tmp_path, notebook("%load_ext autoreload\n!ls", "step = 1"))
    assert load(FORECAST).steps[0].kind == "notebook"


def test_the_function_of_a_spark_step_must_exist(faults: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mobility_features.py").write_text("def steps(context, spark): ...\n")
    told = faults("- {name: a, layer: gold, kind: spark, function: 'mobility_features:step'}")
    assert at(2, "there is no function 'step' in") in told
    assert json.dumps(told)
