"""``edp alerts`` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from platform_core.cli.alerts import _opened, command
from platform_core.errors import AlertRefused, PlatformError
from platform_core.settings import read_settings
from tests.alerts.outboxes import ORDERS, failure, record
from tests.alerts.services import TOKEN, NtfyService, running

ENVIRONMENT = """\
lake: {root: lake}
secrets: {type: files, options: {path: secrets}}
alerts:
  channels:
    phone: {type: ntfy, options: {url: "URL", topic: edp-alerts, token: {secret: platform/ntfy}}}
"""


@pytest.fixture
def ntfy() -> Iterator[NtfyService]:
    with running(NtfyService()) as service:
        yield service


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ntfy: NtfyService) -> Path:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    folder = tmp_path / "home" / "environments"
    folder.mkdir(parents=True)
    (folder / "test.yaml").write_text(ENVIRONMENT.replace("URL", ntfy.url))
    (folder / "silent.yaml").write_text(ENVIRONMENT.partition("alerts:")[0])
    secret = tmp_path / "state" / "secrets" / "platform" / "ntfy"
    secret.parent.mkdir(parents=True, mode=0o700)
    secret.touch(mode=0o600)
    secret.write_text(TOKEN)
    for name, value in {
        "EDP_PROJECT": tmp_path,
        "EDP_STATE": tmp_path / "state",
        "DAGSTER_HOME": tmp_path / "home",
        "EDP_ENVIRONMENT": "test",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def edp(*arguments: str) -> Result:
    found = CliRunner().invoke(command, [*arguments])
    if isinstance(found.exception, PlatformError):
        raise found.exception
    return found


def put(*wrong: Any, **more: Any) -> None:
    _, outbox, _ = _opened(read_settings())
    record(outbox, *wrong, **more)
    outbox.database.close()


def test_a_list_shows_what_is_open_and_what_became_of_its_messages(project: Path) -> None:
    assert edp("list").output == "no alerts\n"
    put(failure(channels=("phone",)), mark="run-1")
    put(failure(key="other", failing=("crm.bronze.b",), channels=("gone",)), mark="run-2")
    assert edp("send").exit_code == 1
    put(mark="run-3", well=(ORDERS,))
    output = edp("list").output
    assert "A-2    error" in output
    assert "opened -> gone: failed after 1 tries: the environment has no channel gone" in output
    assert "opened -> phone: sent 20" in output
    assert "(closed by run 2)" in output
    assert output.endswith("1 open, 1 closed\n")
    found = json.loads(edp("list", "--json").output)
    assert [alert["alert"] for alert in found] == ["A-2", "A-1"]


def test_a_test_message_arrives(project: Path, ntfy: NtfyService) -> None:
    assert "took a test message" in edp("test", "--channel", "phone").output
    assert ntfy.received()[0].title == "Test of channel phone"
    with pytest.raises(PlatformError, match=r"unknown channel 'mail'\n  known channels: phone"):
        edp("test", "--channel", "mail")
    ntfy.become("refuses")
    with pytest.raises(AlertRefused):
        edp("test", "--channel", "phone")


def test_a_message_that_was_refused_goes_out_when_it_is_sent_again(project: Path, ntfy: NtfyService) -> None:
    put(failure(channels=("phone",)), mark="run-1")
    ntfy.become("refuses")
    assert edp("send").output == "0 sent, 0 postponed, 1 not taken\n"
    ntfy.become("accepts")
    assert edp("send").output == "0 sent, 0 postponed, 0 not taken\n"
    assert edp("send", "A-1").output == "1 sent, 0 postponed, 0 not taken\n"
    with pytest.raises(PlatformError, match="A-1: it has no unsent message"):
        edp("send", "A-1")


def test_a_person_closes_an_alert(project: Path, ntfy: NtfyService) -> None:
    put(failure(channels=("phone",)), mark="run-1")
    edp("send")
    assert edp("close", "A-1", "--author", "anna").output == f"closed A-1: {ORDERS} failed\n"
    edp("send")
    assert "anna closed A-1." in ntfy.received()[1].text
    with pytest.raises(PlatformError, match="A-1 is not open"):
        edp("close", "A-1", "--author", "anna")
    assert edp("close", "seventeen").exit_code == 2


def test_an_environment_that_tells_nobody_says_so(project: Path) -> None:
    with pytest.raises(PlatformError, match="environment 'silent' tells nobody"):
        edp("test", "--channel", "phone", "--env", "silent")
