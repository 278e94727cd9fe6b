"""The sample lays out what the README says, the same every time."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mobility.sample import lay_out


def _query(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "rides.db")) as connection:
        return connection.execute(sql).fetchall()


def _weather(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (folder / "weather").iterdir()}


def _dump(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "rides.db")) as connection:
        return list(connection.iterdump())


def test_day_one_holds_the_published_totals(tmp_path: Path) -> None:
    lay_out(tmp_path, day=1)
    assert _query(tmp_path, "select count(*), sum(casual + registered) from rides") == [(17_379, 3_292_679)]
    assert sum(len(list(csv.DictReader(text.splitlines()))) for text in _weather(tmp_path).values()) == 17_379
    assert len(_weather(tmp_path)) == 731


@pytest.mark.parametrize("day", [1, 2])
def test_same_day_gives_the_same_sources(day: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay_out(tmp_path / name, day=day)
    assert _dump(tmp_path / "a") == _dump(tmp_path / "b")
    assert _weather(tmp_path / "a") == _weather(tmp_path / "b")


def test_day_two_over_day_one_equals_day_two_alone(tmp_path: Path) -> None:
    lay_out(tmp_path / "a", day=1)
    lay_out(tmp_path / "a", day=2)
    lay_out(tmp_path / "b", day=2)
    assert _dump(tmp_path / "a") == _dump(tmp_path / "b")
    assert _weather(tmp_path / "a") == _weather(tmp_path / "b")


def test_day_two_touches_only_the_files_that_it_changes(tmp_path: Path) -> None:
    lay_out(tmp_path, day=1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "weather").iterdir()}
    lay_out(tmp_path, day=2)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "weather").iterdir()}
    assert {name for name, _ in before.items() ^ after.items()} == {
        "2012-10-30.csv",
        "2012-12-31.csv",
        "2013-01-01.csv",
    }


def test_late_rides_of_day_two_lie_between_watermark_and_lookback(tmp_path: Path) -> None:
    lay_out(tmp_path, day=1)
    [(watermark,)] = _query(tmp_path, "select max(updated_at) from rides")
    lay_out(tmp_path, day=2)
    late = _query(tmp_path, "select updated_at from rides where ride_id between 17380 and 17382")
    assert watermark == "2013-01-01T00:09:00"
    assert all("2012-12-31T21:09:00" < str(updated_at) < watermark for (updated_at,) in late)


def test_seasons_never_change(tmp_path: Path) -> None:
    rows = []
    for day in (1, 2):
        lay_out(tmp_path, day=day)
        rows.append(_query(tmp_path, "select * from seasons order by position"))
    assert rows[0] == rows[1]


def test_unknown_day_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="day 1 and day 2, not 3"):
        lay_out(tmp_path / "sources", day=3)
    assert not (tmp_path / "sources").exists()


def test_interrupted_layout_leaves_the_last_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, day=1)
    before = _dump(tmp_path)
    monkeypatch.setattr("mobility.sample.SEASONS", (("spring", "a", "b", "one value too many"),))
    with pytest.raises(sqlite3.ProgrammingError):
        lay_out(tmp_path, day=2)
    assert _dump(tmp_path) == before
