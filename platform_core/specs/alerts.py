"""Whom to tell of what: ``control/alerts.yaml``, and the channels that an environment has."""

from __future__ import annotations

import datetime as dt
import re
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from platform_core.specs.base import Duration, Model, Name, Owner, Plain, Spec

_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


class AlertEvent(StrEnum):
    """What may be told."""

    FAILED = "failed"
    RECOVERED = "recovered"
    LATE = "late"
    STALE = "stale"
    DELETE_STOP = "delete_stop"
    PRIVACY = "privacy"
    DEPLOY = "deploy"


class Severity(StrEnum):
    """How much something matters, in rising order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Larger for what matters more."""
        return tuple(Severity).index(self)


USUAL_SEVERITY = {
    AlertEvent.FAILED: Severity.ERROR,
    AlertEvent.RECOVERED: Severity.INFO,
    AlertEvent.LATE: Severity.WARNING,
    AlertEvent.STALE: Severity.WARNING,
    AlertEvent.DELETE_STOP: Severity.ERROR,
    AlertEvent.PRIVACY: Severity.CRITICAL,
    AlertEvent.DEPLOY: Severity.INFO,
}
"""Severity by event, where no rule says otherwise."""


def _check_time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError("must read like '22:00': hours and minutes of a day, in quotes")
    return value


TimeOfDay = Annotated[str, AfterValidator(_check_time), Field(json_schema_extra={"pattern": f"^({_TIME.pattern})$"})]
"""A time of a day, written like ``22:00``."""


class QuietHours(Model):
    """Hours in which nobody is disturbed by what can wait."""

    model_config = ConfigDict(populate_by_name=True)

    start: TimeOfDay = Field(alias="from", description="First minute, such as '22:00'.")
    until: TimeOfDay = Field(description="End; before 'from' it is on the next day.")
    timezone: str = Field(description="Such as Europe/Amsterdam.")
    below: Severity = Field(
        default=Severity.CRITICAL, description="What is less severe than this waits until the hours are over."
    )

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.start == self.until:
            raise ValueError("'from' and 'until' are equal; leave quiet_hours out to have none")
        if self.below is Severity.INFO:
            raise ValueError("'below: info' lets nothing wait; leave quiet_hours out to have none")
        return self

    def end(self, now: dt.datetime) -> dt.datetime | None:
        """When the quiet hours that hold at a moment are over, UTC; None where none hold.

        Raises:
            zoneinfo.ZoneInfoNotFoundError: there is no such time zone.
        """
        zone = ZoneInfo(self.timezone)
        here = now.astimezone(zone)
        minute = here.hour * 60 + here.minute
        start, until = _minutes(self.start), _minutes(self.until)
        if start < until:
            quiet, day = start <= minute < until, here.date()
        else:
            quiet = minute >= start or minute < until
            day = here.date() + dt.timedelta(days=1 if minute >= start else 0)
        if not quiet:
            return None
        ends = dt.datetime.combine(day, dt.time(*divmod(until, 60)), tzinfo=zone)
        return ends.astimezone(dt.UTC)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


class ChannelChoice(Model):
    """A channel: a plug-in and its options."""

    type: str = Field(description="Name of the plug-in: teams, ntfy, email, …")
    options: Plain = Field(default_factory=dict)


class AlertsSpec(Model):
    """How an environment reaches people."""

    channels: dict[Name, ChannelChoice] = Field(min_length=1, description="Channels by name; rules name them.")
    fallback: tuple[Name, ...] = Field(
        default=(), description="Channels that take, in this order, what another one could not deliver."
    )
    base_url: str | None = Field(
        default=None, description="Address of Dagster's UI, for links to runs, such as https://dagster.example.com."
    )
    tries: int = Field(default=5, ge=1, description="Tries on one channel before the next of 'fallback' takes over.")
    keep: Duration = Field(
        default=dt.timedelta(days=90), description="How long closed alerts and the log of steps are kept."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if len(set(self.fallback)) != len(self.fallback):
            raise ValueError("'fallback' names a channel twice")
        if self.base_url is not None and not _URL.fullmatch(self.base_url):
            raise ValueError("'base_url' must begin with https:// or http:// and hold no blanks, user or query")
        return self

    def run_url(self, run_id: str) -> str | None:
        """Address of a run's page; None where the UI has none."""
        return f"{self.base_url.rstrip('/')}/runs/{run_id}" if self.base_url else None


class AlertRule(Spec):
    """Whom to tell of what happens in a workstream."""

    model_config = ConfigDict(populate_by_name=True)

    workstream: Name
    name: Name
    events: tuple[AlertEvent, ...] = Field(
        default=(AlertEvent.FAILED, AlertEvent.RECOVERED, AlertEvent.DELETE_STOP, AlertEvent.PRIVACY),
        min_length=1,
        description="What is told: failed, recovered, late, stale, delete_stop, privacy, deploy.",
    )
    channels: tuple[Name, ...] = Field(
        min_length=1, description="Channels of the environment; each gets the message once."
    )
    owners: tuple[Owner, ...] = Field(
        default=(), description="Only what one of these answers for; default: everything of the workstream."
    )
    severity: Severity | None = Field(
        default=None, description="How much it matters here; default: by event, such as error where something failed."
    )
    at_least: Severity = Field(default=Severity.INFO, description="What matters less is not told.")
    quiet_hours: QuietHours | None = Field(default=None, description="Hours in which what can wait is held back.")
    remind: Duration | None = Field(
        default=None, description="Tell again after this time what is not mended; default: once is enough."
    )
    late_after: Duration | None = Field(
        default=None,
        description="late: so long after the time of its schedule no run of the workstream has succeeded. Tables with "
        "an expectation 'fresh' are watched without it: late is what nothing has built for so long.",
    )
    stale_after: Duration | None = Field(
        default=None, description="stale: a dashboard shows data that is older than this."
    )
    description: str = ""

    @model_validator(mode="after")
    def _check_events(self) -> Self:
        for event, field in ((AlertEvent.LATE, "late_after"), (AlertEvent.STALE, "stale_after")):
            given = getattr(self, field) is not None
            # Tables that say themselves how fresh they are to be can be late without it.
            if event is AlertEvent.STALE and event in self.events and not given:
                raise ValueError(f"'{field}' is missing: event {event} needs it")
            if given and event not in self.events:
                raise ValueError(f"'{field}' means nothing without event {event}")
        for field in ("events", "channels", "owners"):
            named = getattr(self, field)
            if len(set(named)) != len(named):
                raise ValueError(f"'{field}' names something twice")
        for field in ("remind", "late_after", "stale_after"):
            span = getattr(self, field)
            if span is not None and span < dt.timedelta(minutes=1):
                raise ValueError(f"'{field}' must be at least a minute")
        return self
