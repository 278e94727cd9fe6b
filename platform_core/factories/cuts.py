"""Whether tables can be shown together: whatever they are made from, all of them are made from the same state of it.

A table remembers, with its materialisation, how new each of its inputs was when its step began. Followed back from two
tables of one dashboard, these ways meet at what both are made from: there the positions must agree. This needs no
graph, so that it holds across locations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from platform_core.factories.standing import Built, Standing

Still = Callable[[dg.AssetKey], bool]
"""Whether somebody has decided that an asset stays as it is, whatever it is made from."""


def none_still(_: dg.AssetKey) -> bool:
    """Nothing is known to be paused."""
    return False


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Something that shown tables are made from in different states.

    Args:
        source: what differs.
        newest: a shown table that is made from its newest state that is shown.
        older: shown tables that are made from an older one.
    """

    source: dg.AssetKey
    newest: dg.AssetKey
    older: tuple[dg.AssetKey, ...]


def mixed(shown: Iterable[dg.AssetKey], *, standing: Standing, still: Still = none_still) -> Mixed | None:
    """What keeps tables from being shown together; None where nothing does.

    Args:
        shown: the tables.
        standing: the event log.
        still: paused tables: they are shown as they are, and what they are made from does not count.
    """
    shown = tuple(shown)
    reached: dict[dg.AssetKey, dict[int, set[dg.AssetKey]]] = {}
    for table in shown:
        for source, positions in _made_from(table, standing, still).items():
            for position in positions:
                reached.setdefault(source, {}).setdefault(position, set()).add(table)
    for source in sorted(key for key, positions in reached.items() if len(positions) > 1):
        states = reached[source]
        newest = min(states[max(states)])
        older = {table for position, tables in states.items() if position != max(states) for table in tables}
        return Mixed(source=source, newest=newest, older=tuple(sorted(older)))
    return None


def _made_from(table: dg.AssetKey, standing: Standing, still: Still) -> Mapping[dg.AssetKey, set[int]]:
    """A table and all that it is made from, each with the positions at which it was read."""
    built = standing.built(table)
    found: dict[dg.AssetKey, set[int]] = {}
    waiting = [] if built is None else [(table, built.position)]
    while waiting:
        known = {(key, position) for key, positions in found.items() for position in positions}
        level = [each for each in dict.fromkeys(waiting) if each not in known]
        for key, position in level:
            found.setdefault(key, set()).add(position)
        # One question to the storage for all of a level.
        makers = [made for key, position in level if not still(key) and (made := standing.made_at(key, position))]
        standing.read(source for made in makers for source in made.seen)
        waiting = [read for made in makers for source in made.seen if (read := _read(made, source, standing))]
    return found


def _read(made: Built, source: dg.AssetKey, standing: Standing) -> tuple[dg.AssetKey, int] | None:
    """The state of an input that a materialisation is made from; None where the input was not there."""
    seen, newest = made.seen[source], standing.built(source)
    if newest is None or not seen:
        return None
    if (together := standing.made_together(made, source)) is not None:  # models of one dbt build
        return source, together.position
    # An observation that found nothing new is as good as the one that first told this version.
    return source, min(seen, newest.position)
