"""FAULTS F2: errors of engines and drivers that quote row values, each forced, and what is left of them."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import oracledb
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pydantic
import pymysql
import pytest
import sqlalchemy
from deltalake import DeltaTable, write_deltalake

from platform_core.errors import SourceError, redacted, unexpected
from tests.errors.canary import CANARY, CANARY_NUMBER, leaks, raised, shown

DUCKDB = {
    "cast to int": "select k::int from t",
    "cast to date": "select k::date from t",
    "cast to timestamp": "select k::timestamp from t",
    "cast to time with zone": "select k::timetz from t",
    "cast to interval": "select k::interval from t",
    "cast to uuid": "select k::uuid from t",
    "cast to list": "select k::int[] from t",
    "cast to struct": "select k::struct(a int) from t",
    "cast to decimal": "select k::decimal(4,2) from t",
    "cast to json": "select k::json from t",
    "cast to boolean": "select k::boolean from t",
    "cast of a literal": f"select '{CANARY}'::int",
    "number out of range": "select n::tinyint from t",
    "overflow": "select n * n * n from t",
    "decimal out of range": "select n::decimal(4,2) from t",
    "primary key": f"insert into t values ('{CANARY}', 2)",
    "unique": f"insert into u values ('{CANARY}')",
    "check": "insert into c select k from t",
    "not null": "insert into r select null, k from t",
    "error()": "select error(k) from t",
    "strptime": "select strptime(k, '%Y') from t",
    "regular expression": "select regexp_matches(k, '(' || k) from t",
    "split": "select string_split_regex(k, '(' || k) from t",
    "format": "select format('{:' || k || '}', 1) from t",
    "base64": "select from_base64(k) from t",
    "part of a date": "select date_part(k, date '2020-01-01') from t",
    "time zone": "select timezone(k, timestamp '2020-01-01') from t",
    "time zone of a made timestamp": "select make_timestamptz(2020, 1, 1, 1, 1, 1, k) from t",
    "limit": "select * from t limit (select k from t)",
    "scalar subquery": "select (select k from t union all select k || '2' from t)",
    "map with a doubled key": "select map([k, k], [1, 1]) from t",
    "json path": "select json_extract('{}', '$.' || k || '[') from t",
    "json structure": 'select json_transform_strict(\'{"a": "\' || k || \'"}\', \'{"a": "INTEGER"}\') from t',
    "serialised query": "select json_deserialize_sql(k) from t",
    "column of a pivot": "select zz from (pivot t on k using sum(n))",
}
ARROW: dict[str, Callable[[], object]] = {
    "cast to int": lambda: pa.array([CANARY]).cast(pa.int64()),
    "cast to decimal": lambda: pa.array([CANARY]).cast(pa.decimal128(5, 2)),
    "cast to date": lambda: pa.array([CANARY]).cast(pa.date32()),
    "cast to timestamp": lambda: pa.scalar(CANARY).cast(pa.timestamp("s")),
    "cast to a narrow int": lambda: pa.array([CANARY_NUMBER]).cast(pa.int8()),
    "cast of a float": lambda: pa.array([CANARY_NUMBER + 0.5]).cast(pa.int8()),
    "decimal too small": lambda: pa.array([decimal.Decimal(CANARY_NUMBER)]).cast(pa.decimal128(5, 2)),
    "array of another type": lambda: pa.array([CANARY], pa.int64()),
    "array of mixed types": lambda: pa.array([CANARY, 1]),
    "no such time": lambda: pc.strptime(pa.array([CANARY]), format="%Y", unit="s"),
    "column by value": lambda: pa.table({"a": [1]})[CANARY],
    "no UTF-8": lambda: pa.array([CANARY.encode() + b"\xff"]).cast(pa.string()),
    "time out of range": lambda: pa.array([CANARY_NUMBER]).cast(pa.timestamp("s")).cast(pa.timestamp("ns")),
    "struct of another shape": lambda: pa.array([{"a": CANARY}], pa.struct([("a", pa.int8())])),
}
POLARS: dict[str, Callable[[], object]] = {
    "cast to int": lambda: pl.Series([CANARY]).cast(pl.Int64),
    "cast to a narrow int": lambda: pl.Series([CANARY_NUMBER]).cast(pl.Int8),
    "date": lambda: pl.Series([CANARY]).str.to_date("%Y"),
    "decimal": lambda: pl.Series([CANARY]).cast(pl.Decimal(10, 2)),
    "regular expression": lambda: pl.DataFrame({"a": ["x"]}).select(pl.col("a").str.contains("(" + CANARY)),
    "json": lambda: pl.Series(["{" + CANARY]).str.json_decode(pl.Struct({"a": pl.Int8})),
    "column by value": lambda: pl.DataFrame({"a": [1]}).select(CANARY),
    "enum": lambda: pl.Series([CANARY]).cast(pl.Enum(["a"])),
}
PYTHON: dict[str, Callable[[], object]] = {
    "int": lambda: int(CANARY),
    "float": lambda: float(CANARY),
    "date": lambda: dt.date.fromisoformat(CANARY),
    "decimal": lambda: decimal.Decimal(CANARY),
    "json": lambda: json.loads(f'{{"a": {CANARY}'),
    "key": lambda: {}[CANARY],
    "number as a key": lambda: {}[CANARY_NUMBER],
    "no UTF-8": lambda: (CANARY.encode() + b"\xff").decode(),
    "no ASCII": lambda: (CANARY + "é").encode("ascii"),
    "attribute": lambda: getattr(object(), CANARY),
    "error of the system with a library's text": lambda: _raise(OSError(22, f"bad value {CANARY}")),
    "error of the system of no known number": lambda: _raise(OSError(9_999, f"bad value {CANARY}")),
    "not implemented": lambda: _raise(NotImplementedError(CANARY)),
}


class Row(pydantic.BaseModel):
    """A model that, unlike ours, shows what it was given."""

    name: int
    code: str = pydantic.Field(max_length=3)


def _raise(error: Exception) -> None:
    raise error


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    made.execute("create table t (k varchar primary key, n bigint)")
    made.execute("create table u (k varchar unique)")
    made.execute("create table c (k varchar check (length(k) < 3))")
    made.execute("create table r (a varchar not null, b varchar)")
    made.execute("insert into t values (?, ?)", [CANARY, CANARY_NUMBER])
    made.execute("insert into u values (?)", [CANARY])
    return made


def check(error: Exception) -> None:
    """Nothing of the value is left at an edge, nor where an error that no edge foresaw ends up."""

    def edge() -> None:
        try:
            raise error
        except Exception as caught:  # noqa: BLE001 - an edge
            raise SourceError(redacted(caught)) from None

    def last_boundary() -> None:
        try:
            raise error
        except Exception as caught:  # noqa: BLE001 - an edge
            raise unexpected(caught) from None

    for way in (edge, last_boundary):
        refused = raised(way)
        assert refused.__cause__ is None
        assert refused.__suppress_context__
        assert not leaks(shown(refused))
        assert type(error).__name__ in str(refused)


@pytest.mark.parametrize("name", DUCKDB)
def test_f2_duckdb(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    check(raised(lambda: connection.execute(DUCKDB[name]).fetchall()))


@pytest.mark.parametrize("name", ARROW)
def test_f2_pyarrow(name: str) -> None:
    check(raised(ARROW[name]))


@pytest.mark.parametrize("name", POLARS)
def test_f2_polars(name: str) -> None:
    check(raised(POLARS[name]))


@pytest.mark.parametrize("name", PYTHON)
def test_f2_python(name: str) -> None:
    check(raised(PYTHON[name]))


@pytest.mark.parametrize("fields", [{"name": CANARY, "code": "a"}, {"name": 1, "code": CANARY}, {"name": [CANARY]}])
def test_f2_pydantic(fields: dict[str, Any]) -> None:
    error = raised(lambda: Row(**fields))
    assert leaks(str(error))
    check(error)


@pytest.mark.parametrize(
    "name", ["csv of duckdb", "json of duckdb", "csv of pyarrow", "json of pyarrow", "csv of polars"]
)
def test_f2_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a,b\n1,2\n{CANARY},x\n{CANARY},x,y\n")
    (tmp_path / "a.json").write_text(f'{{"a": 1}}\n{{"a": "{CANARY}"}}\n{{"a": {CANARY}\n')
    csv, documents = str(tmp_path / "a.csv"), str(tmp_path / "a.json")
    ints = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    works: dict[str, Callable[[], object]] = {
        "csv of duckdb": lambda: duckdb.sql(
            f"from read_csv('{csv}', columns={{'a': 'int', 'b': 'int'}}, auto_detect=false, header=true)"
        ).fetchall(),
        "json of duckdb": lambda: duckdb.sql(f"from read_json('{documents}', columns={{'a': 'int'}})").fetchall(),
        "csv of pyarrow": lambda: pa.csv.read_csv(
            csv, convert_options=pa.csv.ConvertOptions(column_types={"a": pa.int64()})
        ),
        "json of pyarrow": lambda: pa.json.read_json(
            documents, parse_options=pa.json.ParseOptions(explicit_schema=ints)
        ),
        "csv of polars": lambda: pl.read_csv(csv, schema={"a": pl.Int64, "b": pl.Int64}),
    }
    check(raised(works[name]))


DELTA = {
    "append of another type": lambda uri: write_deltalake(uri, pa.table({"k": [CANARY], "n": [CANARY]}), mode="append"),
    "merge with a cast": lambda uri: (
        DeltaTable(uri)
        .merge(pa.table({"k": [CANARY], "n": [CANARY]}), "t.k = s.k", source_alias="s", target_alias="t")
        .when_matched_update({"n": "cast(s.n as bigint)"})
        .execute()
    ),
    "merge of doubled keys": lambda uri: (
        DeltaTable(uri)
        .merge(pa.table({"k": [CANARY] * 2, "n": [1, 2]}), "t.k = s.k", source_alias="s", target_alias="t")
        .when_matched_update({"n": "s.n"})
        .execute()
    ),
    "update with a cast": lambda uri: DeltaTable(uri).update({"n": "cast(k as bigint)"}),
    "predicate": lambda uri: DeltaTable(uri).delete(f"k = {CANARY}"),
    "constraint that rows break": lambda uri: DeltaTable(uri).alter.add_constraint({"short": "length(k) < 3"}),
    "query": lambda uri: (
        deltalake.QueryBuilder().register("t", DeltaTable(uri)).execute("select cast(k as int) from t").read_all()
    ),
}


@pytest.mark.parametrize("name", DELTA)
def test_f2_deltalake(name: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "table")
    write_deltalake(uri, pa.table({"k": [CANARY], "n": [CANARY_NUMBER]}))
    check(raised(lambda: DELTA[name](uri)))


def test_f2_a_conflict_of_two_delta_writers(tmp_path: Path) -> None:
    uri = str(tmp_path / "table")
    write_deltalake(uri, pa.table({"k": [CANARY], "n": [1]}))
    late = DeltaTable(uri)
    DeltaTable(uri).delete(f"k = '{CANARY}'")
    check(raised(lambda: late.update({"n": "5"}, predicate=f"k = '{CANARY}'")))


def test_f2_sqlite_and_sqlalchemy() -> None:
    plain = sqlite3.connect(":memory:")
    plain.create_function("refuse", 1, int)
    plain.execute("create table t (k text primary key)")
    plain.execute("insert into t values (?)", [CANARY])
    check(raised(lambda: plain.execute("insert into t values (?)", [CANARY])))
    check(raised(lambda: plain.execute("select refuse(k) from t").fetchall()))
    check(raised(lambda: plain.execute(f"select '{CANARY}' '{CANARY}' from nowhere where \"{CANARY}\"")))
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as opened:
        opened.exec_driver_sql("create table t (k text primary key)")
        opened.execute(sqlalchemy.text("insert into t values (:k)"), {"k": CANARY})
        error = raised(lambda: opened.execute(sqlalchemy.text("insert into t values (:k)"), {"k": CANARY}))
    assert leaks(str(error))
    check(error)
    assert redacted(error) == (
        "sqlalchemy.IntegrityError from sqlite3.IntegrityError [SQLITE_CONSTRAINT_PRIMARYKEY] "
        "(its text is withheld: it may hold row values)"
    )
    plain.close()
    engine.dispose()


def _of_oracle(text: str) -> Exception:
    from oracledb.errors import _Error

    return oracledb.IntegrityError(_Error(text, code=1))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (pymysql.err.IntegrityError(1062, f"Duplicate entry '{CANARY}' for key 'k'"), "pymysql.IntegrityError [1062] "),
        (pymysql.err.DataError(1366, f"Incorrect integer value: '{CANARY}'"), "pymysql.DataError [1366] "),
        (psycopg.errors.UniqueViolation(f"DETAIL: Key (e)=({CANARY})"), "psycopg.UniqueViolation [23505] "),
        (_of_oracle(f"ORA-00001: unique constraint violated for ({CANARY})"), "oracledb.IntegrityError [ORA-00001] "),
        (_of_oracle(f"{CANARY}: no number of Oracle's"), "oracledb.IntegrityError (its text"),
    ],
)
def test_f2_drivers_keep_their_class_and_number(error: Exception, said: str) -> None:
    assert leaks(repr(error) + str(error))
    assert redacted(error).replace("pymysql.err.", "pymysql.").startswith(said)
    check(error)


def test_f2_sql_server() -> None:
    from mssql_python.exceptions import IntegrityError

    error = IntegrityError("Integrity constraint violation", f"[Microsoft][SQL Server]Duplicate key ({CANARY})")
    assert leaks(str(error))
    check(error)


@pytest.mark.parametrize("code", [CANARY, f"{CANARY}: 1", CANARY_NUMBER, "JANSEN-1", "a b", b"23505"])
def test_f2_what_is_no_code_is_not_taken_for_one(code: object) -> None:
    class OddError(Exception):
        sqlstate = code

    assert str(code) not in redacted(OddError("x"))
