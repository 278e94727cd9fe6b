"""``edp secrets``: what goes in, what is told, and that no value comes out."""

from __future__ import annotations

import ast
import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import platform_core.cli
from platform_core.cli.secrets import command
from platform_core.errors import ConfigError, PlatformError, SecretError
from platform_core.secrets.vault import VaultSecrets

CANARY = "cli-canary-81c4f0"
VAULT = """\
lake: {root: lake}
secrets: {type: vault, options: {path: vault/secrets.vault, key_file: vault.key}}
"""
CONNECTIONS = """\
connections:
  - {name: erp, type: sqlite, path: '${env.state}/erp.db'}
  - name: files
    type: files
    root: ${env.state}
    storage_options: {token: {secret: shop/files_token}}
  - {name: far, type: postgres, host: 127.0.0.1, port: 1, database: d, user: u, password: {secret: shop/far_password}}
"""
INGESTION = {
    "ingestion/erp.yaml": (
        "source: erp\ntables:\n"
        "  - {object: customers, mode: full, key: [id], columns: {name: {mask: hash, domain: text}}}\n"
    ),
    "ingestion/files.yaml": "source: files\ntables:\n  - {object: prices.csv, table: prices, mode: full, key: [id]}\n",
    "processing.yaml": (
        "steps:\n  - {name: margins, layer: gold, kind: sql, sql: margins.sql, "
        "depends_on: [bronze.prices, bronze.customers]}\n"
    ),
    "refresh.yaml": (
        "dashboards:\n  - {name: margin, type: page, shows: [gold.margins], "
        "charts: [{title: t, mark: bar, table: gold.margins, x: id, y: id}]}\n"
    ),
}
Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    """Call `edp secrets`; what goes to standard input is given by name."""

    def run(*arguments: str, value: str | bytes | None = None) -> Result:
        return CliRunner().invoke(command, arguments, input=value)

    return run


@pytest.fixture
def shop(project: Path) -> Path:
    """A project with a vault, three connections, a step and a dashboard."""
    (project / "dagster_home/environments/dev.yaml").write_text(VAULT)
    control = project / "cli_shop/control"
    (control / "ingestion.yaml").unlink()
    (control / "connections.yaml").write_text(CONNECTIONS)
    for name, text in INGESTION.items():
        (control / name).parent.mkdir(exist_ok=True)
        (control / name).write_text(text)
    (project / "cli_shop/margins.sql").write_text(
        "select p.id from shop.bronze.prices p join shop.bronze.customers c on c.id = p.id"
    )
    state = project / ".edp"
    store(project).prepare()
    with sqlite3.connect(state / "erp.db") as erp:
        erp.execute("create table customers (id integer primary key, name text not null)")
    erp.close()
    (state / "prices.csv").write_text("id,price\n1,2\n")
    return project


def store(project: Path) -> VaultSecrets:
    state = project / ".edp"
    return VaultSecrets(
        VaultSecrets.Options(path=str(state / "vault/secrets.vault"), key_file=str(state / "vault.key"))
    )


def entry_of(result: Result, name: str) -> dict[str, object]:
    (entry,) = (entry for entry in json.loads(result.output) if entry["name"] == name)
    return entry


