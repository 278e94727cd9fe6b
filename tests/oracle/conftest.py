"""One platform for all tables of an oracle run, and the run's seed and size."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from platform_core.operations import extract
from platform_core.secrets.files import create_masking_key
from tests.conftest import PROJECT
from tests.oracle.nursery import Nursery
from tests.oracle.source import WORKSTREAM, known_plugin, platform_at
from tests.oracle.table import Bench

USUAL_SEED = 1002
"""Of the short form: it meets every way in which a load can end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracle-seed", type=int, help="Seed of the oracle; default: ORACLE_SEED, or a new one where scale is above 1."
    )
    parser.addoption("--oracle-no-shrink", action="store_true", help="Show what the oracle found as it was found.")
    parser.addoption("--oracle-scale", type=int, help="The oracle does so many times 10,000 steps; default: 1.")


def _chosen(config: pytest.Config, name: str) -> int | None:
    # The option is not known where this file was found only while tests were collected.
    given = config.getoption(f"--oracle-{name}", default=None)
    if given is None:
        given = os.environ.get(f"ORACLE_{name.upper()}")
    return None if given is None else int(given)


@pytest.fixture
def oracle_seed(request: pytest.FixtureRequest, oracle_scale: int) -> int:
    chosen = _chosen(request.config, "seed")
    if chosen is None:
        return random.SystemRandom().randrange(2**32) if oracle_scale > 1 else USUAL_SEED
    return chosen


@pytest.fixture
def oracle_scale(request: pytest.FixtureRequest) -> int:
    return _chosen(request.config, "scale") or 1


@pytest.fixture
def oracle_shrinks(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--oracle-no-shrink", default=False)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("oracle")
    monkeypatch.setattr(extract, "plugin", known_plugin)
    monkeypatch.setattr(extract, "_known_names", {})
    create_masking_key(folder / "secrets", WORKSTREAM)
    platform = platform_at(folder)
    key = platform.secrets.get(f"{WORKSTREAM}/masking_key").reveal()
    nursery = Nursery(folder, PROJECT)
    yield Bench(folder, platform, key, nursery)
    nursery.close()
    platform.loads.close()
