"""The vault: what it keeps secret, what it notices, and that no crash and no race loses a secret."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from platform_core.errors import SecretError, SecretMissing
from platform_core.secrets.files import FileSecrets
from platform_core.secrets.vault import VaultSecrets

CANARY = "vault-canary-5d1e9b"
Vault = Callable[..., VaultSecrets]


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """The vault below the test's folder, opened anew; it was made."""

    def opened(**more: Any) -> VaultSecrets:
        options = {"path": str(tmp_path / "v/secrets.vault"), "key_file": str(tmp_path / "vault.key"), **more}
        return VaultSecrets(VaultSecrets.Options(**options))

    opened().prepare()
    return opened


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "v/secrets.vault"


def failure_of(ask: Callable[[], object]) -> str:
    """What an error tells, which never holds a value or a key."""
    with pytest.raises(SecretError) as caught:
        ask()
    told = "".join(traceback.format_exception(caught.value))
    assert CANARY not in told
    return str(caught.value)


class TestWhatLiesOnDisk:
    def test_f4_no_value_name_or_owner_lies_in_clear(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/erp_password", CANARY.encode(), owner="team:crm")
        held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        for clear in (CANARY, CANARY.encode().hex(), "erp_password", "team:crm"):
            assert clear.encode() not in held

    def test_only_the_owner_can_open_what_is_made(self, vault: Vault, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            vault(path=str(tmp_path / "w/secrets.vault"), key_file=str(tmp_path / "w/key")).prepare()
        finally:
            os.umask(before)
        assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.rglob("*") if file.is_file()} == {"0o600"}
        assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700

    def test_the_same_value_never_looks_the_same(self, vault: Vault, tmp_path: Path) -> None:
        seen = set()
        for _ in range(3):
            vault().set("crm/a", CANARY.encode())
            seen.add(file_of(tmp_path).read_bytes().split(b"\n", 2)[2])
        assert len(seen) == 3

    def test_nothing_is_left_beside_the_files(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"x")
        found = sorted(file.name for file in tmp_path.rglob("*") if file.is_file())
        assert found == ["secrets.vault", "secrets.vault.lock", "vault.key", "vault.key.generation"]


class TestWhatIsNoticed:
    @pytest.mark.parametrize("kept", [0, 5, 40, 0.5, -1])
    def test_f4_a_truncated_vault_is_refused(self, vault: Vault, tmp_path: Path, kept: float) -> None:
        vault().set("crm/a", CANARY.encode())
        data = file_of(tmp_path).read_bytes()
        file_of(tmp_path).write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
        told = failure_of(lambda: vault().get("crm/a"))
        assert "is cut off" in told or "is no vault" in told or "is empty" in told
        assert "restore the newest copy" in told
        failure_of(lambda: vault().set("crm/b", b"y"))

    def test_f4_no_changed_byte_passes(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", CANARY.encode())
        data = file_of(tmp_path).read_bytes()
        for position in range(0, len(data), 7):
            altered = bytearray(data)
            altered[position] ^= 0x01
            file_of(tmp_path).write_bytes(bytes(altered))
            failure_of(lambda: vault().get("crm/a"))
        file_of(tmp_path).write_bytes(data)
        assert vault().get("crm/a").reveal() == CANARY.encode()

    def test_f4_another_key_is_told_from_damage(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", CANARY.encode())
        key = tmp_path / "vault.key"
        old = key.read_text().strip()
        key.write_text("0" * 64)
        told = failure_of(lambda: vault().get("crm/a"))
        assert "was written with key" in told and "give the key that it was written with" in told
        assert old not in told and "0" * 64 not in told

    @pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 16, CANARY, "ab" * 33])
    def test_what_is_no_key_is_not_shown(self, vault: Vault, tmp_path: Path, text: str) -> None:
        (tmp_path / "vault.key").write_text(text)
        told = failure_of(lambda: vault().get("crm/a"))
        assert "must be 64 hex digits" in told and str(tmp_path / "vault.key") in told
        assert not text or text not in told

    def test_a_key_that_others_can_read_is_refused(self, vault: Vault, tmp_path: Path) -> None:
        (tmp_path / "vault.key").chmod(0o644)
        assert "chmod 600" in failure_of(lambda: vault().get("crm/a"))

    def test_a_mounted_key_may_be_a_link(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"x")
        (tmp_path / "vault.key").rename(tmp_path / "real")
        (tmp_path / "vault.key").symlink_to(tmp_path / "real")
        assert vault().get("crm/a").reveal() == b"x"

    def test_a_vault_that_is_a_link_is_refused(self, vault: Vault, tmp_path: Path) -> None:
        file_of(tmp_path).rename(tmp_path / "real")
        file_of(tmp_path).symlink_to(tmp_path / "real")
        assert "cannot be read" in failure_of(lambda: vault().get("crm/a"))

    def test_a_lost_key_is_told_and_nothing_new_is_made(self, vault: Vault, tmp_path: Path) -> None:
        (tmp_path / "vault.key").unlink()
        assert "the key of the vault is gone" in failure_of(lambda: vault().get("crm/a"))
        assert "the key of the vault is gone" in failure_of(vault().prepare)
        assert not (tmp_path / "vault.key").exists()

    def test_a_lost_vault_is_told_and_nothing_new_is_made(self, vault: Vault, tmp_path: Path) -> None:
        vault().create_masking_key("crm")
        file_of(tmp_path).unlink()
        assert "is gone: generation 2 of it was written" in failure_of(lambda: vault().get("crm/masking_key"))
        assert "is gone" in failure_of(vault().prepare)
        assert not file_of(tmp_path).exists()

    def test_a_variable_that_is_not_set_is_named(self, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        store = vault(key_file=None, key_variable="NO_SUCH_KEY")
        assert "looked at: environment variable NO_SUCH_KEY" in failure_of(lambda: store.get("crm/a"))

    @pytest.mark.parametrize("more", [{"key_file": None}, {"key_variable": "K"}])
    def test_a_key_has_one_place(self, vault: Vault, more: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="one of key_file and key_variable"):
            vault(**more)

    def test_before_setup_what_to_run_is_told(self, vault: Vault, tmp_path: Path) -> None:
        store = vault(path=str(tmp_path / "other/v"), key_file=str(tmp_path / "other/k"))
        for ask in (lambda: store.get("crm/a"), lambda: store.set("crm/a", b"x"), store.entries):
            with pytest.raises(SecretMissing, match="run `edp setup`"):
                ask()


class TestRollback:
    def test_f4_an_old_copy_is_recognised(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"old")
        copy = file_of(tmp_path).read_bytes()
        vault().set("crm/a", b"new")
        file_of(tmp_path).write_bytes(copy)
        told = failure_of(lambda: vault().get("crm/a"))
        assert "it is of generation 2, and the newest that was written is 3" in told
        failure_of(lambda: vault().set("crm/b", b"y"))
        failure_of(vault().entries)

    def test_f4_another_vault_of_the_same_generation_is_recognised(self, vault: Vault, tmp_path: Path) -> None:
        first, proof = file_of(tmp_path).read_bytes(), (tmp_path / "vault.key.generation").read_bytes()
        vault().set("crm/a", b"one")
        one = file_of(tmp_path).read_bytes()
        file_of(tmp_path).write_bytes(first)
        (tmp_path / "vault.key.generation").write_bytes(proof)
        vault().set("crm/a", b"other")
        file_of(tmp_path).write_bytes(one)
        assert "an old copy, or another one" in failure_of(lambda: vault().get("crm/a"))

    def test_f4_a_generation_written_by_hand_is_refused(self, vault: Vault, tmp_path: Path) -> None:
        witness = tmp_path / "vault.key.generation"
        document = json.loads(witness.read_text())
        witness.write_text(json.dumps({**document, "told": document["told"].replace(": 1}", ": 9}")}))
        assert "was altered, or written with another key" in failure_of(lambda: vault().get("crm/a"))
        for text in ("", "{}", "[]", '{"told": 1}', '{"told": "{}", "proof": ""}'):
            witness.write_text(text)
            assert "is damaged" in failure_of(lambda: vault().get("crm/a"))

    def test_f4_a_removed_generation_is_no_way_round(self, vault: Vault, tmp_path: Path) -> None:
        (tmp_path / "vault.key.generation").unlink()
        assert "nothing tells whether the vault" in failure_of(lambda: vault().get("crm/a"))

    def test_a_vault_of_another_installation_with_the_same_key_is_refused(self, vault: Vault, tmp_path: Path) -> None:
        other = vault(path=str(tmp_path / "o/v"), generation_file=str(tmp_path / "o/g"))
        other.prepare()
        file_of(tmp_path).write_bytes((tmp_path / "o/v").read_bytes())
        assert "is not the one that" in failure_of(lambda: vault().get("crm/a"))

    def test_a_person_can_accept_a_restored_copy(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"old")
        copy = file_of(tmp_path).read_bytes()
        vault().set("crm/a", b"new")
        vault().set("crm/b", b"later")
        file_of(tmp_path).write_bytes(copy)
        assert "is of generation 2, not 4" in failure_of(lambda: vault().accept_restored(4))
        assert vault().accept_restored(2) == 5
        assert vault().get("crm/a").reveal() == b"old"
        assert [entry.name for entry in vault().entries()] == ["crm/a"]
        vault().set("crm/c", b"goes on")

    def test_a_vault_without_its_generation_can_be_accepted_too(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"x")
        (tmp_path / "vault.key.generation").unlink()
        assert vault().accept_restored(2) == 3
        assert vault().get("crm/a").reveal() == b"x"

    def test_a_damaged_vault_cannot_be_accepted(self, vault: Vault, tmp_path: Path) -> None:
        file_of(tmp_path).write_bytes(file_of(tmp_path).read_bytes()[:-1])
        assert "is cut off" in failure_of(lambda: vault().accept_restored(1))


class TestSetup:
    def test_it_is_made_once(self, vault: Vault, tmp_path: Path) -> None:
        vault().set("crm/a", b"x")
        assert vault().prepare() == ()
        assert vault().get("crm/a").reveal() == b"x"

    def test_secrets_of_the_former_folder_are_taken_over_once(self, vault: Vault, tmp_path: Path) -> None:
        former = FileSecrets(FileSecrets.Options(path=str(tmp_path / "secrets")))
        former.create_masking_key("crm")
        former.set("crm/erp", CANARY.encode())
        more = {
            "path": str(tmp_path / "n/v"),
            "key_file": str(tmp_path / "n/k"),
            "former_folder": str(tmp_path / "secrets"),
        }
        said = vault(**more).prepare()
        assert f"took over 2 secrets from {tmp_path / 'secrets'}" in said[-1] and CANARY not in str(said)
        assert vault(**more).get("crm/erp").reveal() == CANARY.encode()
        assert vault(**more).get("crm/masking_key").reveal() == former.get("crm/masking_key").reveal()
        assert not vault(**more).create_masking_key("crm")
        vault(**more).remove("crm/erp")
        assert vault(**more).prepare() == ()
        with pytest.raises(SecretMissing):
            vault(**more).get("crm/erp")

    def test_a_creation_that_was_cut_off_goes_on(self, vault: Vault, tmp_path: Path) -> None:
        codes = played("prepare", {tmp_path / f"made{moment}": moment for moment in range(1, 480, 13)})
        for folder in codes:
            store = vault(path=str(folder / "v"), key_file=str(folder / "k"))
            store.prepare()
            store.set("crm/a", b"x")
            assert store.get("crm/a").reveal() == b"x"
        assert list(codes.values()).count(-9) >= 25
        assert set(codes.values()) == {0, -9}


class TestMaskingKeys:
    def test_f11_a_rotation_keeps_the_old_key_and_refuses_to_lose_it(self, vault: Vault) -> None:
        store = vault()
        assert store.create_masking_key("crm")
        assert not store.create_masking_key("crm")
        first = store.get("crm/masking_key").reveal()
        assert len(bytes.fromhex(first.decode())) == 32
        store.rotate_masking_key("crm")
        assert store.get("crm/masking_key_previous").reveal() == first
        assert store.get("crm/masking_key").reveal() != first
        assert "is still kept" in failure_of(lambda: store.rotate_masking_key("crm"))
        assert store.retire_masking_key("crm")
        assert not store.retire_masking_key("crm")

    def test_nothing_is_rotated_where_there_is_no_key(self, vault: Vault) -> None:
        with pytest.raises(SecretMissing, match="crm/masking_key"):
            vault().rotate_masking_key("crm")


SETTER = """
import sys
from platform_core.secrets.vault import VaultSecrets
path, key, name, count = sys.argv[1:]
store = VaultSecrets(VaultSecrets.Options(path=path, key_file=key))
for number in range(int(count)):
    store.set(f"{name}/n{number}", f"{name}-{number}".encode())
"""


class TestRacesAndKills:
    def test_f4_concurrent_sets_of_processes_and_threads_lose_nothing(self, vault: Vault, tmp_path: Path) -> None:
        arguments = [str(file_of(tmp_path)), str(tmp_path / "vault.key")]
        children = [
            subprocess.Popen([sys.executable, "-c", SETTER, *arguments, f"process{number}", "25"])
            for number in range(2)
        ]
        wrong: list[BaseException] = []
        stop = threading.Event()

        def put(number: int) -> None:
            for count in range(25):
                vault().set(f"thread{number}/n{count}", f"thread{number}-{count}".encode())

        def watch() -> None:
            try:
                while not stop.is_set():
                    for entry in vault().entries()[:3]:
                        vault().get(entry.name)
            except BaseException as error:  # noqa: BLE001 - told below
                wrong.append(error)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(3)]
        watchers = [threading.Thread(target=watch)]
        for thread in (*threads, *watchers):
            thread.start()
        for thread in threads:
            thread.join()
        assert [child.wait(60) for child in children] == [0, 0]
        stop.set()
        watchers[0].join()
        assert wrong == []
        held = {entry.name for entry in vault().entries()}
        assert len(held) == 125
        assert vault().get("process1/n24").reveal() == b"process1-24"
        header = json.loads(file_of(tmp_path).read_bytes().split(b"\n")[1])
        assert header["generation"] == 126

    def test_f6_no_moment_at_which_a_set_is_killed_loses_a_secret(self, vault: Vault, tmp_path: Path) -> None:
        folders = {tmp_path / f"set{moment}": moment for moment in range(1, 600, 12)}
        for folder in folders:
            store = vault(path=str(folder / "v"), key_file=str(folder / "k"))
            store.prepare()
            store.set("crm/a", b"old")
            store.set("crm/b", b"beside")
        codes = played("set", folders)
        seen = set()
        for folder in folders:
            store = vault(path=str(folder / "v"), key_file=str(folder / "k"))
            value = store.get("crm/a").reveal()
            seen.add(value)
            assert value in (b"old", b"new")
            assert store.get("crm/b").reveal() == b"beside"
            store.set("crm/c", b"goes on")
            assert store.get("crm/a").reveal() == value
            assert {file.name for file in folder.iterdir()} == {"k", "k.generation", "v", "v.lock"}
        assert list(codes.values()).count(-9) >= 35
        assert set(codes.values()) == {0, -9}
        assert seen == {b"old", b"new"}

    def test_a_full_disk_leaves_the_old_vault(
        self, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vault().set("crm/a", b"old")
        real = os.fsync
        calls = 0

        def full(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            # Of the six of one change: the pending generation and its folder come before the vault.
            if calls == 3:
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        told = failure_of(lambda: vault().set("crm/a", CANARY.encode()))
        assert "cannot be written: No space left on device" in told and "nothing was changed" in told
        monkeypatch.setattr(os, "fsync", real)
        assert vault().get("crm/a").reveal() == b"old"
        vault().set("crm/a", b"new")
        assert sorted(file.name for file in (tmp_path / "v").iterdir()) == ["secrets.vault", "secrets.vault.lock"]

    def test_a_writer_that_hangs_is_told(self, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl

        monkeypatch.setattr("platform_core.secrets.vault._PATIENCE_SECONDS", 0.1)
        with (tmp_path / "v/secrets.vault.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert "is being written by another process" in failure_of(lambda: vault().set("crm/a", b"x"))
            assert vault().entries() == []


class TestMetadata:
    def test_the_list_needs_no_value(self, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
        vault().set("crm/a", b"x", owner="team:crm", expires_at=dt.datetime(2027, 1, 31, tzinfo=dt.UTC))

        def never(*_: object, **__: object) -> bytes:
            raise AssertionError("a value was opened")

        monkeypatch.setattr("platform_core.secrets.vault_format.Cipher.open", never)
        (entry,) = vault().entries()
        assert (entry.name, entry.owner) == ("crm/a", "team:crm")

    def test_f4_a_value_is_bound_to_its_name(self, vault: Vault) -> None:
        from platform_core.secrets.vault_format import Cipher, VaultFaultError

        cipher = Cipher(b"k" * 32)
        more = {"owner": None, "expires_at": None}
        sealed = cipher.seal("v", "crm/a", b"x", generation=1, **more)
        assert cipher.open("v", "crm/a", sealed) == b"x"
        for vault_id, name in (("v", "crm/b"), ("w", "crm/a")):
            with pytest.raises(VaultFaultError):
                cipher.open(vault_id, name, sealed)
        import dataclasses

        with pytest.raises(VaultFaultError):
            cipher.open("v", "crm/a", dataclasses.replace(sealed, generation=2))


MOMENTS = """
import json, os, signal, sys
from pathlib import Path
from platform_core.secrets import private_files, vault, vault_format, vault_key
import cryptography.hazmat.primitives.ciphers.aead, cryptography.hazmat.primitives.kdf.hkdf

ours = {module.__file__ for module in (private_files, vault, vault_format, vault_key)}

def play(folder, moment, act):
    store = vault.VaultSecrets(vault.VaultSecrets.Options(path=str(folder / "v"), key_file=str(folder / "k")))
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename in ours:
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
        return None

    sys.settrace(trace)
    store.prepare() if act == "prepare" else store.set("crm/a", b"new")
    os._exit(0)

codes = {}
for folder, moment in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        play(Path(folder), moment, sys.argv[2])
    codes[folder] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""


def played(act: str, folders: dict[Path, int]) -> dict[Path, int]:
    """The exit codes of processes that did one thing each, killed when they had come to a moment of it."""
    asked = json.dumps([[str(folder), moment] for folder, moment in folders.items()])
    done = subprocess.run(
        [sys.executable, "-c", MOMENTS, asked, act], check=True, capture_output=True, text=True, timeout=120
    )
    return {Path(folder): code for folder, code in json.loads(done.stdout).items()}
