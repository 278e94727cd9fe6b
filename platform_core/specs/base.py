"""What all specs share: frozen, unknown keys refused, with the place where a person wrote them."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from platform_core.errors import Place

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DURATION = re.compile(r"(\d+)\s*(second|minute|hour|day|week)s?")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be lower case letters, digits and _, start with a letter, at most 63 long")
    return value


def _parse_duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("must read like '2 hours': a whole number and seconds, minutes, hours, days or weeks")
    return timedelta(**{f"{match[2]}s": int(match[1])})


Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": "^[a-z][a-z0-9_]{0,62}$"})]
"""An identifier that is safe in SQL, paths and asset keys alike."""

Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration, json_schema_input_type=str),
    Field(json_schema_extra={"examples": ["30 minutes", "2 hours", "7 days"]}),
]
"""A span of time, written like ``2 hours``."""


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

    def at(self, place: Place) -> Spec:
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
