from __future__ import annotations

import datetime as dt
import email.utils
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from platform_core.dashboards.powerbi import PowerBIDashboard
from platform_core.dashboards.powerbi_memory import Memory
from platform_core.dashboards.powerbi_options import PowerBIConnection, PowerBIOptions
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import RefreshRequest, Secret
from tests.dashboards.powerbi_server import CLIENT, DATASET, SECRET, TENANT, WORKSPACE, Fault, PowerBIServer
from tests.dashboards.suite import DashboardSuite

LOST_ANSWERS = {
    "closed after it was accepted": Fault(process=True),
    "gateway error after it was accepted": Fault(process=True, status=502),
    "silence after it was accepted": Fault(process=True, silence=5),
    "accepted without an id": Fault(process=True, status=202),
}


def dashboard(
    service: PowerBIServer, *, secret: str = SECRET, answer_within: float = 5.0, **options: Any
) -> PowerBIDashboard:
    connection = PowerBIConnection(
        tenant=TENANT,
        client_id=CLIENT,
        client_secret={"secret": "mobility/powerbi"},
        authority_url=service.url,
        api_url=service.url,
    )
    return PowerBIDashboard(
        PowerBIOptions(workspace=WORKSPACE, dataset=DATASET, **options),
        connection=connection,
        secret=lambda name: Secret(name, secret.encode()),
        root=Path(),
        clock=service.clock,
        answer_within=answer_within,
    )


def known(requests, *parts: str, **options: Any) -> dict[str, Any]:
    """What is remembered of a dataset whose refresh once came to these tables."""
    kept: list[dict[str, Any]] = []
    memory = Memory.read(
        requests(remember=kept.append), options=PowerBIOptions(workspace=WORKSPACE, dataset=DATASET, **options)
    )
    memory.note_parts(frozenset((part, "") for part in parts or ("Rides", "Weather", "Other")))
    return kept[-1]


@pytest.fixture
def request_(requests) -> RefreshRequest:
    return requests()


class TestSuite(DashboardSuite):
    @pytest.fixture
    def working(self, service: PowerBIServer) -> PowerBIDashboard:
        return dashboard(service)

    @pytest.fixture
    def failing(self, service: PowerBIServer) -> PowerBIDashboard:
        service.outcome = "Failed"
        return dashboard(service)

    @pytest.fixture
    def name(self) -> str:
        return "powerbi"

    def cancelled_request(self, requests) -> RefreshRequest:
        return requests(cancelled=lambda: True)


def test_it_asks_once_and_follows_its_own_request(service: PowerBIServer, requests) -> None:
    older = service.start(started=-3600.0, outcome="Failed")
    result = dashboard(service).refresh(requests())
    own = service.entries[-1]
    assert service.count("POST") == 1
    assert result.figures["request_id"] == own.id != older.id
    assert result.figures["state"] == "Completed"
    assert result.figures["refresh_seconds"] == 20
    assert {path for kind, path in service.requests if kind == "details"} == {service.requests[-1][1]}
    assert service.requests[-1][1].endswith(own.id)
    assert "refresh " + own.id + ": InProgress" in requests.lines


def test_it_looks_less_often_the_longer_it_takes(service: PowerBIServer, requests) -> None:
    service.duration = 3600.0
    dashboard(service).refresh(requests())
    assert 3600 / 30 < service.count("details") < 3600 / 30 + 12


def test_tables_and_type_are_asked_for_as_the_enhanced_api_wants_them(service: PowerBIServer, requests) -> None:
    tables = ["Rides", {"table": "Weather", "partition": "2026"}]
    dashboard(service, tables=tables, refresh_type="dataOnly").refresh(requests())
    assert service.bodies == [
        {
            "type": "dataOnly",
            "commitMode": "transactional",
            "objects": [{"table": "Rides"}, {"table": "Weather", "partition": "2026"}],
        }
    ]


@pytest.mark.parametrize("outcome", ["Failed", "Cancelled", "Disabled", "TimedOut"])
def test_d4_every_end_but_completed_is_an_error_with_state_and_id(
    service: PowerBIServer, requests, outcome: str
) -> None:
    service.outcome = outcome
    with pytest.raises(RefreshError, match=f"ended as {outcome}") as raised:
        dashboard(service).refresh(requests())
    assert service.entries[0].id in str(raised.value)
    assert service.count("POST") == 1


def test_a_failure_shows_the_code_and_not_the_text(service: PowerBIServer, requests) -> None:
    service.outcome = "Failed"
    service.error = {"errorCode": "ModelRefresh_Failed", "errorDescription": "duplicate value 'Jane Doe' in Riders"}
    with pytest.raises(RefreshError, match="ModelRefresh_Failed") as raised:
        dashboard(service).refresh(requests())
    assert "Jane" not in str(raised.value)


