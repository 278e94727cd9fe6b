"""The lake on Azure storage: credentials, many commits, concurrent writers, and loads from end to end."""

from __future__ import annotations

import datetime as dt
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import Overtaken, SecretError, StorageError
from platform_core.lake.delta import DeltaTableReader, batch_of, open_table, table_schema, write
from platform_core.lake.landing import LandingWriter, batch_uri
from platform_core.lake.paths import Lake
from platform_core.lake.row_hash import HASH_FIELD, with_hash
from platform_core.lake.upkeep import compact
from platform_core.operations.platform import open_lake
from platform_core.plugins.interfaces import BronzeLoad, Secret, SecretStore
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import EnvironmentSpec, LakeSpec, PluginChoice
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef
from tests.services.azurite import AzuriteServer
from tests.services.fixtures import azure_lake

pytestmark = pytest.mark.services

REF = TableRef("crm", "bronze", "customers")
SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
COMMITS_OF_STEPS = 50
COMMITS_ON_ONE_HANDLE = 120
COMMITS_BY_EACH_OF_TWO = 15


class Secrets(SecretStore):
    """Secrets from a dictionary."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(None)
        self.values = values

    def get(self, name: str) -> Secret:
        if name not in self.values:
            raise SecretError(f"no secret '{name}'")
        return Secret(name, self.values[name].encode())


def land(lake: Lake, batch: int, rows: list[tuple[int, str]]) -> tuple[str, ...]:
    ids, names = zip(*rows, strict=True) if rows else ((), ())
    columns = [pa.array(ids, pa.int64()), pa.array(names, pa.string())]
    masked = with_hash(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
    with LandingWriter(
        batch_uri(lake.landing(REF), batch),
        storage_options=lake.storage_options,
        schema=SCHEMA.append(HASH_FIELD),
        batch_id=batch,
        mode="incremental",
    ) as writer:
        writer.write(masked)
        return writer.complete().file_uris


def load(lake: Lake, batch: int, files: tuple[str, ...], *, held: int) -> BronzeLoad:
    return BronzeLoad(
        table=REF,
        uri=lake.table(REF),
        storage_options=lake.storage_options,
        files=files,
        schema=SCHEMA.append(HASH_FIELD),
        batch_id=batch,
        mode=LoadMode.INCREMENTAL,
        key=("id",),
        sequence_by=None,
        deleted_flag=None,
        max_delete_ratio=0.5,
        modified_at=dt.datetime.now(dt.UTC),
        held_batch=held,
    )


def opened(lake: Lake) -> DeltaTable:
    table = open_table(lake.table(REF), storage_options=lake.storage_options)
    assert table is not None
    return table


def rows_of(lake: Lake) -> dict[int, str]:
    reader = DeltaTableReader.open(lake.table(REF), storage_options=lake.storage_options)
    assert reader is not None
    read = reader.read(columns=("id", "name")).read_all()
    assert len(set(read["id"].to_pylist())) == read.num_rows, "no key twice"
    return dict(zip(read["id"].to_pylist(), read["name"].to_pylist(), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_commits_some_by_two_writers_at_once_lose_and_double_nothing(azurite: AzuriteServer) -> None:
    lake = azure_lake(azurite)
    engine = LocalEngine(LocalOptions())
    engine.apply(load(lake, 1, land(lake, 1, [(number, "first") for number in range(20)]), held=0))
    before = table_schema(opened(lake))
    for number in range(COMMITS_OF_STEPS - 1):
        # As a step appends: a commit of its own on a handle of its own.
        row = pa.Table.from_pylist([{**dict.fromkeys(before.names), "id": 100 + number, "name": "step"}], schema=before)
        write(
            row.to_reader(),
            table=REF,
            uri=lake.table(REF),
            storage_options=lake.storage_options,
            mode=WriteMode.APPEND,
        )
    # Most on one handle: to find the newest version anew is what takes the time of a commit, and fifty have shown it.
    handle = opened(lake)
    for number in range(COMMITS_ON_ONE_HANDLE):
        row = pa.Table.from_pylist(
            [{**dict.fromkeys(before.names), "id": 500 + number, "name": "handle"}], schema=before
        )
        write_deltalake(handle, row, mode="append")
    # As upkeep does: each load asks for the size of every file, and so many small ones are a minute's questions.
    compacted = compact(lake.table(REF), storage_options=lake.storage_options, target_bytes=10**8, small_files=2)
    assert compacted is not None and compacted.files_after == 1

    def load_often(writer: int) -> int:
        overtaken = 0
        for number in range(COMMITS_BY_EACH_OF_TWO):
            while True:
                held = batch_of(opened(lake))
                # Two loads of one table never share a batch id: the lease sees to it, here the writer's number does.
                batch = held + 1 + (held + 1 + writer) % 2
                try:
                    files = land(lake, batch, [(1000 * (writer + 1) + number, f"writer {writer}")])
                    engine.apply(load(lake, batch, files, held=held))
                    break
                except Overtaken:
                    overtaken += 1
        return overtaken

    with ThreadPoolExecutor(2) as pool:
        overtaken = sum(pool.map(load_often, (0, 1)))
    assert opened(lake).version() == COMMITS_OF_STEPS + COMMITS_ON_ONE_HANDLE + 2 * COMMITS_BY_EACH_OF_TWO >= 200
    assert opened(lake).metadata().configuration == {"delta.checkpointInterval": "10"}
    found = rows_of(lake)
    expected = dict.fromkeys(range(20), "first") | dict.fromkeys(range(100, 99 + COMMITS_OF_STEPS), "step")
    expected |= dict.fromkeys(range(500, 500 + COMMITS_ON_ONE_HANDLE), "handle")
    for writer in (0, 1):
        expected |= {1000 * (writer + 1) + number: f"writer {writer}" for number in range(COMMITS_BY_EACH_OF_TWO)}
    assert found == expected
    logging.getLogger(__name__).info("overtaken %d times", overtaken)


def credentials(server: AzuriteServer) -> dict[str, dict[str, str | SecretRef]]:
    common: dict[str, str | SecretRef] = {
        "account_name": server.account,
        "endpoint": server.endpoint,
        "allow_http": "true",
    }
    return {
        "account key": {**common, "account_key": SecretRef(secret="platform/lake_key")},
        "service principal": {
            **common,
            "tenant_id": server.tenant_id,
            "client_id": server.client_id,
            "client_secret": SecretRef(secret="platform/lake_secret"),
            "authority_host": server.identity,
        },
        "managed identity": {**common, "msi_endpoint": f"{server.identity}/msi"},
    }


def opened_by(root: str, options: dict[str, Any], secrets: Secrets) -> Lake:
    """The lake of an environment that has it there."""
    lake = LakeSpec(root=root, storage_options=options)
    return open_lake(EnvironmentSpec(name="test", lake=lake, secrets=PluginChoice(type="files")), secrets=secrets)


@pytest.mark.parametrize("kind", ["account key", "service principal", "managed identity"])
def test_the_lake_opens_with(kind: str, azurite: AzuriteServer) -> None:
    root = f"abfss://{azurite.create_container()}@{azurite.account}.dfs.core.windows.net/lake"
    secrets = Secrets({"platform/lake_key": azurite.key, "platform/lake_secret": azurite.client_secret})
    lake = opened_by(root, credentials(azurite)[kind], secrets)
    assert azurite.key not in repr(lake)
    assert azurite.client_secret not in repr(lake)
    engine = LocalEngine(LocalOptions())
    for batch in (1, 2, 3):
        engine.apply(load(lake, batch, land(lake, batch, [(batch, "x")]), held=batch - 1))
    assert rows_of(lake) == {1: "x", 2: "x", 3: "x"}


def test_a_wrong_credential_is_said_without_showing_it(azurite: AzuriteServer) -> None:
    options = credentials(azurite)["service principal"]
    secrets = Secrets({"platform/lake_secret": "canary-secret-7f"})
    root = f"abfss://{azurite.create_container()}@{azurite.account}.dfs.core.windows.net/lake"
    lake = opened_by(root, options, secrets)
    with pytest.raises(StorageError) as caught:
        open_table(lake.table(REF), storage_options=lake.storage_options)
    assert "canary-secret-7f" not in str(caught.value)
    assert "customers" in str(caught.value)


def test_a_missing_secret_of_the_lake_is_named(azurite: AzuriteServer) -> None:
    with pytest.raises(SecretError, match="platform/lake_key"):
        opened_by("abfss://lake@account.dfs.core.windows.net", credentials(azurite)["account key"], Secrets({}))
