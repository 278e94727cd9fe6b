"""Who may load a table: one at a time, with an epoch that only grows, and nobody who lost the lease."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from datetime import timedelta

import pytest

from platform_core.control.heartbeat import HEARTBEAT
from platform_core.control.loads import Loads
from platform_core.errors import LeaseError, LoadError
from platform_core.specs.table import TableRef
from tests.control_database.conftest import ORDERS, Begin, Place, contending

RIDES = TableRef("mobility", "bronze", "rides")
FIGURES = {"rows_read": 3}


def test_the_first_batch_of_a_table_is_one(place: Place, begin: Begin) -> None:
    with begin(place.loads()) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (1, False)
        ticket.finish(status="succeeded", figures=FIGURES)


def test_each_epoch_is_larger_whatever_became_of_the_load_before(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads) as ticket:
        ticket.finish(status="succeeded", figures=FIGURES)
    with pytest.raises(KeyError), begin(loads):
        raise KeyError("x")
    with begin(loads) as ticket:
        ticket.finish(status="stopped", figures={"deletes": 5, "current": 8})
    with begin(loads) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (4, False)
        ticket.finish(status="succeeded", figures=FIGURES)


def test_an_epoch_is_above_the_newest_batch_in_bronze_also_when_the_database_was_lost(
    place: Place, begin: Begin
) -> None:
    with begin(place.loads(), above=41) as ticket:
        assert ticket.batch_id == 42
        ticket.finish(status="succeeded", figures=FIGURES)


def test_tables_have_leases_of_their_own(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads) as first, begin(loads, RIDES) as second:
        assert (first.batch_id, second.batch_id) == (1, 1)
        for each in (first, second):
            each.confirm()
            each.finish(status="succeeded", figures=FIGURES)


def test_c1_a_table_that_is_being_loaded_is_refused_with_who_loads_it(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads, run_id="run-7") as ticket:
        with pytest.raises(
            LeaseError,
            match=rf"crm\.bronze\.orders: is being loaded by process {os.getpid()} on .+ \(run run-7\), batch 1, since",
        ):
            begin(loads)
        ticket.finish(status="succeeded", figures=FIGURES)


def test_c1_who_waits_gets_the_table_when_the_other_lets_go_and_says_that_it_waits(
    place: Place, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = place.loads()
    first = begin(loads)
    threading.Timer(0.5, lambda: first.finish(status="succeeded", figures=FIGURES)).start()
    with caplog.at_level("INFO"), begin(loads, wait=20) as second:
        assert (second.batch_id, second.taken_over) == (2, False)
        second.finish(status="succeeded", figures=FIGURES)
    first.__exit__(None, None, None)
    assert "crm.bronze.orders: waiting for process" in caplog.text


def test_waiting_ends_when_the_run_is_cancelled(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads) as ticket:
        asked = time.monotonic()
        with pytest.raises(LoadError, match="cancelled while it waited"):
            begin(loads, wait=60, cancelled=lambda: time.monotonic() > asked + 0.3)
        assert time.monotonic() < asked + 10
        ticket.finish(status="succeeded", figures=FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("waits", [0, 60])
def test_c1_of_two_processes_that_race_a_hundred_times_one_has_the_table_at_a_time(place: Place, waits: int) -> None:
    epochs = []
    with contending(place, 2) as racers:
        for number in range(50 if waits else 100):
            for each in racers:
                each.tell("begin", table=str(ORDERS), above=number % 3, wait=waits)
            if waits:
                epochs += _one_after_the_other(racers)
                continue
            answers = [each.answer() for each in racers]
            winners = [each for each, answer in zip(racers, answers, strict=True) if "ok" in answer]
            assert len(winners) == 1, answers
            assert [answer["error"] for answer in answers if "error" in answer] == ["LeaseError"]
            epochs += [answer["ok"]["batch_id"] for answer in answers if "ok" in answer]
            assert winners[0].ask("finish") == {"ok": None}
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) == 100


def _one_after_the_other(racers: list) -> list[int]:
    epochs = []
    with selectors.DefaultSelector() as waiting:
        for each in racers:
            waiting.register(each._process.stdout, selectors.EVENT_READ, each)
        for _ in racers:
            ready = waiting.select(timeout=60)
            assert len(ready) == 1, "both hold the table"
            racer = ready[0][0].data
            waiting.unregister(racer._process.stdout)
            epochs.append(racer.answer()["ok"]["batch_id"])
            assert racer.ask("confirm") == {"ok": None}
            assert racer.ask("finish") == {"ok": None}
    return epochs


def test_threads_of_one_process_take_turns_too(place: Place, begin: Begin) -> None:
    loads = place.loads()
    epochs: list[int] = []

    def load() -> None:
        for _ in range(5):
            with begin(loads, wait=60) as ticket:
                epochs.append(ticket.batch_id)
                ticket.confirm()
                ticket.finish(status="succeeded", figures=FIGURES)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert epochs == list(range(1, 21))


def test_a_killed_holder_of_this_machine_is_taken_over_at_once_and_its_load_has_crashed(
    place: Place, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = place.loads()
    with contending(place) as [holder]:
        assert holder.begin() == {"ok": {"batch_id": 1, "taken_over": False}}
        holder.kill()
        with begin(loads) as ticket:
            assert (ticket.batch_id, ticket.taken_over) == (2, True)
            ticket.finish(status="succeeded", figures=FIGURES)
        assert f"crm.bronze.orders: taking over from process {holder.pid} on " in caplog.text
        assert "batch 1, since 20" in caplog.text
        assert "which has ended" in caplog.text
    newest, crashed = loads.recent()
    assert (newest.status, newest.taken_over) == ("succeeded", True)
    assert (crashed.status, crashed.batch_id, crashed.pid) == ("crashed", 1, holder.pid)
    assert crashed.finished_at is not None
    assert crashed.error is not None
    assert "bronze does not hold its batch" in crashed.error


def test_the_log_says_of_a_crashed_load_when_bronze_holds_its_batch(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with contending(place) as [holder]:
        holder.begin()
        holder.kill()
    with begin(loads, above=1) as ticket:
        ticket.finish(status="succeeded", figures=FIGURES)
    crashed = loads.recent()[1]
    assert crashed.error is not None
    assert "bronze holds the batch" in crashed.error


@pytest.mark.slow
def test_c2_a_holder_that_was_stopped_past_its_time_is_overtaken_and_cannot_confirm(
    place: Place, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    place = place.with_lease(1)
    loads = place.loads(lease=1)
    with contending(place) as [holder]:
        holder.begin()
        assert holder.ask("confirm") == {"ok": None}
        holder.signal(signal.SIGSTOP)
        with pytest.raises(LeaseError, match="is being loaded by"):
            begin(loads)
        with begin(loads, wait=20) as ticket:
            assert (ticket.batch_id, ticket.taken_over) == (2, True)
            holder.signal(signal.SIGCONT)
            refused = holder.ask("confirm")
            assert refused["error"] == "LeaseError"
            assert "the lease of batch 1 was lost" in refused["text"]
            ticket.confirm()
            ticket.finish(status="succeeded", figures=FIGURES)
        assert holder.ask("confirm")["error"] == "LeaseError"
    assert "has given no sign of life since" in caplog.text


@pytest.mark.slow
def test_c2_a_holder_that_was_stopped_past_its_time_cannot_confirm_though_nobody_overtook_it(place: Place) -> None:
    with contending(place.with_lease(1)) as [holder]:
        for _ in range(3):
            assert "ok" in holder.begin()
            holder.signal(signal.SIGSTOP)
            time.sleep(1.3)
            holder.signal(signal.SIGCONT)
            # Its heartbeat has time to notice, or not: either way the lease stays lost.
            refused = holder.ask("confirm")
            assert refused["error"] == "LeaseError", refused


def test_a_lease_is_renewed_for_as_long_as_it_is_held(place: Place, begin: Begin) -> None:
    loads = place.loads(lease=1)
    with begin(loads) as ticket, begin(loads, RIDES) as other:
        time.sleep(2.5)
        with pytest.raises(LeaseError, match="is being loaded"):
            begin(loads)
        for each in (ticket, other):
            each.confirm()
            each.finish(status="succeeded", figures=FIGURES)


def test_one_thread_renews_all_leases_and_ends_when_there_are_none(
    place: Place, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.control.heartbeat._LINGER_SECONDS", 0.1)
    loads, again = place.loads(lease=1), place.loads(lease=1)
    with begin(loads) as ticket, begin(again, RIDES) as other:
        assert _heartbeats() == 1
        for each in (ticket, other):
            each.finish(status="succeeded", figures=FIGURES)
    deadline = time.monotonic() + 10
    while _heartbeats() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _heartbeats() == 0
    with begin(loads) as ticket:
        assert _heartbeats() == 1
        ticket.finish(status="succeeded", figures=FIGURES)


def _heartbeats() -> int:
    return sum(each.name == "leases" for each in threading.enumerate())


def test_a_lease_that_another_took_is_lost_for_good(place: Place, begin: Begin) -> None:
    loads = place.loads()
    first = begin(loads)
    # As if this process had forgotten it: what a thread that was given up leaves behind.
    HEARTBEAT.drop(first._lease.token, first._beat)
    with begin(loads) as second:
        assert second.taken_over
        with pytest.raises(LeaseError, match=rf"taken over by process {os.getpid()} on"), first:
            first.confirm()
        second.confirm()
        second.finish(status="succeeded", figures=FIGURES)
    assert [(row.batch_id, row.status) for row in loads.recent()] == [(2, "succeeded"), (1, "failed")]


def test_a_lease_that_ran_out_is_not_revived_by_confirming(place: Place, begin: Begin) -> None:
    loads = place.loads(lease=0.4)
    with begin(loads) as ticket:
        HEARTBEAT.drop(ticket._lease.token, ticket._beat)
        time.sleep(0.6)
        with pytest.raises(LeaseError, match="it ran out: no sign of life since"):
            ticket.confirm()
        ticket.finish(status="stopped", figures={"deletes": 1, "current": 1})


def test_a_holder_elsewhere_is_waited_for_until_its_lease_runs_out(
    place: Place, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = place.loads(lease=1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform_core.control.holders.socket.gethostname", lambda: "elsewhere")
        gone = begin(loads)
        HEARTBEAT.drop(gone._lease.token, gone._beat)
    with pytest.raises(LeaseError, match="on elsewhere, batch 1"):
        begin(loads)
    with begin(loads, wait=20) as ticket:
        assert ticket.taken_over
        ticket.finish(status="succeeded", figures=FIGURES)


def test_a_process_that_has_the_number_of_a_dead_one_does_not_count_as_it(
    place: Place, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = place.loads()
    with monkeypatch.context() as before:
        before.setattr("platform_core.control.holders._stat", lambda pid: ("S", "1"))
        begin(loads)
    with begin(loads) as ticket:
        assert ticket.taken_over
        ticket.finish(status="succeeded", figures=FIGURES)


def test_leases_are_not_inherited_by_a_forked_process(place: Place, begin: Begin) -> None:
    loads = place.loads()
    with begin(loads) as ticket:
        child = os.fork()
        if child == 0:
            os._exit(_refused(loads, begin))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ticket.confirm()
        ticket.finish(status="succeeded", figures=FIGURES)


def _refused(loads: Loads, begin: Begin) -> int:
    try:
        begin(loads)
    except LeaseError:
        return 0
    return 1


def test_a_lease_has_the_length_that_the_environment_declares(place: Place) -> None:
    assert place.control.lease == timedelta(seconds=60)