def test_a_state_nobody_knows_is_not_success(service: PowerBIServer, requests) -> None:
    service.outcome = "Succeeded"
    with pytest.raises(RefreshError, match="last seen as Succeeded"):
        dashboard(service).refresh(requests(timeout=dt.timedelta(minutes=2)))


@pytest.mark.parametrize("fault", LOST_ANSWERS.values(), ids=LOST_ANSWERS)
def test_d3_a_request_that_was_accepted_without_our_knowing_is_adopted(
    service: PowerBIServer, requests, fault: Fault
) -> None:
    service.order("POST", fault)
    result = dashboard(service, answer_within=0.5).refresh(requests(remembered=known(requests)))
    assert service.count("POST") == 1
    assert result.figures["request_id"] == service.entries[0].id
    assert len(service.entries) == 1


@pytest.mark.parametrize("fault", [Fault(), Fault(status=503)], ids=["closed", "unavailable"])
def test_d3_a_request_that_never_arrived_is_sent_again_after_a_look(
    service: PowerBIServer, requests, fault: Fault
) -> None:
    service.order("POST", fault)
    dashboard(service).refresh(requests())
    assert service.count("POST") == 2
    assert len(service.entries) == 1
    kinds = [kind for kind, _ in service.requests]
    first, second = (at for at, kind in enumerate(kinds) if kind == "POST")
    assert "list" in kinds[first:second]


def test_a_lost_request_that_the_history_shows_late_is_adopted_when_the_next_is_refused(
    service: PowerBIServer, requests
) -> None:
    service.list_delay = 15.0
    service.duration = 60.0
    service.order("POST", Fault(process=True))
    result = dashboard(service).refresh(requests(remembered=known(requests)))
    assert len(service.entries) == 1
    assert result.figures["request_id"] == service.entries[0].id


def test_an_older_refresh_or_one_of_other_tables_is_not_adopted(service: PowerBIServer, requests) -> None:
    service.start(started=-60.0, duration=10.0)
    # Starts while our request is lost, but shows another table.
    service.start(started=0.0, duration=1.0, listed_after=0.5, body={"type": "full", "objects": [{"table": "Other"}]})
    service.order("POST", Fault())
    result = dashboard(service, tables=["Rides"]).refresh(
        requests(remembered=known(requests, "Rides", tables=["Rides"]))
    )
    assert result.figures["request_id"] == service.entries[-1].id
    assert len(service.entries) == 3


def test_an_older_refresh_that_the_history_shows_late_is_not_adopted(service: PowerBIServer, requests) -> None:
    service.start(started=-60.0, duration=10.0, listed_after=60.5)
    service.order("POST", Fault())
    result = dashboard(service).refresh(requests(remembered=known(requests)))
    assert result.figures["request_id"] == service.entries[1].id


def test_a_refresh_that_ended_just_before_ours_was_asked_for_is_not_adopted(service: PowerBIServer, requests) -> None:
    service.start(started=-3.0, duration=1.0)
    service.order("POST", Fault())
    result = dashboard(service).refresh(requests(remembered=known(requests)))
    assert result.figures["request_id"] == service.entries[1].id


def test_clocks_that_differ_by_an_hour_do_not_hinder_adoption(service: PowerBIServer, requests) -> None:
    service.ahead = dt.timedelta(hours=-1)
    service.order("POST", Fault(process=True))
    dashboard(service).refresh(requests(remembered=known(requests)))
    assert service.count("POST") == 1


def test_requests_that_stay_unanswered_are_given_up(service: PowerBIServer, requests) -> None:
    service.order("POST", *[Fault()] * 9)
    with pytest.raises(RefreshError, match=r"without an answer.*may be running"):
        dashboard(service).refresh(requests())
    assert service.count("POST") == 3


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("kind", ["Scheduled", "ViaEnhancedApi"])
def test_a_running_refresh_is_waited_for_and_then_ours_is_asked_for(
    service: PowerBIServer, requests, status: int, kind: str
) -> None:
    service.busy_status = status
    other = service.start(duration=300.0, kind=kind)
    result = dashboard(service).refresh(requests())
    own = service.entries[-1]
    assert result.figures["request_id"] == own.id != other.id
    assert own.started >= 300
    assert result.figures["waited_for"] == 1
    assert service.count("POST") == 2
    assert any(other.id in line for line in requests.lines)


