"""What is wrong is told once, is over when it works again, and is in the outbox before anything is sent."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest

from platform_core.control.alert_records import Told
from platform_core.control.outbox import Outbox
from platform_core.errors import AlertError, AlertRefused
from platform_core.operations.alerts.wording import told_of_closing
from tests.alerts.outboxes import (
    LONG_AGO,
    ORDERS,
    MemoryChannel,
    dispatcher,
    failure,
    let_all_be_due,
    record,
)
from tests.control_database.conftest import Place


def test_a_failure_is_told_and_its_recovery_answers_it(outbox: Outbox) -> None:
    team = MemoryChannel()
    record(outbox, failure(), mark="run-1")
    dispatcher(outbox, {"team": team}).deliver()
    recorded = record(outbox, mark="run-2", well=(ORDERS,))
    dispatcher(outbox, {"team": team}).deliver()
    told, over = team.messages
    assert recorded.closed == (told.reference,)
    assert (told.good, over.good) == (False, True)
    assert over.reference == told.reference
    assert over.answers == f"sent-{told.id}"
    assert over.title == f"Over: {told.title}"
    assert not outbox.open_alerts()


def test_a_nightly_failure_is_one_message(outbox: Outbox) -> None:
    team = MemoryChannel()
    for night in range(5):
        record(outbox, failure(), mark=f"run-{night}")
        dispatcher(outbox, {"team": team}).deliver()
    assert len(team.messages) == 1
    (alert,) = outbox.open_alerts()
    assert alert.times == 5


def test_another_reason_of_the_same_failure_is_told(outbox: Outbox) -> None:
    team = MemoryChannel()
    record(outbox, failure(kind_of_reason="SourceError"), mark="run-1")
    record(outbox, failure(kind_of_reason="SchemaError"), mark="run-2")
    dispatcher(outbox, {"team": team}).deliver()
    dispatcher(outbox, {"team": team}).deliver()
    assert [message.reference for message in team.messages] == ["A-1", "A-1"]


def test_a_run_that_is_looked_at_twice_counts_once(outbox: Outbox) -> None:
    assert record(outbox, failure(), mark="run-1") is not None
    assert record(outbox, failure(), mark="run-1") is None
    (alert,) = outbox.open_alerts()
    assert alert.times == 1


def test_an_alert_is_over_when_all_that_failed_works(outbox: Outbox) -> None:
    record(outbox, failure(failing=("crm.bronze.a", "crm.bronze.b")), mark="run-1")
    assert not record(outbox, mark="run-2", well=("crm.bronze.a",)).closed
    (alert,) = outbox.open_alerts()
    assert alert.failing == ("crm.bronze.b",)
    assert record(outbox, mark="run-3", well=("crm.bronze.b",)).closed == ("A-1",)


def test_a_success_from_before_the_failure_closes_nothing(outbox: Outbox) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    record(outbox, failure(at=later), mark="run-1")
    assert not record(outbox, mark="run-2", well=(ORDERS,)).closed


def test_a_run_that_failed_as_a_whole_is_over_when_its_job_succeeds(outbox: Outbox) -> None:
    record(outbox, failure(failing=(), job="crm"), mark="run-1")
    now = dt.datetime.now(dt.UTC)
    assert not record(outbox, mark="run-2", jobs={"other": now}).closed
    assert not record(outbox, mark="run-3", jobs={"crm": LONG_AGO}).closed
    assert record(outbox, mark="run-4", jobs={"crm": now + dt.timedelta(seconds=5)}).closed == ("A-1",)


def test_what_is_over_within_quiet_hours_disturbs_nobody(outbox: Outbox) -> None:
    team = MemoryChannel()
    record(outbox, failure(due=dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)), mark="run-1")
    record(outbox, mark="run-2", well=(ORDERS,))
    let_all_be_due(outbox)
    dispatcher(outbox, {"team": team}).deliver()
    assert not team.messages


def test_quiet_hours_hold_a_message_back_until_they_are_over(outbox: Outbox) -> None:
    team = MemoryChannel()
    record(outbox, failure(due=dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)), mark="run-1")
    dispatcher(outbox, {"team": team}).deliver()
    assert not team.messages
    let_all_be_due(outbox)
    dispatcher(outbox, {"team": team}).deliver()
    assert len(team.messages) == 1


def test_a_recovery_never_overtakes_its_failure(outbox: Outbox) -> None:
    def away(_: object) -> None:
        raise AlertError("away")

    team = MemoryChannel(away)
    record(outbox, failure(), mark="run-1")
    dispatcher(outbox, {"team": team}).deliver()
    record(outbox, mark="run-2", well=(ORDERS,))
    team.happens = lambda _: None
    for _ in range(3):
        let_all_be_due(outbox)
        dispatcher(outbox, {"team": team}).deliver()
    assert [message.good for message in team.messages] == [False, True]


def test_two_dispatchers_send_each_message_once(place: Place) -> None:
    outboxes = [Outbox(place.database()) for _ in range(2)]
    for number in range(20):
        name = f"crm.bronze.t{number}"
        record(outboxes[0], failure(key=name, failing=(name,)), mark=name)
    team = MemoryChannel()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(dispatcher(outboxes[n % 2], {"team": team}).deliver) for n in range(4)]:
            done.result()
    assert sorted(team.titles) == sorted(f"crm.bronze.t{number} failed" for number in range(20))
    for outbox in outboxes:
        outbox.database.close()


def test_a_refused_message_goes_to_the_next_channel_at_once(outbox: Outbox) -> None:
    def refuse(_: object) -> None:
        raise AlertRefused("no such address")

    team, mail = MemoryChannel(refuse), MemoryChannel()
    record(outbox, failure(), mark="run-1")
    for _ in range(2):
        dispatcher(outbox, {"team": team, "mail": mail}, fallback=("team", "mail")).deliver()
    assert team.asked == 1
    assert len(mail.messages) == 1
    record(outbox, mark="run-2", well=(ORDERS,))
    dispatcher(outbox, {"team": team, "mail": mail}, fallback=("team", "mail")).deliver()
    assert [message.good for message in mail.messages] == [False, True]
    assert team.asked == 1


def test_a_channel_that_stays_away_is_replaced_after_its_tries(outbox: Outbox) -> None:
    def away(_: object) -> None:
        raise AlertError("away")

    team, mail = MemoryChannel(away), MemoryChannel()
    record(outbox, failure(), mark="run-1")
    for _ in range(6):
        let_all_be_due(outbox)
        dispatcher(outbox, {"team": team, "mail": mail}, fallback=("mail",), tries=3).deliver()
    assert team.asked == 3
    assert len(mail.messages) == 1


def test_without_another_channel_tries_go_on(outbox: Outbox) -> None:
    moods = iter([AlertError("away")] * 8)

    def away(_: object) -> None:
        if trouble := next(moods, None):
            raise trouble

    team = MemoryChannel(away)
    record(outbox, failure(), mark="run-1")
    for _ in range(9):
        let_all_be_due(outbox)
        dispatcher(outbox, {"team": team}, tries=3).deliver()
    assert len(team.messages) == 1


def test_a_wait_that_the_service_asks_for_is_kept(outbox: Outbox) -> None:
    def busy(_: object) -> None:
        raise AlertError("busy", retry_after=1_000)

    team = MemoryChannel(busy)
    record(outbox, failure(), mark="run-1")
    for _ in range(3):
        dispatcher(outbox, {"team": team}).deliver()
    assert team.asked == 1
    ((_, (waiting,)),) = outbox.newest(limit=5)
    pause = waiting.due_at - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=900) < pause <= dt.timedelta(seconds=1_001)


def test_a_channel_that_the_environment_lacks_gives_way_to_one_that_it_has(outbox: Outbox) -> None:
    mail = MemoryChannel()
    record(outbox, failure(channels=("gone",)), mark="run-1")
    for _ in range(2):
        dispatcher(outbox, {"mail": mail}, fallback=("mail",)).deliver()
    assert len(mail.messages) == 1


def test_a_person_closes_an_alert_and_its_channels_hear_who(outbox: Outbox) -> None:
    team = MemoryChannel()
    record(outbox, failure(), mark="run-1")
    dispatcher(outbox, {"team": team}).deliver()
    (alert,) = outbox.open_alerts()
    told: Told = told_of_closing(alert, by="anna", now=dt.datetime.now(dt.UTC))
    assert outbox.close(alert.id, by="anna", told=told) is not None
    assert outbox.close(alert.id, by="anna", told=told) is None
    dispatcher(outbox, {"team": team}).deliver()
    assert team.messages[1].text == ("anna closed A-1.",)


def test_the_same_failure_after_its_recovery_is_a_new_alert(outbox: Outbox) -> None:
    record(outbox, failure(), mark="run-1")
    record(outbox, mark="run-2", well=(ORDERS,))
    assert record(outbox, failure(), mark="run-3").opened == ("A-2",)


def test_two_that_open_the_same_alert_at_once_open_one(place: Place) -> None:
    outboxes = [Outbox(place.database()) for _ in range(4)]
    outboxes[0].open_alerts()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: record(outboxes[number], failure(), mark=f"run-{number}"), range(4)))
    assert sum(len(each.opened) for each in found) == 1
    (alert,) = outboxes[0].open_alerts()
    assert alert.times == 4
    for outbox in outboxes:
        outbox.database.close()


def test_old_rows_go_and_open_alerts_stay(outbox: Outbox) -> None:
    record(outbox, failure(), mark="run-1")
    record(outbox, failure(key="other", failing=("crm.bronze.b",)), mark="run-2")
    team = MemoryChannel()
    dispatcher(outbox, {"team": team}).deliver()
    record(outbox, mark="run-3", well=("crm.bronze.b",))
    dispatcher(outbox, {"team": team}).deliver()
    assert outbox.forget(older=dt.timedelta(0)) >= 3
    assert [alert.key for alert, _ in outbox.newest(limit=5)] == ["crm/bronze/orders/failed"]


@pytest.mark.parametrize("error", [AlertError("away"), AlertRefused("no"), RuntimeError("canary-1f0a6b")])
def test_no_trouble_of_a_channel_gets_out_of_a_round(outbox: Outbox, error: Exception) -> None:
    def fails(_: object) -> None:
        raise error

    record(outbox, failure(), mark="run-1")
    done = dispatcher(outbox, {"team": MemoryChannel(fails)}).deliver()
    assert not done.sent
    ((_, (kept,)),) = outbox.newest(limit=1)
    assert "canary" not in str(kept.error)
