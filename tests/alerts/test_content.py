"""FAULTS D7: whatever an error says, it is text, and nothing but text, where people read it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.alerts.email import written
from platform_core.alerts.ntfy import publication
from platform_core.alerts.plain_text import one_line, plain
from platform_core.alerts.teams import card, envelope
from platform_core.plugins.interfaces import AlertMessage
from platform_core.plugins.testing_alerts import _LINKED, LINK, MESSAGE, Received
from tests.alerts.services import seen_card, seen_mail

HOSTILE = st.sampled_from(
    (
        "[x](https://evil.example/a)",
        "https://evil.example",
        "HTTP://EVIL.example/a?b=c#d",
        "www.evil.example",
        "evil.example/login",
        "evil.example:8080",
        "mailto:a@evil.example",
        "javascript:alert(1)",
        "<script>alert(1)</script>",
        "<a href='//evil.example'>x</a>",
        "<img src=x onerror=alert(1)>",
        "<at>all</at>",
        "@here",
        "<!channel>",
        "**b** _i_ `c` # h",
        "\r\nBcc: v@example.com\r\n\r\n",
        "\x00\x1b[31m\u202e\u200b\u2066",
        "&lt;b&gt;&#x3C;",
        "]]>",
        '"',
        "'",
        "\\",
        "é北\U0001f600",
        "\n",
        " ",
        ":",
        "/",
        ".",
        "@",
        "<",
    )
)
TEXTS = st.lists(st.one_of(HOSTILE, st.text(max_size=12)), max_size=8).map("".join)
MESSAGES = st.builds(
    lambda title, texts, facts, about: replace(
        MESSAGE, title=title, text=tuple(texts), facts=tuple(facts), answers="<a@b.example>", answers_title=about
    ),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
    TEXTS,
)


def is_harmless(seen: Received) -> None:
    assert seen.all_links() == {LINK}
    assert not seen.mentions
    assert not seen.markup
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u202e\u2066]", seen.text)
    assert not re.search(r"@\w", re.sub(r"[\w.+-]+@example\.com", "", seen.text))


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_d7_no_program_makes_a_link_of_a_shown_text(text: str) -> None:
    shown = plain(text, most=500)
    assert not _LINKED.search(shown)
    assert not re.search(r"@\w|<at\b", shown, re.IGNORECASE)
    assert "\n" not in one_line(text, most=500)


@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_d7_what_is_shown_twice_is_shown_the_same(text: str) -> None:
    shown = plain(text, most=500)
    assert plain(shown, most=5_000) in (shown, shown.replace("\u2060", ""), re.sub(r"@(?=\w)", "@\u2060", shown))


@given(message=MESSAGES)
@settings(max_examples=50, deadline=None)
def test_d7_a_card_of_teams_holds_text_and_its_own_button_only(message: AlertMessage) -> None:
    made = card(message)
    is_harmless(seen_card(made))
    assert "entities" not in made["msteams"]
    assert len(json.dumps(envelope(message)).encode()) < 28_000


@given(message=MESSAGES)
@settings(max_examples=50, deadline=None)
def test_d7_a_mail_holds_text_and_its_own_button_only(message: AlertMessage) -> None:
    mail = written(message, sender="edp@example.com", to=("ops@example.com",))
    is_harmless(seen_mail(mail))
    assert sorted(set(mail.keys())) == sorted(mail.keys()), "no header stands twice"
    assert mail["To"] == "ops@example.com"


@given(message=MESSAGES)
@settings(max_examples=50, deadline=None)
def test_d7_a_push_message_holds_text_and_its_own_click_only(message: AlertMessage) -> None:
    made = publication(message, topic="t")
    assert set(made) == {"topic", "title", "message", "priority", "tags", "sequence_id", "click"}
    is_harmless(Received(title=made["title"], text=f"{made['title']}\n{made['message']}", links=(made["click"],)))
    assert len(made["message"].encode()) < 4_096
