"""The store azure_key_vault: the real client library over a service that plays Key Vault."""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.errors import SecretError, SecretMissing
from platform_core.secrets.azure_key_vault import AzureKeyVaultSecrets
from platform_core.secrets.key_vault_names import secret_name, vault_name
from platform_core.secrets.names import is_secret_name
from tests.services.key_vault import ASSERTION, CLIENT_SECRET, KeyVaultService, key_vault_store, running_key_vault

CANARY = "key-vault-canary-2c7f"


class Clock:
    """Seconds, as the test has it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[KeyVaultService]:
    with running_key_vault(tmp_path) as running:
        yield running


@pytest.fixture
def store(service: KeyVaultService, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> AzureKeyVaultSecrets:
    return key_vault_store(service, monkeypatch, clock=clock)


def failure_of(ask: Callable[[], object]) -> str:
    """What an error tells, which holds no value, no credential and no text of the service."""
    with pytest.raises(SecretError) as caught:
        ask()
    told = "".join(traceback.format_exception(caught.value))
    for secret in (CANARY, CLIENT_SECRET, ASSERTION, "text-of-the-service"):
        assert secret not in told
    return str(caught.value)


class TestIdentities:
    @pytest.mark.parametrize("identity", ["client_secret", "workload_identity", "managed_identity"])
    def test_each_identity_answers_the_challenge(
        self, service: KeyVaultService, monkeypatch: pytest.MonkeyPatch, identity: str
    ) -> None:
        store = key_vault_store(service, monkeypatch, identity=identity)
        service.put("crm--erp", CANARY)
        assert store.get("crm/erp").reveal() == CANARY.encode()
        assert service.logins == [identity]
        # The first request carries no token: the service tells by its challenge where one is given.
        assert [known for _, _, known in service.requests] == [False, True]

    def test_a_refused_credential_is_told_without_it(
        self, store: AzureKeyVaultSecrets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_CLIENT_SECRET", CANARY)
        told = failure_of(lambda: store.get("crm/erp"))
        assert "secret 'crm/erp': no token as client_secret (ClientAuthenticationError" in told

    def test_what_is_not_set_is_named(self, service: KeyVaultService, monkeypatch: pytest.MonkeyPatch) -> None:
        store = key_vault_store(service, monkeypatch, identity="workload_identity")
        monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
        monkeypatch.delenv("AZURE_TENANT_ID")
        told = failure_of(lambda: store.get("crm/erp"))
        assert "tenant_id (or AZURE_TENANT_ID) and the variable AZURE_FEDERATED_TOKEN_FILE not set" in told

    def test_a_token_is_never_sent_for_a_challenge_of_another_service(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.resource = "https://elsewhere.example.com"
        assert "did not answer like a Key Vault" in failure_of(lambda: store.get("crm/erp"))
        assert service.logins == []

    @pytest.mark.parametrize(
        "url", ["http://edp.vault.azure.net", "edp", "https://u:p@edp.vault.azure.net", "https://edp/secrets"]
    )
    def test_what_is_no_address_of_a_key_vault_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError, match="must read https"):
            AzureKeyVaultSecrets.Options(url=url)


class TestAnswers:
    def test_a_missing_secret_is_told_with_the_name_it_has_there(self, store: AzureKeyVaultSecrets) -> None:
        with pytest.raises(SecretMissing, match=r"secret 'crm/erp_pw' is missing\n  looked at: .*secret crm--erp-pw\n"):
            store.get("crm/erp_pw")

    def test_a_soft_deleted_secret_is_missing_and_setting_it_says_what_to_do(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        store.set("crm/erp", CANARY.encode())
        assert store.remove("crm/erp")
        assert service.deleted == {"crm--erp"}
        with pytest.raises(SecretMissing, match="az keyvault secret recover"):
            store.get("crm/erp")
        assert "recover or purge it first" in failure_of(lambda: store.set("crm/erp", CANARY.encode()))

    def test_d8_a_forbidden_secret_is_told_with_the_role_that_is_needed(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.put("crm--erp", CANARY)
        service.forbidden = True
        told = failure_of(lambda: store.get("crm/erp"))
        assert "status 403, Forbidden, ForbiddenByRbac" in told and "Key Vault Secrets User" in told

    def test_a_disabled_secret_is_told(self, service: KeyVaultService, store: AzureKeyVaultSecrets) -> None:
        service.put("crm--erp", CANARY, enabled=False)
        assert "it is disabled; enable it" in failure_of(lambda: store.get("crm/erp"))
        assert [(entry.name, entry.enabled) for entry in store.entries()] == [("crm/erp", False)]

    def test_an_expired_secret_is_given_with_its_end(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.put("crm--erp", CANARY, expires=int(time.time()) - 60)
        secret = store.get("crm/erp")
        assert secret.expires_at is not None and secret.expires_at.timestamp() < time.time()

    def test_d8_throttling_is_waited_out_as_long_as_the_service_says(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.put("crm--erp", "x")
        service.faults = [(429, {"Retry-After": "1"}), (429, {"Retry-After": "1"})]
        began = time.monotonic()
        assert store.get("crm/erp").reveal() == b"x"
        assert time.monotonic() - began >= 2

    def test_d8_throttling_without_end_is_told(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform_core.secrets.azure_key_vault._TRIES", 2)
        service.faults = [(429, {"Retry-After": "0"})] * 50
        assert "is asked too often" in failure_of(lambda: store.get("crm/erp"))
        assert len(service.faults) == 48

    def test_d8_an_outage_is_told_and_nothing_old_is_given(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform_core.secrets.azure_key_vault._TRIES", 2)
        service.put("crm--erp", CANARY)
        store.get("crm/erp")
        clock.now += 301
        service.faults = [(503, {"Retry-After": "0"})] * 50
        assert "out of order for the moment" in failure_of(lambda: store.get("crm/erp"))

    def test_d8_a_key_vault_that_is_not_there_is_told(
        self, service: KeyVaultService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform_core.secrets.azure_key_vault._TRIES", 1)
        store = key_vault_store(service, monkeypatch)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
        told = failure_of(lambda: store.get("crm/erp"))
        assert "the Key Vault cannot be reached (ServiceRequestError)" in told

    def test_bytes_that_are_no_text_come_back(self, service: KeyVaultService, store: AzureKeyVaultSecrets) -> None:
        store.set("crm/raw", b"\xff\x00\x01")
        assert service.secrets["crm--raw"][0].content_type == "application/octet-stream;base64"
        assert store.fresh("crm/raw").reveal() == b"\xff\x00\x01"

    def test_names_of_others_are_left_out_of_the_list(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        for name in ("crm--a", "crm--b", "crm--c", "crm--d", "PlatformKey", "a--b--c", "crm--x-"):
            service.put(name, CANARY)
        assert [entry.name for entry in store.entries()] == ["crm/a", "crm/b", "crm/c", "crm/d"]


class TestMemory:
    def test_a_value_is_asked_for_once_in_a_while(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets, clock: Clock
    ) -> None:
        service.put("crm--erp", "old")
        for _ in range(5):
            assert store.get("crm/erp").reveal() == b"old"
        service.put("crm--erp", "new")
        clock.now += 299
        assert store.get("crm/erp").reveal() == b"old"
        clock.now += 2
        assert store.get("crm/erp").reveal() == b"new"
        assert service.asked("crm--erp") == 2

    def test_a_fresh_look_renews_what_is_remembered(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.put("crm--erp", "old")
        store.get("crm/erp")
        service.put("crm--erp", "new")
        assert store.fresh("crm/erp").reveal() == b"new"
        assert store.get("crm/erp").reveal() == b"new"
        assert service.asked("crm--erp") == 2

    def test_a_failure_is_not_remembered(self, service: KeyVaultService, store: AzureKeyVaultSecrets) -> None:
        failure_of(lambda: store.get("crm/erp"))
        service.put("crm--erp", "x")
        assert store.get("crm/erp").reveal() == b"x"

    def test_after_a_failed_fresh_look_the_old_value_is_given_no_more(
        self, service: KeyVaultService, store: AzureKeyVaultSecrets
    ) -> None:
        service.put("crm--erp", CANARY)
        store.get("crm/erp")
        service.forbidden = True
        failure_of(lambda: store.fresh("crm/erp"))
        failure_of(lambda: store.get("crm/erp"))

    def test_many_threads_ask_the_service_once(self, service: KeyVaultService, store: AzureKeyVaultSecrets) -> None:
        service.put("crm--erp", "x")
        service.delay = 0.05
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(store.get("crm/erp").reveal())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [b"x"] * 8
        assert service.asked("crm--erp") == 1

    def test_no_log_line_holds_a_value_or_a_credential(
        self, store: AzureKeyVaultSecrets, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store.set("crm/erp", CANARY.encode(), owner="team:crm")
        store.fresh("crm/erp")
        assert caplog.records
        for secret in (CANARY, CLIENT_SECRET):
            assert secret not in caplog.text


_ALPHABET = "abzAZ09_-./"


class TestNames:
    @pytest.mark.parametrize(
        ("name", "written"),
        [
            ("crm/rides_password", "crm--rides-password"),
            ("crm/erp", "crm--erp"),
            ("crm/a-b", "crm--a---2db"),
            ("crm/A", "crm---2f---41"),
            ("a__b/c_", "a---5f-b--c---5f"),
        ],
    )
    def test_a_usual_name_stays_readable(self, name: str, written: str) -> None:
        assert vault_name(name) == written

    @given(st.text(_ALPHABET, min_size=1, max_size=12), st.text(_ALPHABET, min_size=1, max_size=12))
    def test_every_name_comes_back_and_fits_key_vault(self, workstream: str, rest: str) -> None:
        name = f"{workstream}/{rest}"
        if is_secret_name(name):
            written = vault_name(name)
            assert written is not None
            assert re.fullmatch("[0-9a-z-]{1,127}", written)
            assert secret_name(written) == secret_name(written.upper()) == name

    @given(st.text("ab0-25fd", min_size=1, max_size=16))
    def test_what_is_read_back_is_written_alike(self, written: str) -> None:
        name = secret_name(written)
        assert name is None or vault_name(name) == written

    def test_a_name_that_is_too_long_there_is_refused(self, store: AzureKeyVaultSecrets) -> None:
        assert "is too long for a Key Vault" in failure_of(lambda: store.get("crm/" + "A" * 60))
