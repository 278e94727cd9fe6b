"""What ``edp check`` says of dbt entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from platform_core.control.dbt_projects import selection_path
from platform_core.errors import ConfigError
from platform_core.specs.dbt import DbtSpec
from tests.control.conftest import Files, Package

STEP = "  - {{name: {name}, layer: silver, kind: python, function: 'dbt_north.steps:run', depends_on: [{inputs}]}}\n"
PROFILES = "p:\n  target: local\n  outputs:\n    local: {type: duckdb}\n    warehouse: {type: postgres}\n"
MANIFEST = {
    "nodes": {
        "model.p.stg": {
            "resource_type": "model",
            "name": "stg",
            "fqn": ["p", "staging", "stg"],
            "depends_on": {"nodes": ["source.p.north.b"]},
        },
        "model.p.daily": {
            "resource_type": "model",
            "name": "daily",
            "fqn": ["p", "marts", "daily"],
            "depends_on": {"nodes": ["model.p.stg"]},
        },
        "seed.p.rates": {"resource_type": "seed", "name": "rates", "fqn": ["p", "marts", "rates"]},
    },
    "sources": {"source.p.north.b": {"source_name": "north", "schema": "silver", "name": "b"}},
}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The faults of a location with these dbt entries; empty where it has none."""
    package = Package(tmp_path / "dbt_north")
    package.root.mkdir()
    monkeypatch.chdir(tmp_path)

    def faults(*entries: str, selected: dict[tuple[str, ...], list[str]] | None = None) -> str:
        files: Files = {
            "__init__.py": "",
            "steps.py": "def run(context): ...",
            "control/location.yaml": "location: north\nworkstreams:\n  - {name: north, owners: ['team:north']}\n",
            "control/processing.yaml": "steps:\n"
            + STEP.format(name="b", inputs="")
            + STEP.format(name="c", inputs="gold.daily")
            + STEP.format(name="d", inputs="gold.rates"),
            "control/dbt.yaml": "projects:\n" + "".join(f"  - {entry}\n" for entry in entries),
            "../p/dbt_project.yml": "name: p\nprofile: p\n",
            "../p/profiles.yml": PROFILES,
            "../p/target/manifest.json": json.dumps(MANIFEST),
        }
        package.write(files)
        for select, found in (selected or {}).items():
            spec = DbtSpec(workstream="north", name="any", project="../p", select=select)
            path = selection_path(spec, tmp_path / "p")
            assert path is not None
            path.write_text(json.dumps(found))
        try:
            package.load()
        except ConfigError as error:
            return str(error)
        return ""

    return faults


def test_published_models_and_seeds_are_tables_that_steps_may_read(told: Callable[..., str]) -> None:
    assert told("{name: p, project: ../p}") == ""


def test_a_target_that_the_profile_lacks_is_told(told: Callable[..., str]) -> None:
    assert told("{name: p, project: ../p, target: warehose}") == (
        "dbt_north/control/dbt.yaml:2: unknown target 'warehose'\n"
        "  known targets: local, warehouse\n"
        "  did you mean 'warehouse'?"
    )


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("--vars", "must read like dbt's --select"),
        ("''", "must read like dbt's --select"),
        ("state:modified", "which only `edp dbt build --modified` does"),
        ("1+result:error", "which only `edp dbt build --modified` does"),
    ],
)
def test_a_selection_that_no_entry_may_have_is_told(told: Callable[..., str], selector: str, message: str) -> None:
    said = told(f"{{name: p, project: ../p, select: ['{selector.strip(chr(39))}']}}")
    assert said.startswith("dbt_north/control/dbt.yaml:2: ")
    assert message in said


def test_a_part_of_a_project_makes_what_is_selected_and_nothing_else(told: Callable[..., str]) -> None:
    said = told("{name: p, project: ../p, select: [daily]}", selected={("daily",): ["model.p.daily"]})
    assert "unknown table 'gold.rates'" in said
    assert "gold.daily'" not in said.splitlines()[0]


def test_two_parts_of_a_project_may_share_what_neither_publishes(told: Callable[..., str]) -> None:
    entries = ("{name: d, project: ../p, select: [daily]}", "{name: r, project: ../p, select: [rates]}")
    assert told(*entries, selected={("daily",): ["model.p.daily"], ("rates",): ["seed.p.rates"]}) == ""


def test_two_projects_with_a_model_of_one_name_are_told(told: Callable[..., str]) -> None:
    entries = (
        "{name: one, project: ../p}",
        "{name: two, project: ../p, layer: marts}",
    )
    assert told(*entries) == (
        "dbt_north/control/dbt.yaml:3: dbt model 'stg' is in project 'one' of the workstream, too\n"
        "  rename one, or give this project another layer for such models: staging: staging_2"
    )
    assert told(entries[0], "{name: two, project: ../p, layer: marts, staging: staging_2}") == ""
