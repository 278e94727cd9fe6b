"""What can be declared about a dlt source and about one resource of it."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from platform_core.sources.types import TypedOptions
from platform_core.specs.base import Model, Plain, SecretRef

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def _with_references(value: Any) -> Any:
    """The same value, with every ``{secret: <name>}`` in it as a reference."""
    if isinstance(value, dict):
        if value.keys() == {"secret"} and isinstance(value["secret"], str):
            return SecretRef(secret=value["secret"])
        return {str(key): _with_references(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_references(part) for part in value]
    return value


class DltOptions(Model):
    """Which dlt source, and what it is called with."""

    source: str = Field(
        description="Where it is: module:function, of a dlt source, a dlt resource, or a function that yields rows.",
        examples=["our_team.crm:crm_source"],
    )
    arguments: Plain = Field(
        default_factory=dict, description="Arguments of the function; what is secret is written {secret: <name>}."
    )
    config: Plain = Field(
        default_factory=dict,
        description="What dlt would otherwise look up in its config.toml and secrets.toml, as the same nested keys; "
        "what is secret is written {secret: <name>}.",
    )

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        if not _FUNCTION.fullmatch(value):
            raise ValueError("must be written module:function, such as our_team.crm:crm_source")
        return value

    @field_validator("arguments", "config")
    @classmethod
    def _find_references(cls, value: Plain) -> Plain:
        return {str(key): _with_references(part) for key, part in value.items()}


class DltObjectOptions(TypedOptions):
    """How one resource is read; the object is the resource's name."""

    table_name: str | None = Field(
        default=None, description="Table of which the rows are read, where the resource gives rows of several tables."
    )
    undeclared: Literal["infer", "ignore", "refuse"] = Field(
        default="infer",
        description="What happens to keys whose type neither 'columns' nor the resource's hints tell: the type of the "
        "first rows' values, left out, or an error.",
    )
    sample_rows: int = Field(
        default=1000, ge=1, le=100_000, description="Rows that are looked at before types are settled."
    )
