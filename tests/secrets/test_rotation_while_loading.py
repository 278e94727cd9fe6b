"""FAULTS F6, D8: a password is replaced while loads run, and no load fails for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import RefreshError, SecretError, SourceError
from platform_core.lake.paths import Lake
from platform_core.operations import extract as extract_module
from platform_core.operations import refresh as refresh_module
from platform_core.operations import secret_use
from platform_core.operations.ingest import ingest
from platform_core.operations.inputs import OpenInputs
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import refresh
from platform_core.operations.secret_use import SecretUse
from platform_core.plugins.interfaces import Dashboard, ReadRequest, RefreshRequest, RefreshResult, SecretStore, Source
from platform_core.secrets.vault import VaultSecrets
from platform_core.specs.base import Model, SecretRef
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.refresh import RefreshSpec
from tests.services.key_vault import KeyVaultService, key_vault_store, running_key_vault
from tests.services.postgres import PostgresServer

NAME = "crm/erp_password"
TABLES = ("t0", "t1", "t2", "t3")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test waits for a password, and warns, as a process of its own would."""
    monkeypatch.setattr(secret_use, "_in_vain", {})
    monkeypatch.setattr(secret_use, "_warned", {})


@pytest.fixture
def key_vault(tmp_path: Path) -> Iterator[KeyVaultService]:
    with running_key_vault(tmp_path) as service:
        yield service


def platform_over(store: SecretStore, root: Path) -> Platform:
    environment = EnvironmentSpec(name="test", lake={"root": str(root / "lake")}, secrets={"type": "none"})
    return Platform(
        environment=environment,
        lake=Lake(str(root / "lake")),
        engine=LocalEngine(LocalOptions(memory_limit="300MB", threads=2, spill=str(root / "spill"))),
        secrets=store,
        loads=open_loads(environment.control, state=root, secrets=store),
        state=root,
    )


def vault_at(root: Path) -> VaultSecrets:
    store = VaultSecrets(VaultSecrets.Options(path=str(root / "vault"), key_file=str(root / "vault.key")))
    store.prepare()
    return store


def table(name: str = "rows", **more: Any) -> IngestionSpec:
    return IngestionSpec(workstream="crm", source="erp", object=name, table=name, mode="full", key=("id",), **more)


@pytest.mark.services
@pytest.mark.parametrize("kind", ["vault", "azure_key_vault"])
def test_f6_a_password_is_rotated_under_running_loads_and_none_fails(
    kind: str,
    tmp_path: Path,
    postgres_server: PostgresServer,
    postgres_database: str,
    key_vault: KeyVaultService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A connection that is kept open would hide that the password is another one.
    monkeypatch.setattr("platform_core.sources.postgres_session.LIFE_SECONDS", 0.0, raising=False)
    store: SecretStore = vault_at(tmp_path) if kind == "vault" else key_vault_store(key_vault, monkeypatch)
    store.set(NAME, b"password-0")
    loader = f"loader_{kind}"
    postgres_server.execute(
        f"create role {loader} login password 'password-0'",
        *(f"create table {name} as select g as id, g::text as v from generate_series(1, 500) g" for name in TABLES),
        *(f"grant select on {name} to {loader}" for name in TABLES),
        database=postgres_database,
    )
    where = {"host": postgres_server.host, "port": postgres_server.port, "database": postgres_database}
    connection = ConnectionSpec(
        name="erp", workstream="crm", type="postgres", options={**where, "user": loader, "password": {"secret": NAME}}
    )
    platform = platform_over(store, tmp_path)
    stop = threading.Event()

    def load(name: str) -> int:
        count = 0
        while not stop.is_set():
            ingest(table(name), connection=connection, platform=platform)
            count += 1
        return count

    with ThreadPoolExecutor(len(TABLES)) as pool:
        running = [pool.submit(load, name) for name in TABLES]
        try:
            for number in range(1, 6):
                time.sleep(0.7)
                postgres_server.execute(f"alter role {loader} password 'password-{number}'", database=postgres_database)
                time.sleep(0.3)
                # As by another process: what this one remembers is not touched.
                if kind == "vault":
                    vault_at(tmp_path).set(NAME, f"password-{number}".encode())
                else:
                    key_vault.put("crm--erp-password", f"password-{number}")
            time.sleep(1.5)
        finally:
            stop.set()
        counts = [each.result(60) for each in running]
    assert min(counts) >= 5
    log = platform.loads.recent(limit=10_000)
    assert {row.status for row in log} == {"succeeded"}
    assert len(log) == sum(counts)


class GateOptions(Model):
    """A source behind a password."""

    password: SecretRef


class Gate(Source):
    """Lets in whoever has the password; its words and the moment of its refusal are the test's."""

    Options = GateOptions
    password = b"new"
    words = "authentication failed"
    late = False
    asked: list[bytes]
    closed: list[int]

    def schema(self, request: ReadRequest) -> pa.Schema:
        self._let_in()
        return pa.schema([("id", pa.int64())])

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        if not Gate.late:
            self._let_in()

        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"id": pa.array([1], pa.int64())})
            self._let_in()
            yield pa.record_batch({"id": pa.array([2], pa.int64())})

        return pa.RecordBatchReader.from_batches(pa.schema([("id", pa.int64())]), batches())

    def close(self) -> None:
        Gate.closed.append(1)

    def _let_in(self) -> None:
        given = self.secret(self.options.password.secret).reveal()
        Gate.asked.append(given)
        if given != Gate.password:
            raise SourceError(f"the gate is closed: {Gate.words}")


