"""The channels teams, ntfy and email against services on this machine: what arrives is what a person sees."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from platform_core.alerts.email import EmailChannel
from platform_core.alerts.ntfy import NtfyChannel
from platform_core.alerts.posting import LONGEST_WAIT, _retry_after
from platform_core.alerts.teams import TeamsChannel
from platform_core.errors import AlertError, AlertRefused
from platform_core.plugins.testing_alerts import LINK, MESSAGE, AlertChannelSuite
from platform_core.specs.alerts import Severity
from tests.alerts.services import (
    HOOK,
    PASSWORD,
    TOKEN,
    TOPIC,
    USER,
    MailService,
    NtfyService,
    TeamsService,
    running,
    secret_of,
)


def teams_channel(inbox: TeamsService) -> TeamsChannel:
    options = TeamsChannel.Options.model_validate({"url": {"secret": "platform/teams"}})
    return TeamsChannel(options, secret=secret_of({"platform/teams": inbox.hook + "\n"}))


def ntfy_channel(inbox: NtfyService) -> NtfyChannel:
    options = NtfyChannel.Options.model_validate(
        {"url": inbox.url, "topic": TOPIC, "token": {"secret": "platform/ntfy"}}
    )
    return NtfyChannel(options, secret=secret_of({"platform/ntfy": TOKEN}))


def email_channel(inbox: MailService, **more: object) -> EmailChannel:
    options = {
        "host": "127.0.0.1",
        "port": inbox.port,
        "user": USER,
        "password": {"secret": "platform/mail"},
        "from": "edp@example.com",
        "to": ["ops@example.com", "crm@example.com"],
        "ca_file": str(inbox.ca_file),
    }
    return EmailChannel(
        EmailChannel.Options.model_validate(options | more), secret=secret_of({"platform/mail": PASSWORD})
    )


class TestTeams(AlertChannelSuite):
    @pytest.fixture
    def inbox(self) -> Iterator[TeamsService]:
        with running(TeamsService()) as service:
            yield service

    @pytest.fixture
    def channel(self, inbox: TeamsService) -> TeamsChannel:
        return teams_channel(inbox)

    def test_the_card_has_a_button_and_a_colour(self, channel: TeamsChannel, inbox: TeamsService) -> None:
        for severity, good, style in (
            (Severity.ERROR, False, "attention"),
            (Severity.WARNING, False, "warning"),
            (Severity.INFO, True, "good"),
        ):
            channel.send(replace(MESSAGE, severity=severity, good=good), timeout=5)
            card = inbox.cards()[-1]
            assert card["body"][0]["style"] == style
            assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open the run", "url": LINK}]

    def test_a_connector_that_says_no_with_status_200_is_tried_again(
        self, channel: TeamsChannel, inbox: TeamsService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429"
        monkeypatch.setattr(inbox, "accept", lambda _: (200, said, {}))
        with pytest.raises(AlertError, match="could not post"):
            channel.send(MESSAGE, timeout=5)

    def test_the_address_is_neither_logged_nor_told(
        self, channel: TeamsChannel, inbox: TeamsService, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        channel.send(MESSAGE, timeout=5)
        inbox.become("down")
        with pytest.raises(AlertError) as caught:
            channel.send(MESSAGE, timeout=5)
        assert "geheim" not in caplog.text + str(caught.value)

    @pytest.mark.parametrize(
        "url", ["http://example.com/hook", "ftp://example.com", "geheim", "https://", "http://[geheim", ""]
    )
    def test_an_address_that_is_not_safe_is_refused_and_not_told(self, url: str) -> None:
        options = TeamsChannel.Options.model_validate({"url": {"secret": "platform/teams"}})
        channel = TeamsChannel(options, secret=secret_of({"platform/teams": url}))
        with pytest.raises(AlertRefused) as caught:
            channel.send(MESSAGE, timeout=1)
        assert "geheim" not in str(caught.value)

        assert "example.com" not in str(caught.value)

    def test_a_redirect_is_not_followed(
        self, channel: TeamsChannel, inbox: TeamsService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox, "accept", lambda _: (307, b"", {"Location": f"{inbox.url}/elsewhere"}))
        with pytest.raises(AlertRefused, match="elsewhere"):
            channel.send(MESSAGE, timeout=5)
        assert [posted.path for posted in inbox.posted] == [HOOK]


class TestNtfy(AlertChannelSuite):
    @pytest.fixture
    def inbox(self) -> Iterator[NtfyService]:
        with running(NtfyService()) as service:
            yield service

    @pytest.fixture
    def channel(self, inbox: NtfyService) -> NtfyChannel:
        return ntfy_channel(inbox)

    def test_priority_tag_and_click_follow_the_message(self, channel: NtfyChannel, inbox: NtfyService) -> None:
        channel.send(replace(MESSAGE, severity=Severity.CRITICAL), timeout=5)
        channel.send(replace(MESSAGE, good=True), timeout=5)
        first, second = (posted.body for posted in inbox.posted)
        assert (first["priority"], first["tags"], first["click"]) == (5, ["rotating_light"], LINK)
        assert (second["priority"], second["tags"]) == (2, ["white_check_mark"])

    def test_a_second_copy_replaces_the_first(self, channel: NtfyChannel, inbox: NtfyService) -> None:
        for _ in range(2):
            channel.send(MESSAGE, timeout=5)
        assert {posted.body["sequence_id"] for posted in inbox.posted} == {MESSAGE.id}


class TestEmail(AlertChannelSuite):
    @pytest.fixture
    def inbox(self, tmp_path: Path) -> Iterator[MailService]:
        with running(MailService(tmp_path)) as service:
            yield service

    @pytest.fixture
    def channel(self, inbox: MailService) -> EmailChannel:
        return email_channel(inbox)

    def test_the_recovery_stands_in_the_thread_of_the_failure(self, channel: EmailChannel, inbox: MailService) -> None:
        first = channel.send(MESSAGE, timeout=5)
        over = replace(MESSAGE, id="edp-2", title="Over", good=True, answers=first, answers_title=MESSAGE.title)
        channel.send(over, timeout=5)
        failure, recovery = inbox.mails
        assert recovery["In-Reply-To"] == recovery["References"] == failure["Message-ID"] == first
        assert recovery["Subject"] == f"Re: {failure['Subject']}"
        assert inbox.recipients == ["ops@example.com", "crm@example.com"] * 2

    def test_a_second_copy_has_the_same_message_id(self, channel: EmailChannel, inbox: MailService) -> None:
        assert channel.send(MESSAGE, timeout=5) == channel.send(MESSAGE, timeout=5)
        assert len({mail["Message-ID"] for mail in inbox.mails}) == 1

    def test_a_wrong_password_is_not_tried_again(self, inbox: MailService) -> None:
        channel = email_channel(inbox)
        channel.secret = secret_of({"platform/mail": "another"})
        with pytest.raises(AlertRefused, match="user or the password"):
            channel.send(MESSAGE, timeout=5)

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, inbox: MailService) -> None:
        with pytest.raises(AlertRefused, match="certificate"):
            email_channel(inbox, ca_file=None).send(MESSAGE, timeout=5)
        assert not inbox.mails


@pytest.mark.parametrize("security", ["tls", "none"])
def test_mail_goes_out_by_tls_and_by_a_relay_without_it(security: str, tmp_path: Path) -> None:
    more = {"user": None, "password": None} if security == "none" else {}
    with running(MailService(tmp_path, security=security)) as inbox:  # type: ignore[arg-type]
        email_channel(inbox, security=security, **more).send(MESSAGE, timeout=5)
        assert len(inbox.mails) == 1


def test_a_relay_without_starttls_gets_no_password(tmp_path: Path) -> None:
    with (
        running(MailService(tmp_path, security="none")) as inbox,
        pytest.raises(AlertRefused, match="STARTTLS"),
    ):
        email_channel(inbox).send(MESSAGE, timeout=5)


def test_a_wait_is_read_as_seconds_and_as_a_date_and_is_bounded() -> None:
    assert _retry_after("7") == 7
    assert _retry_after("999999") == LONGEST_WAIT
    assert _retry_after("Fri, 21 Nov 2036 06:00:00 GMT") == LONGEST_WAIT
    assert _retry_after("Fri, 21 Nov 2016 06:00:00 GMT") == 0
    for nonsense in ("soon", "-1", "9" * 400, "", None):
        assert _retry_after(nonsense) is None
