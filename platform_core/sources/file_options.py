"""What can be declared about files and about one object made of them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from platform_core.sources.types import TypedOptions
from platform_core.specs.base import Duration, Model, Name, Plain

_RANGE = re.compile(r"\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6})?:\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6})?")


class FilesOptions(Model):
    """Where the files lie."""

    root: str = Field(min_length=1, description="Absolute folder or fsspec URL below which all files lie.")
    storage_options: Plain = Field(
        default_factory=dict,
        description="Options of the fsspec file system; a value may be {secret: <workstream>/<name>}.",
    )
    settle: Duration | None = Field(
        default=None,
        description="How long a file must have stayed as it is to be taken for complete. Default: 1 second in a "
        "folder, 5 seconds on a server such as SFTP, none on object stores, where a file appears as a whole.",
    )

    @field_validator("root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        if "://" not in value and not Path(value).is_absolute():
            raise ValueError(
                "must be an absolute folder or a URL, such as ${env.state}/sources/weather or s3://bucket/x"
            )
        return value


class FileOptions(TypedOptions):
    """How the files of one object are read."""

    format: Literal["csv", "json", "jsonl", "parquet", "excel"] | None = Field(
        default=None,
        description="Default: by extension, such as .csv, .tsv, .json, .jsonl, .parquet, .xlsx or .csv.gz.",
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Character between values of a CSV.")
    quote: str | None = Field(
        default='"', min_length=1, max_length=1, description="Character around values of a CSV; null: none."
    )
    stray_quotes: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="What becomes of quotes of a CSV in an unquoted value, and of text after the end of a quoted one; "
        "keep: such quotes stay, and such text is part of the value.",
    )
    encoding: str = Field(default="utf-8", description="Encoding of CSV and JSON.", examples=["latin-1"])
    header: bool = Field(
        default=True, description="Whether a CSV or a sheet names its columns; if not, 'columns' lists them all."
    )
    null_values: tuple[str, ...] = Field(
        default=("",),
        description="Texts that stand for null: unquoted ones of a CSV, any of a sheet.",
        examples=[["", "NA"]],
    )
    on_bad_row: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What becomes of a row of a CSV with more or fewer values than there are columns; skip: it is left "
        "out and counted.",
    )
    most_bad_rows: int = Field(default=100, ge=1, description="Rows of one file that are left out at most.")
    records_at: str | None = Field(
        default=None,
        min_length=1,
        description="Key under which a JSON document holds its list of objects, with dots for keys within keys; "
        "default: the document is the list.",
        examples=["data.items"],
    )
    sheet: str | int = Field(default=1, description="Name of a workbook's sheet, or its number from 1.")
    header_row: int | None = Field(
        default=None, ge=1, description="Row of a sheet that names the columns; default: its first row with a value."
    )
    range: str | None = Field(
        default=None, description="Cells of a sheet that are read; default: all.", examples=["B3:F100", "A:D"]
    )
    undeclared: Literal["read", "ignore", "refuse"] = Field(
        default="read",
        description="What becomes of columns that 'columns' does not name. With ignore or refuse JSON lines are read "
        "once; to find all their keys takes reading them twice.",
    )
    differing_columns: Literal["refuse", "fill"] = Field(
        default="refuse", description="Whether files may lack columns that others have; fill: these are null there."
    )
    file_column: Name | None = Field(default=None, description="Column added with the path of each row's file.")
    modified_column: Name | None = Field(
        default=None, description="Column added with the time, in UTC, at which each row's file was last written."
    )
    replaced: Literal["reload", "refuse"] | None = Field(
        default=None,
        description="What becomes of a file that was loaded and now holds something else, where files are loaded once. "
        "Default: reload for incremental, refuse for append.",
    )
    duplicates: Literal["skip", "load"] = Field(
        default="skip",
        description="What becomes of a file that holds exactly what another one did, where files are loaded once.",
    )
    forget_gone: bool = Field(
        default=False,
        description="Forget files that are gone, which keeps the ledger small; one that comes back is loaded again.",
    )
    partial_names: tuple[str, ...] = Field(
        default=(".tmp", ".part", ".partial", ".filepart", ".crdownload"),
        description="Endings of files that are still being written; no pattern finds them.",
    )
    largest_row_mb: int = Field(default=8, ge=1, le=512, description="Size that no row of a text file exceeds.")
    largest_document_mb: int = Field(
        default=256, ge=1, le=2047, description="Largest JSON document or workbook, which are held in memory."
    )
    largest_file_gb: int = Field(default=64, ge=1, description="Largest file, decompressed.")
    largest_ratio: int = Field(
        default=250, ge=2, description="Times that a file may grow when decompressed; the first 256 MB are free."
    )
    workbook_memory_mb: int = Field(
        default=4096, ge=512, description="Memory for reading one workbook; it is read in a process of its own."
    )

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, value: str) -> str:
        try:
            known = codecs.lookup(value)
        except LookupError:
            raise ValueError("is no encoding that Python knows") from None
        if not known._is_text_encoding:
            raise ValueError("is no encoding of text")
        return value

    @field_validator("range")
    @classmethod
    def _check_range(cls, value: str | None) -> str | None:
        if value is not None and _RANGE.fullmatch(value.upper()) is None:
            raise ValueError("must read like B3:F100, B3:F or A:D")
        return value.upper() if value else None

    @field_validator("sheet")
    @classmethod
    def _check_sheet(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("sheets are counted from 1")
        return value

    @field_validator("delimiter", "quote")
    @classmethod
    def _check_character(cls, value: str | None) -> str | None:
        if value is not None and (not value.isascii() or value in "\r\n\0"):
            raise ValueError("must be one ASCII character, and no line end")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.quote == self.delimiter:
            raise ValueError("'quote' and 'delimiter' must differ")
        if not self.header and not self.columns:
            raise ValueError("header: false needs 'columns': every column of the file, in order, with its type")
        if not self.header and self.header_row:
            raise ValueError("header: false and 'header_row' contradict each other")
        if self.undeclared != "read" and not self.columns:
            raise ValueError(f"undeclared: {self.undeclared} needs 'columns'")
        if self.file_column and self.file_column == self.modified_column:
            raise ValueError("'file_column' and 'modified_column' must differ")
        return self

    @property
    def added_columns(self) -> tuple[str, ...]:
        """Names of the columns that no file holds."""
        return tuple(filter(None, (self.file_column, self.modified_column)))

    def cells(self) -> tuple[int, int | None, int, int | None]:
        """First row, last row, first column, last column of ``range``, counted from 0; None: to the end."""
        match = _RANGE.fullmatch(self.range or "A:XFD")
        if match is None:
            raise ValueError(f"'{self.range}' is no range")
        first_row, last_row = match[2], match[4]
        columns = sorted((_column(match[1]), _column(match[3])))
        return int(first_row or 1) - 1, int(last_row) - 1 if last_row else None, columns[0], columns[1]


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1
