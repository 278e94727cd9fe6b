"""The suite of secret stores, run by the built-in ones, and shown to find what breaks its promises."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.errors import SecretMissing
from platform_core.plugins.interfaces import NoOptions, Secret, SecretEntry, SecretStore
from platform_core.plugins.testing import Put, SecretStoreSuite
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.secrets.files import FileSecrets
from platform_core.secrets.vault import VaultSecrets
from tests.services.key_vault import key_vault_store, running_key_vault


class TestEnvironment(SecretStoreSuite):
    @pytest.fixture
    def store(self) -> SecretStore:
        return EnvironmentSecrets(EnvironmentSecrets.Options())

    @pytest.fixture
    def put(self, monkeypatch: pytest.MonkeyPatch) -> Put:
        def set_(name: str, value: bytes) -> None:
            monkeypatch.setenv("EDP_SECRET_" + re.sub("[^A-Z0-9]", "_", name.upper()), value.decode())

        return set_

    def test_secrets_of_like_names_are_told_apart(self, store: SecretStore, put: Put) -> None:
        """All but those that differ in signs only: these share a variable."""
        for name in ("suite/a", "suite/b", "suite/ab"):
            put(name, name.encode())
        assert [store.get(name).reveal() for name in ("suite/a", "suite/b", "suite/ab")] == [
            b"suite/a",
            b"suite/b",
            b"suite/ab",
        ]


class TestFiles(SecretStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SecretStore:
        return FileSecrets(FileSecrets.Options(path=str(tmp_path / "secrets")))


class TestVault(SecretStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SecretStore:
        options = VaultSecrets.Options(path=str(tmp_path / "vault/secrets.vault"), key_file=str(tmp_path / "vault.key"))
        store = VaultSecrets(options)
        store.prepare()
        return store


class TestVaultWithItsKeyInAVariable(SecretStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretStore:
        monkeypatch.setenv("SUITE_VAULT_KEY", "7d" * 32)
        options = VaultSecrets.Options(path=str(tmp_path / "secrets.vault"), key_variable="SUITE_VAULT_KEY")
        store = VaultSecrets(options)
        store.prepare()
        return store


class TestAzureKeyVault(SecretStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretStore]:
        with running_key_vault(tmp_path) as service:
            yield key_vault_store(service, monkeypatch)


class Leaking(SecretStore):
    """Shows its values, and forgets what it was told about them."""

    writable = listable = keeps_metadata = True

    def __init__(self) -> None:
        super().__init__(NoOptions())
        self.values: dict[str, bytes] = {}

    def get(self, name: str) -> Secret:
        if name not in self.values:
            raise SecretMissing(f"secret '{name}' is missing")
        return Secret(name, self.values[name].strip())

    def set(
        self, name: str, value: bytes, *, owner: str | None = None, expires_at: dt.datetime | None = None
    ) -> SecretEntry:
        self.values[name] = value
        return SecretEntry(name=name)

    def remove(self, name: str) -> bool:
        return self.values.pop(name, None) is not None

    def entries(self) -> list[SecretEntry]:
        return [SecretEntry(name=name) for name in self.values]


@pytest.mark.parametrize(
    "promise",
    [
        "test_no_value_shows",
        "test_the_list_tells_names_and_times_and_no_value",
    ],
)
def test_the_suite_finds_a_store_that_shows_or_forgets(promise: str) -> None:
    store = Leaking()
    with pytest.raises(AssertionError):
        getattr(SecretStoreSuite(), promise)(store, lambda name, value: store.set(name, value))


def test_the_suite_finds_a_store_that_alters_values() -> None:
    store = Leaking()
    with pytest.raises(AssertionError):
        SecretStoreSuite().test_a_value_comes_back_as_it_was_put(store, store.set, b" a b ")


@pytest.mark.parametrize("promise", ["test_owner_and_expiry_are_kept_or_refused"])
def test_the_suite_finds_a_store_that_drops_the_expiry(promise: str) -> None:
    with pytest.raises(AssertionError):
        getattr(SecretStoreSuite(), promise)(Leaking())


def test_the_suite_finds_a_store_that_takes_any_value() -> None:
    with pytest.raises(pytest.fail.Exception):
        SecretStoreSuite().test_a_value_that_no_store_takes_is_refused_without_showing_it(Leaking())
