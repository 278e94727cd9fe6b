"""Files that are loaded once: new, replaced, dropped twice, half written, gone."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import no_secrets
from platform_core.sources import file_content
from platform_core.sources.file_ledger import Ledger
from platform_core.sources.files import FilesSource
from platform_core.sources.storage import StoredFile
from platform_core.specs.ingestion import LoadMode
from tests.examples import examples


class Loads:
    """Loads a folder again and again, as committed loads do."""

    def __init__(self, folder: Path, *, mode: LoadMode = LoadMode.INCREMENTAL, **options: Any) -> None:
        self.folder = folder
        self.state: bytes | None = None
        self.notes: tuple[str, ...] = ()
        self.settle = options.pop("settle", "0 seconds")
        self.request = ReadRequest(
            object=options.pop("pattern", "*.csv"), mode=mode, options=FilesSource.ObjectOptions(**options)
        )

    def put(self, name: str, *ids: int) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("id\n" + "".join(f"{number}\n" for number in ids))
        return path

    def load(self) -> list[int]:
        """The ids of the rows that one load reads."""
        options = FilesSource.Options(root=str(self.folder), settle=self.settle)
        with closing(FilesSource(options, secret=no_secrets)) as source:
            rows = source.read(dataclasses.replace(self.request, state=self.state)).read_all()
            self.state = source.state()
            self.notes = source.notes()
        return [int(row["id"]) for row in rows.to_pylist()]


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    return Loads(tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened."""
    names: list[str] = []
    real = file_content.FileContent._hashing

    def hashing(content: file_content.FileContent) -> Any:
        names.append(content.file.name)
        return real(content)

    monkeypatch.setattr(file_content.FileContent, "_hashing", hashing)
    return names


def test_each_load_reads_only_the_files_that_are_new(loads: Loads) -> None:
    loads.put("a.csv", 1)
    assert loads.load() == [1]
    loads.put("b.csv", 2)
    assert loads.load() == [2]
    assert loads.load() == []


def test_a_file_that_has_not_changed_is_not_even_opened(loads: Loads, opened: list[str]) -> None:
    loads.put("a.csv", 1)
    loads.load()
    opened.clear()
    assert loads.load() == []
    assert opened == []


def test_nothing_new_leaves_the_state_as_it_is(loads: Loads) -> None:
    loads.put("a.csv", 1)
    loads.load()
    before = loads.state
    loads.load()
    assert loads.state is before


def test_b14_a_file_of_the_same_name_with_other_content_is_loaded_again(loads: Loads) -> None:
    loads.put("a.csv", 1)
    loads.load()
    loads.put("a.csv", 2)
    assert loads.load() == [2]
    assert loads.notes == ("files read again, for they hold something else than when they were loaded: 1",)


def test_b14_other_content_of_the_same_size_and_time_in_another_file_is_seen(loads: Loads, tmp_path: Path) -> None:
    path = loads.put("a.csv", 1)
    loads.load()
    times = path.stat()
    path.unlink()
    loads.put("new.csv", 2)
    os.utime(tmp_path / "new.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new.csv").rename(path)
    assert loads.load() == [2]


def test_a_file_that_was_only_touched_is_not_loaded_again(loads: Loads, opened: list[str]) -> None:
    path = loads.put("a.csv", 1)
    loads.load()
    os.utime(path, (1, 1))
    assert loads.load() == []
    opened.clear()
    assert loads.load() == []
    assert opened == []


def test_b14_a_replaced_file_stops_an_append(tmp_path: Path) -> None:
    loads = Loads(tmp_path, mode=LoadMode.APPEND)
    loads.put("a.csv", 1)
    loads.load()
    loads.put("a.csv", 1, 2)
    with pytest.raises(SourceError, match=r"file 'a.csv': was loaded at .* and holds something else now"):
        loads.load()


def test_a_team_may_let_an_append_read_replaced_files(tmp_path: Path) -> None:
    loads = Loads(tmp_path, mode=LoadMode.APPEND, replaced="reload")
    loads.put("a.csv", 1)
    loads.load()
    loads.put("a.csv", 1, 2)
    assert loads.load() == [1, 2]


@pytest.mark.parametrize("when", ["in the same load", "in a later one"])
def test_b14_a_file_dropped_twice_is_loaded_once(loads: Loads, when: str) -> None:
    loads.put("a.csv", 1)
    first = [] if when == "in the same load" else loads.load()
    loads.put("copy of a.csv", 1)
    assert first + loads.load() == [1]
    assert loads.notes == ("files left out, for they hold exactly what a loaded one did: 1",)


