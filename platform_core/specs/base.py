"""What all specs share: frozen, unknown keys refused, with the place where a person wrote them."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PrivateAttr

from platform_core.errors import Place

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DURATION = re.compile(r"([0-9]{1,6})\s*(second|minute|hour|day|week)s?")
_EXACT_DURATION = re.compile(r"-?P[0-9DTHMS.]+")
_UNITS = tuple((unit, timedelta(**{f"{unit}s": 1})) for unit in ("week", "day", "hour", "minute", "second"))
# What Dagster takes as owners and tags; looked at here, so that the error names the line.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TEAM = re.compile(r"team:[A-Za-z0-9_.-]+")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")


def is_name(text: str) -> bool:
    """Whether a text can be the name of something on the platform."""
    return _NAME.fullmatch(text) is not None


def _check_name(value: str) -> str:
    if not is_name(value):
        raise ValueError("must be lower case letters, digits and _, start with a letter, at most 63 long")
    return value


def _parse_duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None and _EXACT_DURATION.fullmatch(value):
        # As _write_duration has it for spans that nobody could declare.
        return value
    if match is None:
        raise ValueError("must read like '2 hours': a whole number and seconds, minutes, hours, days or weeks")
    return timedelta(**{f"{match[2]}s": int(match[1])})


def _write_duration(value: timedelta) -> str:
    """The text that is read as the same span: ``2 hours``, or ISO 8601 where that cannot say it."""
    for unit, length in _UNITS:
        count, rest = divmod(value, length)
        if not rest and 0 <= count < 1_000_000 and (count or unit == "second"):
            return f"{count} {unit}{'' if count == 1 else 's'}"
    days, seconds = divmod(abs(value), timedelta(days=1))
    return f"{'-' if value < timedelta(0) else ''}P{days}DT{seconds.seconds}.{seconds.microseconds:06}S"


def _check_owner(value: str) -> str:
    if not (_EMAIL.fullmatch(value) or _TEAM.fullmatch(value)):
        raise ValueError("must be an e-mail address or team:<name>")
    return value


def _check_table_name(value: str) -> str:
    parts = value.split(".")
    if len(parts) not in (2, 3) or not all(_NAME.fullmatch(part) for part in parts):
        raise ValueError("must be written layer.name or workstream.layer.name, in lower case letters, digits and _")
    return value


def _check_column(value: str) -> str:
    if not value.strip() or len(value) > 255:
        raise ValueError("must be a column's name: not empty, at most 255 characters")
    return value


def _check_columns(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names a column twice")
    return value


def _check_tags(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not (_TAG_KEY.fullmatch(key) and _TAG_VALUE.fullmatch(text)):
            raise ValueError("keys and values must be letters, digits, _, - and ., at most 63 long")
    return value


Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": "^[a-z][a-z0-9_]{0,62}$"})]
"""An identifier that is safe in SQL, paths and asset keys alike."""

Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration, json_schema_input_type=str),
    PlainSerializer(_write_duration, return_type=str, when_used="json"),
    Field(json_schema_extra={"examples": ["30 minutes", "2 hours", "7 days"]}),
]
"""A span of time, written like ``2 hours``."""


Owner = Annotated[
    str, AfterValidator(_check_owner), Field(json_schema_extra={"examples": ["team:mobility", "a.user@example.com"]})
]
"""Who answers for something: an e-mail address, or ``team:<name>``."""

TableName = Annotated[
    str,
    AfterValidator(_check_table_name),
    Field(
        json_schema_extra={
            "pattern": r"^([a-z][a-z0-9_]{0,62}\.)?[a-z][a-z0-9_]{0,62}\.[a-z][a-z0-9_]{0,62}$",
            "examples": ["bronze.rides", "crm.bronze.riders"],
        }
    ),
]
"""A table, written ``layer.name`` (of the own workstream) or ``workstream.layer.name``."""

Column = Annotated[str, AfterValidator(_check_column)]
"""The name of a column, as its source has it."""

Columns = Annotated[tuple[Column, ...], AfterValidator(_check_columns)]
"""Names of columns, each once."""

Tags = Annotated[dict[str, str], AfterValidator(_check_tags)]
"""Short labels to find and group things by."""


class Model(BaseModel):
    """A part of a spec: frozen, unknown keys refused, input values never shown in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, strict=False)


class Spec(Model):
    """Something a person declared in YAML."""

    _place: Place | None = PrivateAttr(default=None)

    @property
    def place(self) -> Place | None:
        """File and line of the declaration; None where the spec was not read from a file."""
        return self._place

    def at(self, place: Place) -> Self:
        """Remember where the spec was declared; returns the spec."""
        self._place = place
        return self

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the declared content, independent of where it was declared."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class SecretRef(Model):
    """The name of a secret; its value lives in a secret store."""

    secret: str = Field(description="Name of the secret: <workstream>/<name>.")


Plain = dict[str, Any]
"""A parsed YAML mapping."""
