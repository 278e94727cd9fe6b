"""FAULTS F3: a value is nowhere but in its store, encrypted, and in the memory of whoever uses it."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from platform_core.control.environment import load_environment
from platform_core.errors import redacted, unexpected
from platform_core.operations.platform import open_platform
from platform_core.operations.secret_use import SecretUse
from platform_core.plugins.interfaces import Secret
from platform_core.secrets.vault import VaultSecrets
from platform_core.secrets.vault_format import Cipher
from platform_core.settings import Settings

CANARY = "leak-canary-7be3a4"
FILES = {
    "workspace.yaml": "load_from:\n  - python_module: {module_name: leak_shop.definitions, location_name: shop}\n",
    "dagster_home/environments/dev.yaml": (
        "lake: {root: lake}\nsecrets: {type: vault, options: {path: vault/secrets.vault, key_file: vault.key}}\n"
    ),
    "leak_shop/__init__.py": "",
    "leak_shop/definitions.py": "",
    "leak_shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
    "leak_shop/control/connections.yaml": (
        "connections:\n  - {name: far, type: postgres, host: 127.0.0.1, port: 1, database: d, user: u, "
        "password: {secret: shop/far}}\n"
    ),
    "leak_shop/control/ingestion.yaml": (
        "source: far\ntables:\n  - {object: public.t, table: t, mode: full, key: [id]}\n"
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    vault(tmp_path).prepare()
    return tmp_path


def vault(project: Path) -> VaultSecrets:
    options = VaultSecrets.Options(
        path=str(project / ".edp/vault/secrets.vault"), key_file=str(project / ".edp/vault.key")
    )
    return VaultSecrets(options)


def environment(project: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
    scratch = project / "tmp"
    scratch.mkdir(exist_ok=True)
    return {**kept, "PYTHONPATH": os.pathsep.join([str(project), *sys.path]), "TMPDIR": str(scratch)}


def edp(project: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "platform_core.cli", *arguments],
        cwd=project,
        env=environment(project),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_f3_a_value_that_is_set_and_used_lies_in_no_file_and_no_output(project: Path) -> None:
    said, _ = edp(project, "secrets", "set", "shop/far").communicate(CANARY.encode(), 60)
    told, _ = edp(project, "secrets", "check").communicate(timeout=60)
    listed, _ = edp(project, "secrets", "list", "--json").communicate(timeout=60)
    loaded, _ = edp(project, "ingest", "reload", "shop.t", "--logs").communicate(timeout=60)
    assert vault(project).get("shop/far").reveal() == CANARY.encode()
    assert b"cannot connect to database" in told and b"cannot connect to database" in loaded
    assert CANARY.encode() not in said + told + listed + loaded
    files = [file for file in project.rglob("*") if file.is_file()]
    assert any("control.db" in file.name for file in files)
    assert [file for file in files if CANARY.encode() in file.read_bytes()] == []


def test_f3_a_value_is_in_no_command_line_and_no_environment_while_it_is_set(project: Path) -> None:
    child = edp(project, "secrets", "set", "shop/far")
    assert child.stdin is not None
    try:
        child.stdin.write(CANARY.encode())
        child.stdin.flush()
        seen = b""
        for _ in range(20):
            for kind in ("cmdline", "environ"):
                seen += Path(f"/proc/{child.pid}/{kind}").read_bytes()
            time.sleep(0.05)
        assert b"shop/far" in seen
        assert CANARY.encode() not in seen
    finally:
        child.communicate(timeout=60)


def test_f3_a_process_that_takes_a_value_leaves_no_core_dump(project: Path) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)\n"
        "from platform_core.cli.secrets import command\n"
        "command(['set', 'shop/far'], standalone_mode=False)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(project),
        input=CANARY,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr


def test_f3_nothing_that_holds_a_value_shows_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDP_ENVIRONMENT", raising=False)
    settings = Settings(project=project, home=project / "dagster_home", state=project / ".edp", environment="dev")
    vault(project).set("shop/far", CANARY.encode())
    platform = open_platform(load_environment(settings), state=settings.state)
    use = SecretUse(platform)
    secret = use("shop/far")
    for holder in (secret, use, platform, platform.secrets, [secret], {"a": secret}):
        assert CANARY not in f"{holder!r} {holder}" + repr(getattr(holder, "__dict__", ""))
    logging.getLogger("leaks").error("%s %r", secret, use)
    with pytest.raises(TypeError):
        pickle.dumps({"password": secret})


def test_f3_the_key_of_a_vault_shows_nowhere() -> None:
    cipher = Cipher(b"\x7b" * 32)
    assert "7b7b" not in repr(cipher) + str(cipher)
    with pytest.raises(TypeError):
        pickle.dumps(cipher)


def test_f3_an_error_that_nobody_foresaw_withholds_its_text() -> None:
    for error in (ValueError(CANARY), KeyError(CANARY), UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY)):
        assert CANARY not in redacted(error) + str(unexpected(error))


def test_a_secret_knows_its_end_and_nothing_else_beside_its_name() -> None:
    assert Secret.__slots__ == ("_value", "expires_at", "name")
