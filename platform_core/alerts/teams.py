"""Microsoft Teams, by the webhook of a workflow: an Adaptive Card with a button to the run.

Every text stands in a text run, which no Teams client takes for Markdown, and the card names no people to mention.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from platform_core.alerts.plain_text import one_line, plain
from platform_core.alerts.posting import post
from platform_core.errors import AlertError
from platform_core.plugins.interfaces import AlertChannel, AlertMessage
from platform_core.specs.alerts import Severity
from platform_core.specs.base import Model, SecretRef

VERSION = "1.4"
"""Of Adaptive Cards; what every Teams client shows."""

_MOST_BYTES = 24_000  # Teams takes 28 KB, envelope included
_STYLES = {
    Severity.INFO: "accent",
    Severity.WARNING: "warning",
    Severity.ERROR: "attention",
    Severity.CRITICAL: "attention",
}


class TeamsOptions(Model):
    """A workflow of Teams that posts what it is sent (`When a Teams webhook request is received`)."""

    url: SecretRef = Field(description="Secret that holds the address of the workflow.")


class TeamsChannel(AlertChannel):
    """Posts cards to a channel or chat of Teams; a webhook cannot answer in a thread, so a card says what it closes."""

    Options = TeamsOptions

    def send(self, message: AlertMessage, *, timeout: float) -> str:
        url = self.secret(self.options.url.secret).reveal().decode().strip()
        said = post(url, envelope(message), headers={}, timeout=timeout, who="Teams")
        if b"failed with error" in said.lower():
            # Connectors of the former kind answer so with status 200.
            raise AlertError("Teams took it and could not post it")
        return message.id


def envelope(message: AlertMessage) -> dict[str, Any]:
    """The body of the request: a message with one card."""
    for most in (2_000, 500, 100):
        made = {
            "type": "message",
            "attachments": [
                {
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "contentUrl": None,
                    "content": card(message, most=most),
                }
            ],
        }
        if len(json.dumps(made).encode()) <= _MOST_BYTES:
            break
    return made


def card(message: AlertMessage, *, most: int = 2_000) -> dict[str, Any]:
    """The Adaptive Card.

    Args:
        most: characters of a paragraph or a fact.
    """
    title = one_line(message.title, most=200)
    style = "good" if message.good else _STYLES[message.severity]
    body: list[dict[str, Any]] = [
        {
            "type": "Container",
            "style": style,
            "bleed": True,
            "items": [_runs(title, weight="Bolder", size="Large"), _runs(_kicker(message), subtle=True, size="Small")],
        }
    ]
    body += [_runs(shown) for paragraph in message.text[:20] if (shown := plain(paragraph, most=most))]
    body += [_fact(one_line(name, most=60), plain(value, most=most)) for name, value in message.facts[:20]]
    made: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": VERSION,
        "msteams": {"width": "Full"},
        "fallbackText": title,
        "body": body,
    }
    if message.link is not None:
        made["actions"] = [{"type": "Action.OpenUrl", "title": "Open the run", "url": message.link}]
    return made


def _kicker(message: AlertMessage) -> str:
    if not message.good:
        return f"{message.severity} · {message.reference}"
    return f"recovered · {'closes ' if message.answers is not None else ''}{message.reference}"


def _fact(name: str, value: str) -> dict[str, Any]:
    return {
        "type": "ColumnSet",
        "spacing": "Small",
        "columns": [
            {"type": "Column", "width": "110px", "items": [_runs(name, weight="Bolder")]},
            {"type": "Column", "width": "stretch", "items": [_runs(value)]},
        ],
    }


def _runs(text: str, *, weight: str = "Default", size: str = "Default", subtle: bool = False) -> dict[str, Any]:
    run = {"type": "TextRun", "text": text, "weight": weight, "size": size, "isSubtle": subtle}
    return {"type": "RichTextBlock", "spacing": "Small", "inlines": [run]}
