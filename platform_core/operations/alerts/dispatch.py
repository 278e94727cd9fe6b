"""Sends what waits in the outbox: each channel on a thread of its own, every send bounded in time.

A message is sent at least once: who dies between sending and noting it lets the claim run out, and the message goes out
again under the same id, by which mail servers and ntfy know a second copy.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from platform_core.control.alert_records import Delivery, reference
from platform_core.control.outbox import LEASE, Outbox
from platform_core.errors import AlertError, AlertRefused, ControlError, PlatformError, redacted
from platform_core.faults import AlertPoint, reach
from platform_core.plugins.interfaces import AlertChannel, AlertMessage, SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.alerts import AlertsSpec

SEND_SECONDS = 10.0
"""Most seconds for one message; then the send counts as one whose outcome is not known."""

BUDGET_SECONDS = 25.0
"""Most seconds for one round; a sensor's tick has sixty."""

_FIRST_WAIT, _LONGEST_WAIT = 30.0, 1800.0
_AT_ONCE = 100
_GIVE_UP = dt.timedelta(days=7)

Channels = Mapping[str, Callable[[], AlertChannel]]
"""Opens a channel by its name."""


@dataclass
class Round:
    """What one round did: references of alerts by what became of their messages."""

    sent: list[str] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def open_channels(alerts: AlertsSpec, *, secrets: SecretStore) -> Channels:
    """The channels of an environment, each opened when it is first used."""

    def opened(type_: str, options: Mapping[str, Any]) -> AlertChannel:
        kind = plugin("alert channel", type_)
        channel: AlertChannel = kind(kind.Options(**options), secret=secrets.fresh)
        return channel

    return {name: partial(opened, choice.type, choice.options) for name, choice in alerts.channels.items()}