class TestSet:
    def test_a_value_from_standard_input_is_kept_without_its_line_break(self, shop: Path, call: Call) -> None:
        result = call(
            "set", "shop/far_password", "--owner", "team:shop", "--expires", "2031-01-31", value=CANARY + "\n"
        )
        assert result.exit_code == 0
        assert result.output == (
            "shop/far_password is set in dev, owner team:shop, expires on 2031-01-31\n  used by connection shop.far\n"
        )
        assert store(shop).get("shop/far_password").reveal() == CANARY.encode()

    def test_white_space_is_kept_and_told(self, shop: Path, call: Call) -> None:
        result = call("set", "shop/far_password", value=f" {CANARY}\n\n")
        assert "begins or ends with white space, which was kept" in result.output
        assert store(shop).get("shop/far_password").reveal() == f" {CANARY}\n".encode()

    def test_a_name_that_nothing_refers_to_is_taken_and_told(self, shop: Path, call: Call) -> None:
        result = call("set", "shop/far_pasword", value=CANARY)
        assert "nothing refers to it yet; did you mean 'shop/far_password'?" in result.output

    @pytest.mark.parametrize(
        "arguments",
        [
            ("set", "shop/far_password", CANARY),
            ("set", "shop/far_password", f"--value={CANARY}"),
            ("set", "shop/far_password", "--value", CANARY),
            ("set", f"--{CANARY}"),
            ("set", CANARY),
            ("set", f"shop/far_password={CANARY}"),
            ("set", f"{CANARY}/x"),
            ("set", "shop/far_password", "--owner", CANARY),
            ("set", "shop/far_password", "--expires", CANARY),
            ("remove", "shop/far_password", CANARY),
            ("remove", f"={CANARY}"),
        ],
    )
    def test_f3_what_looks_like_a_value_is_refused_and_never_repeated(
        self, shop: Path, call: Call, arguments: tuple[str, ...]
    ) -> None:
        result = call(*arguments, value="x")
        assert result.exit_code == 2
        assert CANARY not in result.output
        assert store(shop).entries() == []

    def test_a_value_as_an_argument_is_explained(self, shop: Path, call: Call) -> None:
        result = call("set", "shop/far_password", CANARY)
        assert "a value is never given as an argument" in result.output
        assert "take it out of the shell's history and change it" in result.output

    @pytest.mark.parametrize("value", ["", "\n"])
    def test_nothing_on_standard_input_changes_nothing(self, shop: Path, call: Call, value: str) -> None:
        store(shop).set("shop/far_password", b"old")
        result = call("set", "shop/far_password", value=value)
        assert "standard input is empty; nothing was changed" in str(result.exception)
        assert store(shop).get("shop/far_password").reveal() == b"old"

    def test_a_day_that_is_over_is_refused(self, shop: Path, call: Call) -> None:
        assert "a day to come" in call("set", "shop/a", "--expires", "2020-01-01", value="x").output

    def test_a_store_that_cannot_be_written_says_so(self, project: Path, call: Call) -> None:
        result = call("set", "shop/a", value=CANARY)
        assert isinstance(result.exception, SecretError)
        assert "EnvironmentSecrets cannot be written from here" in str(result.exception)
        assert CANARY not in str(result.exception) + result.output

    def test_faults_in_control_files_do_not_stop_a_rotation(self, shop: Path, call: Call) -> None:
        (shop / "cli_shop/control/refresh.yaml").write_text("dashboards: [{nam: x}]\n")
        result = call("set", "shop/far_password", value=CANARY)
        assert "what depends on it is not known" in result.output
        assert store(shop).get("shop/far_password").reveal() == CANARY.encode()

    def test_a_person_types_it_twice_and_sees_nothing(self, shop: Path) -> None:
        shown, code = typed(shop, CANARY, CANARY)
        assert code == 0
        assert CANARY not in shown
        assert "value of shop/far_password (not shown):" in shown and "the same again:" in shown
        assert store(shop).get("shop/far_password").reveal() == CANARY.encode()

    def test_two_different_values_are_asked_for_again(self, shop: Path) -> None:
        shown, code = typed(shop, CANARY, CANARY + "x", CANARY, CANARY)
        assert code == 0
        assert CANARY not in shown
        assert store(shop).get("shop/far_password").reveal() == CANARY.encode()


