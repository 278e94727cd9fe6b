"""Which tests of a run with several workers (``-n 2 --dist loadgroup``) stay together, and which begin.

A module's tests stay together, for they share what the module has set up. Modules that lean on the same dear fixture
stay together too, so that it is set up once. What takes long begins, so that no worker is left with
it at the end while the others have nothing to do.
"""

from __future__ import annotations

import pytest

DEAR = ("demo", "campaign")
"""Fixtures of a session that take a minute or more."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test its group; alone, without workers, tests keep their order."""
    if not getattr(config.option, "loadgroup", False):
        return
    dear = {_module(item): name for item in items for name in DEAR if name in getattr(item, "fixturenames", ())}
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        group = dear.get(_module(item), _module(item))
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)
    items[:] = [item for group in sorted(groups.values(), key=_rank) for item in group]


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rank(group: list[pytest.Item]) -> int:
    """Slow ones first, then those on servers; the order is kept otherwise."""
    for rank, marker in enumerate(("slow", "services")):
        if any(item.get_closest_marker(marker) for item in group):
            return rank
    return 2
