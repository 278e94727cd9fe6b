"""An edit of a control file changes what it is about, and no other character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.control.documents import read_document
from platform_core.control.report import Report
from platform_core.control.reviewed_sql.yaml_edits import EditFault, YamlText, inline

BLOCK = """\
# who reads this
source: crm   # the shop
tables:
  # the big one
  - object: orders
    mode: full   # for now
    key:
      - id       # of the shop
      - line
    description: >
      Two lines
      of it.

    columns:
      name: {mask: full}   # agreed
      email:
        mask: hash
        domain: email

  - {object: customers, mode: full, key: [id]}

# the end
"""


def edited(text: str, edit: Callable[[YamlText], None]) -> str:
    found = YamlText(text)
    edit(found)
    return found.text


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("tables", 0, "mode"), "append", "mode: full   # for", "mode: append   # for"),
        (("tables", 0, "key"), ["id"], "- id       # of the shop\n      - line\n", "- id\n"),
        (("tables", 0, "key"), [], "key:\n      - id       # of the shop\n      - line\n", "key: []\n"),
        (("tables", 0, "description"), "one", "description: >\n      Two lines\n      of it.\n", "description: one\n"),
        (("tables", 0, "columns", "name", "mask"), "null", "{mask: full}   #", '{mask: "null"}   #'),
        (("tables", 0, "columns", "name", "personal"), True, "{mask: full}", "{mask: full, personal: true}"),
        (("tables", 0, "columns", "email", "domain"), "phone", "domain: email\n", "domain: phone\n"),
        (
            ("tables", 0, "columns", "email", "personal"),
            True,
            "domain: email\n",
            "domain: email\n        personal: true\n",
        ),
        (
            ("tables", 0, "columns", "iban"),
            {"mask": "full"},
            "domain: email\n",
            "domain: email\n      iban: {mask: full}\n",
        ),
        (("tables", 0, "parallel"), 3, "domain: email\n", "domain: email\n    parallel: 3\n"),
        (("tables", 1, "cursor"), "at", "key: [id]}", "key: [id], cursor: at}"),
        (("tables", 1, "key"), ["a", "b: c"], "key: [id]}", 'key: [a, "b: c"]}'),
        (("source",), "erp", "source: crm   # the shop", "source: erp   # the shop"),
    ],
)
def test_a_value_is_put_in_its_place(path: tuple[str | int, ...], value: object, old: str, new: str) -> None:
    assert edited(BLOCK, lambda text: text.put(path, value)) == BLOCK.replace(old, new)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (("tables", 0, "mode"), "    mode: full   # for now\n", ""),
        (("tables", 0, "object"), "  - object: orders\n    mode", "  - mode"),
        (("tables", 0, "description"), "    description: >\n      Two lines\n      of it.\n", ""),
        (("tables", 0, "key", 0), "      - id       # of the shop\n", ""),
        (("tables", 0, "columns", "name"), "      name: {mask: full}   # agreed\n", ""),
        (("tables", 0, "columns", "name", "mask"), "{mask: full}", "{}"),
        (("tables", 1), "  - {object: customers, mode: full, key: [id]}\n", ""),
        (("tables", 1, "object"), "{object: customers, mode", "{mode"),
        (("tables", 1, "key"), ", key: [id]}", "}"),
        (("tables", 1, "key", 0), "[id]", "[]"),
    ],
)
def test_a_key_or_item_is_taken_out(path: tuple[str | int, ...], old: str, new: str) -> None:
    assert edited(BLOCK, lambda text: text.take_out(path)) == BLOCK.replace(old, new)


def test_an_item_is_added_to_a_list() -> None:
    after = edited(BLOCK, lambda text: text.append(("tables",), {"object": "leads", "mode": "full"}))
    assert after == BLOCK.replace("key: [id]}\n", "key: [id]}\n  - object: leads\n    mode: full\n")
    assert edited("tables: [{a: 1}]\n", lambda text: text.append(("tables",), {"b": 2})) == "tables: [{a: 1}, {b: 2}]\n"
    assert edited("tables: []\n", lambda text: text.append(("tables",), {"b": 2})) == "tables: [{b: 2}]\n"
    assert edited("a: 1\n", lambda text: text.append(("tables",), {"b": 2})) == "a: 1\ntables: [{b: 2}]\n"


def test_a_file_without_a_last_line_end_keeps_having_none() -> None:
    assert edited("a: 1", lambda text: text.put(("b",), 2)) == "a: 1\nb: 2"
    assert edited("a: 1\nb: 2", lambda text: text.take_out(("b",))) == "a: 1\n"


def test_line_ends_of_windows_stay() -> None:
    text = BLOCK.replace("\n", "\r\n")
    after = edited(text, lambda text: text.put(("tables", 0, "parallel"), 3))
    assert after == text.replace("domain: email\r\n", "domain: email\r\n    parallel: 3\r\n")


def test_quotes_stay_what_they_were() -> None:
    assert edited("a: 'x'\n", lambda text: text.put(("a",), "it's")) == "a: 'it''s'\n"
    assert edited('a: "x"\n', lambda text: text.put(("a",), "y")) == 'a: "y"\n'


def test_a_key_without_a_value_gets_one() -> None:
    assert edited("a:\nb: 1\n", lambda text: text.put(("a",), 2)) == "a: 2\nb: 1\n"
    assert edited("a:\nb: 1\n", lambda text: text.put(("a", "c"), 2)) == "a: {c: 2}\nb: 1\n"


def test_what_is_not_there_cannot_be_taken_out() -> None:
    with pytest.raises(EditFault, match="it is not there"):
        YamlText(BLOCK).take_out(("tables", 0, "nothing"))


ODD = [
    "no",
    "null",
    "1",
    "01",
    "1.0",
    "a: b",
    "a:",
    "# x",
    "- x",
    "a #b",
    "",
    " ",
    "${x}",
    "[a]",
    "true",
    "~",
    "2 hours",
]
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=8) | st.sampled_from(ODD)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc: #", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(value=PLAIN)
def test_a_value_is_read_as_it_was_written(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = Path(tmp_path_factory.getbasetemp()) / "inline.yaml"
    file.write_text(f"key: {inline(value)}\n", encoding="utf-8")
    report = Report()
    document = read_document(file, report)
    assert not report, report.issues
    assert document is not None
    assert json.dumps(document.value) == json.dumps({"key": value})
