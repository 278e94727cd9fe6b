"""What can be declared about files and about one object made of them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from platform_core.sources.types import TypedOptions
from platform_core.specs.base import Model, Name, Plain


class FilesOptions(Model):
    """Where the files lie."""

    root: str = Field(min_length=1, description="Absolute folder or fsspec URL below which all files lie.")
    storage_options: Plain = Field(
        default_factory=dict,
        description="Options of the fsspec file system; a value may be {secret: <workstream>/<name>}.",
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

    format: Literal["csv", "parquet", "jsonl"] | None = Field(
        default=None,
        description="Default: by extension, such as .csv, .parquet, .jsonl or .csv.gz.",
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Character between values of a CSV.")
    quote: str | None = Field(
        default='"', min_length=1, max_length=1, description="Character around values of a CSV; null: none."
    )
    encoding: str = Field(default="utf-8", description="Encoding of CSV and JSON lines.", examples=["latin-1"])
    header: bool = Field(default=True, description="Whether a CSV names its columns; if not, 'columns' lists them all.")
    null_values: tuple[str, ...] = Field(
        default=("",), description="Unquoted texts of a CSV that stand for null.", examples=[["", "NA"]]
    )
    file_column: Name | None = Field(default=None, description="Column added with the path of each row's file.")
    largest_row_mb: int = Field(default=8, ge=1, le=512, description="Size that no row of a text file exceeds.")

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

    @model_validator(mode="after")
    def _check_header(self) -> Self:
        if not self.header and not self.columns:
            raise ValueError("header: false needs 'columns': every column of the file, in order, with its type")
        return self
