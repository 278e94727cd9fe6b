"""Every source that is asked in SQL checks what it would be asked, while control files are read."""

from __future__ import annotations

import pytest

from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.registry import plugin, plugin_names

ASKED = [name for name in plugin_names("source") if plugin("source", name).dialect is not None]


@pytest.mark.parametrize("name", ASKED)
def test_a_query_or_filter_that_does_more_than_read_is_refused(name: str) -> None:
    source = plugin("source", name)
    source.check_text(ReadRequest(object="t", query="select a from t", filter="a > 1"))
    with pytest.raises(ValueError, match="SELECT"):
        source.check_text(ReadRequest(object="t", query="delete from t"))
    with pytest.raises(ValueError, match="filter"):
        source.check_text(ReadRequest(object="t", filter="a in (select b from other)"))


@pytest.mark.parametrize("name", [name for name in plugin_names("source") if name not in ASKED])
def test_other_sources_take_neither(name: str) -> None:
    with pytest.raises(ValueError, match="neither query nor filter"):
        plugin("source", name).check_text(ReadRequest(object="t", filter="a > 1"))


def test_those_that_speak_sql_are_known() -> None:
    assert {"postgres", "mysql", "sqlserver", "oracle", "sqlite", "duckdb"} <= set(ASKED)
