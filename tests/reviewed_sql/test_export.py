"""What was set in an environment comes back into control files with the smallest difference, or not at all."""

from __future__ import annotations

import difflib
import subprocess
from collections.abc import Callable, Sequence

import pytest

from platform_core.control.plan.declared import read_declared
from platform_core.control.plan.plan import EndReason
from platform_core.control.reviewed_sql.drift import find_drift
from platform_core.control.reviewed_sql.exporting import Exported, chosen, export_drift
from platform_core.errors import ConfigError, PlanError
from tests.reviewed_sql.conftest import Changes

INGESTION = "crm/control/ingestion.yaml"


def export(changes: Changes, *addresses: str) -> Exported:
    project = changes.project
    declared = read_declared(project.settings())
    drift = find_drift(declared, project.environment(), project.at_hand())
    return export_drift(project.settings(), declared, chosen(drift, addresses))


def texts(changes: Changes) -> dict[str, str]:
    folder = changes.project.folder
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.glob("*/control/**/*.yaml"))}


def exported(changes: Changes, *addresses: str) -> list[str]:
    """Lines that an export takes out of and puts into files; git and the environment then say the same."""
    before = texts(changes)
    export(changes, *addresses)
    after = texts(changes)
    if not addresses:
        plan = changes.project.plan()
        # A variable that got a value is in no table yet; what uses it is.
        assert {change.kind for change in plan.changes} <= {"variable"}
        assert plan.overrides == ()
        assert {each.why for each in plan.ends} <= {EndReason.SETTLED}
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, "").splitlines(), after.get(name, "").splitlines()
        lines = difflib.unified_diff(old, new, n=0, lineterm="")
        found += [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return found


def test_a_value_is_written_where_it_stands(changes: Changes) -> None:
    changes.project.edit(INGESTION, "lookback: 2 hours", "lookback:  '2 hours'   # as agreed with the shop")
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    assert exported(changes) == [
        "-    lookback:  '2 hours'   # as agreed with the shop",
        "+    lookback:  '5 hours'   # as agreed with the shop",
    ]


def test_a_new_key_stands_behind_the_others_of_its_entry(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET parallel = 3 WHERE name = 'customers'")
    assert exported(changes) == ["+    parallel: 3"]
    lines = (changes.project.folder / INGESTION).read_text().splitlines()
    assert lines[lines.index("    parallel: 3") + 1] == "  - object: orders"


def test_a_key_that_is_back_at_its_default_is_taken_out(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET lookback = '0 hours' WHERE name = 'orders'")
    assert exported(changes) == ["-    lookback: 2 hours"]


def test_a_mask_with_its_options_is_written_as_people_write_it(
    changes: Changes, json_cast: Callable[[str], str]
) -> None:
    columns = (
        '{"phone": {"personal": true, "masking": {"mask": "partial", "options": {"keep_last": 4}}}, '
        '"iban": {"personal": true, "masking": {"mask": "full"}, "description": "of the account: main"}}'
    )
    changes.apply(f"UPDATE ingestion SET columns = {json_cast(columns)} WHERE name = 'orders'", approve="tested")
    assert exported(changes) == [
        "-      phone: {mask: partial, keep_last: 2, personal: true}",
        "+      phone: {mask: partial, keep_last: 4, personal: true}",
        '+      iban: {mask: full, description: "of the account: main", personal: true}',
    ]


def test_a_column_that_is_gone_is_taken_out(changes: Changes, json_cast: Callable[[str], str]) -> None:
    columns = '{"email": {"personal": true, "masking": {"mask": "hash", "options": {"domain": "email"}}}}'
    changes.apply(f"UPDATE ingestion SET columns = {json_cast(columns)} WHERE name = 'customers'", approve="tested")
    assert exported(changes) == ["-      name: {mask: full, personal: true}"]


def test_a_list_is_written_anew(changes: Changes, json_cast: Callable[[str], str]) -> None:
    key = json_cast('["id", "line"]')
    changes.apply(f"UPDATE ingestion SET \"key\" = {key} WHERE name = 'orders'", approve="x")
    assert exported(changes) == ["-    key: [id]", "+    key: [id, line]"]


def test_an_option_of_a_plug_in_stands_beside_the_entry_own_keys(
    changes: Changes, json_cast: Callable[[str], str]
) -> None:
    options = '{"figures": [{"title": "All", "table": "gold.margin", "column": "id", "aggregate": "count"}]}'
    changes.apply(f"UPDATE refresh SET options = {json_cast(options)}, title = 'yes: no'")
    assert exported(changes) == [
        "-    figures: [{title: Orders, table: gold.margin, column: id, aggregate: count}]",
        "+    figures: [{title: All, table: gold.margin, column: id, aggregate: count}]",
        '+    title: "yes: no"',
    ]


def test_a_value_of_a_variable_gets_one_for_this_environment(changes: Changes, json_cast: Callable[[str], str]) -> None:
    changes.project.write_environment("prod")
    options = json_cast('{"path": "/srv/other.db"}')
    changes.apply(f"UPDATE connection SET options = {options} WHERE name = 'crm'")
    assert exported(changes) == [
        '-  database: {default: "${env.state}/crm.db"}',
        '+  database: {default: "${env.state}/crm.db", dev: /srv/other.db}',
    ]


def test_folders_of_the_machine_stay_references(changes: Changes, json_cast: Callable[[str], str]) -> None:
    value = '{"root": "${location.root}/files"}'
    changes.apply(f"UPDATE connection SET options = {json_cast(value)} WHERE name = 'lists'")
    assert exported(changes) == [
        '-  - {name: lists, type: files, root: "${location.root}/lists"}',
        '+  - {name: lists, type: files, root: "${location.root}/files"}',
    ]


def test_a_new_row_joins_the_file_of_its_kind(changes: Changes) -> None:
    changes.apply(
        "INSERT INTO ingestion (location, workstream, name, source, object, mode, description) "
        "VALUES ('crm', 'crm', 'leads', 'crm', 'leads', 'append', 'from the fair')"
    )
    assert exported(changes) == [
        "+  - object: leads",
        "+    table: leads",
        "+    mode: append",
        "+    description: from the fair",
    ]


def test_a_new_row_without_such_a_file_gets_one(changes: Changes) -> None:
    changes.apply(
        "INSERT INTO upkeep (location, workstream, name, operation) VALUES ('crm', 'crm', 'compaction', 'compact')"
    )
    assert exported(changes) == [
        "+workstream: crm",
        "+policies:",
        "+  - name: compaction",
        "+    operation: compact",
    ]


def test_a_row_that_is_gone_is_taken_out_of_its_file(changes: Changes) -> None:
    changes.apply("DELETE FROM connection WHERE name = 'lists'; DELETE FROM refresh")
    assert exported(changes) == [
        '-  - {name: lists, type: files, root: "${location.root}/lists"}',
        "-dashboards:",
        "-  - name: board",
        "-    type: page",
        "-    shows: [gold.margin]",
        "-    figures: [{title: Orders, table: gold.margin, column: id, aggregate: count}]",
        "+dashboards: []",
    ]


def test_a_hand_in_the_database_can_be_kept_too(changes: Changes) -> None:
    changes.project.sql("UPDATE control.ingestion SET parallel = 4 WHERE name = 'orders'")
    assert exported(changes) == ["+    parallel: 4"]


def test_rows_can_be_named(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET parallel = 3; UPDATE refresh SET title = 'Board'")
    assert exported(changes, "crm.orders") == ["+    parallel: 3"]
    with pytest.raises(PlanError, match=r"crm.nobody does not differ from git\n  what could be written back: crm.cust"):
        export(changes, "crm.nobody")


def test_what_git_has_newer_stays(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET parallel = 3 WHERE name = 'orders'")
    changes.project.edit(INGESTION, "lookback: 2 hours", "lookback: 3 hours")
    assert exported(changes, "crm.orders") == ["+    parallel: 3"]
    changes.project.apply()
    changes.project.edit(INGESTION, "lookback: 3 hours", "lookback: 4 hours")
    with pytest.raises(PlanError, match="git is newer than what is applied"):
        export(changes, "crm.orders")


def git(changes: Changes, *arguments: str) -> None:
    words = ["git", "-c", "user.name=T", "-c", "user.email=t@example.com", *arguments]
    subprocess.run(words, cwd=changes.project.folder, check=True, capture_output=True)


def test_a_file_with_uncommitted_edits_is_left_alone(changes: Changes) -> None:
    git(changes, "init", "-q")
    git(changes, "add", "crm", "finance")
    git(changes, "commit", "-q", "-m", "first")
    changes.apply("UPDATE ingestion SET parallel = 3 WHERE name = 'orders'")
    changes.project.edit(INGESTION, "source: crm", "# about to change\nsource: crm")
    before = texts(changes)
    with pytest.raises(PlanError, match=r"crm/control/ingestion.yaml: has edits that are not committed"):
        export(changes)
    assert texts(changes) == before
    git(changes, "commit", "-q", "-a", "-m", "second")
    assert exported(changes) == ["+    parallel: 3"]


def refuse(changes: Changes, said: str, errors: Sequence[type[Exception]] = (PlanError,)) -> None:
    before = texts(changes)
    with pytest.raises(tuple(errors), match=said):
        export(changes)
    assert texts(changes) == before


def test_a_value_that_is_made_of_variables_is_left_to_people(changes: Changes, json_cast: Callable[[str], str]) -> None:
    changes.project.edit("crm/control/connections.yaml", '"${var.database}"', '"${var.database}.copy"')
    changes.project.apply()
    options = json_cast('{"path": "/srv/a.db"}')
    changes.apply(f"UPDATE connection SET options = {options} WHERE name = 'crm'")
    refuse(changes, r"crm/control/connections.yaml:2: connection crm.crm cannot be written back: .* made of variables")


def test_a_variable_that_others_use_is_left_to_people(changes: Changes, json_cast: Callable[[str], str]) -> None:
    changes.project.edit(
        "crm/control/connections.yaml",
        "connections:\n",
        'connections:\n  - {name: twin, type: sqlite, path: "${var.database}"}\n',
    )
    changes.project.apply()
    options = json_cast('{"path": "/srv/a.db"}')
    changes.apply(f"UPDATE connection SET options = {options} WHERE name = 'crm'")
    refuse(changes, r"would change connection crm.twin, too, which shares a variable")


def test_what_would_break_another_environment_is_taken_back(changes: Changes, json_cast: Callable[[str], str]) -> None:
    changes.project.write_environment("prod")
    variables = "variables:\n  cursor: {dev: updated_at, prod: id}\n"
    changes.project.edit("crm/control/variables.yaml", "variables:\n", variables)
    changes.project.edit(INGESTION, "cursor: updated_at", 'cursor: "${var.cursor}"')
    changes.project.apply()
    columns = json_cast('{"id": {"masking": {"mask": "hash", "options": {"domain": "identifier"}}}}')
    changes.apply(f"UPDATE ingestion SET columns = {columns} WHERE name = 'orders'", approve="tested")
    refuse(changes, "cannot be masked", errors=(ConfigError,))
