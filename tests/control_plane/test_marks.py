"""Changes that show more of personal data, or leave data behind, are marked and say what happens."""

from __future__ import annotations

import pytest

from platform_core.control.plan.plan import Mark, MarkKind
from platform_core.control.plan.privacy import privacy_marks
from tests.control_plane.conftest import Project, change_of

HASH = {"mask": "hash", "options": {"domain": "email"}}
FULL = {"mask": "full", "options": {}}
NULL = {"mask": "null", "options": {}}
YEAR = {"mask": "year", "options": {}}


def partial(**options: object) -> dict[str, object]:
    return {"mask": "partial", "options": options}


def truncate(**options: object) -> dict[str, object]:
    return {"mask": "truncate", "options": options}


def messages(before: object, after: object) -> list[str]:
    """What is said of a column whose rule changes."""
    old, new = ({"columns": {"c": {"masking": rule}}} for rule in (before, after))
    return [mark.message.removeprefix("column 'c': ") for mark in privacy_marks(old, new)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FULL, None),
        (FULL, HASH),
        (NULL, YEAR),
        (HASH, partial(keep_last=2)),
        (partial(keep_last=2), partial(keep_last=3)),
        (partial(keep_last=2), partial(keep_last=2, email=True)),
        (partial(keep_last=2), partial(keep_first=2)),
        (truncate(keep=2), truncate(keep=3)),
        (truncate(keep=2), truncate(keep=2, keep_short=True)),
        (truncate(to="month"), truncate(to="day")),
        (truncate(keep=2), truncate(to="year")),
        (YEAR, truncate(to="year")),
        ({"mask": "their_own", "options": {}}, FULL),
    ],
)
def test_a_mask_that_gives_away_more_is_a_downgrade(before: object, after: object) -> None:
    assert len(messages(before, after)) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        (None, HASH),
        (HASH, HASH),
        (HASH, FULL),
        (HASH, NULL),
        (FULL, NULL),
        (partial(keep_last=2), HASH),
        (partial(keep_last=3), partial(keep_last=2)),
        (truncate(keep=3), truncate(keep=2)),
        (truncate(to="day"), truncate(to="month")),
        (HASH, {"mask": "hash", "options": {"domain": "text"}}),
    ],
)
def test_a_mask_that_gives_away_no_more_is_none(before: object, after: object) -> None:
    assert messages(before, after) == []


def test_a_column_that_is_no_longer_classified_is_a_downgrade() -> None:
    before = {"columns": {"E-Mail": {"personal": True}}}
    assert [mark.message for mark in privacy_marks(before, {"columns": {}})] == [
        "column 'e_mail': is no longer classified personal"
    ]
    assert not [*privacy_marks(before, {"columns": {"e_mail": {"personal": True}}})]


def test_a_column_that_is_no_longer_read_is_none() -> None:
    before = {"columns": {"email": {"personal": True, "masking": HASH}}}
    assert not [*privacy_marks(before, {"columns": {}, "select": ["id"]})]
    assert len([*privacy_marks(before, {"columns": {}, "select": ["id", "email"]})]) == 2


def marks_of(project: Project, address: str) -> list[Mark]:
    return list(change_of(project.plan(), address).marks)


def test_a_masked_table_that_moves_to_another_location_keeps_its_promise(applied: Project) -> None:
    applied.write("crm/control/location.yaml", "location: crm\nworkstreams: [{name: other, owners: [team:crm]}]\n")
    applied.write("crm/control/connections.yaml", "workstream: other\nconnections: []\n")
    (applied.folder / "crm/control/ingestion.yaml").unlink()
    applied.edit(
        "finance/control/location.yaml",
        "{name: finance, owners: [team:finance]}",
        "{name: finance, owners: [team:finance]}, {name: crm, owners: [team:finance]}",
    )
    for name in ("processing", "refresh"):
        file = applied.folder / f"finance/control/{name}.yaml"
        file.write_text(f"workstream: finance\n{file.read_text()}")
    applied.write(
        "finance/control/connections.yaml",
        "workstream: crm\nconnections:\n  - {name: crm, type: sqlite, path: /srv/crm.db}\n",
    )
    applied.write(
        "finance/control/ingestion.yaml",
        "workstream: crm\nsource: crm\ntables:\n"
        "  - {object: customers, mode: full, key: [id], columns: {email: {mask: full, personal: true}}}\n"
        "  - {object: orders, mode: incremental, key: [id], cursor: updated_at}\n",
    )
    plan = applied.plan()
    created = {change.address: change for change in plan.changes if change.action == "create"}
    told = [mark.message for mark in created["crm.customers"].marks if mark.kind is MarkKind.PRIVACY]
    assert told == ["column 'name': mask full is removed", "column 'name': is no longer classified personal"]


