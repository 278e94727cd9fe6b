"""Conformance suite of alert channels: what every channel promises, as tests that a team runs on its own.

Subclass :class:`AlertChannelSuite` and override the fixtures ``channel`` and ``inbox``; see ``plugins/testing.py``.
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from platform_core.errors import AlertError, AlertRefused
from platform_core.plugins.interfaces import AlertChannel, AlertMessage
from platform_core.specs.alerts import Severity

Mood = Literal["accepts", "busy", "down", "refuses", "answers a page", "hangs"]

PAGE = "<html><body><h1>Proxy says no to canary-1f0a6b</h1></body></html>"
"""What a service answers in the mood ``answers a page``, with status 502 where it has one."""

LINK = "https://dagster.example.com/runs/0b8f"
"""Where the message of the suite leads, and no other link may."""

_LINKED = re.compile(
    r"(?:https?|ftps?|file|ssh|ms-[a-z]+|data|javascript|mailto|tel|vbscript):(?!\])\S|\bwww\.\w|\b[\w-]+\.[a-z]{2,24}/\S",
    re.IGNORECASE,
)
_HOSTILE = (
    "[click](https://evil.example/a) https://evil.example/b http://evil.example www.evil.example",
    "<a href='https://evil.example'>x</a><img src=x onerror=alert(1)><script>alert(2)</script>",
    "<at>everyone</at> @channel @here <!channel> **bold** _it_ # head\n- list\n> quote ![p](//evil.example/p.png)",
    "javascript:alert(1) data:text/html;x mailto:a@evil.example evil.example/login \\\\evil.example\\share",
    "line\r\nBcc: victim@example.com\r\n\r\nbody \u202egnp.exe \x00\x1b[31m \u200bzero",
    "{{template}} ${var} %s %(x)s {0} &lt;b&gt; &#60;b&#62; \"quoted\" 'quoted'",
)


@dataclass(frozen=True, kw_only=True)
class Received:
    """One message as a person sees it.

    Args:
        title: its headline.
        text: all that can be read of it, the title included.
        links: addresses that can be clicked.
        mentions: names that it notifies.
        markup: names of elements that come from the message's own texts, such as ``script``.
    """

    title: str
    text: str
    links: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    markup: tuple[str, ...] = ()

    def all_links(self) -> set[str]:
        """Those of the service, and what its readers' programs would make links of."""
        return {*self.links, *(found[0] for found in _LINKED.finditer(self.text.replace(LINK, "")))}


class Inbox(ABC):
    """The service that a channel hands messages to, on this machine."""

    @abstractmethod
    def received(self) -> Sequence[Received]:
        """What has arrived, in order."""

    @abstractmethod
    def become(self, mood: Mood) -> None:
        """Answer so from now on; ``busy`` asks for a pause of 7 seconds where the protocol can."""


MESSAGE = AlertMessage(
    id="edp-0123456789abcdef",
    reference="A-17",
    severity=Severity.ERROR,
    title="connection crm.erp: 12 tables failed",
    text=("crm.bronze.orders: the source does not answer",),
    facts=(("Owners", "team:crm"), ("Dashboards not renewed", "crm.dashboard.sales: data of 2026-11-20 06:00 UTC")),
    link=LINK,
)


class AlertChannelSuite:
    """What every alert channel promises; override the fixtures ``channel`` and ``inbox``."""

    @pytest.fixture
    def inbox(self) -> Inbox:
        """The service, empty and in the mood ``accepts``."""
        raise NotImplementedError("override the fixture 'inbox'")

    @pytest.fixture
    def channel(self, inbox: Inbox) -> AlertChannel:
        """The channel, with options that lead to the inbox."""
        raise NotImplementedError("override the fixture 'channel'")

    def test_a_person_reads_all_that_was_said(self, channel: AlertChannel, inbox: Inbox) -> None:
        channel.send(MESSAGE, timeout=5)
        (seen,) = inbox.received()
        assert MESSAGE.title in seen.title
        for part in (*MESSAGE.text, MESSAGE.reference, "team:crm", "crm.dashboard.sales: data of 2026-11-20 06:00 UTC"):
            assert part in seen.text
        assert seen.all_links() == {LINK}

    def test_a_message_without_a_run_has_no_link(self, channel: AlertChannel, inbox: Inbox) -> None:
        channel.send(replace(MESSAGE, link=None), timeout=5)
        (seen,) = inbox.received()
        assert not seen.all_links()

    @pytest.mark.parametrize("text", _HOSTILE, ids=range(len(_HOSTILE)))
    def test_no_text_becomes_a_link_a_mention_or_markup(self, channel: AlertChannel, inbox: Inbox, text: str) -> None:
        hostile = replace(MESSAGE, title=text, text=(text,), facts=((text, text),), answers_title=text)
        channel.send(hostile, timeout=5)
        (seen,) = inbox.received()
        assert seen.all_links() == {LINK}
        assert not seen.mentions
        assert not seen.markup
        assert "\n" not in seen.title
        assert not re.search("[\x00\x1b\u200b\u202e]", seen.text)

    def test_a_long_message_is_cut_and_arrives(self, channel: AlertChannel, inbox: Inbox) -> None:
        long = replace(MESSAGE, title="t" * 5_000, text=("x" * 100_000,) * 5, facts=(("n" * 500, "é" * 50_000),) * 30)
        channel.send(long, timeout=5)
        (seen,) = inbox.received()
        assert MESSAGE.reference in seen.text
        assert len(seen.text) < 200_000

    def test_an_answer_names_what_it_closes(self, channel: AlertChannel, inbox: Inbox) -> None:
        first = channel.send(MESSAGE, timeout=5)
        over = replace(
            MESSAGE, id="edp-fedcba", title="Over", good=True, answers=first, answers_title=MESSAGE.title, facts=()
        )
        channel.send(over, timeout=5)
        _, seen = inbox.received()
        assert MESSAGE.reference in seen.text

    def test_a_busy_or_broken_service_is_tried_again(self, channel: AlertChannel, inbox: Inbox) -> None:
        for mood in ("busy", "down", "answers a page"):
            inbox.become(mood)
            with pytest.raises(AlertError) as caught:
                channel.send(MESSAGE, timeout=5)
            assert not isinstance(caught.value, AlertRefused), mood
            assert caught.value.retry_after in (None, 7.0), mood
        inbox.become("accepts")
        channel.send(MESSAGE, timeout=5)
        assert inbox.received()

    def test_a_service_that_refuses_is_not_tried_again(self, channel: AlertChannel, inbox: Inbox) -> None:
        inbox.become("refuses")
        with pytest.raises(AlertRefused):
            channel.send(MESSAGE, timeout=5)

    def test_a_service_that_hangs_is_left_in_time(self, channel: AlertChannel, inbox: Inbox) -> None:
        inbox.become("hangs")
        began = time.monotonic()
        with pytest.raises(AlertError) as caught:
            channel.send(MESSAGE, timeout=0.5)
        assert time.monotonic() - began < 5
        assert not isinstance(caught.value, AlertRefused)

    def test_no_error_repeats_an_answer_or_the_message(self, channel: AlertChannel, inbox: Inbox) -> None:
        for mood in ("answers a page", "refuses", "busy"):
            inbox.become(mood)
            with pytest.raises(AlertError) as caught:
                channel.send(replace(MESSAGE, text=("canary-1f0a6b",)), timeout=5)
            told = _chain(caught.value)
            assert "canary-1f0a6b" not in told
            assert "Proxy says no" not in told


def _chain(error: BaseException | None) -> str:
    """What an error and all that it came from say."""
    told = []
    while error is not None:
        told.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    return "\n".join(told)
