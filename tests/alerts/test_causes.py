"""Many failures, few causes: what one trouble did is one message."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest

from platform_core.control.outbox import Outbox
from platform_core.operations.alerts.causes import causes_of
from platform_core.operations.alerts.facts import (
    CheckOutcome,
    FailedStep,
    FinishedRun,
    ShownDashboard,
    Surroundings,
    workstream_owner,
)
from platform_core.operations.alerts.raising import is_unexplained, raise_alerts, remind
from platform_core.plugins.interfaces import AlertMessage
from platform_core.specs.alerts import AlertEvent, AlertRule, AlertsSpec, ChannelChoice, Severity
from platform_core.specs.table import TableRef
from tests.alerts.outboxes import MemoryChannel, dispatcher, let_all_be_due

NOW = dt.datetime(2026, 11, 21, 6, 0, tzinfo=dt.UTC)
ALERTS = AlertsSpec(channels={"team": ChannelChoice(type="teams")}, base_url="https://dagster.example.com/")
RULE = AlertRule(workstream="crm", name="all", channels=("team",))


def bronze(name: str) -> TableRef:
    return TableRef("crm", "bronze", name)


SALES = TableRef("crm", "dashboard", "sales")
MARGIN = TableRef("finance", "dashboard", "margin")
AROUND = Surroundings(
    inputs={
        TableRef("crm", "silver", "orders"): [bronze("orders")],
        SALES: [TableRef("crm", "silver", "orders")],
        MARGIN: [TableRef("crm", "silver", "orders")],
    },
    connections={bronze(name): "crm.erp" for name in ("orders", "customers", "riders")},
    owners={
        workstream_owner("crm"): ("team:crm",),
        MARGIN: ("team:finance",),
    },
)


REFUSED = FailedStep(step="d", makes=(SALES,), error_class="InputsError", error="not up to date", at=NOW)


def failed(name: str, error: str = "", *, error_class: str = "SourceError") -> FailedStep:
    text = error or f"crm.bronze.{name}: source erp does not answer"
    return FailedStep(step=name, makes=(bronze(name),), error_class=error_class, error=text, at=NOW)


def run(*steps: FailedStep, skipped: Sequence[TableRef] = (), run_id: str = "0b8f1c2d", **more: object) -> FinishedRun:
    return FinishedRun(
        run_id=run_id,
        job="crm",
        location="crm",
        succeeded=bool(more.pop("succeeded", not steps)),
        ended_at=NOW,
        failed=steps,
        skipped=tuple(skipped),
        **more,  # type: ignore[arg-type]
    )


def told(
    outbox: Outbox, *runs: FinishedRun, rules: tuple[AlertRule, ...] = (RULE,), around: Surroundings = AROUND
) -> list[AlertMessage]:
    """What the team is told of some runs."""
    team = MemoryChannel()
    for each in runs:
        raise_alerts(
            each,
            outbox=outbox,
            rules=rules,
            alerts=ALERTS,
            around=lambda: around,
            ages=lambda refs: [ShownDashboard(ref=ref, as_of=NOW - dt.timedelta(hours=26)) for ref in refs],
            now=dt.datetime.now(dt.UTC),
        )
        for _ in range(12):
            dispatcher(outbox, {"team": team}).deliver()
            if not outbox.due(limit=1):
                break
    return team.messages


def test_d6_a_thousand_dependents_of_one_failure_are_one_message(outbox: Outbox) -> None:
    dependents = [TableRef("crm", "silver", f"t{number}") for number in range(1_000)]
    around = Surroundings(inputs={ref: [bronze("orders")] for ref in dependents}, connections=AROUND.connections)
    (message,) = told(outbox, run(failed("orders"), skipped=dependents), around=around)
    facts = dict(message.facts)
    assert message.title == "crm.bronze.orders failed"
    assert facts["Not run because of it"].startswith("1,000: crm.silver.t0, ")
    assert facts["Not run because of it"].endswith("and 992 more")


def test_d6_a_thousand_tables_of_one_connection_are_one_message(outbox: Outbox) -> None:
    names = [f"t{number}" for number in range(1_000)]
    around = Surroundings(connections={bronze(name): "crm.erp" for name in names})
    (message,) = told(outbox, run(*[failed(name) for name in names]), around=around)
    assert message.title == "connection crm.erp: 1,000 tables failed"


def test_d6_a_thousand_steps_that_fail_for_their_own_reasons_are_one_message(outbox: Outbox) -> None:
    steps = [failed(f"t{number}", f"column {number} is gone", error_class="StepError") for number in range(1_000)]
    (message,) = told(outbox, run(*steps))
    assert message.title == "crm: 1,000 steps failed, for 1,000 reasons"


def test_d6_a_thousand_runs_that_fail_for_their_own_reasons_are_a_handful_of_messages(outbox: Outbox) -> None:
    runs = [
        run(failed(f"t{number}", f"column {number} is gone", error_class="StepError"), run_id=f"run-{number}")
        for number in range(100)
    ]
    messages = told(outbox, *runs)
    assert len(messages) == 11
    assert messages[-1].title.startswith("crm")


def test_the_message_says_what_is_stale_since_when_who_answers_and_where_to_look(outbox: Outbox) -> None:
    (message,) = told(outbox, run(failed("orders"), skipped=[TableRef("crm", "silver", "orders"), SALES]))
    facts = dict(message.facts)
    assert message.text == ("crm.bronze.orders: source erp does not answer",)
    assert facts["Not run because of it"] == "2: crm.silver.orders, crm.dashboard.sales"
    assert facts["Dashboards not renewed"].splitlines() == [
        "crm.dashboard.sales: data of 2026-11-20 04:00 UTC (26 hours old)",
        "finance.dashboard.margin: data of 2026-11-20 04:00 UTC (26 hours old)",
    ]
    assert facts["Owners"] == "team:crm, team:finance"
    assert message.link == "https://dagster.example.com/runs/0b8f1c2d"


def test_tables_of_one_connection_that_fail_differently_are_told_apart() -> None:
    found = causes_of(
        run(
            failed("orders"),
            failed("customers"),
            failed("riders", "crm.bronze.riders: password of user 'x' expired"),
        ),
        around=AROUND,
    )
    assert sorted(len(cause.refs) for cause in found) == [1, 2]


def test_names_of_tables_in_an_error_do_not_make_it_another_cause() -> None:
    text = "sqlite table '{0}': cannot open /data/shop.db, asked for by crm.bronze.{0}: no such file as that of {0}"
    around = Surroundings(connections={bronze(name): "crm.erp" for name in "ab"})
    (cause,) = causes_of(run(*[failed(name, text.format(name)) for name in "ab"]), around=around)
    assert cause.refs == (bronze("a"), bronze("b"))


def test_which_table_failed_first_does_not_change_the_message() -> None:
    one, two = failed("a", "cannot open shop.db"), failed("b", "cannot open shop.db")
    (found,), (other_way_round,) = (causes_of(run(*steps), around=AROUND) for steps in ((one, two), (two, one)))
    assert found == other_way_round
    assert found.refs == (bronze("a"), bronze("b"))


def test_figures_in_an_error_do_not_make_it_another_cause() -> None:
    steps = [failed(name, f"crm.bronze.{name}: no answer after {n} s") for n, name in enumerate(("orders", "riders"))]
    (cause,) = causes_of(run(*steps), around=AROUND)
    assert cause.refs == (bronze("orders"), bronze("riders"))


@pytest.mark.parametrize(
    ("error_class", "error", "event", "severity"),
    [
        ("DeletesStopped", "would flag 900 of 1,000", AlertEvent.DELETE_STOP, Severity.ERROR),
        ("Unclassified", "columns that are new: a", AlertEvent.PRIVACY, Severity.CRITICAL),
        ("SchemaError", "column gone; the table holds personal data", AlertEvent.FAILED, Severity.ERROR),
    ],
)
def test_the_event_follows_the_error(
    outbox: Outbox, error_class: str, error: str, event: AlertEvent, severity: Severity
) -> None:
    (message,) = told(outbox, run(failed("orders", error, error_class=error_class)))
    ((alert, _),) = outbox.newest(limit=5)
    assert (alert.event, message.severity) == (event, severity)


def test_a_dashboard_that_waits_for_an_open_alert_makes_no_second_message(outbox: Outbox) -> None:
    messages = told(outbox, run(failed("orders")), run(REFUSED, run_id="later"))
    assert [message.title for message in messages] == ["crm.bronze.orders failed"]


def test_a_dashboard_that_waits_for_a_run_that_died_makes_no_second_message(outbox: Outbox) -> None:
    dead = run(skipped=[bronze("orders")], succeeded=False, error="the process of the run has ended")
    messages = told(outbox, dead, run(REFUSED, run_id="later"))
    assert [message.title for message in messages] == ["run of crm failed"]


def test_a_dashboard_that_waits_for_what_failed_in_its_own_run_is_no_second_cause() -> None:
    assert [cause.what for cause in causes_of(run(failed("orders"), REFUSED), around=AROUND)] == ["connection crm.erp"]


def test_a_dashboard_whose_service_fails_is_told_though_a_table_below_it_failed_too(outbox: Outbox) -> None:
    broken = FailedStep(step="d", makes=(SALES,), error_class="RefreshError", error="HTTP 403", at=NOW)
    messages = told(outbox, run(failed("orders")), run(broken, run_id="later"))
    assert [message.title for message in messages] == ["crm.bronze.orders failed", "crm.dashboard.sales failed"]


def test_what_refused_its_inputs_is_unexplained_until_an_alert_says_what_is_wrong_with_them(outbox: Outbox) -> None:
    refusing = run(REFUSED, run_id="later")
    assert is_unexplained(refusing, outbox=outbox, around=lambda: AROUND)
    told(outbox, run(failed("orders")))
    assert not is_unexplained(refusing, outbox=outbox, around=lambda: AROUND)


def test_what_failed_for_a_reason_of_its_own_is_not_waited_with(outbox: Outbox) -> None:
    assert not is_unexplained(run(failed("orders")), outbox=outbox, around=lambda: AROUND)


def test_a_dashboard_that_fails_by_itself_is_told(outbox: Outbox) -> None:
    broken = FailedStep(step="d", makes=(SALES,), error_class="RefreshError", error="HTTP 403", at=NOW)
    (message,) = told(outbox, run(broken))
    assert message.title == "crm.dashboard.sales failed"
    assert "crm.dashboard.sales: data of" in dict(message.facts)["Dashboards not renewed"]


def test_a_check_that_blocks_nothing_is_a_warning_and_is_over_when_it_passes(outbox: Outbox) -> None:
    check = CheckOutcome(table=bronze("orders"), name="not_empty", passed=False, blocking=False, at=NOW)
    passed = CheckOutcome(
        table=bronze("orders"), name="not_empty", passed=True, blocking=False, at=NOW + dt.timedelta(hours=1)
    )
    first, second = told(outbox, run(checks=(check,)), run(checks=(passed,), run_id="later"))
    assert (first.title, first.severity) == ("crm.bronze.orders: 1 check failed", Severity.WARNING)
    assert second.good


def test_a_check_that_blocks_is_the_reason_of_its_step() -> None:
    check = CheckOutcome(table=bronze("orders"), name="unique", passed=False, blocking=True, at=NOW)
    step = failed("orders", "DagsterAssetCheckFailedError (its text is withheld)", error_class="Dagster")
    (cause,) = causes_of(run(step, checks=(check,)), around=AROUND)
    assert cause.error == "blocking check failed: unique"


def test_a_run_that_dies_before_any_step_is_told_with_what_it_did_not_do(outbox: Outbox) -> None:
    dead = run(skipped=[bronze("orders")], succeeded=False, error="the process of the run has ended")
    (message,) = told(outbox, dead)
    assert message.title == "run of crm failed"
    assert message.text == ("the process of the run has ended",)
    assert dict(message.facts)["Not run because of it"] == "1: crm.bronze.orders"


def test_a_cancelled_run_is_nobodys_alarm(outbox: Outbox) -> None:
    assert not told(outbox, run(succeeded=False, cancelled=True))


def test_rules_choose_by_owner_event_and_severity(outbox: Outbox) -> None:
    others = RULE.model_copy(update={"owners": ("team:finance",), "name": "others"})
    severe = RULE.model_copy(update={"at_least": Severity.CRITICAL, "name": "severe"})
    deploys = RULE.model_copy(update={"events": (AlertEvent.DEPLOY,), "name": "deploys"})
    elsewhere = RULE.model_copy(update={"workstream": "finance", "name": "elsewhere"})
    assert not told(outbox, run(failed("orders")), rules=(others, severe, deploys, elsewhere))
    assert len(outbox.open_alerts()) == 1


def test_a_rule_that_wants_no_recovery_gets_none(outbox: Outbox) -> None:
    rule = RULE.model_copy(update={"events": (AlertEvent.FAILED,)})
    well = run(run_id="later", built={bronze("orders"): NOW + dt.timedelta(hours=1)})
    messages = told(outbox, run(failed("orders")), well, rules=(rule,))
    assert [message.good for message in messages] == [False]
    assert not outbox.open_alerts()


def test_what_stays_broken_is_told_again_after_the_time_of_its_rule(outbox: Outbox) -> None:
    rule = AlertRule(workstream="crm", name="all", channels=("team",), remind=dt.timedelta(hours=12))
    told(outbox, run(failed("orders")), rules=(rule,))
    now = dt.datetime.now(dt.UTC)
    for hours, reminded in ((11, []), (13, ["A-1"])):
        later = now + dt.timedelta(hours=hours)
        assert remind(outbox=outbox, rules=(rule,), location="crm", now=later) == reminded
    let_all_be_due(outbox)
    team = MemoryChannel()
    dispatcher(outbox, {"team": team}).deliver()
    assert team.titles == ["Still: crm.bronze.orders failed"]