def test_a_masked_table_that_comes_back_keeps_its_promise(applied: Project) -> None:
    kept = (applied.folder / "crm/control/ingestion.yaml").read_text()
    applied.write(
        "crm/control/ingestion.yaml",
        "source: crm\ntables:\n  - {object: orders, mode: incremental, key: [id], cursor: updated_at,"
        " lookback: 2 hours, columns: {phone: {mask: partial, keep_last: 2, personal: true}}}\n",
    )
    applied.apply()
    applied.write("crm/control/ingestion.yaml", kept.replace("name: {mask: full, personal: true}", "id: {}"))
    assert [mark.message for mark in marks_of(applied, "crm.customers")] == [
        "column 'name': mask full is removed",
        "column 'name': is no longer classified personal",
    ]


def test_a_second_table_of_a_masked_object_keeps_its_promise(applied: Project) -> None:
    file = applied.folder / "crm/control/ingestion.yaml"
    file.write_text(file.read_text() + "  - {object: customers, table: copies, mode: full, key: [id]}\n")
    assert {mark.kind for mark in marks_of(applied, "crm.copies")} == {MarkKind.PRIVACY}


def test_a_new_key_of_an_incremental_table_offers_a_reload(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "key: [id]\n    cursor", "key: [id, line]\n    cursor")
    [mark] = marks_of(applied, "crm.orders")
    assert (mark.kind, mark.message, mark.reload, mark.approval) == (
        MarkKind.RELOAD,
        "key id becomes id, line",
        "full",
        True,
    )
    assert "rows in bronze keep their old key" in mark.consequence


def test_mode_full_heals_itself_and_says_so(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "mode: incremental", "mode: full")
    applied.edit("crm/control/ingestion.yaml", "    cursor: updated_at\n    lookback: 2 hours\n", "")
    [mark] = marks_of(applied, "crm.orders")
    assert (mark.message, mark.reload, mark.approval) == ("mode incremental becomes full", None, False)
    assert "compares every row" in mark.consequence


def test_mode_incremental_instead_of_full_offers_a_reload(applied: Project) -> None:
    applied.edit(
        "crm/control/ingestion.yaml", "mode: full\n    key: [id]", "mode: incremental\n    cursor: at\n    key: [id]"
    )
    [mark] = marks_of(applied, "crm.customers")
    assert (mark.message, mark.reload) == ("mode full becomes incremental", "full")


def test_a_new_cursor_offers_a_reload(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "cursor: updated_at", "cursor: changed_at")
    [mark] = marks_of(applied, "crm.orders")
    assert (mark.message, mark.reload) == ("cursor updated_at becomes changed_at", "full")


def test_mode_append_begins_anew(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "mode: incremental\n    key: [id]", "mode: append")
    [mark] = marks_of(applied, "crm.orders")
    assert (mark.message, mark.reload) == ("mode incremental becomes append", None)
    assert "load it anew" in mark.consequence


def test_a_stronger_mask_of_an_incremental_table_offers_a_reload(applied: Project) -> None:
    applied.edit(
        "crm/control/ingestion.yaml", "{mask: partial, keep_last: 2, personal: true}", "{mask: full, personal: true}"
    )
    [mark] = marks_of(applied, "crm.orders")
    assert (mark.kind, mark.message, mark.reload) == (MarkKind.RELOAD, "masks change", "full")


def test_another_description_is_not_marked(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 2 hours\n    description: Orders")
    assert marks_of(applied, "crm.orders") == []


def test_deletions_beyond_the_limit_need_a_reason(applied: Project) -> None:
    applied.write_environment("dev", max_deletes=1)
    (applied.folder / "finance/control/refresh.yaml").unlink()
    assert not applied.plan().needs_approval
    (applied.folder / "finance/control/processing.yaml").unlink()
    plan = applied.plan()
    assert [(mark.kind, mark.approval) for mark in plan.marks] == [(MarkKind.DELETIONS, True)]
    assert "2 rows are deleted, more than 1" in plan.marks[0].message


def test_a_table_that_another_location_still_reads_is_not_deleted_without_a_word(applied: Project) -> None:
    # The other team's repository is not checked out here: only the tables know of its step.
    applied.edit(
        "workspace.yaml",
        "  - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}\n",
        "  - grpc_server: {location_name: finance, host: finance, port: 4000}\n",
    )
    for file in (applied.folder / "finance").rglob("*.py"):
        file.unlink()
    applied.write("crm/control/ingestion.yaml", "source: crm\ntables: []\n")
    plan = applied.plan()
    assert any("finance is not looked at" in note for note in plan.notes)
    [mark] = [mark for mark in change_of(plan, "crm.orders").marks if mark.kind is MarkKind.READERS]
    assert mark.message == "finance.gold.margin in location finance still reads it"