class Remembering(VaultSecrets):
    """A vault that remembers, as Key Vault does, and can be made to fail."""

    remembered: Any = None
    broken = False
    looks = 0

    def get(self, name: str) -> Any:
        self.remembered = self.remembered or super().get(name)
        return self.remembered

    def fresh(self, name: str) -> Any:
        type(self).looks += 1
        if self.broken:
            raise SecretError(f"secret '{name}': the store is away")
        self.remembered = super().get(name)
        return self.remembered


Loader = Callable[[], Any]


@pytest.fixture
def store(tmp_path: Path) -> Remembering:
    """A store that holds the new password, and remembers the old one."""
    Remembering.looks = 0
    made = Remembering(Remembering.Options(path=str(tmp_path / "vault"), key_file=str(tmp_path / "vault.key")))
    made.prepare()
    made.set(NAME, b"old")
    made.get(NAME)
    made.set(NAME, b"new")
    return made


@pytest.fixture
def load(tmp_path: Path, store: Remembering, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Load through the gate."""
    for name, value in (("password", b"new"), ("words", "authentication failed"), ("late", False)):
        monkeypatch.setattr(Gate, name, value)
    monkeypatch.setattr(Gate, "asked", [], raising=False)
    monkeypatch.setattr(Gate, "closed", [], raising=False)
    real = extract_module.plugin
    monkeypatch.setattr(extract_module, "plugin", lambda kind, name: Gate if name == "gate" else real(kind, name))
    connection = ConnectionSpec(name="erp", workstream="crm", type="gate", options={"password": {"secret": NAME}})
    platform = platform_over(store, tmp_path)
    return lambda: ingest(table(), connection=connection, platform=platform)


def test_f6_a_remembered_password_that_is_refused_is_asked_for_once_more(load: Loader, store: Remembering) -> None:
    assert load().inserted == 2
    assert Gate.asked[0] == b"old" and set(Gate.asked[1:]) == {b"new"}
    assert store.looks == 1
    assert len(Gate.closed) == 2


def test_f6_a_source_that_refuses_on_the_way_is_loaded_anew(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "late", True)
    assert load().inserted == 2


def test_f6_a_load_ends_with_the_password_that_it_began_with(tmp_path: Path) -> None:
    store = vault_at(tmp_path)
    store.set(NAME, b"old")
    use = SecretUse(platform_over(store, tmp_path))
    assert use(NAME).reveal() == b"old"
    store.set(NAME, b"new")
    assert use(NAME).reveal() == b"old"
    assert use.renewed(SourceError("refused"))
    assert use(NAME).reveal() == b"new"


def test_f6_a_password_on_its_way_into_the_store_is_waited_for(
    load: Loader, store: Remembering, tmp_path: Path
) -> None:
    store.set(NAME, b"old")
    later = threading.Timer(1.0, lambda: vault_at(tmp_path).set(NAME, b"new"))
    later.start()
    assert load().inserted == 2
    later.join()


def test_a_wrong_password_is_waited_for_once_and_then_told(
    load: Loader, store: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_use, "_PAUSES", (0.05, 0.05))
    store.set(NAME, b"wrong")
    for looks in (4, 6):
        with pytest.raises(SourceError, match="the gate is closed") as caught:
            load()
        assert "wrong" not in str(caught.value)
        # The whole load asks once more than its reading, without waiting a second time.
        assert store.looks <= looks + 1


def test_a_failure_of_another_kind_is_not_waited_for(
    load: Loader, store: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "password", b"another")
    monkeypatch.setattr(Gate, "words", "the disk is full")
    store.fresh(NAME)
    began = time.monotonic()
    with pytest.raises(SourceError, match="the disk is full"):
        load()
    assert time.monotonic() - began < 2


def test_d8_a_store_that_is_away_leaves_the_failure_as_it_was(load: Loader, store: Remembering) -> None:
    store.broken = True
    with pytest.raises(SourceError, match="the gate is closed"):
        load()


class Board(Dashboard):
    """A dashboard service behind a password."""

    Options = GateOptions

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        if self.secret(self.options.password.secret).reveal() != b"new":
            raise RefreshError(f"{request.name}: no token: invalid_client")
        return RefreshResult()


def test_f6_a_refresh_that_was_refused_is_tried_with_the_new_password(
    store: Remembering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_module, "plugin", lambda kind, name: Board)
    monkeypatch.setattr(refresh_module, "_open", lambda refs, **more: OpenInputs(readers={}))
    monkeypatch.setattr(RefreshSpec, "inputs", ())
    shown = RefreshSpec.model_construct(
        workstream="crm", name="b", type="board", shows=(), title="", options={"password": {"secret": NAME}}
    )
    refresh(shown, connection=None, root=tmp_path, platform=platform_over(store, tmp_path))
    assert store.looks == 1


def test_a_secret_that_ends_soon_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import datetime as dt

    store = vault_at(tmp_path)
    now = dt.datetime.now(dt.UTC)
    ends = {"crm/soon": dt.timedelta(days=3, hours=1), "crm/gone": dt.timedelta(days=-1), "crm/late": dt.timedelta(90)}
    for name, left in ends.items():
        store.set(name, b"value-canary", expires_at=now + left)
    store.set("crm/never", b"value-canary")
    platform = replace(platform_over(store, tmp_path), log=logging.getLogger("test"))
    for _ in range(3):
        use = SecretUse(platform)
        for name in (*ends, "crm/never"):
            use(name)
    lines: Sequence[str] = [record.getMessage() for record in caplog.records]
    assert [line.splitlines()[0] for line in lines] == [
        f"secret 'crm/soon' expires in 3 days, on {now + ends['crm/soon']:%Y-%m-%d}",
        f"secret 'crm/gone' expired on {now + ends['crm/gone']:%Y-%m-%d}",
    ]
    assert "value-canary" not in caplog.text
