"""``edp keys``."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from platform_core.errors import PluginError, SecretError
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.masks.keys import key_id
from platform_core.plugins.interfaces import Secret
from platform_core.secrets.files import FileSecrets, create_masking_key

CONTROL = """\
source: erp
tables:
  - {object: customers, mode: full, key: [customer_id], columns: {E-Mail: {mask: hash, domain: email}, n: {mask: full}}}
  - {object: orders, mode: full, key: [order_id]}
"""


@pytest.fixture
def folder(project: Path) -> Path:
    """The secrets of a project with one hashed column."""
    (project / "dagster_home/environments/dev.yaml").write_text(
        "lake: {root: lake}\nsecrets: {type: files, options: {path: secrets}}\n"
    )
    (project / "cli_shop/control/ingestion.yaml").write_text(CONTROL)
    (project / "cli_shop/control/processing.yaml").write_text("steps: []\n")
    create_masking_key(project / ".edp/secrets", "shop")
    return project / ".edp/secrets"


def key(folder: Path, name: str = "masking_key") -> Secret:
    return FileSecrets(FileSecrets.Options(path=str(folder))).get(f"shop/{name}")


def put_customers(project: Path, folder: Path, *rows: tuple[str, bool]) -> None:
    """Bronze as a load leaves it: addresses hashed with the key of now, and whether the row is current."""
    addresses = pa.array([address for address, _ in rows])
    tokens = KeyedHashMask(KeyedHashMask.Options(domain="email"), key=key(folder)).apply(addresses)
    held = pa.table({"e_mail": tokens, "_is_current": [current for _, current in rows]})
    write_deltalake(str(project / ".edp/lake/shop/bronze/customers"), held, mode="append")


def test_ids_are_shown_and_no_key_is(project, call, folder) -> None:
    result = call("keys", "show")
    assert (result.exit_code, result.output) == (0, f"shop: key {key_id(key(folder))}\n")
    assert key(folder).reveal().decode() not in result.output


def test_a_missing_key_is_named_and_the_exit_code_tells(project, call, folder) -> None:
    (folder / "shop" / "masking_key").unlink()
    result = call("keys", "show")
    assert result.exit_code == 1
    assert result.output.startswith("shop: key none\n  secret 'shop/masking_key' is missing\n")


def test_an_unknown_workstream_is_told(project, call, folder) -> None:
    result = call("keys", "show", "crm")
    assert result.exit_code != 0
    assert "unknown workstream 'crm'; known: shop" in result.output


def test_f11_a_mixed_table_is_recognised_by_its_tokens(project, call, folder) -> None:
    put_customers(project, folder, ("a@example.org", True), ("b@example.org", False))
    old = key_id(key(folder))
    rotated = call("keys", "rotate", "shop")
    new = key_id(key(folder))
    put_customers(project, folder, ("c@example.org", True), ("d@example.org", True))
    assert rotated.output.startswith(
        f"shop: the masking key is {new} now, and was {old}\n  reload shop.bronze.customers (full)\n"
    )
    assert "orders" not in rotated.output
    (entry,) = json.loads(call("keys", "show", "--tokens", "--json").output)
    counted = {found["key_id"]: (found["column"], found["current"], found["gone"]) for found in entry["tokens"]}
    assert counted == {old: ("e_mail", 1, 1), new: ("e_mail", 2, 0)}
    assert f"shop.bronze.customers.e_mail: 1 tokens of {old}, 1 more in rows" in call("keys", "show", "--tokens").output


def test_f11_a_key_whose_tokens_are_in_use_is_not_destroyed(project, call, folder) -> None:
    put_customers(project, folder, ("a@example.org", True))
    old = key_id(key(folder))
    call("keys", "rotate", "shop")
    result = call("keys", "retire", "shop")
    assert isinstance(result.exception, SecretError)
    assert f"column e_mail has 1 tokens of {old}" in result.output
    assert key_id(key(folder, "masking_key_previous")) == old


def test_f11_a_key_of_which_only_gone_rows_have_tokens_is_destroyed(project, call, folder) -> None:
    put_customers(project, folder, ("a@example.org", False))
    old = key_id(key(folder))
    call("keys", "rotate", "shop")
    result = call("keys", "retire", "shop")
    assert (result.exit_code, result.output) == (
        0,
        f"shop: the masking key {old} is destroyed\n  1 tokens of it stay in rows that the source no longer has\n",
    )
    assert not (folder / "shop" / "masking_key_previous").exists()
    assert call("keys", "retire", "shop").output == "shop: there is no previous masking key\n"


def test_stores_that_the_platform_cannot_write_are_told_what_to_do(project, call, folder) -> None:
    (project / "dagster_home/environments/dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    result = call("keys", "rotate", "shop")
    assert isinstance(result.exception, PluginError)
    assert "copy masking_key to masking_key_previous there" in str(result.exception)
