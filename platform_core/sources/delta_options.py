"""What can be declared about another lake and about one table of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from platform_core.specs.base import Columns, Model, SecretRef

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@?#]+(/[^?#]*)?|abfss?://[^/@?#]+@[^/@?#]+(/[^?#]*)?")


class DeltaOptions(Model):
    """Where the lake is."""

    root: str = Field(
        description="Absolute folder or URL below which all tables lie.",
        examples=["/mnt/lake", "abfss://lake@account.dfs.core.windows.net/gold", "s3://bucket/lake"],
    )
    storage_options: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="Options of the object store; what is secret is written {secret: <name>}."
    )
    memory_mb: int = Field(
        default=1024, ge=64, description="Most memory for a query, a filter or the newest change of each key."
    )

    @field_validator("root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        if "://" not in value and not Path(value).is_absolute():
            raise ValueError("must be an absolute folder or a URL, such as /mnt/lake or s3://bucket/lake")
        if "://" in value and (value.startswith("file:") or not _URL.fullmatch(value)):
            raise ValueError("must be the URL of an object store without user, query and fragment; a folder is a path")
        return value


class DeltaObjectOptions(Model):
    """How one table is read; the object is its path below the root."""

    change_data_feed: bool = Field(
        default=False,
        description="Read what changed since the last load, with the columns cdf_deleted, cdf_version and cdf_at.",
    )
    key: Columns = Field(
        default=(), description="Columns that identify a row; the change data feed needs them to give the last change."
    )

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.change_data_feed and not self.key:
            raise ValueError("change_data_feed needs 'key': the columns that identify a row")
        if self.key and not self.change_data_feed:
            raise ValueError("'key' here belongs to change_data_feed; the table's own key stands beside 'mode'")
        return self
