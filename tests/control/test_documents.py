"""The strict YAML reader: what it takes, what it refuses, and the line it names."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.documents import MAX_BYTES, MAX_DEPTH, Document, read_document
from platform_core.control.report import Report


def read(file: Path, content: bytes | str) -> tuple[Document | None, str]:
    """The document, and the text of all issues with the file's name taken off."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = Report(file.parent)
    document = read_document(file, report)
    return document, "\n".join(str(issue) for issue in report.issues)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12:30", "12:30"),
        ("1:2:3", "1:2:3"),
        ("0777", "0777"),
        ("00", "00"),
        ("-007", "-007"),
        ("0", 0),
        ("-0", 0),
        ("+5", 5),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        (".", "."),
        ("-", "-"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2026-11-21", "2026-11-21"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("'5'", "5"),
        ('"true"', "true"),
        ('"a\\tb"', "a\tb"),
        ("9223372036854775807", 9223372036854775807),
        ("=", "="),
        ("²", "²"),
    ],
)
def test_scalars_follow_the_core_schema(file: Path, text: str, value: Any) -> None:
    # "- " would begin a list where "-" is meant as a text.
    document, issues = read(file, f"key: '{text}'" if text == "-" else f"key: {text}")
    assert issues == ""
    assert document is not None
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)