class TestList:
    def test_names_owners_ages_ends_and_dependents_are_shown_and_no_value(self, shop: Path, call: Call) -> None:
        call("set", "shop/files_token", "--owner", "a.user@example.com", "--expires", "2031-01-31", value=CANARY)
        store(shop).create_masking_key("shop")
        result = call("list")
        assert result.exit_code == 0
        rows = [line.split("  ") for line in result.output.splitlines()[:4]]
        assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
            ["NAME", "OWNER", "AGE", "EXPIRES", "STANDING", "USED BY"],
            ["shop/far_password", "team:shop", "-", "-", "missing", "connection shop.far"],
            [
                *("shop/files_token", "a.user@example.com", "today", "2031-01-31", "set"),
                "connection shop.files, tables shop.bronze.prices and shop.gold.margins, "
                "dashboard shop.dashboard.margin",
            ],
            [
                *("shop/masking_key", "team:shop", "today", "-", "set"),
                "tables shop.bronze.customers and shop.gold.margins, dashboard shop.dashboard.margin",
            ],
        ]
        assert CANARY not in result.output
        key = store(shop).get("shop/masking_key").reveal().decode()
        assert key not in result.output + call("list", "--json").output + call("check").output

    def test_f5_no_command_can_show_a_value(self) -> None:
        """The code of the commands never reveals a secret, so there is nothing that could be shown."""
        for file in Path(platform_core.cli.__file__).parent.glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                assert not (isinstance(node, ast.Attribute) and node.attr == "reveal"), file

    def test_what_ends_soon_is_told(self, shop: Path, call: Call) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 10 * 86400))
        call("set", "shop/far_password", "--expires", day, value=CANARY)
        entry = entry_of(call("list", "--json"), "shop/far_password")
        assert entry["standing"] == "expires soon"
        assert entry["told"] == f"it expires in 9 days, on {day}; set a new one: edp secrets set shop/far_password"
        assert entry["used_by"]["connections"] == ["shop.far"]  # type: ignore[index]
        (shop / "dagster_home/environments/dev.yaml").write_text(VAULT + "secret_warning: 2 days\n")
        assert entry_of(call("list", "--json"), "shop/far_password")["standing"] == "set"

    def test_a_store_that_cannot_list_tells_what_is_referred_to(
        self, shop: Path, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (shop / "dagster_home/environments/dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
        monkeypatch.setenv("EDP_SECRET_SHOP_FAR_PASSWORD", CANARY)
        result = call("list", "--json")
        assert CANARY not in result.output
        assert {entry["name"]: entry["standing"] for entry in json.loads(result.output)} == {
            "shop/far_password": "set",
            "shop/files_token": "missing",
            "shop/masking_key": "missing",
        }

    def test_a_lost_vault_is_an_error(self, shop: Path, call: Call) -> None:
        (shop / ".edp/vault/secrets.vault").unlink()
        assert "is gone: generation 1" in str(call("list").exception)


class TestCheck:
    def test_what_is_missing_is_named_with_what_to_do(self, shop: Path, call: Call) -> None:
        result = call("check", "--no-connect")
        assert result.exit_code == 1
        assert "shop/far_password:\n  set it: edp secrets set shop/far_password" in result.output
        assert "3 of 3 are not as they must be" in result.output

    def test_every_connection_is_opened(self, shop: Path, call: Call) -> None:
        for name in ("far_password", "files_token"):
            store(shop).set(f"shop/{name}", CANARY.encode())
        store(shop).create_masking_key("shop")
        (shop / "cli_shop/control/connections.yaml").write_text(
            CONNECTIONS.replace("    storage_options: {token: {secret: shop/files_token}}\n", "")
        )
        result = call("check", "--json")
        document = json.loads(result.output)
        assert {each["name"]: (each["good"], each["told"]) for each in document["connections"]} == {
            "shop.erp": (True, "customers has 2 columns"),
            "shop.files": (True, "prices.csv has 2 columns"),
            "shop.far": (None, "nothing is read through it"),
        }
        assert document["good"] and result.exit_code == 0

    def test_a_refused_connection_is_told_without_its_password(self, shop: Path, call: Call) -> None:
        for name in ("far_password", "files_token"):
            store(shop).set(f"shop/{name}", CANARY.encode())
        store(shop).create_masking_key("shop")
        (shop / "cli_shop/control/ingestion/far.yaml").write_text(
            "source: far\ntables:\n  - {object: public.t, table: t, mode: full, key: [id]}\n"
        )
        result = call("check")
        assert result.exit_code == 1
        assert "cannot connect to database 'd' at 127.0.0.1:1 as 'u'" in result.output
        assert CANARY not in result.output

    def test_an_expired_secret_fails_the_check(self, shop: Path, call: Call) -> None:
        import datetime as dt

        store(shop).set("shop/far_password", b"x", expires_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        result = call("check", "--no-connect", "--json")
        (found,) = (each for each in json.loads(result.output)["secrets"] if each["name"] == "shop/far_password")
        assert found["standing"] == "expired" and found["told"].startswith("it expired on 2026-01-01")
        assert result.exit_code == 1

    def test_a_weak_masking_key_fails_the_check(self, shop: Path, call: Call) -> None:
        store(shop).set("shop/masking_key", b"a" * 64)
        result = call("check", "--no-connect")
        assert "secret 'shop/masking_key' is no random key" in result.output

    def test_without_the_secrets_of_the_environment_no_connection_is_opened(self, shop: Path, call: Call) -> None:
        (shop / "dagster_home/environments/dev.yaml").write_text(
            VAULT.replace("{root: lake}", "{root: lake, storage_options: {key: {secret: platform/lake}}}")
        )
        result = call("check")
        assert "connections were not tested: the environment itself needs platform/lake" in result.output

    def test_only_the_asked_for_location_is_checked(self, shop: Path, call: Call) -> None:
        assert isinstance(call("check", "--location", "nowhere").exception, ConfigError)
        assert "3 of 3" in call("check", "--location", "shop", "--no-connect").output


class TestRemove:
    def test_it_is_refused_while_something_depends_on_it(self, shop: Path, call: Call) -> None:
        store(shop).set("shop/far_password", b"x")
        told = str(call("remove", "shop/far_password").exception)
        assert told.startswith("secret 'shop/far_password' is used by connection shop.far; nothing was removed\n")
        assert call("remove", "shop/far_password", "--force").output == "shop/far_password is removed from dev\n"
        assert store(shop).entries() == []

    def test_what_nothing_uses_is_removed(self, shop: Path, call: Call) -> None:
        store(shop).set("shop/old", b"x")
        assert call("remove", "shop/old").exit_code == 0
        assert "is not there; nothing was removed" in str(call("remove", "shop/old").exception)

    def test_faults_in_control_files_stop_it(self, shop: Path, call: Call) -> None:
        store(shop).set("shop/old", b"x")
        (shop / "cli_shop/control/refresh.yaml").write_text("dashboards: [{nam: x}]\n")
        assert isinstance(call("remove", "shop/old").exception, ConfigError)
        assert [entry.name for entry in store(shop).entries()] == ["shop/old"]


class TestRestore:
    def test_a_restored_vault_is_accepted_by_its_generation(self, shop: Path, call: Call) -> None:
        file = shop / ".edp/vault/secrets.vault"
        store(shop).set("shop/a", b"old")
        copy = file.read_bytes()
        store(shop).set("shop/a", b"new")
        file.write_bytes(copy)
        assert "edp secrets accept-restored 2" in str(call("list").exception)
        assert "at generation 4" in call("accept-restored", "2").output
        assert store(shop).get("shop/a").reveal() == b"old"

    def test_other_stores_have_nothing_to_accept(self, project: Path, call: Call) -> None:
        assert isinstance(call("accept-restored", "2").exception, PlatformError)


def typed(project: Path, *lines: str) -> tuple[str, int]:
    """What a terminal shows while a person answers, and the exit code."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "platform_core.cli", "secrets", "set", "shop/far_password"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project), *sys.path])},
    )
    os.close(theirs)
    waiting, shown, asked = list(lines), "", 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if ready:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part.decode()
        if waiting and shown.count("): ") + shown.count("again: ") > asked:
            asked = shown.count("): ") + shown.count("again: ")
            os.write(ours, waiting.pop(0).encode() + b"\n")
        if child.poll() is not None and not ready:
            break
    os.close(ours)
    return shown, child.wait(10)
