"""A good folder becomes a manifest that knows where everything was declared."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from platform_core.control.load import load_manifest, load_manifest_cached
from platform_core.errors import ConfigError, Place
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.table import TableRef


def test_a_good_folder_becomes_a_manifest(package) -> None:
    manifest = package.load()
    assert manifest.root == package.root
    assert manifest.location.name == "sales"
    assert [spec.ref for spec in manifest.ingestions] == [
        TableRef("erp", "bronze", "customers"),
        TableRef("erp", "bronze", "orders"),
    ]
    orders = manifest.table(TableRef("erp", "bronze", "orders"))
    assert (orders.mode, orders.key, orders.lookback) == (LoadMode.INCREMENTAL, ("order_id",), timedelta(hours=2))
    assert manifest.connection("erp", "lists").max_concurrent == 2
    assert [spec.name for spec in manifest.refreshes] == ["overview", "board"]


def test_masks_and_their_options_are_taken_from_the_flat_form(package) -> None:
    customers = package.load().ingestions[0]
    assert {name: (rule.mask, rule.options) for name, rule in customers.masks.items()} == {
        "email": ("hash", {"domain": "email"}),
        "name": ("full", {}),
    }


def test_options_of_a_plugin_stand_flat_beside_the_name(package) -> None:
    manifest = package.load()
    assert manifest.connection("erp", "reports").options == {"tenant": "example"}
    assert manifest.refreshes[0].options == {"colour": "blue"}


def test_every_spec_knows_its_file_and_line(package) -> None:
    manifest = package.load()
    control = package.control
    assert [spec.place for spec in manifest.ingestions] == [
        Place(control / "ingestion/erp.yaml", 3),
        Place(control / "ingestion/erp.yaml", 9),
    ]
    assert manifest.location.workstreams[0].place == Place(control / "location.yaml", 3)
    assert manifest.steps[1].place == Place(control / "processing/silver.yaml", 7)


def test_a_query_says_what_a_step_reads(package) -> None:
    step = package.load().steps[0]
    assert step.inputs == (TableRef("erp", "bronze", "orders"), TableRef("erp", "bronze", "customers"))
    assert step.depends_on == ("bronze.orders", "bronze.customers")
    assert step.place is not None


def test_a_variable_takes_the_value_of_its_environment(package) -> None:
    assert package.load("dev").connection("erp", "lists").options["root"] == "/state/erp.db"
    assert package.load("prod").connection("erp", "lists").options["root"] == "/srv/erp.db"


def test_a_variable_that_stands_alone_keeps_its_type(package) -> None:
    assert package.load().connection("erp", "erp").options["port"] == 5432


def test_two_dollars_stand_for_a_literal_reference(package) -> None:
    text = (package.control / "location.yaml").read_text() + "description: costs $${5}, in ${env.state}\n"
    package.write({"control/location.yaml": text})
    assert package.load().location.description == "costs ${5}, in /state"


def test_nothing_is_imported_to_check_a_function(package) -> None:
    package.load()
    assert "sales" not in sys.modules


def test_a_reference_to_another_workstream_is_taken_as_it_is(package) -> None:
    package.write({"sql/order_totals.sql": "select * from hr.gold.people where age > $lowest"})
    assert package.load().steps[0].depends_on == ("hr.gold.people",)


def test_an_unchanged_folder_is_read_once_a_process(package) -> None:
    first = load_manifest_cached(package.control, environment="dev", state=Path("/state"))
    (package.control / "location.yaml").unlink()
    assert load_manifest_cached(package.control, environment="dev", state=Path("/state")) is first


def test_a_failure_is_not_remembered(package) -> None:
    good = (package.control / "location.yaml").read_text()
    package.write({"control/location.yaml": "locatoin: sales\n"})
    with pytest.raises(ConfigError):
        load_manifest_cached(package.control, environment="dev", state=Path("/state"))
    package.write({"control/location.yaml": good})
    assert load_manifest_cached(package.control, environment="dev", state=Path("/state")).location.name == "sales"


def test_files_are_shown_relative_to_the_project_from_anywhere(package, tmp_path, monkeypatch) -> None:
    (tmp_path / "workspace.yaml").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    package.write({"control/location.yaml": "location: [\n"})
    assert package.faults().startswith("sales/control/location.yaml:")


def test_a_linked_file_is_read_and_a_pipe_is_not(package) -> None:
    (package.control / "connections.yaml").rename(package.root / "real.yaml")
    (package.control / "connections.yaml").symlink_to(package.root / "real.yaml")
    assert len(package.load().connections) == 3
    (package.control / "connections.yaml").unlink()
    os.mkfifo(package.control / "connections.yaml")
    assert package.faults() == "control/connections.yaml: is not a regular file"


def test_a_chain_of_five_thousand_steps_loads(package) -> None:
    entries = ["steps:", "- {name: s0, layer: silver, kind: python, function: 'sales.steps:train'}"]
    entries += [
        f"- {{name: s{n}, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.s{n - 1}]}}"
        for n in range(1, 5000)
    ]
    package.write({"control/processing/chain.yaml": "\n".join(entries)})
    assert len(package.load().steps) == 5002


def test_a_circle_of_five_thousand_steps_is_named_and_cut(package) -> None:
    entries = ["steps:"]
    entries += [
        f"- {{name: s{n}, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.s{n - 1}]}}"
        for n in range(1, 5000)
    ]
    entries.append(
        "- {name: s0, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.s4999]}"
    )
    package.write({"control/processing/chain.yaml": "\n".join(entries)})
    text = package.faults()
    assert "tables are made from each other: silver.s0 → silver.s4999 → silver.s4998" in text
    assert "(4,989 more)" in text
    assert len(text) < 500


def test_thousands_of_wrong_references_are_told_in_seconds(package) -> None:
    entries = ["steps:"]
    entries += [
        f"- {{name: s{n}, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.t{n}]}}"
        for n in range(5000)
    ]
    package.write({"control/processing/chain.yaml": "\n".join(entries)})
    start = time.process_time()
    text = package.faults()
    assert time.process_time() - start < 20
    assert "has more than 100 problems; the others are not shown" in text


def test_the_folder_that_holds_control_is_the_package(package) -> None:
    manifest = load_manifest(Path("control"), environment="dev", state=Path("/state"))
    assert manifest.root == package.root
