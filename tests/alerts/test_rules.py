"""Rules and channels as people write them: what is wrong is told with file and line, for every environment."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from platform_core.control.environment import load_environment
from platform_core.control.store.codec import codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.workspace import examine
from platform_core.errors import ConfigError
from platform_core.settings import Settings
from platform_core.specs.alerts import AlertRule, AlertsSpec, QuietHours, Severity
from tests.conftest import PROJECT

RULES = """\
rules:
  - name: nights
    channels: [team]
    quiet_hours: {from: "22:00", until: "07:00", timezone: Europe/Amsterdam}
  - name: all
    events: [failed, recovered, deploy]
    owners: [team:crm]
    channels: [team, mail]
    remind: 12 hours
"""
ALERTS = """\
lake: {root: lake}
secrets: {type: files, options: {path: secrets}}
alerts:
  base_url: https://dagster.example.com
  channels:
    team: {type: teams, options: {url: {secret: platform/teams}}}
    mail:
      type: email
      options: {host: mail.example.com, from: edp@example.com, to: [ops@example.com]}
  fallback: [mail]
"""
SILENT = "lake: {root: lake}\nsecrets: {type: files, options: {path: secrets}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {
        "workspace.yaml": "load_from: []\n",
        "crm/control/location.yaml": """\
            location: crm
            workstreams: [{name: crm, owners: [team:crm], schedule: {cron: "0 6 * * *", timezone: UTC}}]
            """,
        "crm/control/alerts.yaml": RULES,
        "dagster_home/environments/dev.yaml": SILENT,
        "dagster_home/environments/prod.yaml": ALERTS,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return tmp_path


def faults(project: Path, *, environment: str = "dev") -> str:
    home = project / "dagster_home"
    settings = Settings(project=project, home=home, state=project / "state", environment=environment)
    found = examine(settings, only=[str(project / "crm")])
    return "\n".join(map(str, found.report.issues))


def edit(project: Path, file: str, old: str, new: str) -> None:
    path = project / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_rules_that_are_right_are_silent(project: Path) -> None:
    assert faults(project) == ""
    assert faults(project, environment="prod") == ""


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_an_unknown_channel_is_told_whichever_environment_is_checked(project: Path, environment: str) -> None:
    edit(project, "crm/control/alerts.yaml", "[team, mail]", "[team, mial]")
    assert faults(project, environment=environment) == (
        "crm/control/alerts.yaml:8: unknown channel 'mial' in environment 'prod'\n"
        "  known channels of environment 'prod': mail, team\n"
        "  did you mean 'mail'?"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Europe/Amsterdam", "Europe/Amsterdm", "crm/control/alerts.yaml:4: unknown time zone 'Europe/Amsterdm'"),
        ('"22:00"', '"25:00"', "crm/control/alerts.yaml:4: 'from': must read like '22:00'"),
        ('"22:00"', '"7 pm"', "crm/control/alerts.yaml:4: 'from': must read like '22:00'"),
        ('until: "07:00"', 'until: "22:00"', "crm/control/alerts.yaml:4: 'quiet_hours': 'from' and 'until' are equal"),
        ("failed, recovered", "fialed, recovered", "crm/control/alerts.yaml:6: unknown 'events' entry 'fialed'"),
        ("12 hours", "12 hour s", "crm/control/alerts.yaml:9: 'remind': must read like '2 hours'"),
        ("deploy]", "deploy, stale]", "'stale_after' is missing: event stale needs it"),
        ("remind: 12 hours", "late_after: 1 hours", "'late_after' means nothing without event late"),
        ("name: all", "name: nights", "rule 'nights' is declared twice"),
        (
            "[team:crm]",
            "[crm]",
            "crm/control/alerts.yaml:7: 'owners' (entry 1): must be an e-mail address or team:<name>",
        ),
    ],
)
def test_a_wrong_rule_is_told_with_its_line(project: Path, old: str, new: str, expected: str) -> None:
    edit(project, "crm/control/alerts.yaml", old, new)
    assert expected in faults(project)


def test_what_cannot_happen_is_not_promised(project: Path) -> None:
    edit(project, "crm/control/alerts.yaml", "deploy]", "stale, late]")
    edit(
        project,
        "crm/control/alerts.yaml",
        "remind: 12 hours",
        "{}".format("late_after: 1 hours\n    stale_after: 1 days"),
    )
    edit(project, "crm/control/location.yaml", ', schedule: {cron: "0 6 * * *", timezone: UTC}', "")
    told = faults(project)
    assert "crm/control/alerts.yaml:9: workstream 'crm' has no schedule, so no run of it can be late" in told
    assert "workstream 'crm' has no dashboard, so none of it can be stale" in told


def test_what_is_late_is_said_by_the_rule_or_by_a_table(project: Path) -> None:
    edit(project, "crm/control/alerts.yaml", "deploy]", "late]")
    told = faults(project)
    assert "crm/control/alerts.yaml:6: 'late_after' is missing: event late needs it, or a table that says how" in told
    for name, text in {
        "connections": "connections: [{name: erp, type: sqlite, path: '${env.state}/erp.db'}]\n",
        "ingestion": "source: erp\ntables: [{object: a, table: a, mode: append, expectations: [{fresh: 2 days}]}]\n",
    }.items():
        (project / "crm" / "control" / f"{name}.yaml").write_text(text)
    assert faults(project) == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: teams", "type: team", "prod.yaml:6: unknown alert channel 'team'"),
        ("url: {secret: platform/teams}", "url: https://x", "prod.yaml:6: 'url': expected {secret:"),
        ("to: [ops@example.com]", "to: [ops]", "prod.yaml:9: 'to' (entry 1): must be an e-mail address"),
        ("fallback: [mail]", "fallback: [mial]", "prod.yaml:10: unknown channel 'mial'"),
        ("https://dagster.example.com", "dagster.example.com", "'base_url' must begin with https://"),
        ("host: mail.example.com,", "host: m, user: u, password: {secret: platform/m}, security: none,", "in clear"),
    ],
)
def test_a_wrong_channel_is_told_with_its_line(project: Path, old: str, new: str, expected: str) -> None:
    edit(project, "dagster_home/environments/prod.yaml", old, new)
    home = project / "dagster_home"
    with pytest.raises(ConfigError) as caught:
        load_environment(Settings(project=project, home=home, state=project / "state", environment="prod"))
    assert expected in str(caught.value)


def test_a_rule_comes_back_from_its_row() -> None:
    rule = AlertRule.model_validate(
        {
            "workstream": "crm",
            "name": "nights",
            "channels": ("team",),
            "quiet_hours": {"from": "22:00", "until": "07:00", "timezone": "UTC", "below": "error"},
            "remind": dt.timedelta(hours=12),
        }
    )
    rows = codec(KINDS["alert"])
    row = rows.encode(rule, root=Path("/r"), state=Path("/s"))
    assert rows.decode(row, root=Path("/r"), state=Path("/s")) == rule


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-21T21:30:00+00:00", "2026-11-22T06:00:00+00:00"),
        ("2026-11-22T05:59:00+00:00", "2026-11-22T06:00:00+00:00"),
        ("2026-11-22T06:00:00+00:00", None),
        ("2026-11-22T12:00:00+00:00", None),
        ("2026-11-21T20:59:00+00:00", None),
        # Clocks go back at 01:00 UTC of this night, and forward of that one.
        ("2026-10-24T20:30:00+00:00", "2026-10-25T06:00:00+00:00"),
        ("2026-03-28T21:30:00+00:00", "2026-03-29T05:00:00+00:00"),
    ],
)
def test_quiet_hours_are_those_of_their_time_zone(now: str, end: str | None) -> None:
    hours = QuietHours.model_validate({"from": "22:00", "until": "07:00", "timezone": "Europe/Amsterdam"})
    assert hours.end(dt.datetime.fromisoformat(now)) == (dt.datetime.fromisoformat(end) if end else None)


def test_hours_within_one_day_end_on_that_day() -> None:
    hours = QuietHours.model_validate({"from": "12:00", "until": "13:00", "timezone": "UTC"})
    noon = dt.datetime(2026, 11, 21, 12, 30, tzinfo=dt.UTC)
    assert hours.end(noon) == noon.replace(hour=13, minute=0)
    assert hours.end(noon.replace(hour=14)) is None


def test_severities_have_an_order() -> None:
    assert sorted(Severity, key=lambda each: each.rank) == ["info", "warning", "error", "critical"]


def test_the_examples_of_the_page_fit_together() -> None:
    page = (PROJECT / "docs" / "how-to" / "alerts.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall("```yaml\n(.*?)```", page, re.DOTALL)]
    (alerts,) = [AlertsSpec.model_validate(block["alerts"]) for block in blocks if "alerts" in block]
    rules = [
        AlertRule.model_validate({"workstream": block["workstream"], **rule})
        for block in blocks
        for rule in block.get("rules", ())
    ]
    assert {rule.name for rule in rules} == {"team", "night_watch", "desk"}
    assert {name for rule in rules for name in rule.channels} <= {*alerts.channels}