def test_a_refresh_that_the_history_hides_is_waited_for_with_growing_pauses(service: PowerBIServer, requests) -> None:
    service.start(duration=100.0, listed_after=1_000.0)
    dashboard(service).refresh(requests())
    assert service.entries[-1].started >= 100
    assert service.count("POST") < 10


def test_a_request_that_is_simply_wrong_is_not_repeated(service: PowerBIServer, requests) -> None:
    body = {"error": {"code": "InvalidRequest", "message": "table 'Jane Doe' does not exist"}}
    service.order("POST", Fault(status=400, body=body))
    with pytest.raises(RefreshError, match="does not accept the refresh: InvalidRequest") as raised:
        dashboard(service).refresh(requests())
    assert service.count("POST") == 1
    assert "Jane" not in str(raised.value)


@pytest.mark.parametrize(("status", "advice"), [(403, "write access"), (404, "check 'workspace'")])
def test_a_refusal_says_what_to_do(service: PowerBIServer, requests, status: int, advice: str) -> None:
    service.order("POST", Fault(status=status))
    with pytest.raises(RefreshError, match=advice):
        dashboard(service).refresh(requests())
    assert service.count("POST") == 1


def test_d1_too_many_requests_wait_as_many_seconds_as_told(service: PowerBIServer, requests) -> None:
    service.order("POST", Fault(status=429, headers={"Retry-After": "90"}))
    dashboard(service).refresh(requests())
    assert service.entries[0].started >= 90
    assert service.count("POST") == 2


def test_d1_too_many_requests_wait_until_the_date_told(service: PowerBIServer, requests) -> None:
    service.ahead = dt.timedelta(minutes=7)
    until = email.utils.format_datetime(service.now() + dt.timedelta(seconds=120), usegmt=True)
    service.order("POST", Fault(status=429, headers={"Retry-After": until}))
    dashboard(service).refresh(requests())
    assert 120 <= service.entries[0].started < 130


def test_a_wait_beyond_the_deadline_ends_at_once(service: PowerBIServer, requests) -> None:
    service.order("POST", Fault(status=429, headers={"Retry-After": "7200"}))
    with pytest.raises(RefreshError, match="not refreshed within 0:30:00; no refresh was accepted"):
        dashboard(service).refresh(requests(timeout=dt.timedelta(minutes=30)))
    assert service.clock.seconds < 60


@pytest.mark.parametrize("kind", ["list", "details", "token"])
@pytest.mark.parametrize(
    "fault", [Fault(), Fault(status=500), Fault(status=429)], ids=["closed", "server error", "throttled"]
)
def test_other_requests_are_repeated_a_few_times(service: PowerBIServer, requests, kind: str, fault: Fault) -> None:
    service.order(kind, fault, fault)
    dashboard(service).refresh(requests())
    assert service.count("POST") == 1


@pytest.mark.parametrize("kind", ["list", "details", "token"])
def test_other_requests_are_not_repeated_for_ever(service: PowerBIServer, requests, kind: str) -> None:
    service.order(kind, *[Fault(status=503)] * 50)
    with pytest.raises(RefreshError, match="failed 6 times in a row"):
        dashboard(service).refresh(requests())
    assert service.count(kind) == 6


def test_a_service_that_is_not_there_is_an_error_and_nothing_was_asked(service: PowerBIServer, requests) -> None:
    away = dashboard(service)
    nowhere = away.connection.model_copy(update={"api_url": "http://127.0.0.1:9"})
    away.connection = nowhere
    with pytest.raises(RefreshError, match="ConnectError"):
        away.refresh(requests())
    assert service.count("POST") == 0


def test_d4_a_refused_token_is_renewed_once(service: PowerBIServer, requests) -> None:
    service.order("details", Fault(status=401))
    dashboard(service).refresh(requests())
    assert len(service.tokens) == 2
    assert service.count("POST") == 1


def test_a_token_refused_again_is_an_error(service: PowerBIServer, requests) -> None:
    service.order("POST", Fault(status=401), Fault(status=401))
    with pytest.raises(RefreshError, match="refuses the token"):
        dashboard(service).refresh(requests())
    assert len(service.tokens) == 2
    assert service.entries == []


def test_a_token_is_renewed_before_it_ends(service: PowerBIServer, requests) -> None:
    service.duration = 3000.0
    service.token_lifetime = "600"
    dashboard(service).refresh(requests())
    assert 3000 // 600 <= len(service.tokens) <= 3000 // 500
    assert not any(fault for fault in service.faults.values())


def test_a_wrong_client_secret_is_an_error_with_the_code(service: PowerBIServer, requests) -> None:
    with pytest.raises(RefreshError, match=r"invalid_client, AADSTS7000215[\s\S]*mobility/powerbi"):
        dashboard(service, secret="not-the-secret").refresh(requests())
    assert service.count("token") == 1


