"""``edp alerts``: list what is wrong, test a channel, send again, close."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

import click

from platform_core.cli.plan import author_of, author_option, environment_option, json_option
from platform_core.errors import ConfigError, Issue, Place, PlatformError
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.alert_records import Alert, Delivery
    from platform_core.control.outbox import Outbox
    from platform_core.plugins.interfaces import SecretStore
    from platform_core.settings import Settings
    from platform_core.specs.alerts import AlertsSpec
    from platform_core.specs.environment import EnvironmentSpec

_REFERENCE = re.compile(r"(?:A-)?([0-9]{1,18})", re.IGNORECASE)


@click.group("alerts")
def command() -> None:
    """List alerts, test channels, send again, close.

    \b
    Examples:
      edp alerts list --env prod
      edp alerts test --channel team --env prod
      edp alerts close A-17 --env prod
    """


@command.command("list")
@environment_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="Most alerts.")
@json_option
def list_command(environment: str | None, limit: int, as_json: bool) -> None:
    """List open alerts and those that were closed last, with what became of their messages."""
    _, outbox, _ = _opened(read_settings(environment=environment))
    found = outbox.newest(limit=limit)
    if as_json:
        click.echo(json.dumps([_as_json(alert, sent) for alert, sent in found], indent=2))
        return
    for alert, sent in found:
        state = "open" if alert.closed_at is None else f"closed by {alert.closed_by or 'itself'}"
        click.echo(f"{alert.reference:<6} {alert.severity:<8} {_time(alert.seen_at)}  {alert.title}  ({state})")
        for delivery in sent:
            click.echo(f"         {delivery.kind} -> {delivery.channel}: {_standing(delivery)}")
    opened = sum(alert.closed_at is None for alert, _ in found)
    click.echo(f"{opened} open, {len(found) - opened} closed" if found else "no alerts")


@command.command("test")
@click.option("--channel", required=True, help="Name of a channel of the environment.")
@environment_option
def test_command(channel: str, environment: str | None) -> None:
    """Send a test message by one channel, at once and beside the outbox."""
    from platform_core.operations.alerts.dispatch import open_channels
    from platform_core.plugins.interfaces import AlertMessage
    from platform_core.specs.alerts import Severity

    settings = read_settings(environment=environment)
    spec, _, secrets = _opened(settings)
    alerts = _alerts(spec)
    if channel not in alerts.channels:
        raise ConfigError(
            [
                Issue(
                    spec.place or Place(settings.environments / f"{spec.name}.yaml"),
                    f"unknown channel '{channel}'",
                    (f"known channels: {', '.join(sorted(alerts.channels))}",),
                )
            ]
        )
    now = dt.datetime.now(dt.UTC)
    message = AlertMessage(
        id=f"edp-test-{now:%Y%m%d%H%M%S%f}",
        reference="test",
        severity=Severity.INFO,
        title=f"Test of channel {channel}",
        text=("If you can read this, alerts of the data platform reach you here.",),
        facts=(("Environment", spec.name), ("Sent", f"{now:%Y-%m-%d %H:%M} UTC")),
        link=alerts.base_url,
    )
    open_channels(alerts, secrets=secrets)[channel]().send(message, timeout=10)
    click.echo(f"channel {channel} ({alerts.channels[channel].type}) took a test message: look whether it arrived")


@command.command("send")
@click.argument("reference", metavar="[ALERT]", required=False)
@click.option("--channel", help="Only messages for this channel.")
@environment_option
def send_command(reference: str | None, channel: str | None, environment: str | None) -> None:
    """Send what is due, as the sensor does; with an ALERT let its unsent messages be tried again first."""
    from platform_core.operations.alerts.dispatch import Dispatcher, open_channels

    spec, outbox, secrets = _opened(read_settings(environment=environment))
    alerts = _alerts(spec)
    if reference is not None:
        number = _number(reference)
        if not outbox.send_again(number, channel=channel):
            raise PlatformError(f"{reference}: it has no unsent message\n  edp alerts list shows all")
    elif channel is not None:
        raise click.UsageError("--channel goes with an ALERT")
    channels = open_channels(alerts, secrets=secrets)
    done = Dispatcher(outbox, channels, fallback=alerts.fallback, tries=alerts.tries).deliver()
    click.echo(f"{len(done.sent)} sent, {len(done.postponed)} postponed, {len(done.failed)} not taken")
    if done.postponed or done.failed:
        raise SystemExit(1)


@command.command("close")
@click.argument("reference", metavar="ALERT")
@click.option("--quiet", is_flag=True, help="Tell nobody.")
@environment_option
@author_option
def close_command(reference: str, quiet: bool, environment: str | None, author: str | None) -> None:
    """Close an alert by hand; its channels are told who did."""
    from platform_core.operations.alerts.wording import told_of_closing

    settings = read_settings(environment=environment)
    _, outbox, _ = _opened(settings)
    number, by = _number(reference), author_of(settings, author)
    now = dt.datetime.now(dt.UTC)
    found = next((alert for alert in outbox.open_alerts() if alert.id == number), None)
    told = None if found is None or quiet else told_of_closing(found, by=by, now=now)
    if found is None or outbox.close(number, by=by, told=told) is None:
        raise PlatformError(f"{reference} is not open\n  edp alerts list shows all")
    click.echo(f"closed {found.reference}: {found.title}")


def _opened(settings: Settings) -> tuple[EnvironmentSpec, Outbox, SecretStore]:
    from platform_core.control.database import open_database
    from platform_core.control.environment import load_environment
    from platform_core.control.outbox import Outbox
    from platform_core.operations.platform import open_secrets

    spec = load_environment(settings)
    secrets = open_secrets(spec.secrets)
    return spec, Outbox(open_database(spec.control, state=settings.state, secrets=secrets)), secrets


def _alerts(spec: EnvironmentSpec) -> AlertsSpec:
    if spec.alerts is None:
        raise PlatformError(
            f"environment '{spec.name}' tells nobody\n  looked at: alerts in {spec.place or 'its file'}\n"
            "  declare channels there: docs/how-to/alerts.md"
        )
    return spec.alerts


def _number(reference: str) -> int:
    match = _REFERENCE.fullmatch(reference.strip())
    if match is None:
        raise click.UsageError("an alert is named like A-17")
    return int(match[1])


def _standing(delivery: Delivery) -> str:
    if delivery.status == "sent" and delivery.sent_at is not None:
        return f"sent {_time(delivery.sent_at)}"
    why = f": {delivery.error.splitlines()[0]}" if delivery.error else ""
    tries = f" after {delivery.tries} tries" if delivery.tries else ""
    until = f" until {_time(delivery.due_at)}" if delivery.status == "waiting" else ""
    return f"{delivery.status}{until}{tries}{why}"


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _as_json(alert: Alert, sent: list[Delivery]) -> dict[str, Any]:
    return {
        "alert": alert.reference,
        "event": str(alert.event),
        "severity": str(alert.severity),
        "workstream": alert.workstream,
        "title": alert.title,
        "owners": list(alert.owners),
        "times": alert.times,
        "opened_at": alert.opened_at.isoformat(),
        "seen_at": alert.seen_at.isoformat(),
        "closed_at": alert.closed_at.isoformat() if alert.closed_at else None,
        "closed_by": alert.closed_by,
        "run_id": alert.run_id,
        "messages": [
            {
                "kind": each.kind,
                "channel": each.channel,
                "status": each.status,
                "tries": each.tries,
                "sent_at": each.sent_at.isoformat() if each.sent_at else None,
                "error": each.error,
            }
            for each in sent
        ],
    }