def test_a_renamed_file_is_not_loaded_again(loads: Loads) -> None:
    path = loads.put("a.csv", 1)
    loads.load()
    path.rename(path.with_name("b.csv"))
    assert loads.load() == []


def test_a_team_may_have_equal_files_loaded(tmp_path: Path) -> None:
    loads = Loads(tmp_path, duplicates="load")
    loads.put("a.csv", 1)
    loads.put("b.csv", 1)
    assert loads.load() == [1, 1]


def test_a_gone_file_that_comes_back_is_remembered(loads: Loads) -> None:
    path = loads.put("a.csv", 1)
    loads.load()
    path.unlink()
    assert loads.load() == []
    loads.put("a.csv", 1)
    assert loads.load() == []


def test_a_gone_file_is_forgotten_where_a_team_says_so(tmp_path: Path) -> None:
    loads = Loads(tmp_path, forget_gone=True)
    path = loads.put("a.csv", 1)
    loads.load()
    path.unlink()
    assert loads.load() == []
    loads.put("a.csv", 1)
    assert loads.load() == [1]


def test_an_emptied_folder_has_the_columns_of_before(loads: Loads, tmp_path: Path) -> None:
    path = loads.put("a.csv", 1)
    loads.load()
    path.unlink()
    source = FilesSource(FilesSource.Options(root=str(tmp_path)), secret=no_secrets)
    request = dataclasses.replace(loads.request, state=loads.state)
    with closing(source):
        assert source.read(request).read_all().schema == source.schema(request) == pa.schema([("id", pa.string())])


def test_a_folder_that_never_held_a_file_is_an_error(loads: Loads) -> None:
    with pytest.raises(SourceError, match="no file in"):
        loads.load()


def test_mode_full_reads_every_file_every_time(tmp_path: Path) -> None:
    loads = Loads(tmp_path, mode=LoadMode.FULL)
    loads.put("a.csv", 1)
    loads.put("b.csv", 1)
    assert (loads.load(), loads.state) == ([1, 1], None)


def test_with_a_cursor_every_file_is_read(tmp_path: Path) -> None:
    loads = Loads(tmp_path, columns={"id": "integer"})
    loads.request = dataclasses.replace(loads.request, cursor="id", since=2)
    loads.put("a.csv", 1, 2)
    assert (loads.load(), loads.load(), loads.state) == ([2], [2], None)


def test_a_read_that_was_not_drained_leaves_no_state(loads: Loads, tmp_path: Path) -> None:
    loads.put("a.csv", *range(10))
    source = FilesSource(FilesSource.Options(root=str(tmp_path), settle="0 seconds"), secret=no_secrets)
    with closing(source):
        source.read(dataclasses.replace(loads.request, batch_rows=2)).read_next_batch()
        assert source.state() is None


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_b14_a_file_that_changes_while_it_is_read_leaves_no_state(tmp_path: Path, format_: str) -> None:
    rows = pa.table({"id": [str(number) for number in range(1000)]})
    path = tmp_path / f"a.{format_}"

    def write() -> None:
        if format_ == "csv":
            path.write_text("id\n" + "1\n" * 1000)
        else:
            pyarrow.parquet.write_table(rows, path)

    write()
    source = FilesSource(FilesSource.Options(root=str(tmp_path), settle="0 seconds"), secret=no_secrets)
    with closing(source):
        reader = source.read(ReadRequest(object=f"a.{format_}", mode=LoadMode.INCREMENTAL, batch_rows=10))
        reader.read_next_batch()
        time.sleep(0.01)
        write()
        with pytest.raises(SourceError, match=f"file 'a.{format_}' changed while it was read"):
            reader.read_all()
        assert source.state() is None


@pytest.mark.parametrize("ending", [".tmp", ".part", ".filepart", ".PART"])
def test_b14_files_named_as_half_written_are_not_found(tmp_path: Path, ending: str) -> None:
    loads = Loads(tmp_path, pattern="*", format="csv")
    loads.put("a.csv", 1)
    loads.put(f"b.csv{ending}", 2)
    loads.put(".c.csv.Xy12", 3)
    assert loads.load() == [1]


def _growing(path: Path) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()

    def write() -> None:
        with path.open("a") as out:
            while not stop.wait(0.05):
                out.write("7\n")
                out.flush()

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    return thread, stop


