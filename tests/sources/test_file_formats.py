"""What each format of files does with odd content: declared, kept exactly, or refused."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import CANARY, no_secrets
from platform_core.sources import file_content
from platform_core.sources.files import FilesSource
from tests.sources.placed_files import read
from tests.sources.workbooks import Cell, Fault, Raw, workbook


@pytest.fixture
def source(tmp_path: Path) -> FilesSource:
    return FilesSource(FilesSource.Options(root=str(tmp_path), settle="0 seconds"), secret=no_secrets)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ('[{"id": 1}, {"id": 2}]', {}, ["1", "2"]),
        ("\ufeff \n[ ]\n", {"columns": {"id": "text"}}, []),
        ('{"a": [{"id": 9}], "b": {"a": [], "c": [{"id": 1}]}, "d": "}"}', {"records_at": "b.c"}, ["1"]),
        ('{"rows": [{"id": 1}], "more": {"deep": [1, {"x": null}]}}', {"records_at": "rows"}, ["1"]),
    ],
)
def test_a_json_document_is_a_list_or_holds_one(
    tmp_path: Path, source: FilesSource, text: str, options: dict[str, Any], expected: list[str]
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read(source, "a.json", options=options).column("id").to_pylist() == expected


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ('{"id": 1}', None, r"the document is no list \[…\]; name the key"),
        ('{"rows": {"id": 1}}', "rows", r"'rows' is no list"),
        ('{"rows": []}', "data", r"has no key 'data'"),
        ('{"rows": []}', "rows.items", r"no object \{…\} that could hold 'items'"),
        ('[{"id": 1}', None, "a list does not end"),
        ('{"rows": [{"id": 1}]', "rows", "an object does not end"),
        ('[{"id": 1}] [', None, "text follows where the document has ended"),
        ('[{"id": 1}, 2]', None, r"record 2: is not a JSON object"),
        ('[{"id": 1, "id": 2}]', None, "an object has the same key twice"),
        ('{"rows": [], "rows": []}', "rows", "an object has the same key twice"),
        ('[{"id": NaN}]', None, "NaN and Infinity are not JSON"),
        ('[\n{"id": 1},\n{"id" 2}]', None, "line 3: is not JSON"),
        ("[" * 100_000, None, "is not JSON"),
        ("", None, "the document is no list"),
        ('[{"id": "' + "x" * 2_000_000 + '"}]', None, "is larger than 1 MB, and a JSON document is held in memory"),
    ],
)
def test_a_malformed_json_document_is_refused_with_its_place(
    tmp_path: Path, source: FilesSource, text: str, at: str | None, said: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SourceError, match=said):
        read(source, "a.json", options={"records_at": at, "largest_document_mb": 1})


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_b16_numbers_of_json_are_exact_whatever_their_size(tmp_path: Path, source: FilesSource, format_: str) -> None:
    row = '{"big": 9007199254740993, "huge": ' + "9" * 5000 + ', "cents": 0.10, "tiny": 1e-400}'
    (tmp_path / f"a.{format_}").write_text(f"[{row}]" if format_ == "json" else row)
    options = {"columns": {"big": "integer", "cents": "decimal(9,2)"}}
    assert read(source, f"a.{format_}", options=options).to_pylist() == [
        {"big": 9007199254740993, "huge": "9" * 5000, "cents": Decimal("0.10"), "tiny": "1e-400"}
    ]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("integer", "9223372036854775808"),
        ("integer", "1.0"),
        ("integer", "1e3"),
        ("decimal(9,2)", "0.125"),
        ("decimal(9,2)", "99999999.99"),
        ("boolean", "2"),
        ("float", '"1,5"'),
        ("float", "1e400"),
        ("date", '"2024-02-30"'),
        ("timestamp", '"2024-01-01T25:00:00"'),
    ],
)
def test_b16_a_value_that_a_declared_type_cannot_hold_exactly_is_refused(
    tmp_path: Path, source: FilesSource, type_: str, value: str
) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"v": {value}}}\n')
    with pytest.raises(SourceError, match="1 hold a value in column 'v' that does not fit"):
        read(source, "a.jsonl", options={"columns": {"v": type_}})


@pytest.mark.parametrize("undeclared", ["ignore", "refuse"])
def test_json_lines_are_read_once_where_all_wanted_columns_are_declared(
    tmp_path: Path, source: FilesSource, monkeypatch: pytest.MonkeyPatch, undeclared: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    opened = []
    real = file_content.FileContent.text
    monkeypatch.setattr(
        file_content.FileContent, "text", lambda content, **quote: opened.append(1) or real(content, **quote)
    )
    options = FilesSource.ObjectOptions(columns={"id": "integer"}, undeclared=undeclared)
    assert source.read(ReadRequest(object="*.jsonl", options=options)).read_all().to_pylist() == [{"id": 1}]
    assert len(opened) == 1


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl", "parquet"])
def test_columns_that_are_not_declared_are_read_ignored_or_refused(
    tmp_path: Path, source: FilesSource, format_: str
) -> None:
    path = tmp_path / f"a.{format_}"
    if format_ == "parquet":
        pyarrow.parquet.write_table(pa.table({"id": ["1"], "more": ["x"]}), path)
    else:
        row = json.dumps({"id": "1", "more": "x"})
        path.write_text({"csv": "id,more\n1,x\n", "json": f"[{row}]", "jsonl": row}[format_])
    columns = {"id": "text"}
    assert read(source, path.name, options={"columns": columns}).to_pylist() == [{"id": "1", "more": "x"}]
    ignored = read(source, path.name, options={"columns": columns, "undeclared": "ignore"})
    assert ignored.to_pylist() == [{"id": "1"}]
    with pytest.raises(SourceError, match="declare"):
        read(source, path.name, options={"columns": columns, "undeclared": "refuse"})


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_files_may_lack_columns_where_a_team_says_so(tmp_path: Path, source: FilesSource, format_: str) -> None:
    for name, rows in (("a", {"id": ["1"]}), ("b", {"id": ["2"], "more": ["x"]})):
        path = tmp_path / f"{name}.{format_}"
        if format_ == "csv":
            path.write_text(",".join(rows) + "\n" + ",".join(column[0] for column in rows.values()) + "\n")
        else:
            pyarrow.parquet.write_table(pa.table(rows), path)
    assert read(source, f"*.{format_}", options={"differing_columns": "fill"}).to_pylist() == [
        {"id": "1", "more": None},
        {"id": "2", "more": "x"},
    ]


def test_b13_rows_of_another_length_are_left_out_and_counted_where_a_team_says_so(
    tmp_path: Path, source: FilesSource
) -> None:
    (tmp_path / "a.csv").write_text(f"id,v\n1,x\n2,{CANARY},y\n3\n4,z\n")
    options = {"on_bad_row": "skip"}
    assert read(source, "a.csv", options=options).column("id").to_pylist() == ["1", "4"]
    assert source.notes() == ("rows left out, for they have more or fewer values than there are columns: 2",)


def test_b13_more_bad_rows_than_allowed_stop_the_read(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text(f"id,v\n1,x\n2,{CANARY},y\n3\n4,z\n")
    with pytest.raises(SourceError, match="more than 1 rows have more or fewer values than columns") as caught:
        read(source, "a.csv", options={"on_bad_row": "skip", "most_bad_rows": 1})
    assert CANARY not in str(caught.value)


def test_b13_a_field_of_20_mb_needs_a_word_and_then_arrives(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1," + "x" * 20_000_000 + "\n2,y\n")
    with pytest.raises(SourceError, match=r"a row is larger than 8 MB\n  set 'largest_row_mb'"):
        read(source, "a.csv")
    assert [len(text) for text in read(source, "a.csv", options={"largest_row_mb": 24}).column("v").to_pylist()] == [
        20_000_000,
        1,
    ]


def test_only_the_column_of_the_file_may_be_wanted(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n2\n")
    table = read(source, "a.csv", options={"file_column": "file"}, columns=("file",))
    assert table.to_pydict() == {"file": ["a.csv", "a.csv"]}


def test_cells_of_a_workbook_are_exact(tmp_path: Path, source: FilesSource) -> None:
    rows = [
        ["code", "amount", "ratio", "count", "day", "at", "flag", "text"],
        [
            "007",
            Raw("1234567.891"),
            Raw("0.30000000000000004"),
            Raw("9007199254740991"),
            dt.date(2024, 2, 29),
            dt.datetime(2024, 1, 1, 10, 0, 0, 123000),
            True,
            " é ",
        ],
        [7, Raw("0.1"), Raw("5E-324"), -3, dt.date(9999, 12, 31), dt.datetime(1999, 12, 31, 23, 59, 59), False, "1e5"],
        [Raw("7.25"), None, Raw("0.1234567890123456"), 0, None, None, None, ""],
    ]
    (tmp_path / "a.xlsx").write_bytes(workbook({"Rows": rows}))
    options = {
        "columns": {
            "code": "text",
            "amount": "decimal(18,3)",
            "ratio": "float",
            "count": "integer",
            "day": "date",
            "at": "timestamp",
            "flag": "boolean",
        },
        "null_values": [],
    }
    assert [[*row.values()] for row in read(source, "a.xlsx", options=options).to_pylist()] == [
        [
            "007",
            Decimal("1234567.891"),
            0.30000000000000004,
            9007199254740991,
            dt.date(2024, 2, 29),
            dt.datetime(2024, 1, 1, 10, 0, 0, 123000),
            True,
            " é ",
        ],
        [
            "7",
            Decimal("0.100"),
            5e-324,
            -3,
            dt.date(9999, 12, 31),
            dt.datetime(1999, 12, 31, 23, 59, 59),
            False,
            "1e5",
        ],
        ["7.25", None, 0.1234567890123456, 0, None, None, None, ""],
    ]


def test_a_sheet_is_chosen_by_name_or_number_and_by_its_cells(tmp_path: Path, source: FilesSource) -> None:
    table = [["Sales of 2024"], [], [None, "id", "v", None, "note"], [None, 1, "x", None, "left of"], [None, 2, "y"]]
    (tmp_path / "a.xlsx").write_bytes(workbook({"Cover": [["nothing"]], "Sales": table}))
    wanted = [{"id": "1", "v": "x"}, {"id": "2", "v": "y"}]
    assert read(source, "a.xlsx", options={"sheet": "Sales", "range": "B3:C9"}).to_pylist() == wanted
    assert read(source, "a.xlsx", options={"sheet": 2, "range": "B:C", "header_row": 3}).to_pylist() == wanted
    assert read(source, "a.xlsx", options={"sheet": 2, "range": "b3:c4"}).to_pylist() == wanted[:1]
    options = {"sheet": 2, "range": "B4:C5", "header": False, "columns": {"key": "integer", "value": "text"}}
    assert read(source, "a.xlsx", options=options).to_pylist() == [
        {"key": 1, "value": "x"},
        {"key": 2, "value": "y"},
    ]


def test_rows_without_a_value_and_columns_without_a_name_or_value_are_none(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.xlsx").write_bytes(workbook({"S": [["id", None, "v"], [], [1, None, "x"], ["", "", ""], [2]]}))
    assert read(source, "a.xlsx").to_pylist() == [{"id": "1", "v": "x"}, {"id": "2", "v": None}]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([["id"], [1]], {"sheet": "Sales"}, r"has no sheet 'Sales'\n  sheets: 'S'"),
        ([["id"], [1]], {"sheet": 2}, r"has no sheet 2\n  sheets: 'S'"),
        ([["id", "id"], [1, 2]], {}, "names column 'id' twice"),
        ([["id", None], [1, 2]], {}, "has a column without a name"),
        ([], {}, "has no row for a header"),
        ([["id"], [1]], {"header_row": 9}, "has no row for a header"),
        ([[1, 2]], {"header": False, "columns": {"a": "text"}}, "has 2 columns where 1 are declared"),
        ([["id"], [1], [Fault("#N/A")]], {}, "of rows 2 to 3, 1 hold an error such as #N/A in column 'id'"),
        ([["id"], [1], [CANARY]], {"columns": {"id": "integer"}}, "of rows 2 to 3, 1 hold a value in column 'id'"),
    ],
)
def test_a_sheet_that_is_not_as_declared_is_refused(
    tmp_path: Path, source: FilesSource, rows: list[list[object]], options: dict[str, Any], said: str
) -> None:
    (tmp_path / "a.xlsx").write_bytes(workbook({"S": rows}))
    with pytest.raises(SourceError, match=said) as caught:
        read(source, "a.xlsx", options=options)
    assert CANARY not in str(caught.value)


def test_errors_of_formulas_may_stand_for_null(tmp_path: Path, source: FilesSource) -> None:
    (tmp_path / "a.xlsx").write_bytes(workbook({"S": [["id", "v"], [1, Fault("#N/A")], [2, Fault("#DIV/0!")]]}))
    options = {"null_values": ["", "#N/A", "#DIV/0!"]}
    assert read(source, "a.xlsx", options=options).column("v").to_pylist() == [None, None]


@pytest.mark.parametrize("content", [b"", b"no workbook", workbook({"S": [["id"]]})[:-50]])
def test_a_damaged_workbook_is_refused(tmp_path: Path, source: FilesSource, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(SourceError, match=r"file 'a.xlsx'"):
        read(source, "a.xlsx")


def test_e10_a_sheet_that_would_fill_the_memory_ends_its_own_process_only(tmp_path: Path, source: FilesSource) -> None:
    rows = [["id"], [1, Cell('<c r="XFD1048576"><v>2</v></c>')]]
    (tmp_path / "a.xlsx").write_bytes(workbook({"S": rows}))
    with pytest.raises(SourceError, match="cannot be read within 1,024 MB of memory, or is damaged"):
        read(source, "a.xlsx", options={"workbook_memory_mb": 1024})
