"""Where secrets come from, and what is said when they do not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from platform_core.errors import SecretError, SecretMissing
from platform_core.secrets.environment import EnvironmentSecrets
from platform_core.secrets.files import FileSecrets, create_masking_key


def files(folder: Path) -> FileSecrets:
    return FileSecrets(FileSecrets.Options(path=str(folder)))


def put(folder: Path, name: str, value: bytes, mode: int = 0o600) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(value)
    file.chmod(mode)
    return file


def test_the_environment_gives_a_secret_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDP_SECRET_CRM_RIDES_PASSWORD", "geheim é")
    secret = EnvironmentSecrets(EnvironmentSecrets.Options()).get("crm/rides_password")
    assert secret.reveal() == "geheim é".encode()
    assert "geheim" not in repr(secret)


def test_the_prefix_of_variables_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_CRM_KEY", "x")
    assert EnvironmentSecrets(EnvironmentSecrets.Options(prefix="MY_")).get("crm/key").reveal() == b"x"


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_or_empty_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("EDP_SECRET_CRM_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("EDP_SECRET_CRM_KEY", value)
    with pytest.raises(SecretError, match="'crm/key' is not set\n  looked at: environment variable EDP_SECRET_CRM_KEY"):
        EnvironmentSecrets(EnvironmentSecrets.Options()).get("crm/key")


def test_a_file_gives_its_content_without_the_last_line_break(tmp_path: Path) -> None:
    put(tmp_path, "crm/key", b" a b \r\n")
    assert files(tmp_path).get("crm/key").reveal() == b" a b "


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"secret 'crm/key' is missing\n  looked at: .*crm/key\n  write its value"):
        files(tmp_path).get("crm/key")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "crm/key", b"\n")
    with pytest.raises(SecretError, match="is empty"):
        files(tmp_path).get("crm/key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    put(tmp_path, "crm/key", b"hunter2", mode)
    with pytest.raises(SecretError, match=f"can be read by others .mode 0{mode:o}.\n  chmod 600") as caught:
        files(tmp_path).get("crm/key")
    assert "hunter2" not in str(caught.value)


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    real = put(tmp_path, "real/key", b"x")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "crm" / "folder").mkdir(parents=True)
    (tmp_path / "crm" / "key").symlink_to(real)
    os.mkfifo(tmp_path / "crm" / "pipe", 0o600)
    for name in ("linked/key", "crm/folder", "crm/key", "crm/pipe"):
        with pytest.raises(SecretError):
            files(tmp_path).get(name)


@pytest.mark.parametrize(
    "name", ["../key", "crm/../key", "key", "/etc/passwd", "crm/", "a/b/c", "crm/.hidden", "crm/k\n"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, "key", b"x")
    with pytest.raises(SecretError, match="must read <workstream>/<name>"):
        files(tmp_path / "crm").get(name)


def test_a_made_key_is_private_long_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert create_masking_key(folder, "crm")
    key = files(folder).get("crm/masking_key").reveal()
    assert len(bytes.fromhex(key.decode())) == 32
    assert (folder / "crm" / "masking_key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not create_masking_key(folder, "crm")
    assert files(folder).get("crm/masking_key").reveal() == key
    assert [path.name for path in (folder / "crm").iterdir()] == ["masking_key"]
    assert create_masking_key(folder, "sales")
    assert files(folder).get("sales/masking_key").reveal() != key


def test_of_several_that_make_a_key_at_a_time_one_wins(tmp_path: Path) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(create_masking_key(tmp_path, "crm"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.count(True) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "crm").write_text("a file stands where the folder should")
    with pytest.raises(SecretError, match="masking key of 'crm' cannot be made"):
        create_masking_key(tmp_path, "crm")


def test_what_is_not_there_is_told_from_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "crm/open", b"x", 0o644)
    monkeypatch.delenv("EDP_SECRET_CRM_KEY", raising=False)
    with pytest.raises(SecretMissing):
        files(tmp_path).get("crm/key")
    with pytest.raises(SecretMissing):
        EnvironmentSecrets(EnvironmentSecrets.Options()).get("crm/key")
    with pytest.raises(SecretError) as caught:
        files(tmp_path).get("crm/open")
    assert not isinstance(caught.value, SecretMissing)
