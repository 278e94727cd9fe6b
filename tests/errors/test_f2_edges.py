"""FAULTS F2: no edge of the platform lets a row value through, whatever its engine says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from platform_core.engines.local import LocalEngine
from platform_core.engines.messages import clean_text
from platform_core.errors import PlatformError, SchemaError
from platform_core.factories.asset import build_asset
from platform_core.factories.resource import PLATFORM
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.operations.masking import Masking
from platform_core.operations.python_step import call
from platform_core.plugins.interfaces import Mask, ReadRequest, Secret, Source
from platform_core.plugins.registry import plugin
from platform_core.plugins.testing import no_secrets
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef
from tests.errors.canary import CANARY, CANARY_NUMBER, leaks, raised, shown

RIDERS = TableRef("crm", "bronze", "riders")
KEY = b"5b1d0a7c9e3f4826b0d1c7e85fa2934617ce0b5d8a924f3ee16c7d02b9f853a4"


def engine() -> LocalEngine:
    return LocalEngine(LocalEngine.Options(memory_limit="256MB", threads=1))


@pytest.fixture
def riders(tmp_path: Path) -> DeltaTableReader:
    write_deltalake(str(tmp_path / "riders"), pa.table({"k": [CANARY, CANARY], "n": [CANARY_NUMBER, 1]}))
    found = DeltaTableReader.open(str(tmp_path / "riders"), storage_options={})
    assert found is not None
    return found


QUERIES = [
    "select k::int from crm.bronze.riders",
    "select timezone(k, timestamp '2020-01-01') from crm.bronze.riders",
    "select make_timestamptz(2020, 1, 1, 1, 1, 1, k) from crm.bronze.riders",
    "select n::tinyint from crm.bronze.riders",
    "select zz from (pivot crm.bronze.riders on k using sum(n))",
    "select error(k) from crm.bronze.riders",
    "select map([k, k], [1, 1]) from crm.bronze.riders",
    "select (select k from crm.bronze.riders)",
    "select k, strptime(k, '%Y') from crm.bronze.riders",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_f2_a_query_that_fails_tells_no_value(sql: str, riders: DeltaTableReader) -> None:
    work = lambda: engine().select(sql, tables={RIDERS: riders}, variables={}).read_all()  # noqa: E731
    error = raised(work)
    assert isinstance(error, PlatformError)
    assert not leaks(shown(error))


def test_f2_a_variable_of_a_query_is_not_told(riders: DeltaTableReader) -> None:
    error = raised(
        lambda: (
            engine()
            .select("select $who::int from crm.bronze.riders", tables={RIDERS: riders}, variables={"who": CANARY})
            .read_all()
        )
    )
    assert not leaks(shown(error))


@pytest.mark.parametrize(
    "message",
    [
        f"Runtime Error in model x (models/x.sql)\n  Not implemented Error: Unknown TimeZone '{CANARY}'!",
        f"Runtime Error in model x\n  Conversion Error: Could not convert string '{CANARY}' to INT32\n  LINE 1: ...",
        f'Runtime Error in model x\n  Binder Error: no column zz\n  Candidate bindings: "{CANARY}"',
        f'Runtime Error in model x\n  Constraint Error: Duplicate key "k: {CANARY}"\n  {CANARY}',
        f"Database Error in test y\n  Invalid Input Error: {CANARY}",
    ],
)
def test_f2_what_dbt_says_of_duckdb_is_cut_before_a_value(message: str) -> None:
    assert clean_text(message).splitlines()[0] == message.splitlines()[0]
    assert not leaks(clean_text(message))


def _failing(error: Exception) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"k": [CANARY], "n": [1]})
    raise error


@pytest.mark.parametrize("mode", WriteMode)
@pytest.mark.parametrize("error", [pa.ArrowInvalid(CANARY), ValueError(CANARY), OSError(CANARY), OSError(5, CANARY)])
def test_f2_a_write_whose_rows_fail_tells_no_value(mode: WriteMode, error: Exception, tmp_path: Path) -> None:
    schema = pa.schema([("k", pa.string()), ("n", pa.int64())])
    refused = raised(
        lambda: write(
            pa.RecordBatchReader.from_batches(schema, _failing(error)),
            table=RIDERS,
            uri=str(tmp_path / "t"),
            storage_options={},
            mode=mode,
            key=("k",),
        )
    )
    assert isinstance(refused, PlatformError)
    assert not leaks(shown(refused))


@pytest.mark.parametrize("name", ["null", "doubled"])
def test_f2_keys_that_are_refused_are_counted_and_not_told(name: str, tmp_path: Path) -> None:
    rows = pa.table({"k": [CANARY, CANARY] if name == "doubled" else [CANARY, None], "n": [CANARY_NUMBER, 1]})
    refused = raised(
        lambda: write(
            rows.to_reader(),
            table=RIDERS,
            uri=str(tmp_path / "t"),
            storage_options={},
            mode=WriteMode.MERGE,
            key=("k",),
        )
    )
    assert isinstance(refused, PlatformError)
    assert not leaks(shown(refused))


class FailingMask(Mask):
    """Fails at whom it meets."""

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        return pa.string()

    def apply(self, values: pa.Array) -> pa.Array:
        return values.cast(pa.int64())


def test_f2_a_mask_that_fails_tells_no_value() -> None:
    batch = pa.record_batch({"k": [CANARY]})
    error = raised(lambda: Masking(RIDERS, {"k": FailingMask(None, key=None)}).apply(batch))
    assert isinstance(error, PlatformError)
    assert not leaks(shown(error))


def test_f2_a_mask_on_a_type_it_cannot_take_tells_the_type() -> None:
    options = KeyedHashMask.Options(domain="email")
    masking = Masking(RIDERS, {"k": KeyedHashMask(options, key=Secret("crm/masking_key", KEY))})
    error = raised(lambda: masking.schema(pa.schema([("k", pa.int64())])))
    assert isinstance(error, SchemaError)


STEPS: dict[str, Callable[[Any], object]] = {
    "value": lambda _: int(CANARY),
    "key": lambda _: {}[CANARY],
    "attribute by value": lambda _: getattr(_, CANARY),
    "module by value": lambda _: __import__(CANARY),
    "not implemented": lambda _: _raise(NotImplementedError(CANARY)),
    "arrow": lambda _: pa.array([CANARY]).cast(pa.int64()),
    "batches": lambda _: (pa.record_batch({"k": [int(name)]}) for name in [CANARY]),
    "caused by a value": lambda _: _raise_from(RuntimeError("wrong"), ValueError(CANARY)),
}


def _raise(error: Exception) -> None:
    raise error


def _raise_from(error: Exception, cause: Exception) -> None:
    raise error from cause


@pytest.mark.parametrize("name", STEPS)
def test_f2_a_python_step_that_fails_tells_no_value(name: str) -> None:
    def work() -> None:
        stream = call(STEPS[name], None, root=Path(__file__).parent, where="crm.gold.x")  # type: ignore[arg-type]
        assert stream is not None
        stream.read_all()

    error = raised(work)
    assert isinstance(error, PlatformError | pa.ArrowException)
    assert not leaks(shown(error))


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_f2_a_file_that_cannot_be_read_tells_no_value(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"riders.{name}"
    file.write_text(
        {"csv": f"a,b\n{CANARY},1,2\n", "jsonl": f'{{"a": {CANARY}\n', "parquet": f"PAR1{CANARY}PAR1"}[name]
    )
    kind: type[Source] = plugin("source", "files")
    source = kind(kind.Options(root=str(tmp_path)), secret=no_secrets)
    request = ReadRequest(object=file.name, options=kind.ObjectOptions())
    error = raised(lambda: source.read(request).read_all())
    source.close()
    assert not leaks(shown(error))


def test_f2_what_no_edge_foresaw_is_stored_without_its_text() -> None:
    def body(context: dg.AssetExecutionContext, platform: Any) -> dg.MaterializeResult[None]:
        raise ValueError(f"cannot take {CANARY}")

    class Anything:
        def open(self, context: dg.AssetExecutionContext) -> None: ...

    asset = build_asset(dg.AssetSpec("x"), name="x", body=body)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], resources={PLATFORM: Anything()}, instance=instance, raise_on_error=False)
        (failed,) = (event for event in result.all_events if event.is_step_failure)
        stored = "".join(str(record) for record in instance.all_logs(result.run_id))
    assert "unexpected error: ValueError (its text is withheld" in stored
    assert "test_f2_edges.py" in stored
    assert not leaks(stored + str(failed))


COMMAND = f"""
import sys, click
from platform_core import cli

@click.command()
def broken():
    raise ValueError("cannot take {CANARY}")

cli.edp.get_command = lambda context, name: broken
cli.edp.resolve_command = lambda context, args: ("broken", broken, [])
sys.argv = ["edp", "broken"]
cli.main()
"""


def test_f2_a_command_that_fails_unforeseen_tells_no_value(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("unexpected error: ValueError (its text is withheld")
    assert not leaks(done.stdout + done.stderr)
