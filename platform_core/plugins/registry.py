"""Finds plug-ins by entry point: built-ins and a team's own come through the same door."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from platform_core.errors import PluginError

GROUPS = {
    "source": "edp.sources",
    "mask": "edp.masks",
    "dashboard": "edp.dashboards",
    "engine": "edp.engines",
    "spark": "edp.spark",
    "secret store": "edp.secrets",
    "alert channel": "edp.alerts",
}
"""Entry-point group by kind of plug-in."""


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUPS[kind])}


def plugin_names(kind: str) -> tuple[str, ...]:
    """Names of the installed plug-ins of a kind, without loading any."""
    return tuple(sorted(_entries(kind)))


@cache
def plugin(kind: str, name: str) -> type[Any]:
    """The class of one plug-in.

    Args:
        kind: a key of :data:`GROUPS`.
        name: the plug-in's name, as used in YAML.

    Raises:
        PluginError: there is none of that name, or it cannot be imported.
    """
    entries = _entries(kind)
    if name not in entries:
        raise PluginError(f"unknown {kind} '{name}'\n  " + "\n  ".join(suggestions(kind, name)))
    try:
        loaded: type[Any] = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"{kind} '{name}' cannot be loaded: {error}\n  install what it needs, then try again"
        ) from error
    return loaded


def suggestions(kind: str, name: str) -> tuple[str, ...]:
    """Lines that help someone who wrote a wrong name."""
    known = plugin_names(kind)
    lines = [f"known {kind}s: {', '.join(known) or 'none'}"]
    if close := difflib.get_close_matches(name, known, n=1):
        lines.append(f"did you mean '{close[0]}'?")
    return tuple(lines)