def test_an_accepted_request_that_the_service_then_does_not_know_is_an_error(service: PowerBIServer, requests) -> None:
    service.dropping = True
    with pytest.raises(RefreshError, match="drops requests"):
        dashboard(service).refresh(requests())
    assert service.count("POST") == 1


def test_details_that_come_late_are_waited_for(service: PowerBIServer, requests) -> None:
    service.order("details", Fault(status=404), Fault(status=404))
    assert dashboard(service).refresh(requests()).figures["state"] == "Completed"


def test_d4_a_refresh_that_takes_too_long_is_an_error_with_state_and_id(service: PowerBIServer, requests) -> None:
    service.duration = 2_000.0
    with pytest.raises(RefreshError, match=r"not refreshed within 0:10:00.*last seen as InProgress") as raised:
        dashboard(service).refresh(requests(timeout=dt.timedelta(minutes=10)))
    assert service.entries[0].id in str(raised.value)
    assert service.clock.seconds <= 600


def test_waiting_for_another_refresh_is_bounded_too(service: PowerBIServer, requests) -> None:
    service.start(duration=86_400.0)
    with pytest.raises(RefreshError, match="another refresh of the dataset was running"):
        dashboard(service).refresh(requests(timeout=dt.timedelta(minutes=10)))
    assert service.count("POST") == 1


def test_a_cancelled_run_cancels_its_refresh_within_a_second(service: PowerBIServer, requests) -> None:
    service.duration = 600.0
    with pytest.raises(RefreshError, match="was cancelled at Power BI"):
        dashboard(service).refresh(requests(cancelled=lambda: service.clock.seconds >= 45))
    assert service.entries[0].outcome == "Cancelled"
    assert service.clock.seconds < 47


def test_a_cancellation_that_the_service_does_not_confirm_is_told(service: PowerBIServer, requests) -> None:
    service.duration = 600.0
    service.order("DELETE", Fault(status=500))
    with pytest.raises(RefreshError, match="it may be running"):
        dashboard(service).refresh(requests(cancelled=lambda: service.clock.seconds >= 45))
    assert service.count("DELETE") == 1


def test_a_refresh_of_someone_else_is_never_cancelled(service: PowerBIServer, requests) -> None:
    service.start(duration=600.0)
    with pytest.raises(RefreshError, match="none of ours was accepted"):
        dashboard(service).refresh(requests(cancelled=lambda: service.clock.seconds >= 45))
    assert service.count("DELETE") == 0


@pytest.mark.parametrize(
    "order",
    [
        ("token", Fault(status=400)),
        ("POST", Fault(status=403)),
        ("list", Fault(status=404)),
        ("details", Fault(status=418)),
    ],
    ids=lambda order: order[0],
)
def test_neither_secret_nor_token_is_in_any_error_log_or_repr(
    service: PowerBIServer, requests, caplog: pytest.LogCaptureFixture, order: tuple[str, Fault]
) -> None:
    caplog.set_level(logging.DEBUG)
    service.order(*order)
    refreshed = dashboard(service)
    with pytest.raises(RefreshError) as raised:
        refreshed.refresh(requests())
    chain: list[BaseException] = [raised.value]
    while (error := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(error)
    told = "".join(traceback.format_exception(raised.value)) + repr([vars(error) for error in chain])
    told += caplog.text + "\n".join(requests.lines) + repr(refreshed.connection) + repr(vars(refreshed))
    assert "mobility/powerbi" in told
    for kept in (SECRET, *service.tokens):
        assert kept not in told


def test_without_a_connection_it_says_so(service: PowerBIServer, requests) -> None:
    unconnected = PowerBIDashboard(dashboard(service).options, connection=None, secret=Secret, root=Path())
    with pytest.raises(RefreshError, match="needs 'connection'"):
        unconnected.refresh(requests())


@pytest.mark.parametrize(
    "url",
    ["http://api.powerbi.com", "ftp://127.0.0.1", "https://user:word@api.powerbi.com", "https://", "api.powerbi.com"],
)
def test_a_url_that_would_send_the_secret_in_clear_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="https://"):
        PowerBIConnection(tenant=TENANT, client_id=CLIENT, client_secret={"secret": "a/b"}, api_url=url)


@pytest.mark.parametrize("url", ["https://api.powerbi.cn/", "http://localhost:8080", "http://[::1]:8080"])
def test_other_clouds_and_this_machine_are_allowed(url: str) -> None:
    connection = PowerBIConnection(tenant=TENANT, client_id=CLIENT, client_secret={"secret": "a/b"}, api_url=url)
    assert connection.api_url == url.rstrip("/")


