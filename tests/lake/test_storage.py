"""Reaching files, here and in object stores, and the process's DuckDB."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.lake import commit, landing, storage
from platform_core.lake.landing import read_batch
from platform_core.lake.session import Session, open_session, shared_session
from platform_core.lake.storage import engine_path, local_path


def test_local_paths_are_told_from_urls() -> None:
    assert local_path("/a b/c") == Path("/a b/c")
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert local_path("az://box/a") is None


def test_a_path_is_no_pattern(tmp_path: Path, session: Session) -> None:
    file = tmp_path / "a[1]*?.parquet"
    with session.cursor() as connection:
        connection.execute("COPY (SELECT 1 AS a) TO $to (FORMAT parquet)", {"to": str(file)})
        found = connection.execute("SELECT a FROM read_parquet($files)", {"files": [engine_path(str(file))]}).fetchall()
    assert found == [(1,)]


def test_a_lake_behind_an_object_store_client_works_like_a_local_one(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # delta-rs's own client over a local folder: what it writes and reads takes the way of an object store.
    for module in (storage, landing, commit):
        monkeypatch.setattr(module, "local_path", lambda _: None)
    folder = riders.root
    uri = folder.as_uri().replace("%20", " ").replace(" ", "%20")
    monkeypatch.setattr(type(riders), "uri", property(lambda _: f"{uri}/demo/bronze/riders"))
    riders.root = RemoteFolder(uri)
    for made in ("bronze/riders", *(f"landing/riders/{i:012d}" for i in (1, 2, 3))):
        (folder / "demo" / made).mkdir(parents=True)
    rows = pa.table({"id": range(100), "name": [str(i) for i in range(100)]})
    assert riders.load(rows).inserted == 100
    landed = read_batch(f"{uri}/demo/landing/riders/000000000001", storage_options={})
    assert landed is not None
    assert landed.rows == 100
    assert riders.load(rows).committed is False
    assert riders.load(rows.slice(1)).deleted == 1
    assert [row["_is_deleted"] for row in riders.rows()].count(True) == 1


class RemoteFolder:
    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri


def test_threads_share_one_instance_and_not_their_temporary_tables(session: Session) -> None:
    found: list[Any] = []

    def work(i: int) -> None:
        with session.cursor() as connection:
            connection.execute("CREATE TEMP TABLE mine AS SELECT $i AS i", {"i": i})
            found.append(connection.execute("SELECT i FROM mine").fetchone())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(0,), (1,), (2,), (3,)]


def test_a_shared_session_is_opened_once_for_its_settings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"memory_limit": "100MB", "spill": tmp_path / "spill", "threads": 1}
    assert shared_session(**settings) is shared_session(**settings)
    assert shared_session(**settings) is not shared_session(**settings, sealed=True)
    assert (tmp_path / "spill").stat().st_mode & 0o777 == 0o700


def test_a_sealed_session_reaches_no_file_and_keeps_its_settings(tmp_path: Path) -> None:
    import duckdb

    sealed = open_session(memory_limit="100MB", spill=tmp_path / "spill", threads=1, sealed=True)
    (tmp_path / "secret.txt").write_text("x")
    with sealed.cursor() as connection:
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"SELECT * FROM read_text('{tmp_path}/secret.txt')")
        with pytest.raises(duckdb.InvalidInputException):
            connection.execute("SET threads = 4")
        assert connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
    sealed.close()
