"""Looks into the storage of the Dagster instance: what it holds, and when its daemons last gave a sign of life."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

_DATABASE = "postgres"


@dataclass(frozen=True, kw_only=True)
class Daemons:
    """The daemons of an instance, as its storage remembers them.

    Args:
        runs: number of runs that the storage holds.
        seen: last sign of life of each daemon that the instance needs, UTC; None: there was none.
        with_errors: daemons whose last round ended in an error.
    """

    runs: int
    seen: Mapping[str, dt.datetime | None]
    with_errors: tuple[str, ...]


def look_at_daemons(home: Path, configuration: Mapping[str, Any]) -> Daemons:
    """Ask the storage of an instance; nothing is made in it.

    Raises whatever the storage's driver raises; messages of drivers may hold connection values.

    Args:
        home: folder of ``dagster.yaml``.
        configuration: what that file holds.
    """
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=_as_it_is(configuration))) as instance:
        beats = instance.get_daemon_heartbeats()
        return Daemons(
            runs=instance.get_runs_count(),
            seen={
                name: dt.datetime.fromtimestamp(beats[name].timestamp, dt.UTC) if name in beats else None
                for name in instance.get_required_daemon_types()
            },
            with_errors=tuple(sorted(name for name, beat in beats.items() if beat.errors)),
        )


def _as_it_is(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the configuration that keeps an empty database of a server empty."""
    storage = configuration.get("storage")
    if not isinstance(storage, dict) or not isinstance(server := storage.get(_DATABASE), dict):
        return {}
    return {"storage": {_DATABASE: {**server, "should_autocreate_tables": False}}}
