"""Every fault that must be proven has a test named after it, or a line that says why not."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_table", PROJECT / "scripts" / "faults_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_required_fault_has_a_test_or_a_reason(table: ModuleType) -> None:
    proven, excused = set(table.proofs()), table.not_tested()
    assert [fault for fault in table.REQUIRED if fault not in proven | excused] == []


def test_the_page_is_up_to_date(table: ModuleType) -> None:
    assert table.PAGE.read_text() == table.page(), "run: python scripts/faults_table.py"


def test_a_name_may_tell_several_faults(table: ModuleType) -> None:
    assert table._IN_NAME.match("test_a6_a7_a_disk_that_refuses")[1] == "_a6_a7"
    assert table._IN_NAME.match("test_about_nothing") is None
