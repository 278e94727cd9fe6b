"""A reviewed change says who wants it, until when and why; files that do not fit what was applied are errors."""

from __future__ import annotations

import datetime as dt

import pytest

from platform_core.control.reviewed_sql.planning import sql_status
from platform_core.control.store.rows import applied_serial
from platform_core.errors import ConfigError
from tests.reviewed_sql.conftest import Changes

CHANGE = "UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'"
TODAY = dt.datetime.now(dt.UTC).date()


def refused(changes: Changes) -> str:
    """What planning says; applying says the same and changes nothing."""
    with pytest.raises(ConfigError) as planned:
        changes.plan()
    before = changes.project.store().read(applied_serial)
    with pytest.raises(ConfigError) as applied:
        changes.apply()
    assert changes.project.store().read(applied_serial) == before
    assert str(applied.value) == str(planned.value)
    return str(planned.value)


@pytest.mark.parametrize("key", ["owner", "expires", "reason"])
def test_each_key_of_the_header_is_required(changes: Changes, key: str) -> None:
    changes.file(CHANGE, header="\n".join(line for line in changes.header().split("\n") if f"-- {key}" not in line))
    assert f"control_sql/dev/0001_change.sql:1: '{key}' is missing" in refused(changes)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"owner": "somebody"}, "0001_change.sql:1: 'owner' must be an e-mail address, or team:<name>"),
        ({"expires": "soon"}, "0001_change.sql:2: 'expires' must be a day of the calendar"),
        ({"expires": "2026-02-30"}, "0001_change.sql:2: 'expires' must be a day of the calendar"),
        ({"reason": ""}, "0001_change.sql:3: 'reason' must be 1 to 500 characters"),
        ({"expires": TODAY - dt.timedelta(days=1)}, "0001_change.sql:2: expired on"),
        ({"expires": TODAY + dt.timedelta(days=400)}, "0001_change.sql:2: expires more than a year ahead"),
    ],
)
def test_what_stands_in_the_header_is_checked(changes: Changes, header: dict[str, object], said: str) -> None:
    changes.file(CHANGE, header=changes.header(**header))  # type: ignore[arg-type]
    assert said in refused(changes)


def test_a_typing_error_in_the_header_is_told(changes: Changes) -> None:
    changes.file(CHANGE, header=changes.header().replace("-- owner", "-- ovner"))
    said = refused(changes)
    assert "0001_change.sql:1: unknown key 'ovner'" in said
    assert "did you mean 'owner'?" in said


def test_today_is_the_last_day_that_counts(changes: Changes) -> None:
    changes.file(CHANGE, header=changes.header(expires=TODAY + dt.timedelta(days=1)))
    assert len(changes.apply()) == 1


def test_a_key_that_stands_twice_is_refused(changes: Changes) -> None:
    changes.file(CHANGE, header=changes.header() + "-- owner: team:finance\n")
    assert "0001_change.sql:4: 'owner' stands twice" in refused(changes)


def test_a_statement_that_is_refused_is_told_with_its_line(changes: Changes) -> None:
    changes.file(f"{CHANGE};\n\nDROP TABLE history;")
    assert "control_sql/dev/0001_change.sql:6: DROP has no place in a reviewed change" in refused(changes)


def test_characters_that_nobody_sees_are_refused(changes: Changes) -> None:
    changes.file("UPDATE ingestion SET description = 'a\u202eb' WHERE name = 'orders'")
    assert "0001_change.sql:4: holds the invisible character U+202E" in refused(changes)


@pytest.mark.parametrize(
    ("sql", "said"),
    [("", "holds no statement"), ("-- UPDATE ingestion", "holds no statement"), ("UPDATE 'x", "cannot be read as SQL")],
)
def test_a_file_without_a_statement_is_refused(changes: Changes, sql: str, said: str) -> None:
    changes.file(sql)
    assert said in refused(changes)


def test_a_file_that_was_edited_after_it_was_applied_is_refused(changes: Changes) -> None:
    changes.apply(CHANGE)
    changes.project.edit("control_sql/dev/0001_change.sql", "5 hours", "6 hours")
    said = refused(changes)
    assert "0001_change.sql: change 0001 was edited after it had been applied" in said
    assert "serial 2" in said
    assert "put its text back (git log shows it), and make the change in a new change" in said


def test_line_ends_are_no_edit(changes: Changes) -> None:
    changes.apply(CHANGE)
    file = changes.project.folder / "control_sql/dev/0001_change.sql"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert changes.plan() == []


def test_a_file_that_is_missing_is_told(changes: Changes) -> None:
    changes.apply(CHANGE)
    (changes.project.folder / "control_sql/dev/0001_change.sql").rename(
        changes.project.folder / "control_sql/dev/0001_other.sql"
    )
    assert "0001_other.sql: change 0001 had another name when it was applied: 0001_change.sql" in refused(changes)
    (changes.project.folder / "control_sql/dev/0001_other.sql").unlink()
    assert "0001_change.sql: the file of change 0001 is missing" in refused(changes)


def test_a_file_with_a_number_before_those_applied_is_refused(changes: Changes) -> None:
    changes.file(CHANGE, name="0001_first")
    changes.apply()
    changes.project.sql("UPDATE control.sql_changes SET number = 2, name = '0002_first'")
    changes.file(CHANGE, name="0002_first")
    said = refused(changes)
    assert "change 0001 was not applied, but the later 0002 was" in said


def test_numbers_count_on_without_gaps(changes: Changes) -> None:
    changes.file(CHANGE, name="0002_second")
    assert "number 0002 follows 0000: there is no change 0001" in refused(changes)
    changes.file(CHANGE, name="0001_one")
    changes.file(CHANGE, name="0001_two")
    assert "number 0001 is taken by 0001_one.sql" in refused(changes)


def test_a_file_that_nobody_would_apply_is_told(changes: Changes) -> None:
    changes.project.write("control_sql/stray.sql", "")
    changes.project.write("control_sql/dve/0001_change.sql", "")
    changes.project.write("control_sql/dev/change.sql", "")
    said = refused(changes)
    assert "control_sql/stray.sql: a change lies in the folder of its environment" in said
    assert "control_sql/dve: 'dve' is no environment" in said
    assert "did you mean 'dev'?" in said
    assert "control_sql/dev/change.sql: is no change" in said


def test_changes_of_another_environment_are_left_alone(changes: Changes) -> None:
    changes.project.write_environment("prod")
    changes.project.write("control_sql/prod/0001_change.sql", changes.header() + CHANGE)
    assert changes.plan() == []


def test_without_a_folder_there_are_no_changes(changes: Changes) -> None:
    assert changes.plan() == []
    assert changes.apply() == []


def test_the_status_lists_what_was_applied_and_what_waits(changes: Changes) -> None:
    changes.apply(CHANGE)
    changes.file("UPDATE ingestion SET parallel = 2")
    status = sql_status(changes.scope())
    assert [(each.name, each.serial) for each in status.applied] == [("0001_change", 2)]
    assert [each.name for each in status.waiting] == ["0002_change"]
    assert status.issues == ()