def test_b14_a_file_that_is_being_written_is_left_for_the_next_load(tmp_path: Path) -> None:
    loads = Loads(tmp_path, settle="1 second")
    old = loads.put("a.csv", 1)
    os.utime(old, (1, 1))
    loads.load()
    loads.put("b.csv", 2)
    writer, stop = _growing(loads.put("c.csv", 3))
    try:
        assert loads.load() == [2]
        assert loads.notes == ("files left for the next load, for they are still being written: 1",)
    finally:
        stop.set()
        writer.join()
    assert loads.load()[0] == 3


@pytest.mark.parametrize("mode", [LoadMode.FULL, LoadMode.INCREMENTAL])
def test_b14_a_first_or_full_load_does_not_pass_a_file_by_that_is_being_written(tmp_path: Path, mode: LoadMode) -> None:
    loads = Loads(tmp_path, settle="1 second", mode=mode)
    writer, stop = _growing(loads.put("c.csv", 3))
    try:
        with pytest.raises(SourceError, match=r"file 'c.csv' is still being written"):
            loads.load()
    finally:
        stop.set()
        writer.join()


def test_files_that_have_settled_cost_no_waiting(tmp_path: Path) -> None:
    loads = Loads(tmp_path, settle="1 hour")
    os.utime(loads.put("a.csv", 1), (1, 1))
    assert loads.load() == [1]


def test_rows_tell_their_file_and_when_it_was_written(tmp_path: Path) -> None:
    loads = Loads(tmp_path, pattern="**/*.csv", file_column="file", modified_column="written")
    os.utime(loads.put("deep/a.csv", 1), ns=(0, 1_700_000_000_123_456_000))
    source = FilesSource(FilesSource.Options(root=str(tmp_path)), secret=no_secrets)
    with closing(source):
        assert source.read(loads.request).read_all().to_pylist() == [
            {
                "id": "1",
                "file": "deep/a.csv",
                "written": dt.datetime.fromtimestamp(1_700_000_000.123456, dt.UTC),
            }
        ]


def test_only_files_within_the_bounds_of_their_time_are_opened(tmp_path: Path, opened: list[str]) -> None:
    loads = Loads(tmp_path, modified_column="written")
    loads.request = dataclasses.replace(
        loads.request, cursor="written", since=dt.datetime.fromtimestamp(200, dt.UTC), until=None
    )
    for number in (1, 2, 3):
        os.utime(loads.put(f"{number}.csv", number), (0, number * 100))
    assert loads.load() == [2, 3]
    assert {*opened} == {"2.csv", "3.csv"}


@pytest.mark.parametrize("damage", [lambda state: state[:-3], lambda state: b"x" * 20, lambda _: b""])
def test_a_damaged_ledger_is_refused(loads: Loads, damage: Callable[[bytes], bytes]) -> None:
    loads.put("a.csv", 1)
    loads.load()
    assert loads.state is not None
    loads.state = damage(loads.state)
    with pytest.raises(SourceError, match="the ledger of loaded files is damaged"):
        loads.load()


def test_the_ledger_of_many_files_is_small() -> None:
    ledger = Ledger(None, where="files")
    for number in range(20_000):
        file = StoredFile(f"orders/2024/orders-{number:06}.csv", 1000 + number, f"{number * 10**9}/{number}")
        ledger.add(file, f"{number * 7919 % 2**256:064x}")
    state = ledger.state()
    assert len(state) < 2_000_000
    assert len(Ledger(state, where="files")) == 20_000


_CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "remove", "touch", "load"]), st.integers(1, 4)),
    max_size=25,
)


@given(changes=_CHANGES)
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_b14_after_any_changes_each_content_was_loaded_once(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str, int]]
) -> None:
    loads = Loads(tmp_path_factory.mktemp("drop"))
    now, known, loaded = {}, {}, []
    expected: list[int] = []
    for name, change, number in [*changes, ("", "load", 0)]:
        path = loads.folder / f"{name}.csv"
        if change == "put":
            loads.put(path.name, number)
            now[name] = number
        elif change == "remove" and name in now:
            path.unlink()
            del now[name]
        elif change == "touch" and name in now:
            os.utime(path, (number, number))
        elif change == "load" and (now or known):
            for each, content in sorted(now.items()):
                fresh = known.get(each) != content if each in known else content not in known.values()
                expected += [content] if fresh else []
                known[each] = content
            loaded += loads.load()
    assert loaded == expected
