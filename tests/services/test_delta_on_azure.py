"""The source delta, on a lake in Azure storage."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.delta import DeltaSource
from platform_core.specs.ingestion import LoadMode
from tests.services.azurite import AzuriteServer

pytestmark = pytest.mark.services


@pytest.fixture
def root(azurite: AzuriteServer) -> str:
    return f"abfss://{azurite.create_container()}@{azurite.account}.dfs.core.windows.net/gold"


def source(root: str, server: AzuriteServer, *, key: str | None = None) -> DeltaSource:
    given: dict[str, Any] = {**server.storage_options, "account_key": {"secret": "crm/lake_key"}}
    options = DeltaSource.Options(root=root, storage_options=given)
    return DeltaSource(options, secret=lambda name: Secret(name, (key or server.key).encode()))


def load(
    opened: DeltaSource, state: bytes | None = None, *, feed: bool = True
) -> tuple[list[dict[str, Any]], bytes | None]:
    options = DeltaSource.ObjectOptions(change_data_feed=feed, key=("id",) if feed else ())
    with closing(opened):
        request = ReadRequest(object="crm/people", state=state, mode=LoadMode.INCREMENTAL, options=options)
        rows: list[dict[str, Any]] = opened.read(request).read_all().to_pylist()
        return sorted(rows, key=lambda row: row["id"]), opened.state()


def people(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "name": [f"n{number}" for number in ids]})


def test_changes_of_a_table_on_azure_are_read_from_version_to_version(root: str, azurite: AzuriteServer) -> None:
    uri = f"{root}/crm/people"
    write_deltalake(
        uri,
        people(1, 2),
        storage_options=azurite.storage_options,
        configuration={"delta.enableChangeDataFeed": "true"},
    )
    rows, state = load(source(root, azurite))
    assert [(row["id"], row["cdf_deleted"]) for row in rows] == [(1, False), (2, False)]
    DeltaTable(uri, storage_options=azurite.storage_options).delete("id = 1")
    write_deltalake(uri, people(3), mode="append", storage_options=azurite.storage_options)
    rows, state = load(source(root, azurite), state)
    assert [(row["id"], row["cdf_deleted"], row["cdf_version"]) for row in rows] == [(1, True, 1), (3, False, 2)]
    assert load(source(root, azurite), state)[0] == []


def test_rows_added_to_a_table_on_azure_are_read_once(root: str, azurite: AzuriteServer) -> None:
    uri = f"{root}/crm/people"
    write_deltalake(uri, people(1), storage_options=azurite.storage_options)
    _, state = load(source(root, azurite), feed=False)
    write_deltalake(uri, people(2), mode="append", storage_options=azurite.storage_options)
    assert load(source(root, azurite), state, feed=False)[0] == [{"id": 2, "name": "n2"}]


def test_a_wrong_key_is_an_error_without_the_key(root: str, azurite: AzuriteServer) -> None:
    wrong = "d3Jvbmcga2V5"
    with pytest.raises(SourceError) as caught:
        load(source(root, azurite, key=wrong))
    assert wrong not in str(caught.value)
