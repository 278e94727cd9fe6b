"""docs/reference/masks.md says what the masks do."""

from __future__ import annotations

import re

import pytest
import yaml

from platform_core.masks.canonical import FORM_VERSIONS, Domain
from platform_core.plugins.registry import plugin, plugin_names
from tests.conftest import PROJECT
from tests.masks.oracle import token

TEXT = (PROJECT / "docs/reference/masks.md").read_text()
COLUMNS = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0])["columns"]


@pytest.mark.parametrize("column", COLUMNS)
def test_the_example_is_taken_by_the_masks(column: str) -> None:
    options = dict(COLUMNS[column])
    assert plugin("mask", options.pop("mask")).Options(**options)


@pytest.mark.parametrize("name", plugin_names("mask"))
def test_every_mask_has_a_row(name: str) -> None:
    assert f"\n| `{name}` " in TEXT


@pytest.mark.parametrize("domain", Domain)
def test_every_domain_has_a_row_of_its_form_version(domain: Domain) -> None:
    assert f"\n| `{domain}` | " in TEXT
    assert f"| domain | form, version {FORM_VERSIONS[domain]} |" in TEXT


def test_the_shown_token_is_one() -> None:
    assert token("email", "anna@example.org") in TEXT
