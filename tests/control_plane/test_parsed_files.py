"""A control file that did not change is not parsed again, and nobody can tell the difference."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from platform_core.control import documents
from platform_core.control.documents import Document, read_document
from platform_core.control.parsed_files import remembering
from platform_core.control.report import Report

TEXT = """\
    source: erp
    about: ["a", {deep: [1, 2.0, "3"]}]
    tables:
      - object: customers
        columns:
          email: {mask: hash}

      - object: orders
        key: [id]
    """


class Reading:
    """Reads a file again and again with one memory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "erp.yaml"
        self.memory = folder / "memory"
        self.reader = Path(documents.__file__)
        self.parsed = 0
        self.report = Report(folder)
        parse = documents._Reader.read

        def counted(reader: documents._Reader, text: str) -> bool:
            self.parsed += 1
            return parse(reader, text)

        monkeypatch.setattr(documents._Reader, "read", counted)

    def __call__(self, text: str = TEXT) -> Document | None:
        self.file.write_text(dedent(text))
        with remembering(self.memory, reader=self.reader):
            return read_document(self.file, self.report)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(tmp_path, monkeypatch)


def all_lines(document: Document) -> dict[tuple[object, ...], int]:
    """Line by path, of everything in a document."""
    found: dict[tuple[object, ...], int] = {}
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), document.value)]
    while waiting:
        path, container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)  # type: ignore[arg-type]
        for key, value in items:
            found[(*path, key)] = document.line((*path, key))
            if isinstance(value, (dict, list)):
                waiting.append(((*path, key), value))
    return found


def test_a_file_that_is_known_has_the_same_values_on_the_same_lines(read: Reading) -> None:
    first, second = read(), read()
    assert read.parsed == 1
    assert first is not None
    assert second is not None
    assert repr(second.value) == repr(first.value)
    assert second.item_lines(second.value["tables"]) == first.item_lines(first.value["tables"]) == [4, 8]
    deep = second.value["about"][1]["deep"]
    assert second.item_lines(deep) == [2, 2, 2]
    assert all_lines(second) == all_lines(first)


def test_a_file_that_changed_is_parsed_again(read: Reading) -> None:
    read()
    changed = read(TEXT.replace("orders", "rentals"))
    assert changed is not None
    assert (read.parsed, changed.value["tables"][1]["object"]) == (2, "rentals")


def test_what_a_caller_does_to_a_value_is_not_remembered(read: Reading) -> None:
    read()
    found = read()
    assert found is not None
    found.value["source"] = "changed"
    again = read()
    assert again is not None
    assert again.value["source"] == "erp"


def test_a_file_with_a_fault_is_told_of_each_time(read: Reading) -> None:
    for _ in range(2):
        read.report = Report()
        read("a: 1\na: 2\n")
        assert "key 'a' stands twice" in str(read.report.issues[0])
    assert read.parsed == 2


@pytest.mark.parametrize("damage", [b"", b"something else", b"\x00" * 99])
def test_a_memory_that_is_damaged_is_as_good_as_none(read: Reading, damage: bytes) -> None:
    read()
    read.memory.write_bytes(damage)
    assert read() is not None
    assert read.parsed == 2


def test_another_version_of_the_reader_parses_anew(read: Reading, tmp_path: Path) -> None:
    read()
    read.reader = tmp_path / "documents.py"
    read.reader.write_text("# changed\n")
    read()
    assert read.parsed == 2


def test_a_memory_that_cannot_be_written_stops_nobody(read: Reading, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    read.memory = tmp_path / "folder" / "memory"
    assert read() is not None
