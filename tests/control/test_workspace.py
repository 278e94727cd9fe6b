"""The whole workspace: which locations there are, and how they fit together."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from platform_core.control.workspace import check_workspace, examine, read_workspace
from platform_core.errors import ConfigError
from platform_core.settings import Settings
from tests.control.conftest import Files, Package

Make = Callable[[str, Files], Package]

WORKSPACE = """\
load_from:
  - python_module: {module_name: ws_north.definitions, location_name: north}
  - python_module: {module_name: ws_south.definitions, location_name: south}
"""


def location(name: str, *steps: str, workstream: str = "") -> Files:
    """A location with one step a line of ``layer.name: inputs``."""
    entries = []
    for step in steps:
        table, _, inputs = step.partition(": ")
        layer, _, table_name = table.partition(".")
        entries.append(
            f"  - {{name: {table_name}, layer: {layer}, kind: python, function: 'ws_{name}.steps:run', "
            f"depends_on: [{inputs}]}}\n"
        )
    return {
        "__init__.py": "raise RuntimeError('nothing imports a location to check it')",
        "definitions.py": "",
        "steps.py": "def run(context): ...",
        "control/location.yaml": f"location: {name}\n"
        f"workstreams:\n  - {{name: {workstream or name}, owners: ['team:{name}']}}\n",
        "control/processing.yaml": "steps:\n" + "".join(entries) if entries else "steps: []\n",
    }


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    home = tmp_path / "dagster_home"
    (home / "environments").mkdir(parents=True)
    (home / "environments" / "dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: files}\n")
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    return Settings(project=tmp_path, home=home, state=tmp_path / "state", environment="dev")


def faults(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        check_workspace(settings)
    return str(caught.value)


def test_locations_that_fit_together_give_their_manifests(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: ", "gold.b: silver.a, south.silver.c"))
    make_package("ws_south", location("south", "silver.c: north.silver.a"))
    assert [manifest.location.name for manifest in check_workspace(settings)] == ["north", "south"]


def test_no_location_is_imported(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north"))
    make_package("ws_south", location("south"))
    check_workspace(settings)
    assert not {"ws_north", "ws_south", "ws_north.definitions"} & set(sys.modules)


def test_every_location_knows_its_control_folder(settings: Settings, make_package: Make) -> None:
    north = make_package("ws_north", location("north"))
    make_package("ws_south", location("south"))
    found = read_workspace(settings)
    assert [(each.name, each.module) for each in found] == [
        ("north", "ws_north.definitions"),
        ("south", "ws_south.definitions"),
    ]
    assert found[0].control == north.control


def test_an_unknown_table_of_another_location_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: south.silver.ccc"))
    make_package("ws_south", location("south", "silver.cc: "))
    assert faults(settings) == (
        "ws_north/control/processing.yaml:2: unknown table 'south.silver.ccc'\n"
        "  known tables in silver: south.silver.cc\n"
        "  did you mean 'south.silver.cc'?"
    )


def test_an_unknown_workstream_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: suoth.silver.c"))
    make_package("ws_south", location("south", "silver.c: "))
    assert faults(settings) == (
        "ws_north/control/processing.yaml:2: unknown workstream 'suoth' in 'suoth.silver.c'\n"
        "  known workstreams: north, south\n"
        "  did you mean 'south'?"
    )


def test_a_workstream_claimed_twice_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north"))
    make_package("ws_south", location("south", workstream="north"))
    assert faults(settings) == (
        "ws_south/control/location.yaml:3: workstream 'north' is claimed by two locations\n"
        "  the other is ws_north/control/location.yaml:3"
    )


def test_a_cycle_across_locations_is_named(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: south.silver.c", "silver.b: silver.a"))
    make_package("ws_south", location("south", "silver.c: north.silver.b"))
    assert faults(settings) == (
        "ws_north/control/processing.yaml:2: tables are made from each other: "
        "north.silver.a → south.silver.c → north.silver.b → north.silver.a\n"
        "  an arrow means 'reads'; take one of them away"
    )


def test_faults_of_one_location_do_not_hide_those_of_another(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: silver.x"))
    make_package("ws_south", {**location("south"), "control/location.yaml": "location: south\n"})
    text = faults(settings)
    assert "ws_north/control/processing.yaml:2: unknown table 'silver.x'" in text
    assert "ws_south/control/location.yaml:1: 'workstreams' is missing" in text


def test_a_reference_into_a_broken_location_is_not_called_dangling(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: south.silver.c"))
    make_package("ws_south", {**location("south"), "control/processing.yaml": "steps: ["})
    assert "ws_north" not in faults(settings)
    make_package("ws_west", {})
    (settings.project / "ws_south/control/location.yaml").write_text("location: 5\n")
    assert "ws_north" not in faults(settings)


def test_only_the_asked_location_is_told_about(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: south.silver.d"))
    make_package("ws_south", location("south", "silver.c: silver.x"))
    for target in ("north", str(settings.project / "ws_north"), "ws_north/control"):
        found = examine(settings, only=[target])
        assert [str(issue.place) for issue in found.report.issues] == ["ws_north/control/processing.yaml:2"]
        assert "'south.silver.d'" in found.report.issues[0].message


def test_a_folder_outside_the_workspace_can_be_checked(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north"))
    make_package("ws_south", location("south"))
    make_package("ws_west", location("west", "gold.x: north.silver.y"))
    assert [issue.message for issue in examine(settings, only=["ws_west"]).report.issues] == [
        "unknown table 'north.silver.y'"
    ]


def test_an_unknown_target_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north"))
    make_package("ws_south", location("south"))
    assert str(examine(settings, only=["nroth"]).report.issues[0]) == (
        "workspace.yaml: 'nroth' is neither a location nor a folder\n"
        "  known locations: north, south\n"
        "  did you mean 'north'?"
    )


def test_a_location_of_another_name_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north") | {"control/location.yaml": location("nort")["control/location.yaml"]})
    make_package("ws_south", location("south"))
    assert faults(settings) == (
        "ws_north/control/location.yaml:1: location is 'nort', workspace.yaml calls it 'north'\n"
        "  see workspace.yaml:2; make them equal"
    )


def test_a_value_for_an_environment_that_does_not_exist_is_told(settings: Settings, make_package: Make) -> None:
    make_package("ws_south", location("south"))
    make_package(
        "ws_north",
        location("north") | {"control/variables.yaml": "variables:\n  x:\n    default: a\n    deb: b\n"},
    )
    assert faults(settings) == (
        "ws_north/control/variables.yaml:4: unknown environment 'deb'\n  known environments: dev\n  did you mean 'dev'?"
    )


def test_a_code_server_without_its_package_is_left_unchecked(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: faraway.silver.x"))
    (settings.project / "workspace.yaml").write_text(
        "load_from:\n"
        "  - python_module: {module_name: ws_north.definitions, location_name: north}\n"
        "  - grpc_server: {host: ws_far, port: 4000, location_name: ws_far}\n"
    )
    found = examine(settings)
    assert found.unchecked == ("ws_far",)


def test_a_code_server_with_its_package_is_checked(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("ws_north", "silver.a: silver.x"))
    (settings.project / "workspace.yaml").write_text(
        "load_from:\n  - grpc_server: {host: north, port: 4000, location_name: ws_north}\n"
    )
    assert "unknown table 'silver.x'" in faults(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("load_from: {}\n", "workspace.yaml:1: 'load_from': expected a list, got a mapping"),
        (
            "load_from:\n  - python_modul: ws_north.definitions\n",
            "workspace.yaml:2: unknown kind of location 'python_modul'\n"
            "  known kinds: grpc_server, python_module\n"
            "  did you mean 'python_module'?",
        ),
        (
            "load_from:\n  - python_module: {module: x}\n",
            "workspace.yaml:2: 'module_name' is missing, or no text\n"
            "workspace.yaml:2: unknown key 'module'\n"
            "  known keys: attribute, executable_path, location_name, module_name, working_directory",
        ),
        (
            "load_from:\n  - python_module: ws_nowhere.definitions\n",
            "workspace.yaml:2: there is no module 'ws_nowhere.definitions'\n"
            "  install the location's package; in this project: uv sync",
        ),
        (
            "load_from:\n  - grpc_server: {port: 4000}\n",
            "workspace.yaml:2: 'location_name' is missing, or no text",
        ),
    ],
)
def test_a_wrong_workspace_file_is_told(settings: Settings, text: str, expected: str) -> None:
    (settings.project / "workspace.yaml").write_text(text)
    assert faults(settings) == expected


def dbt_manifest(*, models: dict[str, list[str]], sources: list[str], published: list[str]) -> str:
    nodes = {
        f"model.p.{name}": {
            "resource_type": "model",
            "name": name,
            "fqn": ["p", "marts" if name in published else "staging", name],
            "depends_on": {"nodes": inputs},
        }
        for name, inputs in models.items()
    }
    made = {}
    for source in sources:
        workstream, layer, name = source.split(".")
        made[f"source.p.{workstream}.{name}"] = {"source_name": workstream, "schema": layer, "name": name}
    return json.dumps({"nodes": nodes, "sources": made})


DBT = {
    "control/dbt.yaml": "projects:\n  - name: p\n    project: ../dbt\n    layer: gold\n",
    "../dbt/dbt_project.yml": "name: p\n",
}


def test_before_dbt_was_run_any_name_may_be_a_model(settings: Settings, make_package: Make) -> None:
    make_package("ws_north", location("north", "silver.a: gold.anything") | DBT)
    make_package("ws_south", location("south", "silver.a: north.gold.anything"))
    assert len(check_workspace(settings)) == 2


def test_models_are_known_once_dbt_has_written_them_down(settings: Settings, make_package: Make) -> None:
    manifest = dbt_manifest(
        models={"stg": ["source.p.north.b"], "daily": ["model.p.stg"]},
        sources=["north.silver.b"],
        published=["daily"],
    )
    steps = ("silver.b: ", "silver.c: gold.daily", "silver.d: gold.dialy", "silver.e: gold.stg")
    make_package("ws_north", location("north", *steps) | DBT | {"../dbt/target/manifest.json": manifest})
    make_package("ws_south", location("south", "silver.x: north.gold.daily"))
    assert faults(settings) == (
        "ws_north/control/processing.yaml:4: unknown table 'gold.dialy'\n"
        "  known tables in gold: gold.daily\n"
        "  did you mean 'gold.daily'?\n"
        "ws_north/control/processing.yaml:5: 'gold.stg' is a dbt model that is not published\n"
        "  only models below models/marts are; move it there, or read another table"
    )


def test_a_dbt_source_that_nobody_makes_is_told(settings: Settings, make_package: Make) -> None:
    manifest = dbt_manifest(
        models={"daily": ["source.p.north.bb", "source.p.south.c"]},
        sources=["north.silver.bb", "south.silver.c"],
        published=["daily"],
    )
    make_package("ws_north", location("north", "silver.b: ") | DBT | {"../dbt/target/manifest.json": manifest})
    make_package("ws_south", location("south"))
    assert faults(settings) == (
        "ws_north/control/dbt.yaml:3: dbt model 'daily': unknown table 'silver.bb'\n"
        "  known tables in silver: silver.b\n"
        "  did you mean 'silver.b'?\n"
        "ws_north/control/dbt.yaml:3: dbt model 'daily': unknown table 'south.silver.c'\n"
        "  known tables: none"
    )


def test_a_cycle_through_dbt_is_named(settings: Settings, make_package: Make) -> None:
    manifest = dbt_manifest(models={"daily": ["source.p.north.b"]}, sources=["north.silver.b"], published=["daily"])
    make_package(
        "ws_north", location("north", "silver.b: gold.daily") | DBT | {"../dbt/target/manifest.json": manifest}
    )
    make_package("ws_south", location("south"))
    assert "tables are made from each other: gold.daily → silver.b → gold.daily" in faults(settings)


def test_a_step_and_a_published_model_of_one_name_are_told(settings: Settings, make_package: Make) -> None:
    manifest = dbt_manifest(models={"daily": []}, sources=[], published=["daily"])
    make_package("ws_north", location("north", "gold.daily: ") | DBT | {"../dbt/target/manifest.json": manifest})
    make_package("ws_south", location("south"))
    assert faults(settings) == (
        "ws_north/control/dbt.yaml:4: table 'gold.daily' is made twice\n"
        "  first declared at ws_north/control/processing.yaml:2"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": {"a": 1}, "sources": {}}', "[" * 100_000])
def test_a_broken_dbt_manifest_is_told(settings: Settings, make_package: Make, text: str) -> None:
    make_package("ws_north", location("north") | DBT | {"../dbt/target/manifest.json": text})
    make_package("ws_south", location("south"))
    assert faults(settings) == (
        "dbt/target/manifest.json: cannot be read as dbt's manifest\n  build it again: dbt parse"
    )
