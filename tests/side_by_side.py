"""Which tests of a run with several workers (``-n 2 --dist loadgroup``) stay together, and which begin.

A module's tests stay together, for they share what the module has set up. Modules that lean on the same dear fixture
stay together too, so that it is set up once. What takes long begins, so that no worker is left with
it at the end while the others have nothing to do.

The groups are told to a scheduler of our own: since pytest 9.2 that of pytest-xdist 3.8 does not see the groups that
tests are marked with, and deals them out one by one (pytest-dev/pytest-xdist#1386).
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling, Scheduling  # type: ignore[import-untyped]

DEAR = {
    "demo": ("tests/browser/test_ui.py", "tests/scenarios/test_demo_again.py", "tests/scenarios/test_demo_values.py"),
    "campaign": ("tests/faults/test_kill_campaign.py", "tests/faults/test_operations.py"),
}
"""Fixtures of a session that take a minute or more, and the modules that lean on them."""
LONGEST = (
    "demo",
    "tests/semantics/test_daemon.py",
    "tests/oracle/test_oracle.py",
    "tests/faults/test_dagster_processes.py",
    "campaign",
    "tests/topology/test_deployment.py",
    "tests/operations/test_dbt.py",
    "tests/developer/test_dbt.py",
    "tests/sources/test_postgres_faults.py",
    "tests/services/test_azure_lake.py",
    "tests/sources/test_dlt.py",
    "tests/scenarios/test_golden.py",
    "tests/scenarios/test_canary.py",
    "tests/factories/test_dbt_assets.py",
    "tests/developer/test_two_people.py",
    "tests/plugins/test_source_suite.py",
    "tests/control_plane/test_state_machine.py",
    "tests/cli/test_setup.py",
    "tests/lake/test_bronze_against_oracle.py",
    "tests/scenarios/test_broken_location.py",
)
"""Groups that take half a minute or more, the longest first."""
_GROUPS = {module: fixture for fixture, modules in DEAR.items() for module in modules}


# Last, for pytest itself puts tests that share a fixture with parameters side by side.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what begins first; alone, without workers, tests keep their order."""
    for item in items:
        for fixture in DEAR.keys() & getattr(item, "fixturenames", ()):
            if group_of(item.nodeid) != fixture:
                raise pytest.UsageError(
                    f"{item.nodeid} uses the fixture {fixture!r}, which would be set up by each worker: "
                    "name its module in DEAR in tests/side_by_side.py"
                )
    if getattr(config.option, "loadgroup", False):
        items[:] = in_order(items)


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The same tests group by group: the longest, slow ones, those on servers, and all others as they are."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group_of(item.nodeid), []).append(item)
    return [item for name in sorted(groups, key=lambda name: _rank(name, groups[name])) for item in groups[name]]


def group_of(nodeid: str) -> str:
    """The name of the group that a test belongs to."""
    module = nodeid.partition("::")[0]
    return _GROUPS.get(module, module)


def _rank(name: str, group: list[pytest.Item]) -> int:
    if name in LONGEST:
        return LONGEST.index(name)
    for rank, marker in enumerate(("slow", "services")):
        if any(item.get_closest_marker(marker) for item in group):
            return len(LONGEST) + rank
    return len(LONGEST) + 2


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker a whole group at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Deal out tests by group where ``--dist loadgroup`` asks for it."""
    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None
