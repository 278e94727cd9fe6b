"""ntfy: a push message to phones and desktops, from ntfy.sh or a server of one's own."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from platform_core.alerts.plain_text import cut, one_line, plain
from platform_core.alerts.posting import post
from platform_core.plugins.interfaces import AlertChannel, AlertMessage
from platform_core.specs.alerts import Severity
from platform_core.specs.base import Model, SecretRef

_MOST_BYTES = 3_800  # a longer message becomes a file that is attached
_PRIORITIES = {Severity.INFO: 2, Severity.WARNING: 3, Severity.ERROR: 4, Severity.CRITICAL: 5}
_TAGS = {
    Severity.INFO: "information_source",
    Severity.WARNING: "warning",
    Severity.ERROR: "x",
    Severity.CRITICAL: "rotating_light",
}


class NtfyOptions(Model):
    """A topic of an ntfy server."""

    url: str | SecretRef = Field(default="https://ntfy.sh", description="Address of the server, without the topic.")
    topic: str | SecretRef = Field(
        description="The topic; where everybody may read a topic whose name they know, it is {secret: <name>}."
    )
    token: SecretRef | None = Field(default=None, description="Access token of a protected topic.")


class NtfyChannel(AlertChannel):
    """Publishes to a topic. ntfy has no threads: a message names the alert that it closes."""

    Options = NtfyOptions

    def send(self, message: AlertMessage, *, timeout: float) -> str:
        options: NtfyOptions = self.options
        headers = {"Authorization": f"Bearer {self._value(options.token)}"} if options.token else {}
        body = publication(message, topic=self._value(options.topic))
        answer = post(self._value(options.url), body, headers=headers, timeout=timeout, who="ntfy")
        return _id(answer) or message.id

    def _value(self, option: str | SecretRef) -> str:
        return self.secret(option.secret).reveal().decode().strip() if isinstance(option, SecretRef) else option


def publication(message: AlertMessage, *, topic: str) -> dict[str, Any]:
    """The body of the request. A message that is sent again has the same sequence id and so replaces the first."""
    closes = [f"About {message.reference}: {one_line(message.answers_title, most=150)}"] if message.answers else []
    lines = [plain(paragraph, most=1_500) for paragraph in message.text]
    facts = [f"{one_line(name, most=60)}: {one_line(value, most=400)}" for name, value in message.facts]
    text = _within("\n".join([*closes, *lines, *facts]), _MOST_BYTES - 60)
    made: dict[str, Any] = {
        "topic": topic,
        "title": one_line(message.title, most=200),
        "message": f"{text}\n{message.reference}",
        "priority": 2 if message.good else _PRIORITIES[message.severity],
        "tags": ["white_check_mark" if message.good else _TAGS[message.severity]],
        "sequence_id": message.id,
    }
    return made if message.link is None else {**made, "click": message.link}


def _within(text: str, most: int) -> str:
    while len(text.encode()) > most:
        text = cut(text, len(text) - max(1, (len(text.encode()) - most) // 4))
    return text


def _id(answer: bytes) -> str | None:
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    id_ = found.get("id") if isinstance(found, dict) else None
    return id_ if isinstance(id_, str) and id_.isalnum() and len(id_) <= 64 else None
