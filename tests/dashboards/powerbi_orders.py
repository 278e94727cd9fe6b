"""Random orders of what can happen around a Power BI dataset, with an oracle that knows what really happened.

Tables are committed, others refresh the dataset, the service throttles, loses answers, ends refreshes badly, and our
own process is killed or cancelled. Whoever runs the platform refreshes whenever a table was made since the last
success, and tries again after a failure. Time passes only where somebody waits, and a little with each request.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
import random
import sys
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from platform_core.dashboards.powerbi import PowerBIDashboard
from platform_core.dashboards.powerbi_options import PowerBIConnection, PowerBIOptions
from platform_core.dashboards.powerbi_service import Answer, Exchange
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import RefreshRequest, Secret
from tests.dashboards.powerbi_server import (
    CLIENT,
    DATASET,
    SECRET,
    TENANT,
    WORKSPACE,
    Entry,
    Fault,
    PowerBIServer,
)

ENDS = ("Failed", "Cancelled", "Disabled", "TimedOut")
NOWHERE = "http://127.0.0.1:9"
MOST_ATTEMPTS = 60
KNOWN_AFTER = 4.0
"""Seconds after a commit from which on a refresh of somebody else is known to have read it, at the latest."""

LOSES = {"closed": Fault(), "unavailable": Fault(status=503), "gateway": Fault(status=502)}


class KilledError(BaseException):
    """Our process is gone."""


@dataclass
class Figures:
    """What became of many orders."""

    orders: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    doubled: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    false_successes: list[str] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {what}" for what, count in sorted(self.happened.items()))
        return (
            f"{self.orders} orders: {told}\n{len(self.doubled)} double refreshes, {len(self.stale)} stale dashboards, "
            f"{len(self.false_successes)} false successes, {len(self.endless)} without an end"
        )


class Order:
    """One order, from a seed."""

    def __init__(self, seed: int, figures: Figures, *, service: PowerBIServer) -> None:
        self.seed = seed
        self.figures = figures
        self.service = service
        self.random = random.Random(seed)
        self.faults_left = self.random.choice((0, 2, 6, 12))
        self.commits = sorted(self.random.uniform(-600.0, 9_000.0) for _ in range(self.random.randint(1, 4)))
        self.others = sorted(self.random.uniform(-600.0, 9_000.0) for _ in range(self.random.choice((0, 1, 3))))
        self.shown_as_of: float | None = None
        self.ours: dict[str, float] = {}
        self.memory: Mapping[str, Any] = {}
        self.options: dict[str, Any] = self.random.choice(({}, {"tables": ["Rides"]}))
        self.cancelled_from: float | None = None
        self._refresh_for_the_first_time()
        self._set_up()

    def _refresh_for_the_first_time(self) -> None:
        """Undisturbed, so that the platform has seen what its request comes to."""
        self.service.clock.seconds = -2_000.0
        dashboard(self.service, exchange=self.exchange(), **self.options).refresh(self._request(-2_100.0))
        self.service.clock.seconds = 0.0

    def _set_up(self) -> None:
        service = self.service
        service.ahead = dt.timedelta(seconds=self.random.choice((0.0, 0.4, -3_600.0, 77.7)))
        service.busy_status = self.random.choice((400, 409))
        service.token_lifetime = self.random.choice((3599, 900, "120"))
        service.list_delay = self.random.choice((0.0, 0.0, 5.0, 20.0))
        service.latency = lambda: self.random.uniform(0.01, 0.8)
        service.accepts = self._judge
        service.choose = self._fault
        self._vary()

    def play(self) -> None:
        """Let everything happen, until all tables are shown as they are."""
        self.figures.orders += 1
        for _ in range(MOST_ATTEMPTS):
            if not self._is_due():
                later = [moment for moment in (*self.commits, *self.others) if moment > self._now()]
                if not later:
                    break
                self._pass(min(later) - self._now() + 0.01)
                continue
            self._attempt()
        else:
            self.figures.endless.append(self._say("is refreshed again and again"))
        newest = self.commits[-1]
        if not any(self._has_shown(entry, newest) for entry in self.service.entries):
            self.figures.stale.append(self._say("does not show the newest commit"))

    def _attempt(self) -> None:
        newest = self._newest_commit()
        options = self.options | {"poll_interval": self.random.choice(("30 seconds", "5 minutes"))}
        self.cancelled_from = None
        if self._happens("cancelled by a person", 0.05):
            self.cancelled_from = self._now() + self.random.uniform(0.0, 900.0)
        try:
            dashboard(self.service, exchange=self.exchange(), **options).refresh(self._request(newest))
        except RefreshError:
            self.figures.happened["failed attempts"] += 1
        except KilledError:
            self.figures.happened["killed processes"] += 1
        else:
            self.figures.happened["successes"] += 1
            self.shown_as_of = newest
            if not any(self._has_shown(entry, newest) for entry in self.service.entries):
                self.figures.false_successes.append(self._say(f"succeeded without showing the commit at {newest}"))
            return
        self._pass(self.random.choice((30.0, 60.0, 600.0)))

    def exchange(self) -> Exchange | None:
        """What carries requests: within the process, so that thousands of orders take seconds."""
        return self._carry

    def _carry(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
        form: Mapping[str, str] | None,
    ) -> Answer:
        data = urllib.parse.urlencode(form) if form else json.dumps(body)
        path = url.removeprefix(NOWHERE)
        fault, answer = self.service.serve(method, path, data.encode(), headers.get("Authorization", ""))
        if fault is not None and fault.silence:
            self._pass(30.0)
            raise httpx.ReadTimeout("no answer")
        if answer is None:
            raise httpx.RemoteProtocolError("closed")
        status, told, content = answer
        lowered = {"date": self.service.http_date()} | {name.lower(): value for name, value in told.items()}
        return Answer(status=status, headers=lowered, body=None if isinstance(content, bytes) else content)

    def _request(self, newest: float) -> RefreshRequest:
        return RefreshRequest(
            name="mobility.dashboard.ridership",
            title="Ridership",
            tables={},
            folder="",
            as_of=self.service.clock.at(newest),
            log=lambda _: None,
            remembered=self.memory,
            remember=self._remember,
            cancelled=lambda: self.cancelled_from is not None and self._now() >= self.cancelled_from,
        )

    def _remember(self, memory: Mapping[str, Any]) -> None:
        self.memory = json.loads(json.dumps(memory))

    def _fault(self, kind: str) -> Fault | None:
        """What goes wrong with one request."""
        self._others_start()
        self._vary()
        if self.faults_left <= 0 or self.random.random() > 0.25:
            return None
        self.faults_left -= 1
        process = self.random.random() < 0.5
        what = self.random.choice(("throttled", "killed", "refused token", "silent", "no id", "page of HTML", *LOSES))
        if kind == "DELETE" or (what == "refused token" and kind == "token") or (what == "no id" and kind != "POST"):
            what = "closed"
        self.figures.happened[f"{kind} {what}"] += 1
        match what:
            case "throttled":
                return Fault(status=429, headers=self._retry_after())
            case "killed":
                return Fault(process=process, action=_die)
            case "refused token":
                return Fault(status=401)
            case "silent":
                return Fault(process=process, silence=30.0)
            case "no id":
                return Fault(process=True, status=202)
            case "page of HTML":
                return Fault(process=process, status=502, body=b"<html>Bad gateway</html>")
            case _:
                lost = LOSES[what]
                return Fault(process=process, status=lost.status)

    def _retry_after(self) -> dict[str, str]:
        until = self.service.now() + dt.timedelta(seconds=45)
        date = email.utils.format_datetime(until.replace(microsecond=0), usegmt=True)
        return self.random.choice(({"Retry-After": "90"}, {"Retry-After": date}, {}, {"Retry-After": "\u00b2"}))

    def _vary(self) -> None:
        """How the next refresh will go."""
        bad = self.random.random() < 0.2
        self.service.duration = self.random.choice((1.0, 20.0, 300.0, 1_500.0))
        if bad and self.random.random() < 0.2:
            self.service.duration = 18_000.0
        self.service.outcome = self.random.choice(ENDS) if bad and self.faults_left > 0 else "Completed"
        if bad and self.faults_left > 0:
            self.faults_left -= 1

    def _others_start(self) -> None:
        """Somebody else refreshes the dataset, if its time has come and nobody does."""
        while self.others and self.others[0] <= self._now() and not self.service.running():
            self.others.pop(0)
            kind = self.random.choice(("Scheduled", "ViaEnhancedApi"))
            tables = self.random.choice(([], [{"table": "Other"}])) if kind == "ViaEnhancedApi" else []
            body = {"type": "full", "objects": tables} if tables else {"type": "full"}
            self.service.start(kind=kind, body=body)
            self.figures.happened["refreshes of others"] += 1

    def _judge(self, entry: Entry) -> None:
        """A request of ours was accepted: was it needed?"""
        self.figures.happened["refreshes of ours"] += 1
        self.figures.happened[f"of ours to end as {entry.outcome}"] += 1
        newest = self._newest_commit(known=entry)
        for other in self.service.entries:
            if other is entry or other.outcome != "Completed" or not self._covers(other):
                continue
            # One that was asked for with that commit in view; any other, if it surely began after it.
            if self.ours.get(other.id, -math.inf) >= newest or other.started >= newest + KNOWN_AFTER:
                self.figures.doubled.append(self._say(f"{other.id} showed the commit at {newest} already"))
        self.ours[entry.id] = newest

    def _newest_commit(self, *, known: Entry | None = None) -> float:
        # What the running attempt knows of: a commit that came since is the next one's.
        if known is not None:
            return self._attempt_as_of
        self._attempt_as_of = max(moment for moment in self.commits if moment <= self._now())
        return self._attempt_as_of

    def _is_due(self) -> bool:
        made = [moment for moment in self.commits if moment <= self._now()]
        return bool(made) and (self.shown_as_of is None or made[-1] > self.shown_as_of)

    def _has_shown(self, entry: Entry, commit: float) -> bool:
        ended = entry.started + entry.duration <= self._now()
        return entry.outcome == "Completed" and ended and entry.started >= commit and self._covers(entry)

    def _covers(self, entry: Entry) -> bool:
        shown = {part["table"] for part in entry.body.get("objects", ())}
        return not shown or set(self.options.get("tables", ("nothing less than all",))) <= shown

    def _happens(self, what: str, chance: float) -> bool:
        if self.faults_left <= 0 or self.random.random() > chance:
            return False
        self.faults_left -= 1
        self.figures.happened[what] += 1
        return True

    def _pass(self, seconds: float) -> None:
        self.service.clock.seconds += seconds
        self._others_start()

    def _now(self) -> float:
        return self.service.clock.seconds

    def _say(self, what: str) -> str:
        return f"seed {self.seed}: {what}"


class OrderOverHttp(Order):
    """The same over real HTTP."""

    def exchange(self) -> None:
        return None

    def _fault(self, kind: str) -> Fault | None:
        fault = super()._fault(kind)
        # The server is a thread of this process: who dies is not the client. A connection that breaks is.
        return None if fault is None else replace(fault, action=None, silence=None)


def _die() -> None:
    raise KilledError


def dashboard(
    service: PowerBIServer, *, exchange: Exchange | None = None, answer_within: float = 5.0, **options: Any
) -> PowerBIDashboard:
    """A dashboard of the dataset that the service holds."""
    connection = PowerBIConnection(
        tenant=TENANT,
        client_id=CLIENT,
        client_secret={"secret": "mobility/powerbi"},
        authority_url=service.url or NOWHERE,
        api_url=service.url or NOWHERE,
    )
    return PowerBIDashboard(
        PowerBIOptions(workspace=WORKSPACE, dataset=DATASET, **options),
        connection=connection,
        secret=lambda name: Secret(name, SECRET.encode()),
        root=Path(),
        clock=service.clock,
        answer_within=answer_within,
        exchange=exchange,
    )


def play_orders(seeds: range, *, make: Callable[[int, Figures], Order]) -> Figures:
    """Play one order for each seed."""
    figures = Figures()
    for seed in seeds:
        make(seed, figures).play()
    return figures


def main(orders: int, first: int = 0) -> None:
    """Play many orders and print what became of them."""
    figures = play_orders(
        range(first, first + orders), make=lambda seed, figures: Order(seed, figures, service=PowerBIServer())
    )
    wrong = [*figures.doubled, *figures.stale, *figures.false_successes, *figures.endless]
    sys.stdout.write("\n".join([str(figures), *wrong, ""]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
