"""E-mail by SMTP: a text and an HTML part, and headers by which mail programs show one alert as one conversation."""

from __future__ import annotations

import html
import re
import smtplib
import ssl
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from platform_core.alerts.plain_text import one_line, plain
from platform_core.errors import AlertError, AlertRefused
from platform_core.plugins.interfaces import AlertChannel, AlertMessage
from platform_core.specs.alerts import Severity
from platform_core.specs.base import Model, SecretRef

_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}")
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9._%+-]{1,100}@[A-Za-z0-9.-]{1,190}>")
_COLOURS = {
    Severity.INFO: "#3367d6",
    Severity.WARNING: "#b26a00",
    Severity.ERROR: "#b3261e",
    Severity.CRITICAL: "#8c0d0d",
}
_GOOD = "#1e7e34"


def _check_address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("must be an e-mail address")
    return value


Address = Annotated[str, AfterValidator(_check_address)]


class Security(StrEnum):
    """How the way to the mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


_PORTS = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}


class EmailOptions(Model):
    """A mail server, and whom it writes to."""

    model_config = ConfigDict(populate_by_name=True)

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65_535, description="Default: 587 starttls, 465 tls, 25 none.")
    security: Security = Field(
        default=Security.STARTTLS, description="starttls, tls, or none for a relay that is reached on a safe network."
    )
    user: str | None = Field(default=None, description="Default: the server asks for none.")
    password: SecretRef | None = None
    sender: Address = Field(alias="from")
    to: tuple[Address, ...] = Field(min_length=1)
    ca_file: Path | None = Field(default=None, description="Certificates to trust; default: those of the system.")

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("'user' and 'password' go together")
        if self.password is not None and self.security is Security.NONE:
            raise ValueError("'security: none' would send the password in clear; use starttls or tls")
        return self


class EmailChannel(AlertChannel):
    """Writes mail. A message that is sent again has the same Message-ID, by which mail servers know a second copy."""

    Options = EmailOptions

    def send(self, message: AlertMessage, *, timeout: float) -> str:
        mail = written(message, sender=self.options.sender, to=self.options.to)
        try:
            self._deliver(mail, timeout=timeout)
        except (smtplib.SMTPException, OSError) as error:
            fault = _judged(error)
        else:
            return str(mail["Message-ID"])
        # Raised outside of the block: an answer of the server may quote what it was sent.
        raise fault

    def _deliver(self, mail: EmailMessage, *, timeout: float) -> None:
        options: EmailOptions = self.options
        context = ssl.create_default_context(cafile=options.ca_file)
        port = options.port or _PORTS[options.security]
        server: smtplib.SMTP
        if options.security is Security.TLS:
            server = smtplib.SMTP_SSL(options.host, port, timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(options.host, port, timeout=timeout)
        with server:
            if options.security is Security.STARTTLS:
                server.starttls(context=context)
            if options.user is not None and options.password is not None:
                server.login(options.user, self.secret(options.password.secret).reveal().decode())
            server.send_message(mail)


def written(message: AlertMessage, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The mail, with both parts."""
    mail = EmailMessage()
    # Mail programs take messages together by their subjects, too.
    about = f"Re: {message.answers_title}" if message.answers else message.title
    mail["Subject"] = one_line(f"{about} [{message.reference}]", most=200)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    if message.severity is Severity.CRITICAL and not message.good:
        mail["Importance"] = "high"
    if message.answers and _MESSAGE_ID.fullmatch(message.answers):
        mail["In-Reply-To"] = message.answers
        mail["References"] = message.answers
    mail.set_content(_text(message))
    mail.add_alternative(_html(message), subtype="html")
    return mail


def _text(message: AlertMessage) -> str:
    lines = [one_line(message.title, most=200), ""]
    for paragraph in message.text:
        lines += [plain(paragraph, most=4_000), ""]
    width = max((len(name) for name, _ in message.facts), default=0) + 1
    lines += [f"{one_line(name, most=60) + ':':<{width}} {plain(value, most=2_000)}" for name, value in message.facts]
    lines += ["", f"Alert {message.reference}"]
    if message.link is not None:
        lines.append(f"The run: {message.link}")
    return "\n".join(lines) + "\n"


def _html(message: AlertMessage) -> str:
    colour = _GOOD if message.good else _COLOURS[message.severity]
    state = "recovered" if message.good else str(message.severity)
    paragraphs = "".join(f"<p>{_escaped(plain(paragraph, most=4_000))}</p>" for paragraph in message.text)
    facts = "".join(
        f'<tr><th align="left" valign="top" style="padding:2px 12px 2px 0">{_escaped(one_line(name, most=60))}</th>'
        f"<td>{_escaped(plain(value, most=2_000))}</td></tr>"
        for name, value in message.facts
    )
    button = (
        f'<p><a href="{html.escape(message.link, quote=True)}" style="background:{colour};color:#ffffff;'
        'padding:8px 14px;text-decoration:none;border-radius:4px">Open the run</a></p>'
        if message.link is not None
        else ""
    )
    return (
        '<!doctype html><html><body style="font-family:sans-serif;font-size:14px;color:#222222">'
        f'<div style="border-left:6px solid {colour};padding:4px 12px">'
        f'<div style="color:{colour};font-size:12px">{state} · {_escaped(message.reference)}</div>'
        f'<h2 style="margin:4px 0;font-size:18px">{_escaped(one_line(message.title, most=200))}</h2></div>'
        f"{paragraphs}<table>{facts}</table>{button}</body></html>"
    )


def _escaped(text: str) -> str:
    return html.escape(text, quote=True).replace("\n", "<br>")


def _judged(error: smtplib.SMTPException | OSError) -> AlertError:
    """What may be said of a mail server's answer: its code, never its text."""
    who = "the mail server"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in error.recipients.values()}
        told = f"{who} refuses every recipient: {', '.join(map(str, sorted(codes)))}"
        return AlertRefused(told) if all(code >= 500 for code in codes) else AlertError(told)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return AlertRefused(f"{who} does not offer what the channel's options ask for: STARTTLS or a login")
    if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
        return AlertRefused(f"{who} refuses the user or the password: {error.smtp_code}")
    if isinstance(error, smtplib.SMTPResponseException):
        told = f"{who} did not take it: {error.smtp_code}"
        return AlertRefused(told) if error.smtp_code >= 500 else AlertError(told)
    if isinstance(error, ssl.SSLCertVerificationError):
        return AlertRefused(f"{who} shows a certificate that is not trusted\n  name its authority in ca_file")
    if isinstance(error, TimeoutError):
        return AlertError(f"{who} did not answer in time")
    return AlertError(f"{who} cannot be reached, or broke off ({type(error).__name__})")
