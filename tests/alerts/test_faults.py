"""FAULTS D5: whatever ends a process or a channel, no alert is lost, and no load notices."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from platform_core.control.alert_tables import deliveries
from platform_core.control.outbox import Outbox
from platform_core.faults import AlertPoint
from platform_core.operations.alerts.dispatch import Dispatcher
from platform_core.plugins.testing_alerts import Mood
from tests.alerts.outboxes import LONG_AGO, ORDERS, MemoryChannel, dispatcher, failure, let_all_be_due, record
from tests.alerts.services import NtfyService, running
from tests.alerts.test_channels import ntfy_channel
from tests.conftest import PROJECT
from tests.control_database.conftest import Place
from tests.forked import run_forked


@pytest.fixture
def ntfy() -> Iterator[NtfyService]:
    with running(NtfyService()) as service:
        yield service


def sender(place: Place, ntfy: NtfyService, *what: str, fault: str = "") -> int:
    """A process that does these things in order; its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    if fault:
        environment |= {"PLATFORM_TEST": "1", "PLATFORM_FAULT": fault}
    control = json.dumps(place.control.model_dump(mode="json"))
    arguments = [control, str(place.state), ntfy.url, *what]
    done = run_forked(arguments, env=environment, cwd=PROJECT, timeout=120, module="tests.alerts.sender")
    return done.returncode


def let_claims_run_out(outbox: Outbox) -> None:
    outbox.database.transact(
        lambda connection: connection.execute(sa.update(deliveries).values(claimed_until=LONG_AGO))
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", list(AlertPoint))
def test_d5_a_process_killed_at_any_moment_loses_no_alert(place: Place, ntfy: NtfyService, point: AlertPoint) -> None:
    assert sender(place, ntfy, "fail", "send", fault=f"{point}:kill") == -9
    outbox = Outbox(place.database())
    let_claims_run_out(outbox)
    # What the next tick does: the cursor did not move, so that the same run is looked at again.
    record(outbox, failure(), mark="run-1")
    Dispatcher(outbox, {"team": lambda: ntfy_channel(ntfy)}).deliver()
    ids = [posted.body["sequence_id"] for posted in ntfy.posted]
    assert len(set(ids)) == 1, "one message, whatever the number of its copies"
    assert len(ids) == (2 if point is AlertPoint.SENT else 1)
    (alert,) = outbox.open_alerts()
    assert alert.times == 1
    record(outbox, mark="run-2", well=(ORDERS,))
    Dispatcher(outbox, {"team": lambda: ntfy_channel(ntfy)}).deliver()
    assert ntfy.posted[-1].body["title"].startswith("Over: ")
    outbox.database.close()


def test_d5_no_alert_is_lost_whatever_the_service_answers(outbox: Outbox, ntfy: NtfyService) -> None:
    moods: list[Mood] = ["busy", "down", "answers a page", "hangs"]
    names = [f"crm.bronze.t{number}" for number in range(12)]
    for name in names:
        record(outbox, failure(key=name, failing=(name,)), mark=name)
    ntfy.script = moods * 3
    channel = ntfy_channel(ntfy)
    for _ in range(40):
        let_all_be_due(outbox)
        Dispatcher(outbox, {"team": lambda: channel}, first_wait=0.01, send_seconds=0.6, tries=1_000).deliver()
        if len(ntfy.posted) == len(names):
            break
    assert sorted(posted.body["title"] for posted in ntfy.posted) == sorted(f"{name} failed" for name in names)


def test_d5_a_channel_that_hangs_holds_up_neither_the_tick_nor_the_others(outbox: Outbox) -> None:
    released = threading.Event()
    hanging, team = MemoryChannel(lambda _: released.wait(20)), MemoryChannel()
    for number in range(10):
        name = f"crm.bronze.t{number}"
        record(outbox, failure(key=name, failing=(name,), channels=("hanging", "team")), mark=name)
    began = time.monotonic()
    dispatcher(outbox, {"hanging": hanging, "team": team}, send_seconds=0.5).deliver()
    assert time.monotonic() - began < 5
    assert len(team.messages) == 10
    assert hanging.asked == 1
    released.set()


def test_d5_a_round_ends_with_its_budget(outbox: Outbox) -> None:
    slow = MemoryChannel(lambda _: time.sleep(0.2))
    for number in range(30):
        name = f"crm.bronze.t{number}"
        record(outbox, failure(key=name, failing=(name,)), mark=name)
    began = time.monotonic()
    dispatcher(outbox, {"team": slow}).deliver(budget=1)
    assert time.monotonic() - began < 3
    assert 0 < len(slow.messages) < 30