class Dispatcher:
    """Sends messages of one outbox; any number of dispatchers may work on it at once."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Channels,
        *,
        fallback: Sequence[str] = (),
        tries: int = 5,
        send_seconds: float = SEND_SECONDS,
        first_wait: float = _FIRST_WAIT,
        log: logging.Logger | None = None,
    ) -> None:
        """Keep what is needed.

        Args:
            fallback: channels that take, in order, what another could not deliver.
            tries: on one channel before the next of ``fallback`` takes over.
            send_seconds: most seconds for one message.
            first_wait: seconds after the first try; doubled with each.
        """
        if dt.timedelta(seconds=2 * send_seconds) > LEASE:
            raise ValueError("a message must be sent well within the time for which it is claimed")
        self._outbox = outbox
        self._channels = channels
        self._fallback = tuple(fallback)
        self._tries = tries
        self._send_seconds = send_seconds
        self._first_wait = first_wait
        self._log = log or logging.getLogger("platform_core.alerts")

    def deliver(self, *, budget: float = BUDGET_SECONDS) -> Round:
        """Send what is due, for so many seconds at most, and a send longer.

        Raises:
            ControlError: the control database is away; what was claimed goes out again later.
        """
        ends = time.monotonic() + budget
        done = Round()
        by_channel: dict[str, list[Delivery]] = {}
        for delivery in self._outbox.due(limit=_AT_ONCE):
            by_channel.setdefault(delivery.channel, []).append(delivery)
        troubles: list[BaseException] = []
        threads = [
            threading.Thread(
                target=self._serve, args=(waiting, ends, done, troubles), name=f"alerts {name}", daemon=True
            )
            for name, waiting in by_channel.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            # A send is bounded itself; what hangs beyond that, such as a library's lock, must not hold up a tick.
            thread.join(max(0.0, ends - time.monotonic()) + self._send_seconds + 5)
        for trouble in troubles:
            raise trouble
        return done

    def _serve(self, waiting: Sequence[Delivery], ends: float, done: Round, troubles: list[BaseException]) -> None:
        try:
            for delivery in waiting:
                if time.monotonic() >= ends:
                    return
                claimed = self._outbox.claim(delivery.id)
                if claimed is None:
                    continue
                if not self._send(claimed, done):
                    # A channel that does not answer takes its time once a round, not once a message.
                    return
        except (ControlError, PlatformError) as error:
            troubles.append(error)

    def _send(self, delivery: Delivery, done: Round) -> bool:
        """Send one message and note what became of it; false where the channel had better be left alone for now."""
        named = reference(delivery.alert_id)
        try:
            sent_as = self._within(delivery)
        except AlertError as error:
            return self._postpone(delivery, error, done)
        reach(AlertPoint.SENT)
        if not self._outbox.note_sent(delivery, sent_as=sent_as):
            self._log.warning("%s: sent by %s after its claim had run out; it may come twice", named, delivery.channel)
        done.sent.append(named)
        return True

    def _postpone(self, delivery: Delivery, error: AlertError, done: Round) -> bool:
        named, tries = reference(delivery.alert_id), delivery.tries + 1
        refused = isinstance(error, AlertRefused)
        instead = self._instead(delivery) if refused or tries >= self._tries else None
        age = dt.datetime.now(dt.UTC) - delivery.created_at
        over = refused or instead is not None or age > _GIVE_UP
        wait = None if over else dt.timedelta(seconds=self._pause(tries, error.retry_after))
        self._outbox.note_failed(delivery, error=str(error), wait=wait, instead=instead)
        (done.failed if over else done.postponed).append(named)
        then = f"goes to {instead}" if instead else ("stays unsent" if over else "is tried again")
        self._log.warning("%s: %s; it %s", named, str(error).splitlines()[0], then)
        return refused

    def _instead(self, delivery: Delivery) -> str | None:
        told = self._outbox.channels_told(delivery)
        return next((name for name in self._fallback if name in self._channels and name not in told), None)

    def _pause(self, tries: int, asked: float | None) -> float:
        usual = min(self._first_wait * 2 ** (tries - 1), _LONGEST_WAIT)
        if asked is not None:
            return float(max(asked, 1.0))
        return float(usual * random.uniform(0.8, 1.2))  # noqa: S311 - it only spreads attempts

    def _within(self, delivery: Delivery) -> str:
        """Hand a message over, within the time for one send.

        Raises:
            AlertError: it was not taken, or it is not known whether.
        """
        outcome: list[str | AlertError] = []

        def hand_over() -> None:
            try:
                outcome.append(self._handed_over(delivery))
            except AlertError as error:
                outcome.append(error)
            except PlatformError as error:
                # A secret that is missing, a plug-in that lacks a library: mended by people, not by the next try.
                outcome.append(AlertError(str(error)))
            except Exception as error:  # noqa: BLE001 - a plug-in's error may quote an address or the message
                outcome.append(AlertError(f"{delivery.channel}: {redacted(error)}"))

        thread = threading.Thread(target=hand_over, name=f"send {delivery.channel}", daemon=True)
        thread.start()
        thread.join(self._send_seconds)
        if not outcome:
            raise AlertError(f"{delivery.channel} did not answer within {self._send_seconds:g} seconds")
        found = outcome[0]
        if isinstance(found, AlertError):
            raise found
        return found

    def _handed_over(self, delivery: Delivery) -> str:
        opened = self._channels.get(delivery.channel)
        if opened is None:
            raise AlertRefused(f"the environment has no channel {delivery.channel}")
        return opened().send(message_of(delivery), timeout=0.8 * self._send_seconds)


def message_of(delivery: Delivery) -> AlertMessage:
    """What a channel is given."""
    told = delivery.told
    return AlertMessage(
        id=f"edp-{delivery.message_id}",
        reference=reference(delivery.alert_id),
        severity=told.severity,
        title=told.title,
        text=told.text,
        facts=told.facts,
        good=told.good,
        link=told.link,
        answers=delivery.answers,
        answers_title=delivery.answers_title,
    )
