"""A campaign in a folder of its own, shared by the tests that kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.campaign import Campaign, campaigning


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """The process that forks, with a seed that is shown where a test fails."""
    with campaigning(tmp_path_factory.mktemp("campaign"), seed=7) as started:
        yield started