BROKEN = {
    "nothing": ("", "a.yaml: the file is empty\n  it should begin like: key: value"),
    "a comment": ("# nothing\n", "a.yaml: the file is empty\n  it should begin like: key: value"),
    "an empty mapping": ("{}", "a.yaml: the file is empty\n  it should begin like: key: value"),
    "a list": ("- a\n", "a.yaml:1: expected a mapping, got a list\n  it should begin like: key: value"),
    "a text": ("hello", "a.yaml:1: expected a mapping, got a text\n  it should begin like: key: value"),
    "a duplicate key": (
        "a: 1\nb: 2\na: 3\n",
        "a.yaml:3: key 'a' stands twice\n  it stands on line 1 too; remove one",
    ),
    "a duplicate key in quotes": (
        'a: 1\n"a": 3\n',
        "a.yaml:2: key 'a' stands twice\n  it stands on line 1 too; remove one",
    ),
    "an anchor and an alias": (
        "a: &x 1\nb: *x\n",
        "a.yaml:1: uses an anchor (&name)\n  write the value out where it is needed\n"
        "a.yaml:2: uses an alias (*name)\n  write the value out where it is needed",
    ),
    "an anchor on a mapping": (
        "a: &x\n  b: 1\n",
        "a.yaml:1: uses an anchor (&name)\n  write the value out where it is needed",
    ),
    "a merge key": (
        "a:\n  <<: {b: 1}\n",
        "a.yaml:2: uses a merge key (<<)\n  write the keys out where they are needed",
    ),
    "a tag": ("a: !!int '5'\n", "a.yaml:1: uses a tag (!name)\n  remove it; quotes make a text of anything"),
    "a tag that makes objects": (
        "a: !!python/object/apply:os.system [ls]\n",
        "a.yaml:1: uses a tag (!name)\n  remove it; quotes make a text of anything",
    ),
    "a tag of one mark": ("a: ! b\n", "a.yaml:1: uses a tag (!name)\n  remove it; quotes make a text of anything"),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        "a.yaml:2: holds more than one document (---)\n  make a file of each",
    ),
    "a directive": ("%YAML 1.1\n---\na: 1\n", "a.yaml:1: has a %YAML or %TAG line\n  remove it"),
    "a key that is a number": ("1: a\n", "a.yaml:1: a key must be a text, this is a whole number\n  put it in quotes"),
    "a key that is a truth": (
        "true: a\n",
        "a.yaml:1: a key must be a text, this is true or false\n  put it in quotes",
    ),
    "a key that is nothing": ("? \n: a\n", "a.yaml:1: a key must be a text, this is nothing\n  put it in quotes"),
    "a key that is a list": ("? [a]\n: b\n", "a.yaml:1: a key must be a text, this is a list\n  put it in quotes"),
    "a key that is a mapping": (
        "{a: b}: c\n",
        "a.yaml:1: a key must be a text, this is a mapping\n  put it in quotes",
    ),
    "a number of 65 bits": (
        "a: 1\nb: 9223372036854775808\n",
        "a.yaml:2: the number does not fit in 64 bits; in quotes it is a text",
    ),
    "a number too large for a float": (
        "b: 1e999\n",
        "a.yaml:1: the number does not fit in 64 bits; in quotes it is a text",
    ),
    "a tab for indentation": (
        "a:\n\tb: 1\n",
        'a.yaml:2: holds a tab\n  indent with spaces; inside a text write "\\t"',
    ),
    "a byte order mark": (
        b"\xef\xbb\xbfa: 1\n",
        "a.yaml:1: begins with a byte order mark\n  save the file as UTF-8 without BOM",
    ),
    "UTF-16": (
        "a: 1\n".encode("utf-16"),
        "a.yaml:1: begins with a byte order mark\n  save the file as UTF-8 without BOM",
    ),
    "Latin-1": (b"a: 1\nb: caf\xe9\n", "a.yaml:2: is not UTF-8 text\n  save the file as UTF-8"),
    "a zero byte": ("a: 1\nb: x\0y\n", "a.yaml:2: holds the invisible character U+0000\n  remove it"),
    "an escaped zero byte": ('a: "x\\0y"\n', "a.yaml:1: holds the invisible character U+0000\n  remove it"),
    "a text direction mark": (
        "a: 1\nb: x\u202ey\n",
        "a.yaml:2: holds the invisible character U+202E\n  remove it",
    ),
    "an escaped direction mark": ('a: "\\u202e"\n', "a.yaml:1: holds the invisible character U+202E\n  remove it"),
    "a zero-width space": ("a\u200b: 1\n", "a.yaml:1: holds the invisible character U+200B\n  remove it"),
    "an open bracket": (
        "a: [1, 2\nb: 3\n",
        "a.yaml:2: is not valid YAML: did not find expected ',' or ']'\n"
        "  look at the indentation, quotes and brackets of this line and the one above",
    ),
    "a colon in a text": (
        "a: b: c\n",
        "a.yaml:1: is not valid YAML: mapping values are not allowed in this context\n"
        "  put a text that holds ': ' in quotes, and look at the indentation",
    ),
    "an at sign": (
        "a: @b\n",
        "a.yaml:1: is not valid YAML: found character that cannot start any token\n  put the text in quotes",
    ),
    "an open quote": (
        'a: "b\nc: d\n',
        "a.yaml:3: is not valid YAML: found unexpected end of stream",
    ),
    "wrong indentation": (
        "a:\n    b: 1\n  c: 2\n",
        "a.yaml:3: is not valid YAML: did not find expected key\n"
        "  look at the indentation, quotes and brackets of this line and the one above",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_with_its_line(file: Path, name: str) -> None:
    content, expected = BROKEN[name]
    _, issues = read(file, content)
    assert issues == expected


def test_several_faults_of_one_file_are_told_at_once(file: Path) -> None:
    _, issues = read(file, "a: 1\na: 2\nb: !x 3\n7: c\n")
    assert [line.partition(":")[2].partition(":")[0] for line in issues.splitlines() if line[0] == "a"] == [
        "2",
        "3",
        "4",
    ]


def test_a_file_of_one_mebibyte_is_read_and_a_larger_one_is_not(file: Path) -> None:
    text = b"a: " + b"x" * (MAX_BYTES - 3)
    document, issues = read(file, text)
    assert document is not None
    assert issues == ""
    document, issues = read(file, text + b"x")
    assert document is None
    assert issues == "a.yaml: has 1,048,577 bytes; at most 1,048,576 are read\n  split the file"


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 3_000, 100_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_is_limited_and_never_exhausts_the_stack(file: Path, depth: int, opening: str) -> None:
    # The file's own mapping is the first level.
    closing = {"[": "]", "{a: ": "}", "- ": ""}[opening] * (depth - 1)
    document, issues = read(file, "key:\n  " + opening * (depth - 1) + "x" + closing)
    if depth <= MAX_DEPTH:
        assert issues == ""
        assert document is not None
    else:
        assert issues == "a.yaml:2: is nested more than 50 levels deep\n  simplify it"


@pytest.mark.parametrize(
    "content",
    [
        "a: [" + "x, " * 340_000 + "x]",
        "a: 9" + "9" * 1_000_000,
        "\n".join(f"k{number}: {number}" for number in range(70_000)),
        "a: 1\n" * 200_000,
        "- " * 500_000,
        "a: '" + "''" * 500_000 + "'",
        "? " * 400_000,
        "a: |\n" + " x\n" * 300_000,
        "&a " * 300_000,
        "a: &a [x]\n" + "b: *a\n" * 150_000,
        "".join(f"a{n}: &a{n} [" + f"*a{n - 1}, " * 9 + "x]\n" for n in range(1, 5_000)),
    ],
    ids=lambda content: content[:12].replace("\n", " "),
)
def test_a_hostile_file_of_the_largest_size_takes_bounded_time(file: Path, content: str) -> None:
    start = time.process_time()
    read(file, content[: MAX_BYTES - 8])
    assert time.process_time() - start < 10


def test_every_key_and_item_knows_its_line(file: Path) -> None:
    document, _ = read(file, "a: 1\nb:\n  - x\n  - c: 1\n    d: [1,\n      2]\n")
    assert document is not None
    assert document.line() == 1
    assert document.line(("b",)) == 2
    assert document.line(("b", 1)) == 4
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 1, "d", 1)) == 6
    assert document.line(("b", 1, "missing", "deeper")) == 4


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_of_other_systems_are_read(file: Path, ending: str) -> None:
    document, issues = read(file, f"a: 1{ending}b: two{ending}")
    assert issues == ""
    assert document is not None
    assert document.value == {"a": 1, "b": "two"}


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    report = Report()
    assert read_document(tmp_path / "none.yaml", report) is None
    assert report.issues[0].message == "cannot be read: No such file or directory"
