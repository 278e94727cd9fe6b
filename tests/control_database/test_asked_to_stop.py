"""A load that is asked to stop commits nothing any more, and does not keep its table from others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from platform_core.control.loads import Ticket
from platform_core.errors import LoadError
from tests.control_database.conftest import Place

Begin = Callable[..., Ticket]


def test_a_load_that_is_asked_to_stop_is_not_committed(place: Place, begin: Begin) -> None:
    asked = threading.Event()
    loads = place.loads()
    refused = pytest.raises(LoadError, match="the load was cancelled; batch 1 is not committed")
    with refused, begin(loads, cancelled=asked.is_set) as ticket:
        ticket.confirm()
        asked.set()
        ticket.confirm()
    assert [(row.batch_id, row.status) for row in loads.recent()] == [(1, "cancelled")]


def test_one_that_does_not_stop_is_overtaken_once_its_lease_has_run_out(place: Place, begin: Begin) -> None:
    asked = threading.Event()
    loads = place.loads(lease=1)
    left_behind = begin(loads, cancelled=asked.is_set)
    asked.set()
    with begin(loads, wait=30) as successor:
        assert (successor.batch_id, successor.taken_over) == (2, True)
        with pytest.raises(LoadError, match="batch 1 is not committed"), left_behind:
            left_behind.confirm()
        successor.finish(status="succeeded", figures={})
    assert [row.status for row in loads.recent()] == ["succeeded", "cancelled"]
