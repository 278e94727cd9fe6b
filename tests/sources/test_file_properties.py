"""Files of any content: what a CSV or JSON holds arrives as it is, or the read is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import no_secrets
from platform_core.sources.files import FilesSource
from tests.examples import examples

_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252")
_CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text('",;\r\n\0 \ta\ufeff', max_size=8)


def _read(folder: Path, name: str, **options: Any) -> list[dict[str, Any]]:
    asked = ReadRequest(object=name, batch_rows=7, options=FilesSource.ObjectOptions(**options))
    with closing(FilesSource(FilesSource.Options(root=str(folder), settle="0 seconds"), secret=no_secrets)) as source:
        rows: list[dict[str, Any]] = source.read(asked).read_all().to_pylist()
        return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(
    rows=st.lists(st.tuples(_CELLS, st.none() | _CELLS), max_size=12),
    encoding=st.sampled_from(_ENCODINGS),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    last_line_ends=st.booleans(),
    packed=st.booleans(),
)
@example([("\ufeff", "\0")], "utf-16", ",", "\r\n", False, True)
@settings(max_examples=examples(60), deadline=None)
def test_b13_cells_of_any_text_arrive_as_they_are(
    folder: Path,
    rows: list[tuple[str, str | None]],
    encoding: str,
    delimiter: str,
    line_end: str,
    last_line_ends: bool,
    packed: bool,
) -> None:
    def cell(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    lines = [f"x{delimiter}y", *(f"{cell(first)}{delimiter}{cell(second)}" for first, second in rows)]
    content = (line_end.join(lines) + line_end * last_line_ends).encode(encoding, errors="replace")
    expected = [
        {
            name: value if value is None else value.encode(encoding, errors="replace").decode(encoding)
            for name, value in zip("xy", row, strict=True)
        }
        for row in rows
    ]
    name = "a.csv.gz" if packed else "a.csv"
    (folder / name).write_bytes(gzip.compress(content, 1) if packed else content)
    assert _read(folder, name, encoding=encoding, delimiter=delimiter) == expected


@given(body=st.text('ab,"\n\r ', max_size=20))
@settings(max_examples=examples(100), deadline=None)
def test_b13_a_csv_means_what_a_strict_reader_makes_of_it_or_is_refused(folder: Path, body: str) -> None:
    (folder / "b.csv").write_bytes(f"x,y\n{body}".encode())
    try:
        rows = [(*row.values(),) for row in _read(folder, "b.csv", null_values=[])]
    except SourceError as error:
        assert body.strip() not in str(error) or len(body.strip()) < 3
        return
    strict = csv.reader(io.StringIO(body, newline=""), strict=True)
    assert rows == [(*row,) for row in strict if row]


@given(
    content=st.binary(max_size=200),
    name=st.sampled_from(["c.csv", "c.json", "c.jsonl", "c.parquet", "c.csv.gz", "c.csv.zst"]),
    encoding=st.sampled_from(_ENCODINGS),
)
@settings(max_examples=examples(60), deadline=None)
def test_b13_bytes_of_any_kind_are_read_or_refused(folder: Path, content: bytes, name: str, encoding: str) -> None:
    (folder / name).write_bytes(content)
    try:
        rows = _read(folder, name, encoding=encoding)
    except SourceError:
        return
    assert all(isinstance(value, (str, type(None))) for row in rows for value in row.values())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_CELLS, inner, max_size=3),
    max_leaves=6,
)


@given(
    objects=st.lists(st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3), min_size=1, max_size=6),
    ascii_only=st.booleans(),
    format_=st.sampled_from(["json", "jsonl"]),
)
@settings(max_examples=examples(50), deadline=None)
def test_b16_values_of_json_keep_what_they_are(
    folder: Path, objects: list[dict[str, Any]], ascii_only: bool, format_: str
) -> None:
    texts = [json.dumps(row, ensure_ascii=ascii_only) for row in objects]
    text = "\n".join(texts) if format_ == "jsonl" else f"[{','.join(texts)}]"
    (folder / f"d.{format_}").write_text(text, encoding="utf-8", newline="")
    rows = _read(folder, f"d.{format_}", columns=dict.fromkeys("abc", "text"))
    for row, given_ in zip(rows, objects, strict=True):
        for key in "abc":
            value = given_.get(key)
            got = row[key]
            assert got == value if isinstance(value, (str, type(None))) else json.loads(got) == value
