"""Services on this machine that take alerts as Teams, ntfy and a mail server do, and misbehave as they are told."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from platform_core.plugins.interfaces import Secret
from platform_core.plugins.testing_alerts import PAGE, Inbox, Mood, Received

HOOK = "/workflows/5f0c/triggers/manual/paths/invoke?sig=geheim-signature"
TOKEN = "tk_geheim"
TOPIC = "edp-alerts"
USER, PASSWORD = "edp", "geheim-password"
RETRY_AFTER = 7


def secret_of(values: dict[str, str]) -> Any:
    """Gives named secrets."""
    return lambda name: Secret(name, values[name].encode())


@dataclass
class Posted:
    path: str
    headers: dict[str, str]
    body: Any


class WebService(Inbox):
    """An HTTP server that keeps what it accepts."""

    def __init__(self) -> None:
        self.mood: Mood = "accepts"
        self.script: list[Mood] = []
        self.posted: list[Posted] = []
        self.asked = 0
        self._released = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                service.asked += 1
                mood = service.script.pop(0) if service.script else service.mood
                self._answer(mood, Posted(self.path, dict(self.headers), body))

            def _answer(self, mood: Mood, posted: Posted) -> None:
                if mood == "hangs":
                    service._released.wait(20)
                    return
                if mood == "accepts":
                    service.posted.append(posted)
                    status, answer, headers = service.accept(posted)
                elif mood == "busy":
                    status, answer, headers = 429, b"canary-1f0a6b", {"Retry-After": str(RETRY_AFTER)}
                elif mood == "down":
                    status, answer, headers = 500, b"canary-1f0a6b", {}
                elif mood == "answers a page":
                    status, answer, headers = 502, PAGE.encode(), {"Content-Type": "text/html"}
                else:
                    status, answer, headers = 403, b"canary-1f0a6b", {}
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def become(self, mood: Mood) -> None:
        self.mood = mood

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def accept(self, posted: Posted) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError


class TeamsService(WebService):
    """A workflow of Teams: it takes a message with one Adaptive Card, and shows it as Teams does."""

    def accept(self, posted: Posted) -> tuple[int, bytes, dict[str, str]]:
        return 202, b"", {}

    @property
    def hook(self) -> str:
        return self.url + HOOK

    def cards(self) -> list[dict[str, Any]]:
        found = []
        for posted in self.posted:
            assert posted.path == HOOK
            assert len(json.dumps(posted.body)) < 28_000
            assert posted.body["type"] == "message"
            (attachment,) = posted.body["attachments"]
            assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
            found.append(attachment["content"])
        return found

    def received(self) -> Sequence[Received]:
        return [seen_card(card) for card in self.cards()]


def seen_card(card: dict[str, Any]) -> Received:
    """What a person sees of an Adaptive Card: texts of text blocks are Markdown, those of text runs are not."""
    assert card["type"] == "AdaptiveCard"
    assert float(card["version"]) >= 1.4
    runs: list[str] = []
    links: list[str] = []
    markup: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                walk(each)
            return
        if not isinstance(part, dict):
            return
        if part.get("type") == "TextRun":
            assert "selectAction" not in part
            runs.append(part["text"])
        elif part.get("type") in ("TextBlock", "Fact", "FactSet"):
            markup.append(part["type"])
        elif part.get("type") == "Action.OpenUrl":
            links.append(part["url"])
        for value in part.values():
            walk(value)

    walk(card["body"])
    walk(card.get("actions", []))
    mentions = tuple(str(each) for each in card.get("msteams", {}).get("entities", ()))
    return Received(title=runs[0], text="\n".join(runs), links=tuple(links), mentions=mentions, markup=tuple(markup))


class NtfyService(WebService):
    """A server of ntfy with a protected topic."""

    def accept(self, posted: Posted) -> tuple[int, bytes, dict[str, str]]:
        assert posted.path == "/"
        assert posted.headers.get("Authorization") == f"Bearer {TOKEN}"
        assert posted.body["topic"] == TOPIC
        assert len(posted.body["message"].encode()) < 4_096
        id_ = f"ntfy{len(self.posted):06}"
        return 200, json.dumps({"id": id_, "event": "message", **posted.body}).encode(), {}

    def received(self) -> Sequence[Received]:
        return [
            Received(
                title=body["title"],
                text=f"{body['title']}\n{body['message']}",
                links=(body["click"],) if "click" in body else (),
                markup=("markdown",) if body.get("markdown") else (),
            )
            for body in (posted.body for posted in self.posted)
        ]


class MailService(Inbox):
    """A mail server that wants STARTTLS, or TLS, and a password."""

    def __init__(self, folder: Path, *, security: Literal["starttls", "tls", "none"] = "starttls") -> None:
        self.mood: Mood = "accepts"
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self._released = threading.Event()
        self.ca_file = folder / "ca.pem"
        context = _certified(folder, self.ca_file)
        options: dict[str, Any] = {}
        if security != "none":
            options |= {"authenticator": self._authenticate, "auth_required": True}
        if security == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        elif security == "tls":
            # The server does not know of the TLS around it.
            options |= {"ssl_context": context, "auth_require_tls": False, "auth_required": False}
        self._controller = Controller(self, hostname="127.0.0.1", port=0, **options)
        # The controller's own start asks the port that it was told, which is any.
        self._controller._trigger_server = self._trigger  # type: ignore[method-assign]
        self._controller.start()

    def _trigger(self) -> None:
        deadline = time.monotonic() + 10
        while self._controller.server is None and time.monotonic() < deadline:
            time.sleep(0.01)
        # The controller waits for the first connection.
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()

    @property
    def port(self) -> int:
        assert self._controller.server is not None
        return int(vars(self._controller.server)["_sockets"][0].getsockname()[1])

    def become(self, mood: Mood) -> None:
        self.mood = mood

    def close(self) -> None:
        self._released.set()
        self._controller.stop()

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> AuthResult:
        return AuthResult(success=data.login == USER.encode() and data.password == PASSWORD.encode(), handled=False)

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if self.mood == "refuses":
            return f"550 no such user {address} canary-1f0a6b"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: Any, _session: Any, envelope: Any
    ) -> str:
        import asyncio

        if self.mood == "hangs":
            await asyncio.sleep(3)
            return "451 late"
        answers = {"busy": "451 canary-1f0a6b", "down": "421 canary-1f0a6b", "answers a page": f"451 {PAGE}"}
        if self.mood in answers:
            return answers[self.mood]
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        self.recipients += envelope.rcpt_tos
        return "250 OK"

    def received(self) -> Sequence[Received]:
        return [seen_mail(mail) for mail in self.mails]


class _Page(HTMLParser):
    OURS = frozenset({"html", "body", "div", "h2", "p", "table", "tr", "th", "td", "a", "br", "tbody"})

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.links: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.OURS:
            self.foreign.append(tag)
        for name, value in attrs:
            if name == "href":
                self.links.append(str(value))
            elif name not in ("style", "align", "valign"):
                self.foreign.append(name)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen_mail(mail: EmailMessage) -> Received:
    """What a person sees of a mail, whichever of its two parts the program shows."""
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert not mail["Bcc"]
    assert not mail["Cc"]
    text, page = (part.get_content() for part in mail.iter_parts())
    parser = _Page()
    parser.feed(page)
    shown = "\n".join(parser.text)
    assert all(line.strip() in re.sub(r"\s+", " ", shown) or "run:" in line for line in text.splitlines()[:1])
    return Received(
        title=str(mail["Subject"]),
        text="\n".join((str(mail["Subject"]), text, shown)),
        links=tuple(parser.links),
        markup=tuple(parser.foreign),
    )


def _certified(folder: Path, ca_file: Path) -> ssl.SSLContext:
    """A context for a server at 127.0.0.1 whose own certificate is its authority."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "server.key"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca_file, key_file)
    return context


@contextmanager
def running(service: Any) -> Iterator[Any]:
    """A service, closed with the block."""
    try:
        yield service
    finally:
        service.close()
