"""A load that passed its time and lives on in a thread that nobody can end: what it still does reaches no table."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine
from platform_core.errors import LoadError
from platform_core.specs.environment import ControlSpec

FIRST = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
SECOND = pa.table({"id": [1, 2, 4], "name": ["a", "B", "d"]})


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def with_lease(loads: Any, seconds: float) -> Any:
    """The same loads; a lease holds for so long without a sign of life."""
    control = ControlSpec(lease=dt.timedelta(seconds=seconds))
    platform = loads.platform
    return loads.with_platform(
        environment=platform.environment.model_copy(update={"control": control}),
        loads=open_loads(control, state=platform.state, secrets=platform.secrets),
    )


def test_a_load_that_is_asked_to_stop_right_before_its_commit_commits_nothing(
    loads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.load(FIRST)
    asked = threading.Event()
    apply = LocalEngine.apply

    def asked_before(engine: LocalEngine, load: Any) -> Any:
        asked.set()
        return apply(engine, load)

    with monkeypatch.context() as patch, pytest.raises(LoadError, match="was cancelled"):
        patch.setattr(LocalEngine, "apply", asked_before)
        loads.with_platform(cancelled=asked.is_set).load(SECOND)

    assert [row["name"] for row in loads.rows()] == ["a", "b", "c"]
    assert [row.status for row in loads.log] == ["succeeded", "cancelled"]
    assert loads.load().batch_id == 3


def test_the_next_load_overtakes_one_that_was_left_behind_and_fences_it(
    loads: Any, source: Any, thread: ThreadPoolExecutor
) -> None:
    loads = with_lease(loads, 2)
    asked, hangs, release = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert release.wait(60)

    source.meanwhile = hang
    left_behind = thread.submit(loads.with_platform(cancelled=asked.is_set).load, FIRST)
    try:
        assert hangs.wait(60)
        asked.set()
        result = loads.load(SECOND)
    finally:
        release.set()

    with pytest.raises(LoadError, match="cancelled"):
        left_behind.result(60)
    assert result.batch_id == 2
    assert [row["name"] for row in loads.rows()] == ["a", "B", "d"]
    assert loads.load().batch_id == 3