@pytest.mark.parametrize(
    "wrong", [{"workspace": "../x"}, {"poll_interval": "0 seconds"}, {"refresh_type": "add"}, {"tables": [{}]}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PowerBIOptions(**({"workspace": WORKSPACE, "dataset": DATASET} | wrong))


AS_OF = dt.datetime(2026, 11, 21, 5, 59, tzinfo=dt.UTC)
"""A minute before the clock of the tests begins."""


def test_d2_a_refresh_that_began_after_the_newest_table_is_attached_to_and_no_further_one_asked_for(
    service: PowerBIServer, requests
) -> None:
    other = service.start(started=-10.0, duration=300.0, kind="Scheduled")
    result = dashboard(service).refresh(requests(as_of=AS_OF))
    assert result.figures["request_id"] == other.id
    assert result.figures["asked_by"] == "another, or an earlier try"
    assert service.count("POST") == 0


def test_d2_a_refresh_that_began_before_the_newest_table_is_waited_for_and_ours_asked_for(
    service: PowerBIServer, requests
) -> None:
    service.start(started=-70.0, duration=300.0, kind="Scheduled")
    result = dashboard(service).refresh(requests(as_of=AS_OF))
    assert result.figures["request_id"] == service.entries[-1].id
    assert service.entries[-1].started >= 230
    assert result.figures["asked_by"] == "us"


def test_a_refresh_that_was_completed_after_the_newest_table_was_made_is_enough(
    service: PowerBIServer, requests
) -> None:
    other = service.start(started=-40.0, duration=20.0, kind="OnDemand")
    assert dashboard(service).refresh(requests(as_of=AS_OF)).figures["request_id"] == other.id
    assert service.count("POST") == 0


@pytest.mark.parametrize("outcome", ["Failed", "Cancelled", "Disabled"])
def test_an_attached_refresh_that_ends_badly_is_followed_by_ours(
    service: PowerBIServer, requests, outcome: str
) -> None:
    service.start(started=-10.0, duration=60.0, outcome=outcome, kind="Scheduled")
    result = dashboard(service).refresh(requests(as_of=AS_OF))
    assert result.figures["request_id"] == service.entries[-1].id
    assert len(service.entries) == 2


def test_a_refresh_of_unknown_extent_does_not_count(service: PowerBIServer, requests) -> None:
    service.start(started=-40.0, duration=20.0, body={"type": "full", "objects": [{"table": "Rides"}]})
    dashboard(service).refresh(requests(as_of=AS_OF))
    assert service.count("POST") == 1


@pytest.mark.parametrize(("tables", "asked"), [(("Rides", "Weather", "Other"), 0), (("Rides", "Weather"), 1)])
def test_an_enhanced_refresh_of_at_least_the_tables_that_ours_comes_to_counts(
    service: PowerBIServer, requests, tables: tuple[str, ...], asked: int
) -> None:
    body = {"type": "full", "objects": [{"table": table} for table in tables]}
    service.start(started=-40.0, duration=20.0, body=body)
    dashboard(service).refresh(requests(as_of=AS_OF, remembered=known(requests)))
    assert service.count("POST") == asked


def test_a_try_whose_process_died_is_gone_on_with_by_the_next(service: PowerBIServer, requests) -> None:
    memory: list[dict[str, Any]] = []
    service.order("details", Fault(status=418))
    with pytest.raises(RefreshError):
        dashboard(service).refresh(requests(as_of=AS_OF, remember=memory.append))
    dashboard(service).refresh(requests(as_of=AS_OF, remembered=memory[-1]))
    assert service.count("POST") == 1


def test_an_entry_that_never_changes_keeps_no_dashboard_waiting_for_ever(service: PowerBIServer, requests) -> None:
    ghost = service.start(started=-10.0, duration=1_000_000.0, kind="Scheduled")
    service.idle.add(ghost.id)
    result = dashboard(service).refresh(requests(as_of=AS_OF))
    assert result.figures["request_id"] == service.entries[-1].id != ghost.id


def test_no_request_is_sent_within_seconds_of_the_newest_commit(service: PowerBIServer, requests) -> None:
    dashboard(service).refresh(requests(as_of=service.clock.now()))
    assert service.entries[0].started >= 8


def test_waiting_is_bounded_by_two_hours_where_nothing_is_declared(service: PowerBIServer, requests) -> None:
    service.duration = 1_000_000.0
    with pytest.raises(RefreshError, match="not refreshed within 2:00:00"):
        dashboard(service, poll_interval="10 minutes").refresh(requests())
