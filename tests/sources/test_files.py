"""The source files, on a local folder and on fsspec's memory file system."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import lzma
import os
import uuid
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources.files import FilesSource
from tests.sources.placed_files import CsvSuite, ParquetSuite, Put, declared, halves, json_rows, parquet_bytes, read
from tests.sources.workbooks import workbook


@pytest.fixture
def source(tmp_path: Path) -> FilesSource:
    return FilesSource(FilesSource.Options(root=str(tmp_path), settle="0 seconds"), secret=no_secrets)


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def put(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)

    return put


class TestCsv(CsvSuite):
    pass


class TestParquet(ParquetSuite):
    pass


class TestParquetByUrl(ParquetSuite):
    @pytest.fixture
    def folder(self) -> str:
        return f"memory://{uuid.uuid4().hex}"

    @pytest.fixture
    def source(self, folder: str) -> FilesSource:
        return FilesSource(FilesSource.Options(root=folder), secret=no_secrets)

    @pytest.fixture
    def put(self, folder: str) -> Put:
        return lambda name, content: fsspec.filesystem("memory").pipe(f"{folder}/{name}", content)


class TestJsonDocuments(SourceSuite):
    left_out = frozenset({"data"})

    @pytest.fixture
    def place(self, put: Put, source: FilesSource) -> Place:
        def placed(rows: pa.Table) -> Placed:
            for number, part in halves(rows):
                text = f'{{"count": {part.num_rows}, "data": {{"items": [{",".join(json_rows(part))}]}}, "next": null}}'
                put(f"rows-{number}.json", text.encode())
            options = FilesSource.ObjectOptions(columns=declared(rows), records_at="data.items")
            return source, ReadRequest(object="rows-*.json", options=options)

        return placed

    @pytest.fixture
    def place_more(self, put: Put) -> Callable[[pa.Table], None]:
        return lambda rows: put("rows-more.json", f'{{"data": {{"items": [{",".join(json_rows(rows))}]}}}}'.encode())

    @pytest.fixture
    def place_broken(self, put: Put, source: FilesSource) -> Callable[[str], Placed]:
        def placed(text: str) -> Placed:
            put("rows.json", ("[" + '{"id":1},' * 1000 + f'{{"id":"{text}').encode())
            return source, ReadRequest(object="rows.json")

        return placed


def sheet(rows: pa.Table) -> bytes:
    """The rows as a workbook: small numbers as numbers, all that Excel would round as texts."""

    def cell(value: object) -> object:
        return value if value is None or isinstance(value, (bool, str)) or value in range(1, 6) else str(value)

    cells = [[cell(value) for value in row.values()] for row in rows.to_pylist()]
    return workbook({"Rows": [rows.column_names, *cells]})


class TestExcel(SourceSuite):
    # Excel keeps 15 digits of a number and milliseconds of a time; longer ones are texts in it.
    left_out = frozenset({"data"})

    @pytest.fixture
    def place(self, put: Put, source: FilesSource) -> Place:
        def placed(rows: pa.Table) -> Placed:
            for number, part in halves(rows):
                put(f"rows-{number}.xlsx", sheet(part))
            options = FilesSource.ObjectOptions(columns=declared(rows), null_values=())
            return source, ReadRequest(object="rows-*.xlsx", options=options)

        return placed

    @pytest.fixture
    def place_more(self, put: Put) -> Callable[[pa.Table], None]:
        return lambda rows: put("rows-more.xlsx", sheet(rows))

    @pytest.fixture
    def place_broken(self, put: Put, source: FilesSource) -> Callable[[str], Placed]:
        def placed(text: str) -> Placed:
            put("rows.xlsx", workbook({"Rows": [["v"], [1], [text]]}))
            options = FilesSource.ObjectOptions(columns={"v": "integer"})
            return source, ReadRequest(object="rows.xlsx", options=options)

        return placed


class TestJsonLines(SourceSuite):
    left_out = frozenset({"data"})

    @pytest.fixture
    def place(self, put: Put, source: FilesSource) -> Place:
        def placed(rows: pa.Table) -> Placed:
            for number, part in halves(rows):
                put(f"rows-{number}.jsonl", "".join(f"{row}\n" for row in json_rows(part)).encode())
            options = FilesSource.ObjectOptions(columns=declared(rows), format="jsonl")
            return source, ReadRequest(object="rows-*.jsonl", options=options)

        return placed

    @pytest.fixture
    def place_more(self, put: Put) -> Callable[[pa.Table], None]:
        return lambda rows: put("rows-more.jsonl", "\n".join(json_rows(rows)).encode())

    @pytest.fixture
    def place_broken(self, put: Put, source: FilesSource) -> Callable[[str], Placed]:
        def placed(text: str) -> Placed:
            put("rows.jsonl", ('{"id":1}\n' * 1000 + f'{{"id":"{text}').encode())
            return source, ReadRequest(object="rows.jsonl")

        return placed


def test_undeclared_columns_are_text_whatever_they_hold(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id,v\n007,1\n")
    (tmp_path / "b.csv").write_text("id,v\n8,1.5\n")
    assert read(source, "*.csv").to_pylist() == [{"id": "007", "v": "1"}, {"id": "8", "v": "1.5"}]


def test_nothing_is_null_and_quoted_nothing_is_an_empty_text(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text('a,b,c\n,"",NA\n')
    assert read(source, "a.csv").to_pylist() == [{"a": None, "b": "", "c": "NA"}]
    assert read(source, "a.csv", options={"null_values": ["NA"]}).to_pylist() == [{"a": "", "b": "", "c": None}]


def test_files_may_differ_in_the_order_of_columns(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,x\n")
    (tmp_path / "b.csv").write_text("v,id\ny,2\n")
    assert read(source, "*.csv").to_pylist() == [{"id": "1", "v": "x"}, {"id": "2", "v": "y"}]


@pytest.mark.parametrize(("header", "said"), [("id", "column 'v' is missing"), ("id,v,w", "column 'w' is new")])
def test_a_file_with_other_columns_is_named(tmp_path: Path, source: FilesSource, header: str, said: str) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,x\n")
    (tmp_path / "b.csv").write_text(f"{header}\n{header}\n")
    with pytest.raises(SourceError, match=f"file 'b.csv': {said}"):
        read(source, "*.csv")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("\ufeffid,v\n1,é€\n".encode(), "utf-8"),
        ("id,v\n1,é€∢\n".encode("utf-16"), "utf-16"),
        ("\ufeffid,v\n1,é€\n".encode("utf-16-le"), "utf-16-le"),
        ("id,v\n1,é\n".encode("latin-1"), "latin-1"),
        (b"id,v\r1,x\r", "utf-8"),
        (b'id,v\r\n1,"x\r\ny"\r\n', "utf-8"),
    ],
)
def test_encodings_and_line_ends_are_read(tmp_path: Path, source: FilesSource, content: bytes, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    expected = [*csv.DictReader(io.StringIO(content.decode(encoding).removeprefix("\ufeff"), newline=""))]
    assert read(source, "a.csv", options={"encoding": encoding}).to_pylist() == expected


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (b"id,v\n1,x\n2,\xff\xfe\n", "utf-8", r"file 'a.csv', row 3, column 'v': is not utf-8"),
        (b"id,v\n1,x\n2,\xff\n", "ascii", r"file 'a.csv', line 3: is not ascii"),
        (b"id,v\n1,x\n2,y,z\n", "utf-8", r"file 'a.csv', row 3 .*: has 3 values instead of 2"),
        (b"id,v\n1,x\n2\n", "utf-8", r"file 'a.csv', row 3 .*: has 1 values instead of 2"),
        (b'id,v\n1,"x\n2,y\n', "utf-8", r"file 'a.csv': the quotes in it do not pair up"),
        (b"", "utf-8", r"file 'a.csv': the file is empty"),
        (b"id,id\n1,2\n", "utf-8", r"names column 'id' twice"),
        (b"id,\n1,2\n", "utf-8", r"has a column without a name"),
        (b"id,v\n1," + b"x" * 3_000_000 + b"\n2,y\n", "utf-8", r"a row is larger than 1 MB"),
    ],
)
def test_a_malformed_csv_is_refused_with_its_place(
    tmp_path: Path, source: FilesSource, content: bytes, encoding: str, said: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SourceError, match=said):
        read(source, "a.csv", options={"encoding": encoding, "largest_row_mb": 1})


@pytest.mark.parametrize("content", ["id,v", "id,v\n"])
def test_a_header_alone_is_a_table_without_rows(tmp_path: Path, source: FilesSource, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    table = read(source, "a.csv")
    assert (table.schema.names, table.num_rows) == (["id", "v"], 0)


def test_a_row_may_be_larger_than_a_block_by_default(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1," + "x" * 5_000_000 + "\n2,y\n")
    assert [len(value) for value in read(source, "a.csv").column("v").to_pylist()] == [5_000_000, 1]


def test_files_without_quotes_may_hold_quote_characters(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.tsv").write_text('id\tsize\n1\t5"\n')
    assert read(source, "a.tsv", options={"quote": None}).to_pylist() == [{"id": "1", "size": '5"'}]


def test_a_file_without_header_is_read_by_the_declared_columns(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("1;x\n2;y\n")
    options = {"header": False, "delimiter": ";", "columns": {"id": "integer", "v": "text"}}
    assert read(source, "a.csv", options=options).to_pylist() == [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]


def test_a_value_that_does_not_fit_its_declared_type_is_refused(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text(f"id\n1\n{CANARY}\n")
    with pytest.raises(
        SourceError, match=r"1 hold a value in column 'id' that does not fit its type integer"
    ) as caught:
        read(source, "a.csv", options={"columns": {"id": "integer"}})
    assert CANARY not in str(caught.value)


def test_a_declared_column_that_no_file_has_is_an_error(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("temperature\n1\n")
    with pytest.raises(SourceError, match=r"has no column 'temprature'\n.*\n  did you mean 'temperature'\?"):
        read(source, "a.csv", options={"columns": {"temprature": "float"}})


@pytest.mark.parametrize("pattern", ["../secret.csv", "/etc/*", "a/../../b", "~/x", "s3://b/x", "a\\..\\b"])
def test_an_object_cannot_lead_out_of_the_root(source: FilesSource, pattern: str) -> None:
    with pytest.raises(SourceError, match="below the connection's root"):
        read(source, pattern)


def test_a_link_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_text("a\n1\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "inside.csv").symlink_to(tmp_path / "outside.csv")
    source = FilesSource(FilesSource.Options(root=str(root), settle="0 seconds"), secret=no_secrets)
    with pytest.raises(SourceError, match=r"'inside.csv' is a link that leads out"):
        read(source, "*.csv")


def test_a_root_with_glob_characters_is_taken_literally(tmp_path: Path) -> None:
    root = tmp_path / "a[1]*"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "a.csv").write_text("a\n1\n")
    source = FilesSource(FilesSource.Options(root=str(root), settle="0 seconds"), secret=no_secrets)
    assert read(source, "**/*.csv", options={"file_column": "file"}).to_pylist() == [
        {"a": "1", "file": "deep/er/a.csv"}
    ]


def test_no_file_is_an_error_that_shows_what_is_there(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "weather.csv").write_text("a\n")
    with pytest.raises(SourceError, match=r"no file in .* matches\n  the root holds: weather.csv\n"):
        read(source, "wether*.csv")


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    source = FilesSource(FilesSource.Options(root=str(tmp_path / "gone")), secret=no_secrets)
    with pytest.raises(SourceError, match="is not a folder"):
        read(source, "*.csv")


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", None)],
)
def test_compressed_files_are_read_and_cut_off_ones_refused(
    tmp_path: Path, source: FilesSource, suffix: str, packed: Callable[[bytes], bytes] | None
) -> None:
    content = b"id,v\n" + b"".join(b"%d,x\n" % number for number in range(50_000))
    packed = packed or (lambda data: pa.compress(data, codec="zstd", asbytes=True))
    (tmp_path / f"a.csv.{suffix}").write_bytes(packed(content))
    (tmp_path / f"cut.csv.{suffix}").write_bytes(packed(content)[:-9])
    assert read(source, f"a.csv.{suffix}").num_rows == 50_000
    with pytest.raises(SourceError, match=r"file 'cut.csv.\w+': cannot be read on .* was cut off"):
        read(source, f"cut.csv.{suffix}")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, source: FilesSource) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id\n" + "1\n" * 10)
    with closing(source):
        reader = source.read(ReadRequest(object="a.csv", batch_rows=2))
        reader.read_next_batch()
        with file.open("a") as out:
            out.write("2\n")
        with pytest.raises(SourceError, match=r"file 'a.csv' changed while it was read"):
            reader.read_all()


def test_since_works_on_the_name_of_the_file(tmp_path: Path, source: FilesSource) -> None:
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        (tmp_path / f"{day}.csv").write_text(f"day\n{day}\n")
    options = {"file_column": "file"}
    table = read(source, "*.csv", options=options, columns=("day",), cursor="file", since="2024-01-02.csv")
    assert table.to_pydict() == {"day": ["2024-01-02", "2024-01-03"]}


def test_rows_without_a_cursor_value_come_only_without_since(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id,at\n1,\n2,2024-01-02\n")
    options = {"columns": {"at": "date"}}
    assert read(source, "a.csv", options=options, cursor="at").num_rows == 2
    assert read(source, "a.csv", options=options, cursor="at", since=dt.date(2024, 1, 1)).num_rows == 1


def test_json_values_keep_every_digit_and_nested_ones_stay_json(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 0.10000000000000000001, "b": {"c": [1.10, null, "é"]}}\n\n{"d": true}\n')
    assert read(source, "a.jsonl").to_pylist() == [
        {"a": "0.10000000000000000001", "b": '{"c":[1.10,null,"é"]}', "d": None},
        {"a": None, "b": None, "d": "true"},
    ]


def test_json_columns_are_those_of_all_files(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"price": 1.5, "id": 2}\n')
    table = read(source, "*.jsonl", options={"columns": {"id": "integer", "price": "decimal(9,2)"}})
    assert table.to_pylist() == [{"id": 1, "price": None}, {"id": 2, "price": Decimal("1.50")}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": 1', "line 2: is not JSON"),
        (b"[1]", "line 2: is not a JSON object"),
        (b'{"id": 1, "id": 2}', "line 2: is not JSON: an object has the same key twice"),
        (b'{"id": NaN}', "line 2: is not JSON: NaN and Infinity are not JSON"),
        (b'{"id": "\xff"}', "line 2: is not utf-8"),
        (b'{"id": "\\ud800"}', "half a surrogate pair"),
        (b'{"id": "' + b"x" * 2_000_000 + b'"}', "line 2: is longer than 1 MB"),
        (b"[" * 100_000, "line 2: is not JSON"),
    ],
)
def test_a_malformed_json_line_is_refused_with_its_place(
    tmp_path: Path, source: FilesSource, line: bytes, said: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n' + line + b"\n")
    with pytest.raises(SourceError, match=said):
        read(source, "a.jsonl", options={"largest_row_mb": 1})


def test_parquet_files_of_different_types_ask_for_a_declaration(tmp_path: Path, source: FilesSource) -> None:
    pyarrow.parquet.write_table(pa.table({"v": [1]}), tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pa.table({"v": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"file 'b.parquet': column 'v' has type float, but integer in the first"):
        read(source, "*.parquet")
    assert read(source, "*.parquet", options={"columns": {"v": "float"}}).to_pydict() == {"v": [1.0, 1.5]}


def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(pa.table({"v": [1]}))[:-10])
    with pytest.raises(SourceError, match=r"file 'a.parquet': is not a Parquet file, is damaged, or was cut off"):
        read(source, "*.parquet")


def test_a_damaged_page_of_a_parquet_file_is_refused(tmp_path: Path, source: FilesSource) -> None:
    content = bytearray(parquet_bytes(pa.table({"v": [f"{CANARY}{number}" for number in range(10_000)]})))
    content[1000:1100] = os.urandom(100)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(source, "*.parquet")
    assert CANARY not in str(caught.value)


def test_an_unknown_extension_asks_for_the_format(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(SourceError, match=r"'a.xml' tells no format\n  set 'format'"):
        read(source, "*.xml")


@pytest.mark.parametrize("root", ["simplecache::memory://x", "filecache://x", "memory://x::y"])
def test_a_root_that_would_copy_rows_to_disk_is_refused(root: str) -> None:
    source = FilesSource(FilesSource.Options(root=root), secret=no_secrets)
    with pytest.raises(SourceError, match="only after they are masked"):
        read(source, "*.csv")


def test_storage_options_take_secrets_by_name_and_errors_show_none() -> None:
    asked: list[str] = []

    def secret(name: str) -> Secret:
        asked.append(name)
        return Secret(name, CANARY.encode())

    options = {"key": {"secret": "crm/key"}, "client": {"token": {"secret": "crm/token"}, "retries": 3}}
    root = f"nosuchscheme://user:{CANARY}@host/x?sig={CANARY}"
    source = FilesSource(FilesSource.Options(root=root, storage_options=options), secret=secret)
    with pytest.raises(SourceError) as caught:
        read(source, "*.csv")
    assert asked == ["crm/key", "crm/token"]
    assert CANARY not in str(caught.value)
    assert "nosuchscheme://host/x" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"columns": {"a": "itneger"}}, {"header": False}, {"encoding": "utf-9"}, {"encoding": "hex"}, {"delimiter": ""}],
)
def test_wrong_options_are_refused_when_they_are_declared(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilesSource.ObjectOptions(**options)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, source: FilesSource) -> None:
    with (tmp_path / "a.csv").open("w") as out:
        for _ in range(10):
            out.write(("id,v\n" if not out.tell() else "") + f"1,{'x' * 100}\n" * 60_000)
    before, peak = pa.total_allocated_bytes(), 0
    with closing(source):
        for _ in source.read(ReadRequest(object="a.csv")):
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 50_000_000  # the file is 62 MB
