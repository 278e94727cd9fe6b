"""Finds what differs between two environments: their files, and what variables make of the control files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from platform_core.control.environment import load_environment
from platform_core.control.plan.declared import STATE, read_declared
from platform_core.control.plan.difference import differences, field_differences
from platform_core.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """One value that two environments do not share.

    Args:
        where: ``environment``, or kind and name of what is declared, such as ``connection crm.erp``.
        field: path to the value, such as ``options.host``; empty where one environment lacks all of it.
        one: the value in the first environment; None: there is none.
        other: the value in the second.
    """

    where: str
    field: str
    one: Any
    other: Any


def divergences(settings: Settings, one: str, other: str) -> list[Divergence]:
    """All that differs between two environments; of a secret its name, as everywhere.

    Raises:
        ConfigError: one of them has no file, or control files are wrong in one of them.
    """
    found = [*_in_files(settings, one, other), *_in_declared(settings, one, other)]
    return [replace(each, one=_as_written(each.one), other=_as_written(each.other)) for each in found]


def _as_written(value: Any) -> Any:
    """A value with the state folder as people write it in control files."""
    if isinstance(value, str):
        return value.replace(str(STATE), str(STATE).lstrip("/"))
    if isinstance(value, dict):
        return {name: _as_written(each) for name, each in value.items()}
    return [_as_written(each) for each in value] if isinstance(value, list) else value


def _in_files(settings: Settings, one: str, other: str) -> Iterator[Divergence]:
    read = [load_environment(replace(settings, environment=name, state=STATE)) for name in (one, other)]
    contents = [json.loads(spec.model_dump_json(exclude={"name"})) for spec in read]
    for path, old, new in field_differences(*contents):
        yield Divergence(where="environment", field=".".join(path), one=old, other=new)


def _in_declared(settings: Settings, one: str, other: str) -> Iterator[Divergence]:
    rows = [read_declared(replace(settings, environment=name)).rows for name in (one, other)]
    for found in differences(*rows):
        if found.before is None or found.after is None:
            yield Divergence(where=str(found.key), field="", one=found.before, other=found.after)
            continue
        for path, old, new in field_differences(found.before, found.after):
            yield Divergence(where=str(found.key), field=".".join(path), one=old, other=new)
